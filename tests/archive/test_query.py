"""What is asked in words: terms, weights and "not"."""

import numpy as np
import pytest

from mets_ray.archive.query import Query, Term
from mets_ray.archive.words import query_texts, read_query, report_query
from mets_ray.errors import ConfigError
from mets_ray.model.predictor import load_predictor
from tests.support.calibrations import RARE, made_up_file, write_file
from tests.support.serving import make_bundle


@pytest.fixture(scope="module")
def predictor(tmp_path_factory):
    bundle = make_bundle(tmp_path_factory.mktemp("bundle"))
    write_file(bundle, made_up_file(bundle))
    return load_predictor(str(bundle), encoder_runtime="torch")


def test_a_text_is_terms_between_semicolons():
    assert Query.parse(" left bundle branch block ; AV block ^0.5;\nNot atrial fibrillation^2;").terms == (
        Term("left bundle branch block"),
        Term("AV block", 0.5),
        Term("atrial fibrillation", 2.0, negated=True),
    )
    assert Query.parse("notched P waves").terms == (Term("notched P waves"),)


@pytest.mark.parametrize(
    ("text", "fact"),
    [
        ("", "no words"),
        (" ;\n; ", "no words"),
        ("^2", "no words"),
        ("not atrial fibrillation", "only what is not wanted"),
        ("AV block ^much", "`^much` is not a weight"),
        ("AV block ^0", "the weight of 'AV block' is 0"),
        ("AV block ^-1", "is -1"),
        ("AV block ^nan", "is nan"),
        ("AV block ^inf", "is inf"),
        ("x; " * 17, "17 terms"),
        ("x" * 5000, "5,000 characters"),
    ],
)
def test_words_that_cannot_be_searched_for_are_refused(text, fact):
    with pytest.raises(ConfigError) as caught:
        Query.parse(text)
    assert fact in caught.value.fact
    assert caught.value.hint


def test_words_of_ones_own_stand_as_the_texts_of_training_do(predictor, tmp_path):
    (found,) = read_query(predictor, "broad QRS")
    assert query_texts(predictor, "broad QRS") == ["broad QRS"]
    of_reports = load_predictor(str(make_bundle(tmp_path, "text.unit=report")), encoder_runtime="torch")
    assert query_texts(of_reports, "broad QRS") == ["The report of the ECG is that broad QRS"]
    np.testing.assert_allclose(found.vector, predictor.embed_texts(["broad QRS"])[0], atol=1e-6)
    assert (found.class_name, found.calibrated) == ("", None)
    assert "words of the request" in found.not_calibrated


def test_abbreviations_are_searched_for_as_what_they_mean(predictor):
    assert query_texts(predictor, "new LBBB") == ["new left bundle branch block"]


def test_words_that_name_a_calibrated_class_mean_all_its_wordings(predictor):
    wordings = predictor.facts.prompt_sets["descriptive"].tasks["synthetic"]["AFIB"]
    expected = predictor.class_vectors({"AFIB": wordings})[0].numpy()
    assert len(wordings) > 1
    (one_of_them,) = read_query(predictor, wordings[-1])
    assert one_of_them.class_name == ""  # others of the class may be other findings
    for words in ("afib", "descriptive:synthetic/AFIB"):
        (found,) = read_query(predictor, words)
        assert found.class_name == "descriptive:synthetic/AFIB"
        np.testing.assert_array_equal(found.vector, expected)
        assert found.calibrated is not None
    (explicit,) = read_query(predictor, "mets:synthetic/AFIB")  # a class without a calibration, named in full
    assert explicit.class_name == "mets:synthetic/AFIB"
    assert (explicit.calibrated, bool(explicit.not_calibrated)) == (None, True)
    for words, hint in (("mets:synthetic/AFIBB", "`mets:synthetic/AFIB`"), ("sets:nothing/at all", "in words")):
        with pytest.raises(ConfigError, match="is not a class of the bundle's prompt sets") as caught:
            read_query(predictor, words)
        assert hint in caught.value.hint
    (rare,) = read_query(predictor, f"descriptive:synthetic/{RARE}")
    assert (rare.calibrated, bool(rare.not_calibrated)) == (None, True)


def test_a_report_is_the_mean_of_its_statements(predictor):
    (term,) = report_query(predictor, "Sinus rhythm. Left axis deviation.").terms
    assert term.wordings == ("Sinus rhythm", "Left axis deviation")
    (found,) = read_query(predictor, report_query(predictor, "Sinus rhythm. Left axis deviation."))
    mean = predictor.embed_texts(list(term.wordings)).mean(axis=0)
    np.testing.assert_allclose(found.vector, mean / np.linalg.norm(mean), atol=1e-6)
    with pytest.raises(ConfigError, match="no finding"):
        report_query(predictor, " \n ")

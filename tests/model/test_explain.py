"""Explanations of a bundle: its named statements, against slow references; what it refuses."""

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mets_ray import storage
from mets_ray.ecg.ecg import LEADS
from mets_ray.errors import CheckpointError, ConfigError, RecordError
from mets_ray.model.anchor_statements import name_anchors
from mets_ray.model.bundle import load_bundle
from mets_ray.model.explain import MOST_CLASSES
from mets_ray.model.predictor import Predictor
from mets_ray.text.reports import text_id
from mets_ray.text.statements import ReportStatements
from tests.support.serving import STATEMENTS, make_bundle, synthetic_ecg

NAME = "anchor_statements.json"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_bundle(tmp_path_factory.mktemp("bundle"), statements=STATEMENTS)


@pytest.fixture(scope="module")
def predictor(folder):
    return Predictor(load_bundle(str(folder)))


def explain(predictor, **options):
    return predictor.explain(synthetic_ecg(), prompt_set="descriptive", task="synthetic", **options)


def test_statements_are_those_that_lie_near_the_ecg_and_the_class(predictor):
    found = explain(predictor)
    with torch.no_grad():
        vectors = predictor.bundle.model.embed_text(predictor.bundle.model.anchors).numpy()
    cosines = dict(zip(STATEMENTS, vectors @ predictor.embed(synthetic_ecg()), strict=True))
    nearest = sorted(STATEMENTS, key=lambda text: -cosines[text])[:5]
    assert [(row.text, row.patients) for row in found.nearest] == [(text, STATEMENTS[text]) for text in nearest]
    assert [row.similarity for row in found.nearest] == pytest.approx([cosines[text] for text in nearest], abs=1e-5)
    assert found.no_statements is None

    classes = predictor.facts.prompt_sets["descriptive"].tasks["synthetic"]
    of_classes = predictor.class_vectors(classes).numpy()
    mean, least_like = np.mean(list(cosines.values())), np.quantile(own_nearest(vectors), 0.1)
    assert [row.class_name for row in found.classes] == list(classes)
    for row, class_vector in zip(found.classes, of_classes, strict=True):
        like = [list(STATEMENTS)[place] for place in np.argsort(-(vectors @ class_vector))[:5]]
        if (vectors @ class_vector).max() < least_like:
            assert (row.near, row.far, row.no_statements[0]) == ((), (), "words_without_statements")
            continue
        assert row.no_statements is None
        assert {one.text for one in (*row.near, *row.far)} == set(like)
        assert [one.text for one in row.near] == sorted(
            (text for text in like if cosines[text] > mean), key=lambda text: -cosines[text]
        )
        assert [one.text for one in row.far] == sorted(
            (text for text in like if cosines[text] <= mean), key=lambda text: cosines[text]
        )
    assert any(row.near for row in found.classes)
    assert any(row.far for row in found.classes)


def own_nearest(vectors):
    """Of each statement the cosine of the nearest other one."""
    return [float((np.delete(vectors, row, axis=0) @ vectors[row]).max()) for row in range(len(vectors))]


def test_words_that_no_statement_is_like_have_none(predictor):
    space, ecg = predictor.statement_space, predictor.embed(synthetic_ecg())
    with torch.no_grad():
        vectors = predictor.bundle.model.embed_text(predictor.bundle.model.anchors).numpy()
    near, far, why = space.near_and_far(ecg, vectors[3])
    assert (why, len(near) + len(far)) == (None, 5)
    foreign = np.linalg.svd(vectors)[2][-1].astype(np.float32)  # at a right angle to every statement
    near, far, why = space.near_and_far(ecg, foreign)
    assert (near, far, why[0]) == ((), (), "words_without_statements")
    assert "is like these words: the nearest, " in why[1]


def test_drops_are_differences_of_scores(predictor):
    found = explain(predictor, classes=["AFIB", "SR"])
    assert (found.leads, found.segment_s, found.windows_encoded) == (LEADS, 0.5, 336)

    def similarity(ecg):
        rows = predictor.zero_shot(ecg, prompt_set="descriptive", task="synthetic")
        return {row.class_name: row.similarity for row in rows}

    ecg = synthetic_ecg()

    def without(*leads):
        kept = [row for row, lead in enumerate(LEADS) if lead not in leads]
        return similarity(replace(ecg, signal_mv=ecg.signal_mv[kept], leads=tuple(LEADS[row] for row in kept)))

    whole, no_v1, no_anterior = similarity(ecg), without("V1"), without("V1", "V2", "V3", "V4")
    for row in found.classes:
        name = row.class_name
        assert row.similarity == pytest.approx(whole[name], abs=1e-5)
        expected = whole[name] - (no_v1[name] + no_anterior[name]) / 2
        assert row.lead_drops[6] == pytest.approx(expected, abs=1e-5)
        assert row.drops.shape == (12, 20)
        assert row.segment_drops.shape == (20,)
        assert np.abs(row.segment_drops).max() > 0
    assert found.classes[0].class_name == "AFIB"


def test_what_cannot_be_explained_is_refused(predictor):
    many = [f"finding {number}" for number in range(MOST_CLASSES + 1)]
    with pytest.raises(ConfigError, match=rf"{len(many)} classes are to be explained; at most {MOST_CLASSES} are"):
        predictor.explain(synthetic_ecg(), many)
    assert len(predictor.explain(synthetic_ecg(), many, classes=many[:2]).classes) == 2
    with pytest.raises(ConfigError, match="'VT' is to be explained and is not one of the 12 classes"):
        explain(predictor, classes=["VT"])
    with pytest.raises(ConfigError, match="explained twice"):
        explain(predictor, classes=["SR", "SR"])
    with pytest.raises(ConfigError, match="no class is to be explained"):
        explain(predictor, classes=[])
    with pytest.raises(RecordError, match="2 windows of 10 s, and an explanation is of one") as error:
        predictor.explain(synthetic_ecg(duration_s=20), ["sinus rhythm"])
    assert error.value.reason == "several_windows"


def test_a_bundle_without_statements_says_so_and_explains_the_rest(tmp_path):
    found = explain(Predictor(load_bundle(str(make_bundle(tmp_path)))), classes=["SR"])
    assert found.no_statements[0] == "no_statements"
    assert "this bundle names no training statements" in found.no_statements[1]
    assert (found.nearest, found.classes[0].near, found.classes[0].far) == ((), (), ())
    assert found.classes[0].drops.shape == (12, 20)
    none = Predictor(load_bundle(str(make_bundle(tmp_path / "few", statements={"sinus rhythm": 9, "normal ecg": 3}))))
    assert "shared by 10 patients or more" in explain(none, classes=["SR"]).no_statements[1]


def test_the_statements_are_a_file_of_the_bundle_with_its_hash(folder, tmp_path):
    bundle = load_bundle(str(folder))
    assert {row.text: row.patients for row in bundle.statements.statements} == STATEMENTS
    assert NAME in bundle.facts.files

    def damaged(change):
        path = Path(shutil.copytree(folder, tmp_path / str(len(list(tmp_path.iterdir())))))
        named = json.loads((path / NAME).read_bytes())
        change(named)
        (path / NAME).write_text(json.dumps(named))
        facts = storage.unseal((path / "bundle.json").read_bytes()).facts
        facts["files"][NAME] = hashlib.sha256((path / NAME).read_bytes()).hexdigest()
        (path / "bundle.json").write_bytes(storage.seal(json.dumps(facts)))
        return path

    path = Path(shutil.copytree(folder, tmp_path / "other"))
    (path / NAME).write_text((path / NAME).read_text().replace("1322", "1323"))
    with pytest.raises(CheckpointError, match=rf"`{NAME}` is not the file that"):
        load_bundle(str(path))
    with pytest.raises(CheckpointError, match=r"a statement of 3 patients, where 10 are the least"):
        load_bundle(str(damaged(lambda named: named["statements"][2].update(patients=3))))
    with pytest.raises(CheckpointError, match=r"it names anchor 11, and there are 11"):
        load_bundle(str(damaged(lambda named: named["statements"][2].update(anchor=11))))
    with pytest.raises(CheckpointError, match=r"two statements have the features of one anchor"):
        load_bundle(str(damaged(lambda named: named["statements"][2].update(anchor=1))))


def test_only_what_many_patients_share_and_nobody_is_named_in_is_named():
    texts = ["sinus rhythm", "confirmed by Dr. Smith", "unchanged since [date]", "PR 160 ms", "rare finding",
             "sinus rhythm. normal ecg", "seen on 12.03.1991"]  # fmt: skip
    patients = [10, 500, 500, 30, 9, 500, 500]
    named = name_anchors(range(7), dict(enumerate(texts)), dict(enumerate(patients)), least_patients=10)
    assert [(row.text, row.patients, row.anchor) for row in named.statements] == [
        ("sinus rhythm", 10, 0), ("PR 160 ms", 30, 3),
    ]  # fmt: skip
    assert named.least_patients == 10


def test_patients_are_counted_once_for_each_statement():
    reports = {"a. b": ("a", "b"), "b": ("b",), "c": ("c", "b"), "d": ()}
    generator = np.random.default_rng(4)
    rows = [(name, int(patient)) for name in [*reports] * 20 for patient in generator.integers(0, 30, 1)]
    expected = {}
    for name, patient in rows:
        for part in reports[name] or (name,):
            expected.setdefault(text_id(part), set()).add(patient)
    ids = np.array([text_id(name) for name, _ in rows])
    found = ReportStatements.build(reports).count_patients(ids, np.array([patient for _, patient in rows]))
    assert found == {one: len(holders) for one, holders in expected.items()}


def test_a_window_behind_a_gap_says_where_it_begins(predictor):
    ecg = synthetic_ecg()
    gap = np.full((len(ecg.leads), round(10 * ecg.sampling_rate_hz)), np.nan)
    behind = replace(ecg, signal_mv=np.concatenate([gap, ecg.signal_mv], axis=1))
    start_s = predictor.windows(behind).start_s
    found = predictor.explain(behind, prompt_set="descriptive", task="synthetic")
    assert found.start_s == start_s > 9
    assert explain(predictor).start_s == 0

"""Calibration files: read with the bundle, refused or left out with a reason, and used for their words alone."""

import json
import shutil
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from mets_ray import storage
from mets_ray.ecg.ecg import LEADS, Ecg
from mets_ray.errors import CheckpointError
from mets_ray.model import predictor as predictor_module
from mets_ray.model.bundle import load_bundle
from mets_ray.model.calibrated_classes import CalibratedClasses
from mets_ray.model.calibrations import CalibrationFile, Calibrations
from tests.support.calibrations import RARE, damage, made_up_file, other_version, resealed, write_file
from tests.support.serving import make_bundle, synthetic_ecg

load_predictor = partial(predictor_module.load_predictor, encoder_runtime="torch")  # the others take time to start
WORDS = {"prompt_set": "descriptive", "task": "synthetic"}


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    return make_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="module")
def file(bare):
    return made_up_file(bare)


@pytest.fixture
def bundle(bare, tmp_path):
    return shutil.copytree(bare, tmp_path / "copy" / "bundle")


def test_a_file_reads_back_and_has_no_part_in_the_bundle(bundle, file):
    assert CalibrationFile.from_bytes(file.to_bytes(), "here") == file
    assert file.name == f"descriptive@{file.prompts.version}.json"
    before = load_bundle(str(bundle))
    assert before.calibrations == Calibrations()
    write_file(bundle, file)
    after = load_bundle(str(bundle))
    assert after.digest == before.digest
    assert after.calibrations == Calibrations((file,))


def test_python_has_probabilities_for_the_words_of_the_set_and_for_no_others(bundle, file):
    plain = load_predictor(str(bundle)).zero_shot(synthetic_ecg(), **WORDS)
    assert {row.not_calibrated for row in plain} == {"there is no calibration for prompt set `descriptive`"}
    write_file(bundle, file)
    predictor = load_predictor(str(bundle))
    rows = predictor.zero_shot(synthetic_ecg(), **WORDS)
    assert [row[:3] for row in rows] == [row[:3] for row in plain]
    fits = {row.name: row for row in file.tasks["synthetic"].calibration.classes}
    for row in rows:
        if row.class_name == RARE:
            assert row[3:7] == (None,) * 4
            assert row.not_calibrated == "validation had 2 patients with this class, and 10 are needed"
            continue
        fit, cosine = fits[row.class_name], np.array([row.similarity])
        assert row.probability == pytest.approx(fit.fit.probability(cosine)[0])
        assert row.probability_interval == pytest.approx(tuple(side[0] for side in fit.fit.interval(cosine)))
        assert row.probability_interval[0] < row.probability < row.probability_interval[1]
        assert row.threshold == pytest.approx(fit.fit.probability(np.array([fit.threshold]))[0])
        assert row.present is (row.probability >= row.threshold) is (row.similarity >= fit.threshold)
        assert row.not_calibrated is None
    assert {row.present for row in rows} == {True, False, None}
    assert [row.probability for row in predictor.zero_shot(synthetic_ecg(), multi_label=True, **WORDS)] == [
        row.probability for row in rows
    ]
    for other in (
        predictor.zero_shot(synthetic_ecg(), ["atrial fibrillation", "sinus rhythm"]),
        predictor.zero_shot(synthetic_ecg(), prompt_set="mets", task="synthetic"),
        predictor.untrained(1).zero_shot(synthetic_ecg(), **WORDS),
    ):
        assert {row[3:7] for row in other} == {(None,) * 4}
        assert all(row.not_calibrated for row in other)


def test_an_ecg_that_lacks_leads_is_not_calibrated(bundle, file):
    write_file(bundle, file)
    whole = synthetic_ecg()
    limbs = Ecg(whole.signal_mv[:6], LEADS[:6], whole.sampling_rate_hz)
    rows = load_predictor(str(bundle)).zero_shot(limbs, **WORDS)
    assert {row.not_calibrated for row in rows} == {"calibrations are for whole ECGs, and this one lacks leads"}
    assert {row.present for row in rows} == {None}


def test_words_that_differ_by_class_are_calibrated_by_class(bare, file):
    classes = dict(load_bundle(str(bare)).facts.prompt_sets["descriptive"].tasks["synthetic"])
    changed = classes | {"AFIB": ("a-fib",), "new": ("new",)}
    found = CalibratedClasses.of(Calibrations((file,)), "descriptive:synthetic", file.prompts.version, changed)
    faults = dict(zip(changed, found.faults, strict=True))
    assert {name: fault[0] for name, fault in faults.items() if fault} == {
        "AFIB": "other_words", "new": "no_calibration", RARE: "few_patients"
    }  # fmt: skip
    assert found.fault is None
    turned = dict(reversed(classes.items()))  # in another order each keeps its own
    again = CalibratedClasses.of(Calibrations((file,)), "descriptive", file.prompts.version, turned)
    same = CalibratedClasses.of(Calibrations((file,)), "descriptive", file.prompts.version, classes)
    np.testing.assert_array_equal(again.thresholds, same.thresholds[::-1])


def test_what_cannot_be_used_is_left_out_beside_the_bundle_and_refused_by_name(bundle, bare, file, tmp_path):
    of_other = made_up_file(make_bundle(tmp_path, run="pretrain-20260101-000000-other", seed=1))
    cases = {
        "another digest": lambda path: damage(path),
        "has no `digest`": lambda path: path.write_text(json.dumps(storage.unseal(path.read_bytes()).facts)),
        "cannot be used: Expecting value": lambda path: path.write_bytes(b"no json"),
        "its schema version is 9": lambda path: resealed(path, lambda facts: facts.update(schema_version=9)),
        "is of another bundle: `pretrain-20260101-000000-other`": lambda path: path.write_bytes(of_other.to_bytes()),
        "this is not a calibration": lambda path: resealed(
            path, lambda facts: facts["tasks"]["synthetic"]["calibration"].pop("records")
        ),
    }
    for words, harm in cases.items():
        path = write_file(bundle, file)
        harm(path)
        (reason,) = load_bundle(str(bundle)).calibrations.left_out.values()
        assert words in reason[1]
        assert file.name in reason[1]
        rows = load_predictor(str(bundle)).zero_shot(synthetic_ecg(), **WORDS)
        assert {row.not_calibrated for row in rows} == {reason[1]}
        for uri in (path, path.parent):
            with pytest.raises(CheckpointError, match=words.replace("(", r"\(")) as caught:
                load_predictor(str(bare), calibration_uri=str(uri))
            assert "evaluate" in caught.value.hint
    with pytest.raises(CheckpointError, match="holds no calibration"):
        load_predictor(str(bare), calibration_uri=str(tmp_path / "nowhere"))


def test_another_version_of_the_prompt_set_is_not_taken_for_this_one(bundle, file):
    write_file(bundle, other_version(file))
    version = file.prompts.version
    (why,) = {row.not_calibrated for row in load_predictor(str(bundle)).zero_shot(synthetic_ecg(), **WORDS)}
    assert why == f"`descriptive` is calibrated in version {version + 1}, and this is {version}"
    found = Calibrations((file,)).find("descriptive:other", version)
    assert found == (None, ("no_calibration", f"prompt set `descriptive@{version}` is calibrated for synthetic only"))


def test_a_named_file_takes_the_place_of_the_bundles_own(bundle, bare, file):
    rule = replace(file.tasks["synthetic"].calibration.rule, kind="sensitivity", share=0.9)
    tasks = {"synthetic": replace(file.tasks["synthetic"], calibration=replace(
        file.tasks["synthetic"].calibration, rule=rule))}  # fmt: skip
    path = write_file(bundle, replace(file, tasks=tasks))
    predictor = load_predictor(str(bare), calibration_uri=str(path))
    assert str(predictor.bundle.calibrations.files[0].tasks["synthetic"].calibration.rule) == "sensitivity:0.9"


def test_with_a_key_only_signed_calibrations_are_used(bundle, file, monkeypatch):
    from mets_ray.model.bundle import publish_bundle

    signed = bundle.parent / "signed"
    monkeypatch.setenv("METS_RAY_BUNDLE_KEY", "secret")
    publish_bundle(str(bundle), str(signed))
    write_file(signed, file)
    assert "not signed" in load_bundle(str(signed)).calibrations.left_out[file.name][1]
    write_file(signed, file, key="secret")
    assert load_bundle(str(signed)).calibrations == Calibrations((file,))

"""Evaluation beside other results: baselines, other data sets, records without labels."""

import json
import shutil

import pytest

from mets_ray import storage
from mets_ray.errors import ConfigError, DatasetError
from mets_ray.metrics.auroc import macro_auroc
from mets_ray.model.bundle import load_bundle
from mets_ray.results.similarity_files import read_similarities
from mets_ray.tasks.prompt_sets import load_prompt_set
from tests.support.datasets import scored_table, synthetic_rows, write_dataset
from tests.support.pipeline import config_of

FOLDS = range(1, 11)


def test_baselines_and_another_result_stand_beside_the_score(trained, prepared, tmp_path):
    from mets_ray.evaluation.evaluate import evaluate

    kinds = "random_encoder,class_names,permuted_labels,linear_probe,text_head,supervised"
    words = ["folds.test=[10]", "evaluate.label_shares=[0.1,1.0]", "evaluate.supervised_epochs=1",
             f"evaluate.baselines=[{kinds}]"]  # fmt: skip
    first = evaluate(config_of(tmp_path / "first", *words, dataset_uri=prepared), prepared, trained.bundle_uri)
    assert [row.baseline for row in first.baselines] == [
        "randomly initialised", "class names as prompts", "chance", "linear probe", "linear probe",
        "linear probe, random encoder", "linear probe, random encoder",
        "text-initialised head", "text-initialised head",
        "supervised SE-ResNet1d-18", "supervised SE-ResNet1d-18",
    ]  # fmt: skip
    assert all(row.macro.low <= row.macro.value <= row.macro.high for row in first.baselines)
    chance = first.baselines[2].macro
    assert chance.low < 0.5 < chance.high
    few, many = first.baselines[3:5]
    assert few.note.startswith("10% of labels: ")
    assert many.note.startswith("100% of labels: 240 ECGs of 160 patients")
    assert many.macro.value > few.macro.value
    metrics = json.loads(storage.read_bytes(storage.join(first.result_uri, "metrics.json")))
    assert [row["baseline"] for row in metrics["baselines"]] == [row.baseline for row in first.baselines]
    probe = read_similarities(first.result_uri, first.tasks[0].task, "linear_probe_100_of_labels")
    assert macro_auroc(probe.similarity, probe.truth)[0] == pytest.approx(many.macro.value)
    table = storage.read_bytes(storage.join(first.result_uri, "table.md")).decode()
    assert "| linear probe, 10% of labels | " in table

    check_curve(first, many)
    check_calibrate(first, trained.bundle_uri, prepared, tmp_path)

    # Against its own files nothing differs. (Nor against the same weights in a bundle: see the next test.)
    words = ["folds.test=[10]", f"evaluate.compare_to={first.result_uri}"]
    again = evaluate(config_of(tmp_path / "again", *words, dataset_uri=prepared), prepared, trained.bundle_uri)
    (comparison,) = again.comparisons
    assert comparison.difference == (0.0, 0.0, 0.0)
    assert comparison.records == first.tasks[0].records
    nowhere = config_of(tmp_path, "folds.test=[10]", f"evaluate.compare_to={tmp_path}", dataset_uri=prepared)
    with pytest.raises(ConfigError, match="is not a bundle and has no scores for synthetic"):
        evaluate(nowhere, prepared, trained.bundle_uri)


def check_calibrate(evaluated, bundle_uri, prepared, tmp_path):
    """Without a test fold the same is fitted, and a fold that trained the bundle is refused."""
    from mets_ray.evaluation.calibrate_only import calibrate

    bare = tmp_path / "bare"
    shutil.copytree(bundle_uri, bare, ignore=shutil.ignore_patterns("calibration", "reference"))
    trained_on = config_of(tmp_path, "folds.train=[2]", "folds.validation=[1]", dataset_uri=prepared)
    with pytest.raises(DatasetError, match="patients have records in the validation and in the bundle's train folds"):
        calibrate(trained_on, prepared, str(bare))
    calibrate(config_of(tmp_path, "folds.test=[]", dataset_uri=prepared), prepared, str(bare))
    bundle = load_bundle(str(bare))
    (file,) = bundle.calibrations.files
    assert file.tasks["synthetic"].calibration == evaluated.calibrated["synthetic"].calibration
    errors = file.tasks["synthetic"].cross_fitted
    assert errors.after.brier < errors.before.brier
    assert bundle.reference.bundle_digest == bundle.digest


def check_curve(evaluated, probe_of_all):
    """0 is zero-shot, the other end what the baselines say, and between them several draws."""
    points = {(point.method, point.labels_per_class): point for point in evaluated.label_curve}
    zero_shot = points["zero-shot", 0].macro
    assert zero_shot.value == points["text-initialised head", 0].macro.value == evaluated.tasks[0].macro.value
    assert points["linear probe", None].macro == probe_of_all.macro
    assert ("supervised SE-ResNet1d-18", None) in points
    few, all_labels = points["text-initialised head", 8], points["text-initialised head", None]
    assert (few.draws, all_labels.draws, all_labels.records) == (5, 1, 240)
    assert 8 < few.records < 240
    assert few.macro.low < few.macro.value < few.macro.high
    table = storage.read_bytes(storage.join(evaluated.result_uri, "label_curve.csv")).decode()
    assert table.startswith("task,method,labels_per_class,macro_auroc")
    assert len(table.splitlines()) == 1 + len(points)
    assert storage.read_bytes(storage.join(evaluated.result_uri, "label_curve.png")).startswith(b"\x89PNG")


def test_a_head_is_learnt_from_labels_and_scored_beside_zero_shot(trained, prepared, tmp_path):
    from mets_ray.adaptation.adapt import adapt, figures
    from mets_ray.evaluation.evaluate import evaluate
    from mets_ray.pipelines.score import score

    words = ["folds.test=[10]", "adapt.labels_per_class=16"]
    few = adapt(config_of(tmp_path / "few", *words, dataset_uri=prepared), prepared, trained.bundle_uri)
    assert (few.head.name, few.head.prompt_set) == ("synthetic-text", "descriptive@5")
    assert min(few.head.labels.values()) <= 16 < few.head.records < 240
    assert "`adapt.labels_per_class` is 16, and some classes have fewer" in few.notices[0]
    words = ["folds.test=[10]", "adapt.method=finetune", "adapt.epochs=2", "adapt.name=tuned", "train.num_workers=2",
             "train.batch_size=48"]  # fmt: skip
    tuned = adapt(config_of(tmp_path / "tuned", *words, dataset_uri=prepared), prepared, few.bundle_uri)
    assert figures(tuned)["records"] == 240
    bundle = load_bundle(tuned.bundle_uri)
    assert list(bundle.heads) == ["synthetic-text", "tuned"]
    weight = "ecg_encoder.stages.7.residual.0.weight"
    assert (bundle.heads["tuned"].own_model[weight] != bundle.model.state_dict()[weight]).any()

    words = ["folds.test=[10]", f"evaluate.compare_to={trained.bundle_uri}"]
    config = config_of(tmp_path / "both", *words, dataset_uri=prepared)
    result = evaluate(config, prepared, tuned.bundle_uri)
    (comparison,) = result.comparisons  # zero-shot, the heads change nothing
    assert comparison.difference == (0.0, 0.0, 0.0)
    assert comparison.records == result.tasks[0].records
    assert [row.baseline for row in result.baselines] == ["head synthetic-text", "head tuned"]
    assert result.baselines[0].note.startswith("text, ")
    # Scored on the validation fold, which chose it, a fine-tuned head gives the figure of its training.
    words = ["folds.test=[9]", "folds.train=[1]", "folds.validation=[2]", "evaluate.allow_patient_overlap=true"]
    again = evaluate(config_of(tmp_path / "again", *words, dataset_uri=prepared), prepared, tuned.bundle_uri)
    assert again.baselines[1].macro.value == pytest.approx(tuned.head.validation_macro_auroc, abs=1e-6)
    assert "The head `tuned` has seen patients of this test." in again.notices
    assert "has seen patients of this test, so its scores are too high" in again.alarms[0]
    assert "**ALARM: " in storage.read_bytes(storage.join(again.result_uri, "table.md")).decode()
    scored = scored_table(score(config, prepared, tuned.bundle_uri).output_uri)
    for name in bundle.heads:
        columns = [f"{kind}:head:{name}:{class_name}" for kind in ("logit", "score") for class_name in ("SR", "AFIB")]
        assert set(columns) <= set(scored.column_names)


def test_other_data_sets_are_scored_too_with_prompts_that_the_bundle_does_not_hold(trained, prepared, tmp_path):
    from mets_ray.evaluation.evaluate import evaluate_all, figures

    other = write_dataset(tmp_path / "other", synthetic_rows(60, seed=5), source="ptbxl", folds=dict.fromkeys(FOLDS, 6))
    config = config_of(tmp_path, "folds.test=[10]", f"evaluate.also=[{other}]", dataset_uri=prepared)
    results = evaluate_all(config, prepared, trained.bundle_uri)
    assert [task.task for result in results for task in result.tasks][:2] == ["synthetic", "ptbxl_super"]
    assert results[1].over.endswith("60 records of folds 1, 2, 3, 4, 5, 6, 7, 8, 9, 10")
    prompts = {name: found.prompts for name, found in results[1].wordings["ptbxl_rhythm"].items()}
    words = load_prompt_set("descriptive").tasks["ptbxl_rhythm"]
    assert prompts == {name: words[name] for name in prompts}
    assert "Not calibrated: `folds.validation` is ()" in " ".join(results[1].notices)
    told = figures(results)
    assert set(told["six_sets"]) >= {"ptbxl_rhythm", "mean"}
    assert told["six_sets"]["mean"] is None
    table = storage.read_bytes(storage.join(results[0].result_uri, "six_sets.md")).decode()
    assert "some were not scored: cpsc2018, csn" in table

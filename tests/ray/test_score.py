"""Scoring whole data sets: the values are evaluate's, and each record comes once."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from mets_ray import storage
from mets_ray.config.load import load_config
from mets_ray.dataset.card import read_card
from mets_ray.dataset.folds import Selection
from mets_ray.dataset.plan import RowGroup
from mets_ray.dataset.prepared import PreparedDataset
from mets_ray.dataset.shard_reader import signals
from mets_ray.ecg.ecg import LEADS
from mets_ray.errors import CheckpointError, ConfigError, DatasetError, RecordError
from mets_ray.model.bundle import load_bundle
from mets_ray.model.predictor import load_predictor
from mets_ray.model.zero_shot import task_scores
from mets_ray.pipelines import score as score_module
from mets_ray.pipelines.embed import EcgEmbedder
from mets_ray.pipelines.score import ShardScorer
from mets_ray.pipelines.score_columns import ScoreTask
from mets_ray.tasks.questions import dataset_tasks
from tests.support.calibrations import damage, made_up_file, write_file
from tests.support.datasets import scored_table, synthetic_rows, write_card, write_rows, write_shards
from tests.support.heads import CLASSES, with_heads
from tests.support.references import made_up_reference, synthetic_signals, write_reference
from tests.support.serving import make_bundle

SHARDS, ROWS = 3, 260  # a shard of 260 has two row groups


@pytest.fixture(scope="module")
def dataset_uri(tmp_path_factory):
    return write_shards(tmp_path_factory.mktemp("data"), shards=SHARDS, rows=ROWS)


@pytest.fixture(scope="module")
def bundle_uri(tmp_path_factory):
    return str(make_bundle(tmp_path_factory.mktemp("bundle")))


def config_of(folder, *words):
    return load_config(None, [f"run_uri={folder}", "score.max_actors=1", "score.prompt_set=mets", *words])


def test_scores_are_evaluates_for_the_same_records(ray_cluster, dataset_uri, bundle_uri, tmp_path):
    from mets_ray.pipelines.score import figures, score

    result = score(config_of(tmp_path, "score.batch_size=100"), dataset_uri, bundle_uri)
    assert (result.records, result.skipped, result.shards) == (SHARDS * ROWS, 0, SHARDS)
    assert result.records_per_s > 0
    assert figures(result)["output_uri"] == result.output_uri
    assert Path(result.output_uri).name.startswith("scores-pretrain-20260101-000000-test-mets-")
    table = scored_table(result.output_uri)
    assert len(set(table["record_id"].to_pylist())) == table.num_rows == SHARDS * ROWS

    # As evaluate does it, with another runtime: the actor's class on row groups, then the scores of the embeddings.
    bundle, dataset = load_bundle(bundle_uri), PreparedDataset.open(dataset_uri)
    embedder, rows = EcgEmbedder(bundle_uri, "cpu", encoder_runtime="torch"), []
    for shard in dataset.card.shards[1:3]:
        for index in range(len(shard.row_group_rows)):
            group = RowGroup(shard.path, index, shard.row_group_rows[index])
            rows += embedder(dataset.read(group, Selection(tuple(range(1, 11))))).to_pylist()
    task = dataset_tasks("synthetic")["synthetic"]
    embeddings = np.asarray([row["ecg_embedding"] for row in rows], np.float32)
    everything = [["SR"]] * len(rows)  # any label keeps a record
    expected, _, _ = task_scores(
        bundle.model, bundle.facts.prompt_sets["mets"], task, bundle.prompts, embeddings, everything
    )
    found = {row["record_id"]: row for row in table.to_pylist()}
    softmax = torch.tensor(expected * float(bundle.model.logit_scale.detach())).softmax(dim=-1).numpy()
    for number, row in enumerate(rows):
        own = found[row["record_id"]]
        assert (own["patient_id"], own["fold"]) == (row["patient_id"], row["fold"])
        np.testing.assert_allclose(own["embedding"], embeddings[number], atol=1e-5)
        for column, name in enumerate(task.classes):
            assert own[f"similarity:synthetic:{name}"] == pytest.approx(expected[number, column], abs=1e-5)
            assert own[f"score:synthetic:{name}"] == pytest.approx(softmax[number, column], abs=1e-5)

    facts = json.loads(storage.read_bytes(storage.join(result.output_uri, "scores.json")))
    assert (facts["finished"], facts["records"]) == (True, SHARDS * ROWS)
    of_file = json.loads(pq.read_schema(storage.list_files(result.output_uri, ".parquet")[0]).metadata[b"mets_ray"])
    assert of_file["prompt_set"]["name"] == "mets"
    assert of_file["shard"] == dataset.card.shards[0].path
    assert of_file["run"] == "pretrain-20260101-000000-test"
    assert of_file["encoder_runtime"] == "openvino"


def test_labels_of_the_middle_are_scored_by_the_middle(dataset_uri, bundle_uri, tmp_path):
    card, settings = read_card(dataset_uri), config_of(tmp_path, "score.batch_size=64").score
    shard = card.shards[0]
    found = {}
    for focus in (None, 0.05):
        dataset = PreparedDataset(dataset_uri, card.model_copy(update={"focus_s": focus and focus * card.duration_s}))
        output_uri = f"{tmp_path}/{focus}"
        ShardScorer(bundle_uri, (), dataset, output_uri=output_uri, metadata={}, settings=settings).score(shard)
        group = RowGroup(shard.path, 0, shard.row_group_rows[0])
        rows = dataset.read(group, Selection(tuple(range(1, 11))))
        expected = EcgEmbedder(bundle_uri, "cpu", focus=focus)(rows)["ecg_embedding"].to_pylist()
        found[focus] = np.asarray(scored_table(output_uri)["embedding"].to_pylist())[: len(expected)]
        np.testing.assert_allclose(found[focus], expected, atol=1e-5)
    assert np.abs(found[None] - found[0.05]).max() > 1e-3


@pytest.fixture
def every_second_lacks_chest_leads(monkeypatch):
    """What is scored, as if every second ECG had been recorded without chest leads."""
    whole = score_module.signals

    def partly(rows):
        signal_uv = whole(rows).copy()
        signal_uv[1::2, 6:] = 0
        return signal_uv

    monkeypatch.setattr(score_module, "signals", partly)


@pytest.mark.usefixtures("every_second_lacks_chest_leads")
def test_leads_that_were_not_recorded_are_named_or_refused(dataset_uri, bundle_uri, tmp_path):
    card, settings = read_card(dataset_uri), config_of(tmp_path, "score.batch_size=64").score
    dataset = PreparedDataset(dataset_uri, card)

    def run(bundle, name):
        scorer = ShardScorer(str(bundle), (), dataset, output_uri=f"{tmp_path}/{name}", metadata={}, settings=settings)
        scorer.score(card.shards[0])
        return scored_table(f"{tmp_path}/{name}")["leads_missing"].to_pylist()

    assert run(bundle_uri, "any")[:4] == [[], list(LEADS[6:])] * 2
    with pytest.raises(RecordError, match="6 of 12 leads were not recorded: V1, V2, V3, V4, V5, V6") as caught:
        run(make_bundle(tmp_path, "augment.lead_dropout=0"), "whole")
    assert (caught.value.reason, "lead_dropout" in caught.value.hint) == ("missing_leads", True)
    assert not storage.list_files(f"{tmp_path}/whole")


def test_heads_have_columns_of_their_own(dataset_uri, bundle_uri, tmp_path):
    card, settings = read_card(dataset_uri), config_of(tmp_path, "score.batch_size=128").score
    adapted = str(with_heads(bundle_uri, tmp_path, "linear", "finetune"))
    dataset = PreparedDataset(dataset_uri, card)
    scorer = ShardScorer(
        adapted, (), dataset, output_uri=f"{tmp_path}/out", metadata={}, settings=settings, encoder_runtime="torch"
    )
    scorer.score(card.shards[0])
    table = scored_table(f"{tmp_path}/out")
    predictor = load_predictor(adapted, encoder_runtime="torch")
    group = RowGroup(card.shards[0].path, 0, card.shards[0].row_group_rows[0])
    rows = dataset.read(group, Selection(tuple(range(1, 11))))
    for name, expected in predictor.head_logits(predictor.heads, signals(rows)).items():
        for column, class_name in enumerate(CLASSES):
            logits, scores = (
                np.asarray(table[f"{kind}:head:{name}:{class_name}"].to_pylist())[: len(expected)]
                for kind in ("logit", "score")
            )
            np.testing.assert_allclose(logits, expected[:, column], rtol=1e-3, atol=1e-4)
            np.testing.assert_allclose(scores, 1 / (1 + np.exp(-logits)), atol=1e-6)


@pytest.mark.usefixtures("every_second_lacks_chest_leads")
def test_calibrated_classes_have_columns_and_ecgs_without_all_leads_none(dataset_uri, tmp_path):
    from mets_ray.pipelines.score import _metadata, _score_tasks
    from mets_ray.tasks.questions import Questions

    bundle = make_bundle(tmp_path)
    config = config_of(tmp_path, "score.prompt_set=descriptive", "score.batch_size=64")
    card, questions = read_card(dataset_uri), Questions.without_labels("descriptive", ("synthetic",))
    dataset = PreparedDataset(dataset_uri, card)

    def run():
        predictor = load_predictor(str(bundle))
        tasks = _score_tasks(config, predictor, questions, dataset)
        metadata = _metadata(card, predictor, str(bundle), questions, config.score)
        scorer = ShardScorer(
            str(bundle), tasks, dataset, output_uri=f"{tmp_path}/out", metadata=metadata, settings=config.score
        )
        scorer.score(card.shards[0])
        return scored_table(f"{tmp_path}/out"), metadata

    before, bare = run()
    path = write_file(bundle, file := made_up_file(bundle))
    after, metadata = run()
    assert metadata["fingerprint"] != bare["fingerprint"]
    assert "calibrations" not in bare  # so that the folders of bundles without one are named as before
    assert after.select(before.column_names).equals(before)
    added = [name for name in after.column_names if name not in before.column_names]
    known = [row for row in file.tasks["synthetic"].calibration.classes if row.fault is None]
    kinds = ("probability", "probability_low", "probability_high", "present")
    assert sorted(added) == sorted(f"{kind}:synthetic:{row.name}" for row in known for kind in kinds)
    for row in known:
        cosine = np.asarray(after[f"similarity:synthetic:{row.name}"].to_pylist())[::2]
        probability, low, high, present = (after[f"{kind}:synthetic:{row.name}"].to_pylist() for kind in kinds)
        assert {*probability[1::2], *present[1::2], *low[1::2], *high[1::2]} == {None}
        np.testing.assert_allclose(probability[::2], row.fit.probability(cosine), atol=1e-6)
        assert all(one < other for one, other in zip(low[::2], high[::2], strict=True))
        assert present[::2] == (cosine >= row.threshold).tolist()
        assert 0 < metadata["thresholds"]["synthetic"][row.name] < 1
    damage(path)
    assert run()[0].column_names == before.column_names


def test_windows_have_their_start_and_their_mean_is_the_recording(bundle_uri, tmp_path):
    rows = [replace(row, record_id=f"r{n // 3}@{2.5 * (n % 3):g}") for n, row in enumerate(synthetic_rows(7))]
    summary = write_rows(tmp_path / "data", rows)
    dataset_uri = str(tmp_path / "data")
    dataset = PreparedDataset(dataset_uri, write_card(dataset_uri, [summary], window_stride_s=2.5))
    names = ("SR", "AFIB")
    vectors = np.linalg.qr(np.random.default_rng(0).normal(size=(128, 2)))[0].T.astype(np.float32)
    found = {}
    for kind in ("window", "recording"):
        settings = config_of(tmp_path, f"score.rows={kind}", "score.batch_size=2").score
        output_uri = f"{tmp_path}/{kind}"
        scorer = ShardScorer(
            bundle_uri,
            (ScoreTask("t", names, vectors),),
            dataset,
            output_uri=output_uri,
            metadata={},
            settings=settings,
        )
        assert scorer.score(summary.shard) == 7
        found[kind] = scored_table(output_uri).to_pylist()
    windows, recordings = found["window"], found["recording"]
    assert [(row["recording_id"], row["start_s"]) for row in windows] == [
        ("r0", 0.0), ("r0", 2.5), ("r0", 5.0), ("r1", 0.0), ("r1", 2.5), ("r1", 5.0), ("r2", 0.0),
    ]  # fmt: skip
    assert [(row["record_id"], row["windows"]) for row in recordings] == [("r0", 3), ("r1", 3), ("r2", 1)]
    for number, row in enumerate(recordings):
        own = np.asarray([window["embedding"] for window in windows[3 * number : 3 * number + 3]])
        mean = own.mean(axis=0) / np.linalg.norm(own.mean(axis=0))
        np.testing.assert_allclose(row["embedding"], mean, atol=1e-5)
        assert row["similarity:t:AFIB"] == pytest.approx(float(mean @ vectors[1]), abs=1e-5)


@pytest.mark.usefixtures("every_second_lacks_chest_leads")
def test_z_scores_are_those_of_single_ecgs_and_of_nothing_else(tmp_path):
    """Null for an ECG that lacks leads and for the mean of several windows; no column without a reference."""
    bundle, names = make_bundle(tmp_path), ["r0@0", "r1@0", "r2@0", "r2@2.5", "r2@5"]
    rows = [replace(row, record_id=name) for row, name in zip(synthetic_rows(5), names, strict=True)]
    summary = write_rows(tmp_path / "data", rows)
    data_uri = str(tmp_path / "data")
    dataset = PreparedDataset(data_uri, write_card(data_uri, [summary], window_stride_s=2.5))
    vectors = np.linalg.qr(np.random.default_rng(0).normal(size=(128, 2)))[0].T.astype(np.float32)
    task = ScoreTask("t", ("SR", "AFIB"), vectors)

    def run(kind, name):
        settings = config_of(tmp_path, f"score.rows={kind}").score
        scorer = ShardScorer(str(bundle), (task,), dataset, output_uri=name, metadata={}, settings=settings)
        scorer.score(summary.shard)
        return scored_table(name)

    assert not [name for name in run("window", f"{tmp_path}/before").column_names if name.startswith("z_score")]
    write_reference(bundle, made_up_reference(bundle, synthetic_signals(range(60))))
    predictor = load_predictor(str(bundle))
    windows, recordings = (run(kind, f"{tmp_path}/{kind}").to_pylist() for kind in ("window", "recording"))
    for row in [*windows, *recordings]:
        similarity = np.asarray([row[f"similarity:t:{name}"] for name in task.classes])
        found = [row[f"z_score:t:{name}"] for name in task.classes]
        if row["leads_missing"] or row.get("windows", 1) > 1:
            assert found == [None, None]
        else:
            levels = predictor.levels(torch.tensor(vectors))
            np.testing.assert_allclose(found, (similarity - levels.mean) / levels.deviation, rtol=1e-4)
    assert [row["z_score:t:SR"] is None for row in windows] == [False, True, False, True, False]
    assert [row["z_score:t:SR"] is None for row in recordings] == [False, True, True]


def test_what_is_finished_is_skipped_and_what_is_not_is_scored(ray_cluster, dataset_uri, tmp_path):
    from mets_ray.pipelines.score import figures, score

    bundle_uri = str(make_bundle(tmp_path))
    write_reference(bundle_uri, made_up_reference(bundle_uri, synthetic_signals(range(0, 240, 3))))
    config = config_of(tmp_path, f"score.output_uri={tmp_path}/out", "score.embeddings=false")
    first = score(config, dataset_uri, bundle_uri)
    files = [Path(uri) for uri in storage.list_files(first.output_uri, suffix=".parquet")]
    whole = scored_table(first.output_uri)
    assert "embedding" not in whole.column_names
    files[1].unlink()
    (files[0].parent / f".{files[1].name}.0.tmp").write_bytes(b"half a file of a job that was killed")
    kept = {file: file.stat().st_mtime_ns for file in files if file.exists()}

    again = score(config, dataset_uri, bundle_uri)
    assert (again.records, again.skipped) == (ROWS, (SHARDS - 1) * ROWS)
    assert {file: file.stat().st_mtime_ns for file in kept} == kept
    assert scored_table(again.output_uri).equals(whole)
    nothing = score(config, dataset_uri, bundle_uri)
    assert (nothing.records, nothing.skipped) == (0, SHARDS * ROWS)
    # Inputs are compared with the reference: of all records, also those that were scored before.
    for result in (first, again, nothing):
        assert (result.drift.drifted, result.drift.notice) == ((), "")
    assert figures(nothing)["drift_uri"].endswith("/drift.html")
    drift = json.loads(storage.read_bytes(storage.join(first.output_uri, "drift.json")))
    assert (drift["records"], drift["drifted"], drift["files_without"]) == (SHARDS * ROWS, [], 0)
    assert drift["patients"] == SHARDS * ROWS * 2 // 3

    other = config_of(tmp_path, f"score.output_uri={tmp_path}/out", "score.prompt_set=descriptive")
    with pytest.raises(DatasetError, match=r"holds other scores: `embeddings`, `prompt_set` differ"):
        score(other, dataset_uri, bundle_uri)


def test_scoring_faults_are_named_before_any_work(ray_cluster, dataset_uri, bundle_uri, tmp_path, monkeypatch):
    from mets_ray.pipelines.score import score

    with pytest.raises(ConfigError, match=r"`score\.tasks` names `ptbxl_supper`"):
        score(config_of(tmp_path, "score.tasks=[ptbxl_supper]"), dataset_uri, bundle_uri)
    with pytest.raises(CheckpointError, match="the bundle is for 500 Hz"):
        score(config_of(tmp_path), dataset_uri, str(make_bundle(tmp_path / "500", sampling_rate_hz=500)))
    monkeypatch.setattr("mets_ray.model.ecg_runtime._is_installed", lambda package: package != "onnx")
    with pytest.raises(ConfigError, match="`encoder_runtime` is onnxruntime, but `onnx` is not installed"):
        score(config_of(tmp_path, "encoder_runtime=onnxruntime"), dataset_uri, bundle_uri)
    assert not list(tmp_path.glob("scores-*"))


def test_the_steady_rate_starts_when_every_actor_has_delivered():
    from mets_ray.pipelines.score import steady_rate

    assert steady_rate([(5.0, "a", 10), (6.0, "b", 10), (8.0, "a", 20), (10.0, "b", 20)]) == 40 / 4
    assert math.isnan(steady_rate([(5.0, "a", 10)]))
    assert math.isnan(steady_rate([(5.0, "a", 10), (6.0, "b", 10)]))

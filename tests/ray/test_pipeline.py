"""The main job on one small cluster: prepare → text → train → evaluate, twice."""

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from mets_ray import storage
from mets_ray.dataset.folds import Selection
from mets_ray.dataset.prepared import PreparedDataset
from mets_ray.ecg.ecg import LEADS
from mets_ray.ecg.lead_sets import LEAD_SETS
from mets_ray.errors import CheckpointError, ConfigError, DatasetError
from mets_ray.evaluation.checks import check_fit
from mets_ray.model.bundle import load_bundle, read_facts
from mets_ray.pipelines.embed import EcgEmbedder
from tests.support.datasets import auroc_of_fold, synthetic_rows, write_dataset
from tests.support.pipeline import config_of, losses
from tests.support.wfdb_records import DIGITAL, write_record


def test_an_lm_that_holds_every_cpu_still_writes_what_it_made(ray_cluster, tmp_path):
    from mets_ray.pipelines.lm_actors import embed_texts

    config = config_of(tmp_path, "text.num_cpus_per_actor=4")
    done = embed_texts(config.text, str(tmp_path), reports=["sinus rhythm", "atrial flutter"], prompts=["normal"])
    assert (done.reports_embedded, done.prompts_embedded) == (2, 1)
    with pytest.raises(ConfigError, match="asks for 5 CPU, which no node has"):
        embed_texts(config_of(tmp_path, "text.num_cpus_per_actor=5").text, str(tmp_path), reports=[], prompts=[])


def test_prepare_again_reads_nothing_and_changes_no_byte(prepared):
    from mets_ray.pipelines.prepare import prepare

    files = {uri: storage.read_bytes(uri) for uri in storage.list_files(storage.join(prepared, "shards"))}
    assert files
    card = prepare(config_of("unused", dataset_uri=prepared), prepared, "again").card
    assert {uri: storage.read_bytes(uri) for uri in storage.list_files(storage.join(prepared, "shards"))} == files
    assert (card.records_in, card.records_out, card.rejected) == (300, 300, {})


def test_prepare_refuses_a_folder_that_holds_another_data_set(prepared):
    from mets_ray.pipelines.prepare import prepare

    with pytest.raises(DatasetError, match="holds another data set"):
        prepare(config_of("unused", "seed=7", dataset_uri=prepared), prepared, "other")


def test_the_quality_page_and_the_description_lie_beside_the_card(ray_cluster, tmp_path):
    from mets_ray.pipelines.quality import write_quality

    rows = synthetic_rows(3)
    written = write_quality(PreparedDataset.open(write_dataset(tmp_path, rows)))
    page = Path(written.quality_uri).read_text()
    assert all(f'alt="12-lead ECG of record {row.record_id}, as it is stored"' in page for row in rows)
    assert (written.findings["stop"], "Few records" in page) == (0, True)
    assert json.loads(Path(written.croissant_uri).read_text())["@type"] == "sc:Dataset"
    assert {path.name for path in tmp_path.iterdir()} >= {"card.json", "quality.html", "croissant.json", "quality"}


def test_a_damaged_shard_stops_a_job_by_name_and_prepare_makes_it_again(prepared):
    from mets_ray.pipelines.prepare import prepare
    from mets_ray.pipelines.texts import report_texts

    dataset = PreparedDataset.open(prepared)
    path = Path(prepared) / dataset.card.shards[0].path
    whole = path.read_bytes()
    path.write_bytes(whole[:-100] + bytes([whole[-100] ^ 1]) + whole[-99:])
    try:
        with pytest.raises(DatasetError, match=rf"{path.name}` is damaged.*") as error:
            report_texts(dataset, "{}", dataset.all_folds)
        assert "run prepare again" in error.value.hint
        again = prepare(config_of("unused", dataset_uri=prepared), prepared, "again")
        assert again.card.content_sha256 == dataset.card.content_sha256
        assert path.read_bytes() == whole
    finally:
        path.write_bytes(whole)


def test_prepare_passes_no_shard_of_an_earlier_version_as_its_own(prepared, tmp_path):
    from mets_ray.pipelines.prepare import prepare

    folder = tmp_path / "older"
    shutil.copytree(prepared, folder)
    card = storage.unseal((folder / "card.json").read_bytes()).facts
    for shard in card["shards"]:
        del shard["pieces"]
    (folder / "card.json").write_text(json.dumps(card | {"schema_version": 1, "fingerprint": "of another version"}))
    assert PreparedDataset.open(str(folder)).card.records_out == 300
    with pytest.raises(DatasetError, match=r"holds another data set.*another version"):
        prepare(config_of("unused", dataset_uri=str(folder)), str(folder), "again")


def test_prepare_fails_above_the_share_of_rejected_records_and_goes_on_from_there(ray_cluster, tmp_path):
    from mets_ray.pipelines.prepare import prepare

    (tmp_path / "records.csv").write_text("record,report\nabsent1,sinus rhythm\nabsent2,\n")
    words = [
        "prepare.source=wfdb",
        f"prepare.source.uri={tmp_path}",
        f"prepare.source.manifest_uri={tmp_path}/records.csv",
        f"dataset_uri={tmp_path}/out",
    ]
    with pytest.raises(DatasetError, match=r"2 of 2 records were rejected.*missing_file") as error:
        prepare(config_of(tmp_path, *words), str(tmp_path / "out"), "test")
    assert "empty_report" in error.value.fact
    assert not (tmp_path / "out" / "card.json").exists()
    reasons = pq.read_table(tmp_path / "out" / "rejected").column("reason").to_pylist()
    assert sorted(reasons) == ["empty_report", "missing_file"]

    digital = np.pad(DIGITAL, ((0, 0), (0, 1)), mode="wrap")
    write_record(tmp_path, "a", digital, sig_name=[*LEADS, "ABP"], units=[*["mV"] * 12, "mmHg"])
    (tmp_path / "records.csv").write_text("record,report,fold,sex\na,sinus rhythm,1,other\nb,sinus rhythm,one,\n")
    words += ["prepare.max_rejected_fraction=0.5"]
    card = prepare(config_of(tmp_path, *words), str(tmp_path / "out"), "test").card
    assert (card.records_out, card.rejected) == (1, {"unreadable_cell": 1})
    assert "1 cell of `sex` could not be read, so it is unknown there: `other` (1)" in card.notes
    assert "signals that are not ECG were left out: ABP in 1 record" in card.notes


def test_training_learns_and_keeps_what_it_says(trained):
    first, last = losses(trained)
    assert last < first
    figures = trained.history[-1]
    assert 0.0 < figures["validation_macro_auroc"] <= 1.0
    assert {f"{way}_recall_at_{k}" for way in ("ecg_to_text", "text_to_ecg") for k in (1, 5, 10)} <= set(figures)
    assert 0.0 < figures["ecg_to_text_recall_at_10"] <= 1.0
    assert figures["ecg_per_s"] > 0
    assert 0 <= figures["data_wait_share"] <= 1
    assert storage.list_files(storage.join(trained.run_uri, "tensorboard"))
    assert storage.read_bytes(trained.picture_uri).startswith(b"\x89PNG")


def test_the_bundle_names_the_statements_that_ten_patients_share(trained, prepared):
    from mets_ray.text.embeddings import read_store
    from mets_ray.text.reports import text_id
    from mets_ray.text.sides import LEFT, RIGHT, side_of
    from mets_ray.training.categories import kinds_said, with_kinds

    bundle, dataset = load_bundle(trained.bundle_uri), PreparedDataset.open(prepared)
    train, patients = Selection((1, 2, 3, 4, 5, 6, 7, 8)), {}
    reports = {row.report: row.statements for row in synthetic_rows(300)}
    said = with_kinds(reports, kinds_said(reports))
    for reports, holders in dataset.reports_of_patients(train):
        for report, patient in zip(reports, holders, strict=True):
            for statement in said[report]:
                patients.setdefault(statement, set()).add(patient)
    assert {row.text: row.patients for row in bundle.statements.statements} == {
        text: len(holders) for text, holders in patients.items() if len(holders) >= 10
    }
    assert 10 < len(bundle.statements.statements) < len(patients) == len(bundle.model.anchors)
    store = read_store(storage.join(prepared, "text_embeddings"), bundle.facts.text_fingerprint)
    for row in bundle.statements.statements:
        (features,) = store.lookup(np.array([text_id(row.text)]))
        np.testing.assert_array_equal(bundle.model.anchors[row.anchor].numpy(), features)
        assert int(bundle.model.anchor_sides[row.anchor]) == side_of(row.text)
    assert {LEFT, RIGHT} < set(bundle.model.anchor_sides.tolist())


def test_the_lm_embeds_each_text_once_and_nothing_on_the_second_run(trained, prepared, tmp_path):
    from mets_ray.pipelines.lm_actors import embed_texts, store_uri
    from mets_ray.pipelines.texts import report_statements
    from mets_ray.training.categories import kinds_said, with_kinds
    from mets_ray.training.retimed import retimed_reports

    dataset = PreparedDataset.open(prepared)
    distinct = {
        statement
        for of_shard in dataset.distinct_statements(dataset.all_folds)
        for of_report in of_shard.values()
        for statement in of_report
    }
    config = config_of(tmp_path, dataset_uri=prepared)
    of_reports = report_statements(dataset, config.text.template, dataset.all_folds)
    moved = of_reports | retimed_reports(of_reports)
    trained_on = with_kinds(moved, kinds_said(moved))
    added = {statement for parts in trained_on.values() for statement in parts} - distinct
    assert {"Sinus rhythm with premature atrial complexes", "Conduction disturbance"} < added
    # A statement that is also a prompt goes through the LM once, and counts as a statement.
    assert trained.reports_embedded == len(distinct | added)
    texts = sorted({statement for parts in of_reports.values() for statement in parts})
    assert set(texts) == distinct
    again = embed_texts(config.text, store_uri(config, dataset), reports=texts, prompts=[])
    assert (again.reports_embedded, again.prompts_embedded) == (0, 0)
    assert again.table.missing(texts) == []


def test_one_worker_gives_the_losses_of_two(trained, prepared, tmp_path):
    from mets_ray.training.fit import fit

    alone = fit(config_of(tmp_path, "train.num_workers=1", dataset_uri=prepared), prepared)
    np.testing.assert_allclose(losses(alone), losses(trained), rtol=1e-9)
    assert alone.reports_embedded == 0


def test_the_bundle_scores_on_its_own_and_as_the_run_did(trained, prepared, tmp_path):
    from mets_ray.evaluation.evaluate import evaluate, figures

    result = evaluate(config_of(tmp_path, "folds.test=[10]", dataset_uri=prepared), prepared, trained.bundle_uri)
    metrics = json.loads(storage.read_bytes(storage.join(result.result_uri, "metrics.json")))
    (task,) = result.tasks
    assert result.retrieval is not None
    assert metrics["macro_auroc"] == pytest.approx(result.macro_auroc) == pytest.approx(task.macro.value)
    assert task.macro.low <= task.macro.value <= task.macro.high
    assert [row.name for row in task.classes if not row.scored] == [
        name for name, figures in metrics["tasks"]["synthetic"]["classes"].items() if not figures["scored"]
    ]
    balanced = metrics["balanced"]["synthetic rhythm"]
    assert balanced["per_class"] == min(200, *balanced["available"].values())
    assert balanced["scores"]["accuracy"]["value"] == pytest.approx(balanced["scores"]["macro_recall"]["value"])
    assert set(balanced["standardised"]) == {"the other patients here", "the bundle's reference"}
    told = figures([result])["balanced"]["synthetic rhythm"]["standardised"]
    assert {levels: scores["macro_f1"] for levels, scores in told.items()} == {
        levels: scores["macro_f1"]["value"] for levels, scores in balanced["standardised"].items()
    }
    assert np.mean(list(balanced["recalls"].values())) == pytest.approx(balanced["scores"]["macro_recall"]["value"])
    groups = {row["group"]: row for row in metrics["subgroups"]["groups"]}
    assert groups["female"]["records"] + groups["male"]["records"] == task.classes[0].records
    assert metrics["subgroups"]["absent"] == {"device": "not in this data set", "site": "not in this data set"}
    assert storage.read_bytes(storage.join(result.result_uri, "subgroups.csv")).startswith(b"task,attribute,group,")
    for name in ("auroc.csv", "balanced.csv"):
        assert storage.read_bytes(storage.join(result.result_uri, name)).startswith(b"origin,")
    table = storage.read_bytes(storage.join(result.result_uri, "table.md")).decode()
    assert "SYNTHETIC" in table
    assert "not a medical device" in table
    assert all(storage.read_bytes(uri).startswith(b"\x89PNG") for uri in result.pictures)

    bundle = load_bundle(trained.bundle_uri)
    # What was fitted on the validation fold lies beside the bundle, which it is no part of, and is read with it.
    assert result.calibration_uri == metrics["calibration_uri"]
    assert result.calibration_uri.startswith(storage.join(trained.bundle_uri, "calibration/descriptive@"))
    (calibrated,) = bundle.calibrations.files
    assert calibrated.bundle_digest == bundle.digest
    assert calibrated.tasks["synthetic"].calibration == result.calibrated["synthetic"].calibration
    assert (calibrated.tasks["synthetic"].folds, calibrated.tasks["synthetic"].synthetic) == ("9", True)
    # So does the reference of the ECGs that trained it, which pretrain wrote and `score` compares others with.
    assert trained.reference_uri == storage.join(trained.bundle_uri, "reference/inputs.json")
    assert (result.reference_uri, trained.notices[1:]) == ("", ())
    assert bundle.reference is not None
    assert bundle.reference.reference.patients == len(dataset_patients(prepared, (*range(1, 9), 9)))
    assert bundle.reference.dataset_sha256 == bundle.facts.dataset_sha256
    # With fewer leads: the run measured it on the validation fold, evaluate on the test fold, on the same weights.
    assert list(bundle.facts.lead_sets) == list(metrics["lead_sets"]) == list(LEAD_SETS)
    of_run = bundle.facts.lead_sets["V1, II, V5"]
    expected = auroc_of_fold(9, prepared, trained.bundle_uri, of_run.leads)
    assert of_run.macro_auroc == pytest.approx(expected, abs=1e-6)
    expected = auroc_of_fold(10, prepared, trained.bundle_uri, LEADS[:6])
    assert metrics["lead_sets"]["limb leads"]["value"] == pytest.approx(expected, abs=1e-6)
    assert bundle.facts.lead_sets["12 leads"].macro_auroc == pytest.approx(
        trained.history[-1]["validation_macro_auroc"]
    )
    assert metrics["lead_sets"]["12 leads"]["value"] == pytest.approx(result.macro_auroc)
    report = storage.read_bytes(storage.join(result.result_uri, "report.html")).decode()
    for title in ("Fewer leads", "For whom it works", "Calibration drift"):
        assert f"## {title}" in table
        assert f">{title}</h2>" in report
    assert not storage.exists(storage.join(trained.bundle_uri, "trainer_state.pt"))
    last = trained.history[-1]["validation_macro_auroc"]
    assert trained.epoch == len(trained.history)
    assert bundle.facts.metrics["validation_macro_auroc"] == pytest.approx(last)
    # Read and scored by the bundle alone, the validation fold gives the figure of the run, the test fold evaluate's.
    assert auroc_of_fold(9, prepared, trained.bundle_uri) == pytest.approx(last, abs=1e-6)
    assert auroc_of_fold(10, prepared, trained.bundle_uri) == pytest.approx(result.macro_auroc, abs=1e-6)


def dataset_patients(dataset_uri, folds):
    return PreparedDataset.open(dataset_uri).patients_of(Selection(folds))


def test_the_last_epoch_is_chosen_or_the_best():
    from mets_ray.training.state import selection_score

    recalls = {"ecg_to_text_recall_at_10": 0.2, "text_to_ecg_recall_at_10": 0.4}
    scored = recalls | {"epoch": 7.0, "validation_macro_auroc": 0.8}
    assert selection_score(scored, "last") == 7.0
    assert selection_score(scored, "best") == 0.8
    assert selection_score(scored | {"validation_macro_auroc": None}, "best") == pytest.approx(0.3)
    assert selection_score({"epoch": 7.0, "validation_macro_auroc": None}, "best") == 7.0


def test_a_card_that_focuses_is_embedded_so(trained, tmp_path):
    from mets_ray.pipelines.embed import embed_records

    dataset = PreparedDataset.open(write_dataset(tmp_path / "beats", synthetic_rows(40), focus_s=0.5))
    selection = Selection(tuple(range(1, 11)))
    found = embed_records(config_of(tmp_path), dataset, selection, trained.bundle_uri, key="folds.test")
    (group,) = dataset.row_groups(selection)
    rows = dataset.read(group, selection)
    focused, whole = (
        np.asarray(EcgEmbedder(trained.bundle_uri, "cpu", focus=focus)(rows)["ecg_embedding"].to_pylist())
        for focus in (0.05, None)
    )
    order = [rows["record_id"].to_pylist().index(record_id) for record_id in found.record_ids]
    np.testing.assert_allclose(found.embeddings, focused[order], atol=1e-6)
    assert np.abs(focused - whole).max() > 1e-4


def test_evaluation_refuses_what_would_flatter(trained, prepared, tmp_path):
    from mets_ray.evaluation.evaluate import evaluate

    dataset, facts = PreparedDataset.open(prepared), read_facts(trained.bundle_uri)
    for fold, words in ((8, ["folds.train=[1]"]), (9, ["folds.validation=[]"])):
        overlap = config_of(tmp_path, *words, f"folds.test=[{fold}]", dataset_uri=prepared)
        with pytest.raises(ConfigError, match=f"fold {fold}, which trained the bundle or chose its checkpoint"):
            evaluate(overlap, prepared, trained.bundle_uri)
        told = config_of(tmp_path, *words, "evaluate.allow_patient_overlap=true", dataset_uri=prepared)
        (alarm,) = check_fit(told, dataset, facts, Selection((fold,)))
        assert "has seen patients of this test, so its scores are too high" in alarm
    absent = config_of(tmp_path, "folds.test=[42]", dataset_uri=prepared)
    with pytest.raises(ConfigError, match=r"`folds\.test` is \[42\], and the data set has folds 1, 2"):
        evaluate(absent, prepared, trained.bundle_uri)
    foreign = config_of(tmp_path, "evaluate.tasks=[ptbxl_super]", dataset_uri=prepared)
    with pytest.raises(ConfigError, match=r"`evaluate\.tasks` names `ptbxl_super`"):
        evaluate(foreign, prepared, trained.bundle_uri)


def test_a_run_resumes_from_its_last_checkpoint_and_a_new_one_starts_from_weights(trained, prepared, tmp_path):
    from mets_ray.training.fit import fit

    words = ["train.num_workers=2", f"train.resume={trained.run_uri}", "train.batch_size=32"]
    with pytest.raises(CheckpointError, match=r"`train.batch_size` was 48, is 32") as error:
        fit(config_of(tmp_path, *words, dataset_uri=prepared), prepared)
    assert "train.learning_rate" not in str(error.value)

    # So small a rate that the weights stay those that they began with.
    words = ["train.epochs=1", f"train.init_from={trained.bundle_uri}", "train.learning_rate=1e-12"]
    started = fit(config_of(tmp_path, *words, dataset_uri=prepared), prepared)
    assert read_facts(started.bundle_uri).earlier_folds == (1, 2, 3, 4, 5, 6, 7, 8, 9)
    with pytest.raises(CheckpointError, match="a bundle or a checkpoint and not a run"):
        fit(config_of(tmp_path, f"train.resume={started.bundle_uri}", dataset_uri=prepared), prepared)
    began, ended = (dict(load_bundle(one.bundle_uri).model.named_parameters()) for one in (trained, started))
    torch.testing.assert_close(ended, began, rtol=0, atol=1e-9)
    words.append(f"train.resume={started.run_uri}")  # with the settings of the run that is resumed
    # It was finished: nothing is trained twice.
    assert fit(config_of(tmp_path, *words, dataset_uri=prepared), prepared).history == started.history


def test_faults_in_tasks_and_actors_arrive_as_they_were_raised(prepared, tmp_path):
    from mets_ray.pipelines.prepare import prepare
    from mets_ray.training.fit import fit

    with pytest.raises(ConfigError, match=r"`text\.max_length` is 4096 tokens"):
        fit(config_of(tmp_path, "text.max_length=4096", dataset_uri=prepared), prepared)
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(DatasetError, match=f"{tmp_path}/file"):
        prepare(config_of(tmp_path), f"{tmp_path}/file/data", "test")


def test_what_cannot_be_trained_is_refused_before_any_work(prepared, tmp_path):
    from mets_ray.training.fit import fit

    prompts = tmp_path / "mine.yaml"
    prompts.write_text(
        "{name: mine, version: 1, source: me, tasks: {synthetic: {template: 'ecg of {}', classes: {SR: [sinus]}}}}"
    )
    config = config_of(tmp_path / "run", f"train.validation_prompt_set={prompts}", dataset_uri=prepared)
    with pytest.raises(ConfigError, match="prompt set `mine` version 1 has no prompt for `SBRAD`"):
        fit(config, prepared)
    streaming = config_of(tmp_path / "run", "text.mode=streaming", dataset_uri=prepared)
    with pytest.raises(ConfigError, match="streaming, which embeds whole reports"):
        fit(streaming, prepared)
    assert not (tmp_path / "run").exists()


def test_a_patient_in_two_folds_stops_the_run_before_it_starts(ray_cluster, tmp_path):
    from dataclasses import replace

    from mets_ray.training.fit import fit

    rows = [replace(row, patient_id="one", fold=1 + n % 10) for n, row in enumerate(synthetic_rows(40))]
    dataset_uri = write_dataset(tmp_path / "data", rows)
    with pytest.raises(DatasetError, match="have records in the train and in the test folds"):
        fit(config_of(tmp_path, dataset_uri=dataset_uri), dataset_uri)

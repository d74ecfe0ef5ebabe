"""Real ECGs beside a bundle: chosen from held-out patients, offered by the server with their credit, and exported."""

import shutil

import numpy as np
import pytest

from mets_ray.bundles.examples import read_examples
from mets_ray.dataset.folds import listed, patient_hash
from mets_ray.ecg.read import read_ecg
from mets_ray.errors import CheckpointError, DatasetError
from mets_ray.exchange.folder import export
from mets_ray.exchange.ptbxl_examples import FINDINGS, add_examples
from mets_ray.exchange.settings import ExportConfig
from mets_ray.model.bundle import load_bundle, write_bundle
from tests.docs.records import write_record
from tests.support.serving import make_bundle, plain_server


def held_out(number):
    """The number-th patient whom `hash:0.1` holds out."""
    return [str(patient) for patient in range(1000) if patient_hash(str(patient)) < 0.1][number]


TRAINED = next(str(patient) for patient in range(1000) if patient_hash(str(patient)) >= 0.1)


@pytest.fixture(scope="module")
def ptbxl(tmp_path_factory):
    """PTB-XL's layout with a record for each finding, and others that must not be chosen."""
    folder = tmp_path_factory.mktemp("ptb-xl")
    rows = ["ecg_id,patient_id,strat_fold,scp_codes,report,filename_lr"]

    def add(ecg_id, patient, codes):
        rows.append(f'{ecg_id},{patient}.0,10,"{codes}",sinusrhythmus,records100/{ecg_id:05d}_lr')

    for number, code in enumerate(FINDINGS):
        add(10 * number + 1, TRAINED, {code: 100.0})
        add(10 * number + 2, held_out(20), {code: 50.0 if code != "AFIB" else -1.0})
        add(10 * number + 3, held_out(21), {code: 100.0, "NORM" if code != "NORM" else "LVH": 100.0})
        add(10 * number + 5, held_out(number), {code: 0.0 if code == "AFIB" else 100.0})
        write_record(folder / "records100", f"{10 * number + 5:05d}_lr", number)
    (folder / "ptbxl_database.csv").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture
def bundle(tmp_path):
    made = make_bundle(tmp_path / "made")
    whole = load_bundle(str(made))
    facts = whole.facts.model_copy(update={"train_folds": (10,), "validation": "hash:0.1"})
    folder = tmp_path / "bundle"
    folder.mkdir()
    write_bundle(folder, type(whole)(whole.model, whole.config, facts, whole.prompts))
    return folder


def test_the_bundle_in_the_package_has_what_was_measured_beside_it():
    bundle = load_bundle("ptbxl-demo")
    (file,) = bundle.calibrations.files
    assert (file.prompts.name, len(file.tasks), dict(bundle.calibrations.left_out)) == ("descriptive", 4, {})
    of_super = file.tasks["ptbxl_super"]
    assert [row.name for row in of_super.calibration.classes if row.fault is not None] == []
    assert of_super.cross_fitted.after.brier < of_super.cross_fitted.before.brier
    facts = bundle.facts
    assert of_super.folds == f"{listed(facts.train_folds)} ({facts.validation})"  # patients who did not train it
    assert bundle.reference.dataset_sha256 == of_super.dataset_sha256 == bundle.facts.dataset_sha256


def test_one_held_out_patient_for_each_finding(ptbxl, bundle):
    added = add_examples(str(ptbxl), str(bundle))
    assert [example.finding for example in added.examples] == list(FINDINGS.values())
    assert [example.record for example in added.examples] == [f"{10 * n + 5:05d}_lr" for n in range(len(FINDINGS))]
    folder, read = read_examples(str(bundle))
    assert read == added
    for example in added.examples:
        ecg = read_ecg(f"{folder}/{example.record}")
        np.testing.assert_array_equal(ecg.signal_mv, read_ecg(ptbxl / "records100" / example.record).signal_mv)
    assert load_bundle(str(bundle)).digest


def test_a_finding_that_nobody_held_out_has_is_named(ptbxl, bundle, tmp_path):
    shutil.copytree(ptbxl, tmp_path / "copy")
    table = tmp_path / "copy" / "ptbxl_database.csv"
    table.write_text("\n".join(line for line in table.read_text().splitlines() if "PVC" not in line) + "\n")
    with pytest.raises(DatasetError, match="has PVC for sure"):
        add_examples(str(tmp_path / "copy"), str(bundle))


def test_the_server_offers_them_first_and_the_export_has_them(ptbxl, bundle, tmp_path):
    add_examples(str(ptbxl), str(bundle))
    export(ExportConfig(bundle_uri=str(bundle), output_uri=str(tmp_path / "out"), name="named", onnx=False))
    with plain_server(tmp_path / "out") as (client, _):
        listed = client.get("/v1/examples").json()["examples"]
        assert [item["credit"] is None for item in listed] == [False] * 8 + [True] * 12
        assert "CC BY 4.0" in listed[0]["credit"]
        answer = client.get(f"/v1/examples/{listed[0]['name']}").json()
        expected = read_ecg(ptbxl / "records100" / listed[0]["name"])
        np.testing.assert_allclose(np.asarray(answer["signal"]), expected.signal_mv * 1000, atol=0.5)
        assert answer["sampling_rate_hz"] == expected.sampling_rate_hz
        scored = client.post("/v1/zero-shot", json={"ecg": answer, "candidate_labels": ["normal ECG", "infarct"]})
        assert scored.status_code == 200


@pytest.mark.parametrize(
    "content", ["", "[]", '{"credit": "x", "examples": [{"record": "../a", "finding": "b", "title": "c"}]}']
)
def test_a_damaged_list_is_named(bundle, content):
    (bundle / "examples").mkdir()
    (bundle / "examples" / "examples.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"`examples\.json` is damaged"):
        read_examples(str(bundle))


@pytest.mark.parametrize("gone", ["hea", "dat"])
def test_an_example_that_is_damaged_is_the_servers_fault_and_the_others_are_there(ptbxl, bundle, caplog, gone):
    add_examples(str(ptbxl), str(bundle))
    with plain_server(bundle) as (client, _):
        first, second = [row["name"] for row in client.get("/v1/examples").json()["examples"] if row["credit"]][:2]
        (file,) = (bundle / "examples").glob(f"{first}.{gone}")
        file.unlink()
        answer = client.get(f"/v1/examples/{first}")
        assert (answer.status_code, answer.json()["error"]["reason"]) == (500, "damaged_file")
        assert str(bundle) not in answer.text
        assert any(str(bundle) in line and first in line for line in caplog.messages)
        assert client.get(f"/v1/examples/{second}").status_code == 200

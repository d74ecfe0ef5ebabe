"""sources/mimic.py: MIMIC-IV-ECG's layout, with generated tables and ECGs."""

import gzip

import numpy as np
import pyarrow.parquet as pq
import pytest

from mets_ray.config.load import load_config
from mets_ray.dataset.shard_reader import signals
from mets_ray.ecg.ecg import LEADS, Ecg
from mets_ray.ecg.preprocess import preprocess
from mets_ray.errors import ConfigError, DatasetError
from mets_ray.sources.arrow_table import ArrowTable
from mets_ray.sources.catalogue import source_of
from mets_ray.sources.manifest import fold_of
from mets_ray.sources.mimic import MimicIvEcg, merl_report, mimic_manifest
from tests.support.datasets import SIGNAL, write_rows
from tests.support.mimic import path_of, some_records, write_records, write_tables
from tests.support.serving import synthetic_ecg


@pytest.fixture
def folder(tmp_path):
    write_tables(tmp_path, some_records(6))
    return tmp_path


def test_rows_have_each_statement_of_the_other_table(folder):
    manifest = mimic_manifest(str(folder))
    rows = manifest.rows
    assert [row.record_id for row in rows] == [str(study) for _, study in some_records(6)]
    assert [row.patient_id for row in rows[:4]] == ["10000032", "10000032", "10000039", "10000039"]
    assert rows[0].record_uri == f"{folder}/files/p1000/p10000032/s40000017/40000017"
    assert rows[0].fold == rows[1].fold == fold_of("10000032")
    assert (rows[0].report, rows[0].statements) == ("Sinus rhythm. Normal ECG", ("Sinus rhythm", "Normal ECG"))
    assert rows[1].statements[0] == "*** Sinus rhythm ***"
    assert (rows[4].report, rows[4].statements, rows[4].fault) == ("", (), None)
    assert rows[5].statements == rows[0].statements
    assert "1 records have no statement in machine_measurements.csv" in manifest.notes
    assert (rows[0].age, rows[0].sex) == (None, None)


def test_merls_cleaning_is_theirs():
    """Against what their notebook makes of the same lists: MERL-ICML2024, `process_report` at commit 38799b7."""
    parts = ["*** Sinus rhythm", "EKG shows   LVH", "Abnormal\nEKG ***"]
    assert merl_report(parts)[0] == "sinus rhythm. ecg shows lvh. abnormal ecg."
    assert merl_report(parts)[1:] == (("sinus rhythm", "ecg shows lvh", "abnormal ecg"), None)
    for short in ([], ["Sinus tachycardia"], ["=Sinus", "tachycardia abnormal-"]):
        assert merl_report(short)[2][0] == "short_report"
    assert merl_report(["Sinus rhythm", "Normal ECG"])[2] is None


def test_short_reports_are_rejected_by_merls_cleaning_alone(folder):
    rows = mimic_manifest(str(folder), cleaning="merl").rows
    assert [row.fault and row.fault[0] for row in rows] == [None, None, None, "short_report", "short_report", None]
    assert rows[1].report == "sinus rhythm ***. possible inferior infarct - age undetermined. abnormal ecg."
    plain = mimic_manifest(str(folder))
    assert not any(row.fault for row in plain.rows)
    assert plain.sha256 != mimic_manifest(str(folder), cleaning="merl").sha256


def test_ages_and_sexes_come_from_the_module_hosp(folder):
    text = "subject_id,gender,anchor_age,anchor_year,anchor_year_group,dod\n10000032,F,52,2178,2014 - 2016,\n"
    (folder / "patients.csv.gz").write_bytes(gzip.compress(text.encode()))
    rows = mimic_manifest(str(folder), patients_uri=str(folder / "patients.csv.gz")).rows
    assert [(row.age, row.sex) for row in rows[1:3]] == [(54.0, "female"), (None, None)]  # in 2180


def test_leads_are_read_by_name_and_samples_are_those_written(folder):
    records = some_records(6)
    write_records(folder, records)
    rows = mimic_manifest(str(folder)).rows
    source = MimicIvEcg(kind="mimic", uri=str(folder))
    ecg = source.read(rows[1].record_uri)
    assert ecg.leads[3:6] == ("aVR", "aVF", "aVL")
    assert ecg.sampling_rate_hz == 500
    expected = synthetic_ecg(1, sampling_rate_hz=500)
    by_name = ecg.signal_mv[[ecg.leads.index(lead) for lead in LEADS]]
    assert np.allclose(by_name, expected.signal_mv[[expected.leads.index(lead) for lead in LEADS], :5000], atol=0.0026)

    summary = write_rows(folder / "out", rows, source=source)
    assert (summary.records_in, summary.rejected) == (6, {"empty_report": 1})
    written = pq.read_table(folder / "out" / summary.shard.path)
    assert written["statements"][1].as_py()[1] == "Possible inferior infarct - age undetermined"
    assert np.array_equal(signals(written)[1], preprocess(Ecg(by_name, LEADS, 500.0), SIGNAL))


@pytest.mark.parametrize(
    ("table", "old", "new", "message"),
    [
        ("record_list.csv", "study_id", "study", "column `study_id` is missing"),
        ("record_list.csv", "40000017,40000017", "s40000017,40000017", "column `study_id` contains a value"),
        ("record_list.csv", "10000032,40000017", "10000032,\"secret\",40000017", "row 2 has 6 cells"),
        ("machine_measurements.csv", "report_17", "report_18", "column `report_17` is missing"),
        ("machine_measurements.csv", "Sinus rhythm", "Sin\xfcs", "is not a CSV in UTF-8"),
    ],
)  # fmt: skip
def test_a_table_that_cannot_be_read_is_named_and_not_quoted(folder, table, old, new, message):
    path = folder / table
    path.write_bytes(path.read_text().replace(old, new, 1).encode("latin-1"))
    with pytest.raises(DatasetError, match=message) as error:
        mimic_manifest(str(folder))
    assert "secret" not in str(error.value)
    assert error.value.__cause__ is None


def test_a_record_without_patient_or_path_is_rejected(folder):
    path = folder / "record_list.csv"
    path.write_text(
        path.read_text().replace("10000032,40000017", ",40000017").replace(path_of(*some_records(3)[2]), "")
    )
    faults = [row.fault for row in mimic_manifest(str(folder)).rows]
    assert faults[0][0] == faults[2][0] == "unreadable_cell"
    assert faults[1] is faults[3] is None


def test_settings_and_elsewhere(tmp_path):
    with pytest.raises(ConfigError, match="record_list"):
        source_of(load_config(None, ["prepare.source=mimic"])).check()
    with pytest.raises(DatasetError, match=r"machine_measurements\.csv` does not exist"):
        mimic_manifest(str(tmp_path))


def test_an_arrow_table_is_read_in_batches_with_quotes_and_line_ends(tmp_path, monkeypatch):
    from mets_ray.sources import arrow_table

    monkeypatch.setattr(arrow_table, "_BLOCK_BYTES", 4096)
    lines = "".join(f'{number},"text {number}, of\ntwo lines","say ""{number}"""\r\n' for number in range(2000))
    (tmp_path / "t.csv").write_bytes(("\ufeffid,text,word\r\n" + lines).encode())
    table = ArrowTable(str(tmp_path / "t.csv"), ("word", "id"))
    batches = list(table)
    assert len(batches) > 10
    assert [cell for batch in batches for cell in batch["word"].to_pylist()] == [f'say "{n}"' for n in range(2000)]
    assert len(table.sha256) == 64
    first = table.sha256
    list(again := ArrowTable(str(tmp_path / "t.csv"), ("id",)))
    assert again.sha256 == first

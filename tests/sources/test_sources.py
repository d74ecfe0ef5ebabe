"""Manifests: WFDB folders, made-up records, 12SL statements and PTB-XL, small ones and the real data."""

import ast
import csv
import functools
import hashlib
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import wfdb

from mets_ray.ecg import synthetic_patients as synthetic
from mets_ray.ecg import synthetic_waveforms as synthetic_signal
from mets_ray.ecg.ecg import LEADS, EcgMeta
from mets_ray.ecg.preprocess import SignalConfig, preprocess
from mets_ray.ecg.wfdb import read_wfdb
from mets_ray.errors import ConfigError, DatasetError, RecordError
from mets_ray.pipelines.prepare import _signal_notes
from mets_ray.sources.cells import literal
from mets_ray.sources.files import Files
from mets_ray.sources.manifest import Manifest, completed, fold_of
from mets_ray.sources.ptbxl import ptbxl_manifest
from mets_ray.sources.statements_12sl import read_statements, render_statements
from mets_ray.sources.synthetic import render_synthetic, synthetic_manifest
from mets_ray.sources.table_manifest import table_manifest
from mets_ray.tasks.label_sets import label_matrix, load_label_sets
from mets_ray.text.reports import clean_report
from tests.support.datasets import write_rows
from tests.support.wfdb_records import DIGITAL, rejected, write_record

# --- from S3


def test_records_and_manifests_from_s3(tmp_path, monkeypatch):
    boto3 = pytest.importorskip("boto3")
    pytest.importorskip("s3fs")
    from mets_ray.storage.s3 import RetryingS3FileSystem

    server = pytest.importorskip("moto.server").ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "any")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    RetryingS3FileSystem.clear_instance_cache()
    try:
        client = boto3.client("s3")
        client.create_bucket(Bucket="ecgs")
        write_record(tmp_path, "a")
        write_record(tmp_path, "b", np.clip(DIGITAL, -2000, 2000), fmt="212")
        write_record(tmp_path, "c")
        (tmp_path / "c.dat").unlink()
        (tmp_path / "list.csv").write_text("record,report\na,normal ecg\nb,flutter\nc,gone\nd,never there\n")
        for path in tmp_path.iterdir():
            client.put_object(Bucket="ecgs", Key=f"in/{path.name}", Body=path.read_bytes())
        manifest = table_manifest("s3://ecgs/in", "s3://ecgs/in/list.csv")
        assert manifest == _with_uris(table_manifest(str(tmp_path), str(tmp_path / "list.csv")), "s3://ecgs/in")
        assert np.array_equal(read_wfdb(manifest.rows[0].record_uri).signal_mv, DIGITAL.T / 1000)
        assert np.array_equal(read_wfdb(manifest.rows[1].record_uri).signal_mv, np.clip(DIGITAL, -2000, 2000).T / 1000)
        rejected("s3://ecgs/in/c", "missing_file")
        rejected("s3://ecgs/in/d", "missing_file")
        with pytest.raises(DatasetError, match="no bucket"):
            read_wfdb("s3://absent/in/a")
    finally:
        server.stop()
    RetryingS3FileSystem.clear_instance_cache()
    with pytest.raises(DatasetError, match="cannot be reached"):  # stops the job; it is no rejected record
        read_wfdb("s3://ecgs/in/a")
    RetryingS3FileSystem.clear_instance_cache()


def _with_uris(manifest: Manifest, folder: str) -> Manifest:
    from dataclasses import replace

    return replace(manifest, rows=tuple(replace(row, record_uri=f"{folder}/{row.record_id}") for row in manifest.rows))


# --- synthetic


def test_synthetic_manifest_and_records():
    manifest = synthetic_manifest(30, seed=7, sampling_rate_hz=100, duration_s=10.0)
    assert manifest.source == "synthetic"
    for index, row in enumerate(manifest.rows):
        record = synthetic.describe(index, seed=7)
        assert (row.record_id, row.patient_id, row.fold) == (record.record_id, record.patient_id, record.fold)
        assert (row.report, row.labels, row.statements) == (record.report, record.labels, record.statements)
    assert manifest.rows[12].record_uri == "synthetic:?seed=7&index=12&sampling_rate_hz=100&duration_s=10"
    ecg = render_synthetic(manifest.rows[12].record_uri)
    expected = synthetic_signal.render(synthetic.describe(12, seed=7), sampling_rate_hz=100.0, duration_s=10.0)
    assert np.array_equal(ecg.signal_mv, expected.signal_mv)
    assert preprocess(ecg, SignalConfig(100, 10.0)).shape == (12, 1000)
    assert manifest.sha256 != synthetic_manifest(30, seed=8, sampling_rate_hz=100, duration_s=10.0).sha256
    at_250_hz = render_synthetic("synthetic:?seed=7&index=12&sampling_rate_hz=250&duration_s=2.5")
    assert at_250_hz.signal_mv.shape == (12, 625)


def test_synthetic_uri_is_checked():
    with pytest.raises(DatasetError, match="not a synthetic record"):
        render_synthetic("synthetic:?seed=1")


# --- WFDB folder


def folder_manifest(tmp_path: Path, text: str, encoding: str = "utf-8") -> Manifest:
    (tmp_path / "list.csv").write_bytes(text.encode(encoding))
    return table_manifest("s3://bucket/ecgs", str(tmp_path / "list.csv"))


def test_folder_manifest_with_all_columns(tmp_path):
    text = (
        "record_id,patient_id,fold,record,report,labels,age,sex\n"
        'e1,007,3,p0/a.hea,"Normal, ""sinus"" rhythm",SR; NORM;,61.5,F\n'
        "e2,p2,10,p0/b,NA,,,unknown\n"
    )
    rows = folder_manifest(tmp_path, text, "utf-8-sig").rows
    assert rows[0].record_uri == "s3://bucket/ecgs/p0/a"
    assert (rows[0].record_id, rows[0].patient_id, rows[0].fold) == ("e1", "007", 3)
    assert rows[0].report == 'Normal, "sinus" rhythm'
    assert (rows[0].labels, rows[0].age, rows[0].sex) == (("SR", "NORM"), 61.5, "female")
    assert (rows[1].report, rows[1].labels, rows[1].age, rows[1].sex) == ("", (), None, None)


def test_folder_manifest_with_required_columns_only(tmp_path):
    manifest = folder_manifest(tmp_path, "record,report\np0/a,sinus rhythm\np0/b,\n")
    first, second = manifest.rows
    assert (first.record_id, first.patient_id) == ("p0/a", "p0/a")
    assert first.fold == 1 + int(hashlib.sha256(b"p0/a").hexdigest(), 16) % 10
    assert (second.report, second.statements) == ("", ())
    assert manifest.sha256 != folder_manifest(tmp_path, "record,report\np0/a,sinus rhythm\np0/b,x\n").sha256


def test_derived_folds_keep_patients_together(tmp_path):
    lines = "".join(f"{n},{n % 200},text\n" for n in range(1000))
    rows = folder_manifest(tmp_path, "record,patient_id,report\n" + lines).rows
    folds: dict[str, set[int]] = {}
    for row in rows:
        folds.setdefault(row.patient_id, set()).add(row.fold)
    assert all(len(values) == 1 for values in folds.values())
    assert set().union(*folds.values()) == set(range(1, 11))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("record,text\na,b\n", "column `report` is missing; there are `record`, `text`"),
        ("a,b\n1,2\n", "column `record` is missing"),
        ("record,report\n", "has no rows"),
        ("", "is not a CSV"),
        ("\n\n", "names no column"),
        ("record,report\n,\n,\n", "has no rows"),
        ('record,report\na,"sinus rhythm\nb,normal\n', "is not a CSV"),  # the quote is never closed
        ("record,report,report\na,b,c\n", "two columns `report`"),
        ("record,report\na,sinus rhythm, normal\n", r"has 3 cells, the first line names 2 columns\n.*, line 2\n"),
        ("record,report\na,b\n\nc\n", r"has 1 cells, the first line names 2 columns\n.*, line 4\n"),
        ("record,report\na,b,,x\n", r"has 4 cells.*\n.*, line 2\n"),
        ('record,report\na,"b\nb\nb"\nc\n', r"has 1 cells.*\n.*, line 5\n"),
    ],
)
def test_folder_manifest_refuses(tmp_path, text, message):
    with pytest.raises(DatasetError, match=message):
        folder_manifest(tmp_path, text)


def test_folder_manifest_names_encoding(tmp_path):
    with pytest.raises(DatasetError, match="UTF-8"):
        folder_manifest(tmp_path, "record,report\na,Vorhofflimmern mit Überleitung\n", "latin-1")
    with pytest.raises(DatasetError, match="does not exist"):
        table_manifest("/nowhere", str(tmp_path / "absent.csv"))


@pytest.mark.parametrize("end", [",", ", ", ",,,"])
def test_empty_cells_behind_the_last_column_shift_nothing(tmp_path, end):
    text = "record,report{0}\nrec1,Sinus rhythm{1}\nrec2,Atrial fibrillation{1}\n"
    for header in ("", end):
        rows = folder_manifest(tmp_path, text.format(header, end)).rows
        assert [(row.record_id, row.report) for row in rows] == [
            ("rec1", "Sinus rhythm"), ("rec2", "Atrial fibrillation"),
        ]  # fmt: skip


def test_an_index_column_and_empty_rows_are_left_out(tmp_path):
    rows = folder_manifest(tmp_path, "\n,record,report\n0,a,x\n\n,,\n1,b,y\n").rows
    assert [(row.record_id, row.report) for row in rows] == [("a", "x"), ("b", "y")]


MISSING = ["", " ", "nan", "NaN", "NAN", "-nan", "NA", "na", "N/A", "n/a", "#N/A", "<NA>", "NULL", "null", "None",
           "none", "NaT", "(null)", "\\N", "-", "--", ".", "?", " nan "]  # fmt: skip


@pytest.mark.parametrize("word", MISSING)
def test_a_missing_value_is_missing_in_every_column(tmp_path, word):
    text = "record,report,record_id,patient_id,fold,labels,age,sex\n" + ",".join(["a", *[word] * 7]) + "\n"
    (row,) = folder_manifest(tmp_path, text).rows
    expected = folder_manifest(tmp_path, "record,report\na,\n")
    assert row == replace(expected.rows[0], from_file=())
    assert folder_manifest(tmp_path, text).notes == ()
    for report in ("text", "nan"):
        (row,) = folder_manifest(tmp_path, f"record,report\n{word},{report}\n").rows  # rejected, and not lost
        assert row.fault == ("unreadable_cell", "`record` is empty in line 2")


@pytest.mark.parametrize("word", ["nan", "NA", "null", "<NA>"])
def test_a_missing_value_is_no_label_and_no_statement_among_others(tmp_path, word):
    """A report that was joined from several columns."""
    text = f"record,report,labels\na,sinus rhythm. {word}. normal ecg. {word},SR; {word};NORM\n"
    (row,) = folder_manifest(tmp_path, text).rows
    assert row.labels == ("SR", "NORM")
    assert row.statements == ("sinus rhythm", "normal ecg")


def test_ids_are_the_same_with_and_without_point_zero(tmp_path):
    text = (
        "record,report,record_id,patient_id,fold\n"
        "a,x,1.0,15709.0,\nb,x,2,15709,\nc,x,3.00,15709.00,\nd,x,v1.0,p1.0,3.0\ne,x,1.5,0015709.0,\nf,x,1,157090,\n"
    )
    rows = folder_manifest(tmp_path, text).rows
    assert [row.record_id for row in rows] == ["1", "2", "3", "v1.0", "1.5", "1"]
    assert [row.patient_id for row in rows] == ["15709", "15709", "15709", "p1.0", "0015709", "157090"]
    assert len({row.fold for row in rows[:3]}) == 1
    assert rows[3].fold == 3


def test_a_patients_stated_fold_counts_for_all_of_their_records(tmp_path):
    text = "record,report,patient_id,fold\na,x,7,\nb,x,7.0,4\nc,x,8,1\nd,x,8,2\ne,x,8,\n"
    manifest = folder_manifest(tmp_path, text)
    assert [row.fold for row in manifest.rows[:4]] == [4, 4, 1, 2]
    assert any(note.startswith("1 patients have records in several folds") for note in manifest.notes)


@pytest.mark.parametrize("fold", ["one", "3.5", "1e20", "inf", "0x3", "3 of 10"])
def test_a_fold_that_is_no_number_rejects_its_row_and_no_other(tmp_path, fold):
    rows = folder_manifest(tmp_path, f"record,report,fold\na,x,1\nb,x,{fold}\nc,x,2.0\n").rows
    assert [row.fault for row in rows] == [None, ("unreadable_cell", f"`fold` is `{fold}` in line 3"), None]
    assert (rows[0].fold, rows[2].fold) == (1, 2)


def test_rows_without_a_fold_whose_patients_the_files_name_share_one(tmp_path):
    lines = ["record,report,fold", "a.xml,x,3", "b.xml,x,", "c.xml,x,"]
    rows = folder_manifest(tmp_path, "\n".join(lines)).rows
    first, second, third = (completed(row, EcgMeta(patient_id="P1")) for row in rows)
    assert (first.fold, second.fold) == (3, fold_of("P1"))
    assert second.fold == third.fold
    assert [completed(row, EcgMeta()).fold for row in rows[1:]] == [fold_of("b.xml"), fold_of("c.xml")]


def test_sexes_and_ages_that_cannot_be_read_are_unknown_and_counted(tmp_path):
    sexes = ["male", "other", "O", "FEMALE", "unknown", "x", "0", "1", "1.0", "U", "m\u00e4nnlich", "other", "m"]
    ages = ["61", "61.5", "old", "300", "> 89", "300Y", "-1", "057Y", "006M", "nan", "unknown", "inf", "0"]
    lines = "".join(f"r{n},x,{sex},{age}\n" for n, (sex, age) in enumerate(zip(sexes, ages, strict=True)))
    manifest = folder_manifest(tmp_path, "record,report,sex,age\n" + lines)
    known = {0: "male", 3: "female", 12: "male"}
    assert [row.sex for row in manifest.rows] == [known.get(number) for number in range(13)]
    assert [row.age for row in manifest.rows] == [61.0, 61.5, *[None] * 5, 57.0, 0.5, *[None] * 3, 0.0]
    assert not any(row.fault for row in manifest.rows)
    assert (
        "8 cells of `sex` could not be read, so it is unknown there: `other` (2), `O` (1), `x` (1), …" in manifest.notes
    )
    assert any(
        note.startswith("6 cells of `age` could not be read, so it is unknown there: `old` (1)")
        for note in manifest.notes
    )


def test_a_rejected_row_is_counted_by_its_reason(tmp_path):
    write_record(tmp_path, "a")
    (tmp_path / "list.csv").write_text("record,report,fold\na,normal,1\na,normal,one\na,nan,2\n,normal,1\n")
    manifest = table_manifest(str(tmp_path), str(tmp_path / "list.csv"))
    rows = [replace(row, record_id=f"{number}") for number, row in enumerate(manifest.rows)]
    summary = write_rows(tmp_path / "out", rows, source=Files(kind="files"))
    assert summary.records_in == 4
    assert summary.rejected == {"empty_report": 1, "unreadable_cell": 2}
    assert summary.folds == {1: 1}


def test_signals_beside_the_ecg_are_counted_by_name(tmp_path):
    digital = np.concatenate([DIGITAL, DIGITAL[:, :2]], axis=1)
    for name in ("a", "b"):
        names = [*LEADS, "ABP", "RESP" if name == "a" else "PLETH"]
        write_record(tmp_path, name, digital, sig_name=names, units=[*["mV"] * 12, "mmHg", "NU"])
    write_record(tmp_path, "c")
    (tmp_path / "list.csv").write_text("record,report\na,normal\nb,normal\nc,normal\nd,normal\n")
    manifest = table_manifest(str(tmp_path), str(tmp_path / "list.csv"))
    summary = write_rows(tmp_path / "out", manifest.rows, source=Files(kind="files"))
    assert summary.other_signals == {"ABP": 2, "PLETH": 1, "RESP": 1}
    assert summary.rejected == {"missing_file": 1}


def test_derived_leads_and_gaps_are_counted_and_passed_over(tmp_path):
    """Eight leads, behind a gap of 3 s: the same ten seconds as without."""
    eight, names = DIGITAL[:, [0, 1, *range(6, 12)]], ["I", "II", *LEADS[6:]]
    write_record(tmp_path, "a", eight, sig_name=names)
    (tmp_path / "b.hea").write_text("b/2 8 100 1300\n~ 300\na 1000\n")
    (tmp_path / "list.csv").write_text("record,report\na,normal\nb,normal\n")
    manifest = table_manifest(str(tmp_path), str(tmp_path / "list.csv"))
    summary = write_rows(tmp_path / "out", manifest.rows, source=Files(kind="files"))
    words = "III, aVR, aVL, aVF were derived from I and II"
    assert summary.derived_leads == {words: 2}
    assert summary.shard is not None
    assert summary.shard.row_group_rows == (2,)
    assert _signal_notes([summary]) == (f"{words} in 2 records",)


# --- 12SL statements


TEXTS = {
    "SRTH": "Sinus rhythm",
    "MSAR": "with marked sinus arrhythmia",
    "LVH2": "Left ventricular hypertrophy",
    "RAVL": "R in aVL",
    "SOKOLYON": "Sokolow-Lyon",
    "ASMI": "Anteroseptal infarct",
    "AU": ", age undetermined",
    "PO": "Possible",
    "OCC": "with occasional",
    "CSEC": "and consecutive",
    "PVC": "premature ventricular complexes",
    "ST&": "ST &",
    "LT": "T wave abnormality, consider lateral ischemia",
    "AB": "Abnormal ECG",
}


def rendered(tokens: str, groups: str) -> tuple[str, ...]:
    return render_statements(tokens.split(), [group.split(";") for group in groups.split()], TEXTS)


def test_statements_read_naturally():
    assert rendered("SRTH MSAR AB", "SRTH;MSAR AB") == ("Sinus rhythm with marked sinus arrhythmia", "Abnormal ECG")
    assert rendered("PO ASMI AU", "PO;ASMI;AU") == ("Possible anteroseptal infarct, age undetermined",)
    assert rendered("ST& LT", "ST&;LT") == ("ST & T wave abnormality, consider lateral ischemia",)


def test_statements_with_criteria():
    assert rendered("LVH2 2ST LPAREN RAVL COMMA SOKOLYON RPAREN AB", "LVH2;2ST RAVL SOKOLYON AB") == (
        "Left ventricular hypertrophy with repolarization abnormality ( R in aVL, Sokolow-Lyon )",
        "Abnormal ECG",
    )


def test_a_group_that_goes_on_belongs_to_the_one_before():
    expected = ("Sinus rhythm with occasional and consecutive premature ventricular complexes", "Abnormal ECG")
    assert rendered("SRTH OCC CSEC PVC AB", "SRTH OCC;CSEC PVC AB") == expected


def test_unknown_tokens_are_kept():
    assert rendered("SRTH XYZ AB", "SRTH XYZ AB") == ("Sinus rhythm xyz", "Abnormal ECG")


def test_groups_must_match_tokens():
    with pytest.raises(ValueError, match="does not have the acronyms"):
        rendered("SRTH AB", "SRTH")


def test_unlisted_tokens_are_counted(tmp_path):
    (tmp_path / "mapping").mkdir()
    (tmp_path / "mapping" / "12slv23ToSNOMED.csv").write_text("Acronym,FullText\nSRTH,Sinus rhythm\n,\n")
    (tmp_path / "12sl_statements.csv").write_text(
        "ecg_id,statements,statements_cat\n1,\"['SRTH', 'XYZ']\",\"['SRTH;XYZ']\"\n5,\"['XYZ']\",\"['XYZ']\"\n"
    )
    table = read_statements(str(tmp_path))
    assert table.unlisted == {"XYZ": (1, 5)}
    assert table.statements == {1: ("Sinus rhythm xyz",), 5: ("xyz",)}
    assert table.unreadable == 0


@pytest.mark.parametrize("cell", ["['SRTH", "SRTH", "", "nan", "{'SRTH': 1}", "[" * 300, "['AB']"])
def test_a_row_of_statements_that_cannot_be_read_is_counted(tmp_path, cell):
    (tmp_path / "mapping").mkdir()
    (tmp_path / "mapping" / "12slv23ToSNOMED.csv").write_text("Acronym,FullText\nSRTH,Sinus rhythm\n")
    with (tmp_path / "12sl_statements.csv").open("w", newline="") as file:
        csv.writer(file).writerows(
            [("ecg_id", "statements", "statements_cat"), ("1.0", "['SRTH']", "['SRTH']"), ("2", cell, "['SRTH']")]
        )
    table = read_statements(str(tmp_path))
    assert (table.statements, table.unreadable) == ({1: ("Sinus rhythm",)}, 1)


# --- PTB-XL, a small one of our own


@pytest.fixture
def small_ptbxl(tmp_path):
    write_record(tmp_path, "00001_lr")
    lines = [
        ("ecg_id", "patient_id", "age", "sex", "report", "scp_codes", "strat_fold", "filename_lr", "filename_hr"),
        ("1", "15709.0", "56.0", "1", "sinus rhythm. qt 4.46 normal ecg.", "{'NORM': 100.0, 'SR': 0.0}", "3",
         "00001_lr", "00001_hr"),
        ("2", "13243.0", "300.0", "0", "sinusrhythmus Edit: NORM 100", "{}", "10", "00002_lr", "00002_hr"),
        ("3", "13243.0", "", "", "", "{'AFIB': 0.0}", "10", "00003_lr", "00003_hr"),
    ]  # fmt: skip
    with (tmp_path / "ptbxl_database.csv").open("w", newline="") as file:
        csv.writer(file).writerows(lines)
    labels = tmp_path / "labels"
    (labels / "mapping").mkdir(parents=True)
    (labels / "mapping" / "12slv23ToSNOMED.csv").write_text(
        "\ufeffAcronym,FullText\nLVH2,Left ventricular hypertrophy\n"
    )
    (labels / "12sl_statements.csv").write_text(
        "ecg_id,statements,statements_cat\n1,\"['LVH2', '2ST']\",\"['LVH2;2ST']\"\n9,\"['2ST']\",\"['2ST']\"\n"
    )
    return tmp_path


def test_ptbxl_reports(small_ptbxl):
    manifest = ptbxl_manifest(str(small_ptbxl), records=100, report_source="report", statements_uri=None)
    first, second, third = manifest.rows
    assert (first.record_id, first.patient_id, first.fold, first.age, first.sex) == ("1", "15709", 3, 56.0, "female")
    assert first.report == "sinus rhythm. qt 4.46 normal ecg."
    assert first.statements == ("sinus rhythm", "qt 4.46 normal ecg")
    assert first.labels == ("NORM", "SR")
    assert second.report == "sinusrhythmus Edit: NORM 100"
    assert second.statements == ("Sinus rhythm",)  # the note holds label codes
    assert (second.age, second.sex) == (90.0, "male")
    assert (third.report, third.statements, third.age, third.sex) == ("", (), None, None)
    foreign, old = manifest.notes
    assert foreign.startswith(
        "1 reports are not English; their statements come from the phrase tables, which know 100.0%"
    )
    assert old == "1 patients above 89 years, whose age PTB-XL hides, are written as 90"
    assert read_wfdb(first.record_uri).leads == LEADS
    fine = ptbxl_manifest(str(small_ptbxl), records=500, report_source="report", statements_uri=None)
    assert fine.rows[0].record_uri.endswith("/00001_hr")
    assert fine.sha256 == manifest.sha256


def test_ptbxl_12sl(small_ptbxl):
    labels = str(small_ptbxl / "labels")
    manifest = ptbxl_manifest(str(small_ptbxl), records=100, report_source="12sl", statements_uri=labels)
    text = "Left ventricular hypertrophy with repolarization abnormality"
    assert [row.report for row in manifest.rows] == [text, "", ""]
    assert manifest.rows[0].statements == (text,)
    assert "2 records have no 12SL statements, so their report is empty" in manifest.notes
    assert any(note.startswith("12SL token 2ST") and note.endswith(" 1 times") for note in manifest.notes)
    assert (
        manifest.sha256
        != ptbxl_manifest(str(small_ptbxl), records=100, report_source="report", statements_uri=None).sha256
    )


def test_ptbxl_both(small_ptbxl):
    labels = str(small_ptbxl / "labels")
    manifest = ptbxl_manifest(str(small_ptbxl), records=100, report_source="both", statements_uri=labels)
    machine = "Left ventricular hypertrophy with repolarization abnormality"
    first, second, third = manifest.rows
    assert first.report == f"{machine}. sinus rhythm. qt 4.46 normal ecg."
    assert first.statements == (machine, "sinus rhythm", "qt 4.46 normal ecg")
    # Where one of the two has nothing to say the report is the other one's.
    assert second.report == "sinusrhythmus Edit: NORM 100"
    assert second.statements == ("Sinus rhythm",)
    assert (third.report, third.statements) == ("", ())
    assert "1 records have no 12SL statements and no report of their own" in manifest.notes
    alone = [
        ptbxl_manifest(str(small_ptbxl), records=100, report_source=source, statements_uri=labels)
        for source in ("report", "12sl")
    ]
    assert manifest.sha256 not in {one.sha256 for one in alone}
    path = small_ptbxl / "ptbxl_database.csv"
    path.write_text(path.read_text().replace("sinus rhythm. qt 4.46 normal ecg.", "trace only requested."))
    again = ptbxl_manifest(str(small_ptbxl), records=100, report_source="both", statements_uri=labels)
    assert (again.rows[0].report, again.rows[0].statements) == (machine, (machine,))


@pytest.mark.parametrize("source", ["12sl", "both"])
def test_ptbxl_12sl_needs_statements(small_ptbxl, source):
    with pytest.raises(ConfigError, match=f"is {source} and .*statements_uri"):
        ptbxl_manifest(str(small_ptbxl), records=100, report_source=source, statements_uri=None)


@pytest.mark.parametrize(
    ("old", "new", "column"),
    [("{}", "{", "scp_codes"), ("{}", "[]", "scp_codes"), ("{}", "", "scp_codes"),
     (",10,00002", ",ten,00002", "strat_fold"),
     ("13243.0,300", "nan,300", "patient_id"), ("00002_lr", "", "filename_lr")],
)  # fmt: skip
def test_ptbxl_rejects_a_row_that_cannot_be_read(small_ptbxl, old, new, column):
    path = small_ptbxl / "ptbxl_database.csv"
    path.write_text(path.read_text().replace(old, new, 1))
    manifest = ptbxl_manifest(str(small_ptbxl), records=100, report_source="report", statements_uri=None)
    faults = [row.fault for row in manifest.rows]
    assert faults[0] is faults[2] is None
    assert faults[1] is not None
    assert faults[1][0] == "unreadable_cell"
    assert f"`{column}`" in faults[1][1]
    assert "line 3" in faults[1][1]


def test_ptbxl_cells_written_otherwise(small_ptbxl):
    path = small_ptbxl / "ptbxl_database.csv"
    text = path.read_text()
    for old, new in (
        (",56.0,1,", ",> 89,1.0,"),
        ("\n2,", "\n2.0,"),
        ("13243.0,300.0,0", "13243,300,2"),
        ("\n3,13243.0,,,,", "\n3,13243.0,NA,nan,<NA>,"),
    ):
        assert old in text
        text = text.replace(old, new)
    path.write_text(text)
    labels = str(small_ptbxl / "labels")
    manifest = ptbxl_manifest(str(small_ptbxl), records=100, report_source="both", statements_uri=labels)
    assert [row.record_id for row in manifest.rows] == ["1", "2", "3"]
    assert [row.patient_id for row in manifest.rows] == ["15709", "13243", "13243"]
    assert [(row.age, row.sex) for row in manifest.rows] == [(None, "female"), (90.0, None), (None, None)]
    assert [row.report for row in manifest.rows[1:]] == ["sinusrhythmus Edit: NORM 100", ""]
    assert not any(row.fault for row in manifest.rows)
    assert "1 cell of `age` could not be read, so it is unknown there: `> 89` (1)" in manifest.notes
    assert "1 cell of `sex` could not be read, so it is unknown there: `2` (1)" in manifest.notes


def test_ptbxl_elsewhere(tmp_path):
    with pytest.raises(DatasetError, match=r"ptbxl_database\.csv` does not exist"):
        ptbxl_manifest(str(tmp_path), records=100, report_source="report", statements_uri=None)


# --- real data


@pytest.fixture(scope="module")
def data() -> Path:
    if "METS_TEST_DATA" not in os.environ:
        pytest.skip("METS_TEST_DATA is not set")
    return Path(os.environ["METS_TEST_DATA"])


@pytest.fixture(scope="module")
def ptbxl(data) -> Manifest:
    return ptbxl_manifest(str(data / "ptb-xl"), records=100, report_source="report", statements_uri=None)


def test_real_ptbxl(ptbxl):
    assert len(ptbxl.rows) == 1992
    assert sum(row.fold == 10 for row in ptbxl.rows) == 1509
    assert len({row.report for row in ptbxl.rows}) == 1179
    assert ptbxl.rows[0].patient_id == "15709"
    assert ptbxl.rows[0].recorded_at == "1984-11-09T09:17:34"
    assert max(row.age for row in ptbxl.rows if row.age is not None) == 90.0
    folds: dict[str, set[int]] = {}
    for row in ptbxl.rows:
        folds.setdefault(row.patient_id, set()).add(row.fold)
    assert all(len(values) == 1 for values in folds.values())


def test_real_ptbxl_12sl(data):
    manifest = ptbxl_manifest(
        str(data / "ptb-xl"),
        records=100,
        report_source="12sl",
        statements_uri=str(data / "ptb-xl-plus" / "labels"),
    )
    reports = [row.report for row in manifest.rows]
    assert len(set(reports)) == 713
    assert all(
        report == ". ".join(row.statements) and report for report, row in zip(reports, manifest.rows, strict=True)
    )
    assert reports[0] == "Normal sinus rhythm. Normal ECG"
    assert all(clean_report(report) for report in reports)
    assert not any(word in report for report in reports for word in ("PAREN", "COMMA", "2ST", "2st"))


def test_real_ptbxl_signals_equal_wfdb(ptbxl):
    for row in ptbxl.rows[::60]:
        ecg = read_wfdb(row.record_uri)
        theirs = wfdb.rdrecord(row.record_uri)
        assert np.array_equal(ecg.signal_mv, theirs.p_signal.T)
        assert ecg.leads == tuple(theirs.sig_name)
        assert np.array_equal(
            preprocess(ecg, SignalConfig(100, 10.0)),
            np.rint(
                theirs.p_signal.T[[theirs.sig_name.index(lead.upper()) for lead in LEADS[:6]] + list(range(6, 12))]
                * 1000
            ),
        )


def test_real_cinc(data):
    """181 records of five sources, .mat files with `mV` and `mv`; three of Ningbo's have dead chest leads."""
    outcomes: list[str] = []
    for number, header in enumerate(sorted((data / "cinc2021").rglob("*.hea"))):
        ecg = read_wfdb(str(header))
        if number % 4 == 0:  # of each source, and the slower reader
            assert np.array_equal(ecg.signal_mv, wfdb.rdrecord(str(header)[:-4]).p_signal.T)
        try:
            preprocess(ecg, SignalConfig(100, 10.0))
            outcomes.append("passed")
        except RecordError as error:
            outcomes.append(error.reason)
    assert {name: outcomes.count(name) for name in outcomes} == {"passed": 178, "flat_lead": 3}


def test_real_ptbxl_labels_are_the_protocols(ptbxl):
    """Every key of `scp_codes` counts, even at likelihood 0: the counts that this cut is known to have."""
    label_set = load_label_sets("ptbxl")["ptbxl_super"]

    def counts(rows):
        matrix, kept = label_matrix(label_set, [row.labels for row in rows])
        return dict(zip(label_set.classes, matrix[kept].sum(axis=0).tolist(), strict=True))

    tenth = counts([row for row in ptbxl.rows if row.fold == 10])
    assert tenth == {"NORM": 650, "MI": 380, "STTC": 363, "CD": 354, "HYP": 175}
    others = counts([row for row in ptbxl.rows if row.fold != 10])
    assert others == {"NORM": 295, "MI": 72, "STTC": 90, "CD": 73, "HYP": 35}


@pytest.mark.parametrize(
    "cell",
    ["['SRTH', 'AB']", "['A;B']", "[' a', '']", "[]", "['a',  'b']", "['a','b']", '["it\'s"]', r"['a\nb']", "['a' 'b']",
     "['\u00e4', '[x]', '1, 2']", "[1, 'a']", "['a', 'b',]", "['a\tb']", "['a\nb']", "['a', b]", "['a'", "('a', 'b')"],
)  # fmt: skip
def test_a_plain_list_is_read_as_python_reads_it(cell):
    try:
        expected = ast.literal_eval(cell)
    except (ValueError, SyntaxError):
        expected = None
    if isinstance(expected, list):
        assert literal(cell, "statements", list) == expected
    else:
        with pytest.raises(RecordError):
            literal(cell, "statements", list)


def test_real_12sl_statements_equal_those_read_row_by_row(data):
    folder = str(data / "ptb-xl-plus" / "labels")
    found, some = read_statements(folder), read_statements(folder, {5, 21803})
    with (Path(folder) / "12sl_statements.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    read = functools.cache(ast.literal_eval)
    lists = [(read(line["statements"]), read(line["statements_cat"])) for line in lines]
    assert found.unreadable == some.unreadable == 0
    assert found.statements == {
        int(line["ecg_id"]): render_statements(tokens, [group.split(";") for group in groups], found.texts)
        for line, (tokens, groups) in zip(lines, lists, strict=True)
    }
    assert some.statements == {ecg_id: found.statements[ecg_id] for ecg_id in (5, 21803)}
    used = [
        int(line["ecg_id"]) for line, (tokens, _) in zip(lines, lists, strict=True) for one in tokens if one == "2ST"
    ]
    assert found.unlisted["2ST"] == tuple(used)


def test_a_time_is_iso_8601_or_unknown_and_counted(tmp_path):
    written = {
        "2001-02-03 04:05:06": "2001-02-03T04:05:06",
        "2001-02-03": "2001-02-03",
        "2001-02-03T04:05:06+01:00": "2001-02-03T04:05:06+01:00",
        "": None,
        "NaT": None,
        "03.02.2001": None,
        "2001-02-30": None,
    }
    lines = [f"r{number},Sinus rhythm,{text}" for number, text in enumerate(written)]
    (tmp_path / "m.csv").write_text("\n".join(["record,report,recorded_at", *lines]))
    manifest = table_manifest("/src", str(tmp_path / "m.csv"))
    assert [row.recorded_at for row in manifest.rows] == list(written.values())
    (note,) = [note for note in manifest.notes if "2 cells of `recorded_at` could not be read" in note]
    assert "2001" not in note  # the form of a date alone: notes are for everybody
    assert "`99.99.9999` (1)" in note

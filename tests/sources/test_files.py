"""sources/files.py and sources/table_manifest.py: folders of any ECG files, alone and with a table."""

import json
import os
from dataclasses import replace

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mets_ray.config.load import load_config
from mets_ray.dataset.privacy import Privacy
from mets_ray.ecg.ecg import LEADS, EcgMeta
from mets_ray.errors import ConfigError, DatasetError, RecordError
from mets_ray.pipelines.prepare import dataset_fingerprint
from mets_ray.sources.catalogue import source_of
from mets_ray.sources.files import Files, folder_manifest
from mets_ray.sources.manifest import ManifestRow, completed, fold_of, shuffle_reports
from mets_ray.sources.table_manifest import table_manifest
from mets_ray.text.reports import join_statements, statements_of
from tests.support.datasets import SIGNAL, write_rows
from tests.support.vendor_files import write_copies
from tests.support.wfdb_records import DIGITAL, write_record


def all_files(folder, **changes):
    return folder_manifest(str(folder), **{"match": "*", "has_reports": True} | changes)


# --- a folder alone


def test_a_recording_of_several_segments_is_one_row(tmp_path):
    folder = tmp_path / "p1"
    folder.mkdir()
    for name in ("r_0001", "r_0002", "alone"):
        write_record(folder, name)
    samples = len(DIGITAL)
    (folder / "r.hea").write_text(f"r/3 12 100 {2 * samples + 50}\nr_0001 {samples}\n~ 50\nr_0002 {samples}\n")
    assert [row.record_id for row in all_files(tmp_path).rows] == ["p1/alone", "p1/r"]
    segments = all_files(tmp_path, match="*_000?.hea").rows  # asked for by name: there is no whole to prefer
    assert [row.record_id for row in segments] == ["p1/r_0001", "p1/r_0002"]
    (folder / "r.hea").write_text("what is this")
    assert len(all_files(tmp_path).rows) == 4


def test_a_wfdb_record_is_one_row_and_hidden_files_are_none(tmp_path):
    (tmp_path / "a").mkdir()
    write_record(tmp_path / "a", "r1")
    for name in ("a/r1.atr", "a/other.dat", "b.XML", ".hidden", "__MACOSX/b.XML", "noname"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    rows = all_files(tmp_path).rows
    assert [row.record_id for row in rows] == ["a/r1", "b.XML", "noname"]
    assert rows[0].record_uri == f"{tmp_path}/a/r1.hea"
    assert [row.record_id for row in all_files(tmp_path, match="*.xml").rows] == ["b.XML"]
    assert [row.record_id for row in all_files(tmp_path, match="a/*").rows] == ["a/r1"]
    with pytest.raises(DatasetError, match=r"no file that matches `\*\.dcm`"):
        all_files(tmp_path, match="*.dcm")


def test_a_file_that_grows_makes_another_data_set_and_a_copy_elsewhere_the_same(tmp_path):
    settings = load_config(None, ["prepare.source=files"]).prepare

    def name(folder):
        return dataset_fingerprint(settings, all_files(folder), str(folder), Privacy())

    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.xml").write_bytes(b"x")
    first = name(tmp_path / "one")
    assert name(tmp_path / "two") == first
    (tmp_path / "two" / "a.xml").write_bytes(b"xy")
    assert name(tmp_path / "two") != first


ROW = ManifestRow("a.xml", "a.xml", 1, "/x/a.xml", "", (), (), None, None, from_file=("patient_id", "fold", "report"))


def test_the_file_says_what_is_left_to_it():
    meta = EcgMeta(statements=("Sinus rhythm.", " ", "Normal ECG", "Normal ECG"), patient_id="p7", age=50.0, sex="male")
    row = completed(ROW, meta)
    assert (row.patient_id, row.fold) == ("p7", fold_of("p7"))
    assert (row.report, row.statements) == ("Sinus rhythm. Normal ECG", ("Sinus rhythm.", "Normal ECG"))
    assert (row.age, row.sex, row.from_file) == (None, None, ())  # not left to it
    nobody = completed(replace(ROW, from_file=("patient_id", "fold", "age", "sex")), EcgMeta(age=3.0))
    assert (nobody.patient_id, nobody.fold, nobody.age) == ("a.xml", fold_of("a.xml"), 3.0)
    kept = replace(ROW, patient_id="p1", fold=9, from_file=("report",))
    assert (completed(kept, meta).patient_id, completed(kept, meta).fold) == ("p1", 9)
    with pytest.raises(RecordError) as error:
        completed(ROW, EcgMeta(statements=("Unconfirmed report", "-")))
    assert error.value.reason == "no_statements"
    assert "reports=none" in error.value.hint


def test_statements_are_on_one_line_and_joined():
    assert statements_of(["a\nb", "", "--", "a b", "Unconfirmed interpretation"]) == ("a b",)
    assert join_statements(("Sinus rhythm.", "Normal ECG")) == "Sinus rhythm. Normal ECG"


def test_reports_of_files_cannot_be_shuffled(tmp_path):
    (tmp_path / "a.xml").write_bytes(b"x")
    with pytest.raises(DatasetError, match="too late to shuffle"):
        shuffle_reports(all_files(tmp_path), 0)


def test_real_vendor_files_are_pairs(data_folder, tmp_path):
    """Copies of real exports of Philips, Mortara and Mindray; MUSE's have no statement."""
    write_copies(data_folder / "formats", tmp_path / "in", 2)
    manifest = all_files(tmp_path / "in")
    assert len(manifest.rows) == 9
    summary = write_rows(tmp_path / "out", manifest.rows, source=Files(kind="files", uri=str(tmp_path / "in")))
    assert (summary.records_in, summary.rejected) == (9, {"no_statements": 1})
    assert summary.stated["format"] == {"aecg": 4, "sierra": 4}
    assert summary.stated["patient"] == {"named": 8}
    assert summary.stated["language of the statements"]["en"] == 4
    rows = {row["record_id"]: row for row in pq.read_table(tmp_path / "out" / summary.shard.path).to_pylist()}
    philips = rows["export1/0-00001.xml"]
    assert philips["statements"][0] == "SINUS BRADYCARDIA"
    assert (philips["patient_id"], philips["fold"]) == ("P000001", fold_of("P000001"))
    assert (philips["age"], philips["sex"]) == (32.0, "female")
    assert rows["export0/3-00000.xml"]["statements"][0] == "Rythme sinusal avec ESA"  # as it is printed

    scored = all_files(tmp_path / "in", has_reports=False)
    summary = write_rows(
        tmp_path / "scored", scored.rows, source=Files(kind="files", uri=str(tmp_path / "in")), reports=False
    )
    assert (summary.records_in, summary.rejected) == (9, {})


def test_an_ambulatory_recorder_has_one_lead_and_its_patient_in_the_path(tmp_path):
    """Icentia11k's layout: p00/p00001/p00001_s00, one signal called ECG."""
    folder = tmp_path / "p00" / "p00001"
    folder.mkdir(parents=True)
    for segment in range(2):
        write_record(folder, f"p00001_s{segment:02d}", DIGITAL[:, :1], fs=250, sig_name=["ECG"])
    write_record(tmp_path, "elsewhere")
    words = ["prepare.source=files", f"prepare.source.uri={tmp_path}", "prepare.source.reports=none"]
    words += [r"prepare.source.patient=(p\d+)_s", "prepare.source.lead_names={ECG: II}"]
    source = source_of(load_config(None, words))
    manifest = source.manifest(SIGNAL, seed=0)
    other, *segments = manifest.rows
    assert other.fault[0] == "no_patient"
    for pattern in (r"(p\d+x)?_s", r"()"):  # a group that finds nothing is no patient
        (row,) = folder_manifest(str(folder), match="*_s00.hea", has_reports=False, patient=pattern).rows
        assert (row.fault[0], row.patient_id) == ("no_patient", row.record_id)
    assert {(row.patient_id, row.fold) for row in segments} == {("p00001", fold_of("p00001"))}
    ecg = source.read(segments[0].record_uri)
    assert (ecg.leads, ecg.sampling_rate_hz) == (("II",), 250.0)
    for setting, fault in (
        (r"patient=p\d+", "0 groups"),
        ("patient=(", "not a regular"),
        ("lead_names={ECG: X}", "not a lead"),
    ):
        with pytest.raises(ConfigError, match=fault):
            load_config(None, [*words, f"prepare.source.{setting}"])


def test_real_ptb_in_its_own_layout(data_folder, tmp_path):
    folder = tmp_path / "patient001"
    folder.mkdir()
    for path in (data_folder / "formats" / "wfdb_15lead").iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    source = Files(kind="files", uri=str(tmp_path), reports="none", patient=r"(patient\d+)/")
    (row,) = source.manifest(SIGNAL, seed=0).rows
    assert (row.record_id, row.patient_id) == ("patient001/s0010_re", "patient001")
    ecg = source.read(row.record_uri)
    assert ecg.leads[:3] == ("i", "ii", "iii")
    assert (ecg.meta.age, ecg.meta.sex) == (81.0, "female")


# --- a table


def write_npy(folder, name="a.npy"):
    np.save(folder / name, (DIGITAL / 1000).T.astype(np.float32))


def test_a_table_of_any_files_with_stated_facts(tmp_path):
    write_record(tmp_path, "w")
    write_npy(tmp_path)
    (tmp_path / "m.csv").write_text("record,report\nw,sinus rhythm\na.npy,sinus rhythm\nw.hea,twice\n")
    words = [
        "prepare.source=files", f"prepare.source.uri={tmp_path}", f"prepare.source.manifest_uri={tmp_path}/m.csv",
        "prepare.source.sampling_rate_hz=100", "prepare.source.unit=mV", f"prepare.source.leads=[{','.join(LEADS)}]",
    ]  # fmt: skip
    source = source_of(load_config(None, words))
    manifest = source.manifest(SIGNAL, seed=0)
    assert [row.record_id for row in manifest.rows] == ["w", "a.npy", "w"]
    wfdb, npy = (source.read(row.record_uri).signal_mv for row in manifest.rows[:2])
    assert np.allclose(wfdb, npy, atol=1e-6)
    unstated = source_of(load_config(None, words[:3]))
    assert unstated.manifest(SIGNAL, seed=0).sha256 != manifest.sha256  # the same files, but not the same samples
    with pytest.raises(RecordError) as error:
        unstated.read(manifest.rows[1].record_uri)
    assert error.value.reason.startswith("missing_")


@pytest.mark.parametrize("columns", ["statements", "numbered"])
def test_reports_in_several_columns_or_lines_are_statements(tmp_path, columns):
    if columns == "statements":
        text = 'record,statements\na,"Sinus rhythm\nLVH, probable"\nb,nan\n'
    else:
        text = 'record,report_1,report_0,report_10\na,"LVH, probable",Sinus rhythm,\nb,nan,,\n'
    (tmp_path / "m.csv").write_text(text)
    first, second = table_manifest("/src", str(tmp_path / "m.csv")).rows
    assert first.statements == ("Sinus rhythm", "LVH, probable")
    assert first.report == "Sinus rhythm. LVH, probable"
    assert (second.report, second.statements) == ("", ())


@pytest.mark.parametrize("write", [str, json.dumps])
def test_lists_as_pandas_and_json_write_them_are_lists(tmp_path, write):
    """pandas' to_csv puts `['a', 'b']` into a cell: it was one statement, brackets and all."""
    lists = [["Sinus rhythm", "LVH, probable", "patient's own"], ["Sinus rhythm"], []]
    frame = pd.DataFrame({"record": ["a", "b", "c"], "statements": lists, "labels": lists})
    frame["statements"], frame["labels"] = (frame[name].map(write) for name in ("statements", "labels"))
    frame.to_csv(tmp_path / "m.csv", index=False)
    rows = table_manifest("/src", str(tmp_path / "m.csv")).rows
    assert [row.statements for row in rows] == [row.labels for row in rows] == list(map(tuple, lists))
    assert [row.report for row in rows][1:] == ["Sinus rhythm", ""]


@pytest.mark.parametrize("cell", ["[artefact]", "['a' 'b']", "[1.5]", "['a', 'b'", "[None]"])
def test_brackets_that_are_no_list_stay_text(tmp_path, cell):
    (tmp_path / "m.csv").write_text(f'record,statements\na,"{cell}"\n')
    assert table_manifest("/src", str(tmp_path / "m.csv")).rows[0].statements == (cell,)


@pytest.mark.parametrize(("mark", "words"), [(";", "semicolons"), ("\t", "tabs")])
@pytest.mark.parametrize("quote", ["", '"'])
def test_a_table_with_other_separators_says_so(tmp_path, mark, words, quote):
    header = mark.join(f"{quote}{name}{quote}" for name in ("record", "report"))
    (tmp_path / "m.csv").write_text(f"{header}\na{mark}x\n", encoding="utf-8-sig")
    with pytest.raises(DatasetError, match=f"separated by {words}") as caught:
        table_manifest("/src", str(tmp_path / "m.csv"))
    assert "hint: save" in str(caught.value)


def test_columns_that_a_table_lacks_are_the_files(tmp_path):
    def left(header, **changes):
        (tmp_path / "m.csv").write_text(f"record,{header}\na{',x' * (header.count(',') + 1)}\n")
        return set(table_manifest("/src", str(tmp_path / "m.csv"), **changes).rows[0].from_file)

    assert left("report") == {"patient_id", "fold", "age", "sex"}
    assert left("report,patient_id,age") == {"sex"}
    assert left("report,fold") == {"patient_id", "age", "sex"}
    assert left("age", reports="file") == {"patient_id", "fold", "sex", "report"}
    assert left("age", reports="none") == {"patient_id", "fold", "sex"}
    with pytest.raises(DatasetError, match="column `report` is missing"):
        left("age")


def test_parquet_is_read_as_a_csv_with_the_same_cells(tmp_path):
    (tmp_path / "m.csv").write_text(
        'record,patient_id,age,sex,labels,statements\na,7,61.5,F,SR;LVH,"Sinus rhythm\nLVH"\nb,8,,,,\n'
    )
    table = pa.table({
        "record": ["a", "b"], "patient_id": pa.array([7, 8], pa.int64()), "age": pa.array([61.5, None]),
        "sex": pa.array(["F", None]).dictionary_encode(), "labels": [["SR", "LVH"], None],
        "statements": [["Sinus rhythm", "LVH"], []], "pixels": [b"x", b"y"], "more": [{"a": 1}, {"a": 2}],
    })  # fmt: skip
    pq.write_table(table, tmp_path / "m.parquet")
    csv, parquet = (table_manifest("/src", str(tmp_path / f"m.{kind}")) for kind in ("csv", "parquet"))
    assert parquet.rows == csv.rows
    assert parquet.notes == csv.notes
    pq.write_table(table.drop_columns(["record"]), tmp_path / "m.parquet")
    with pytest.raises(DatasetError, match="column `record` is missing"):
        table_manifest("/src", str(tmp_path / "m.parquet"))
    (tmp_path / "m.parquet").write_bytes(b"PAR1" + bytes(100))
    with pytest.raises(DatasetError, match="is not a Parquet file"):
        table_manifest("/src", str(tmp_path / "m.parquet"))


def test_the_earlier_name_is_still_read():
    config = load_config(None, ["prepare.source=wfdb", "prepare.source.uri=x", "prepare.source.manifest_uri=y"])
    assert (config.prepare.source.kind, config.prepare.source.manifest_uri) == ("files", "y")
    with pytest.raises(ConfigError, match="manifest_uri"):
        source_of(
            load_config(None, ["prepare.source=files", "prepare.source.uri=x", "prepare.source.reports=table"])
        ).check()


def test_equal_reports_with_other_statements_are_told_apart(tmp_path):
    """Training knows a report by its text: all three would have had one list."""
    (tmp_path / "m.csv").write_text(
        "record,report,statements\na,Abnormal ECG,Atrial fibrillation\nb,Abnormal ECG,LVH\nc,Normal ECG,Normal ECG\n"
        "d,Normal ECG,Normal ECG\n"
    )
    rows = table_manifest("/src", str(tmp_path / "m.csv")).rows
    assert [row.report for row in rows] == [
        "Abnormal ECG. Atrial fibrillation", "Abnormal ECG. LVH", "Normal ECG", "Normal ECG",
    ]  # fmt: skip
    assert [row.statements for row in rows[:2]] == [("Atrial fibrillation",), ("LVH",)]


def test_codes_that_a_program_wrote_as_decimals_are_codes(tmp_path):
    (tmp_path / "m.csv").write_text("record,report,labels\na,x y,426783006.0\nb,x y,\n")
    assert [row.labels for row in table_manifest("/src", str(tmp_path / "m.csv")).rows] == [("426783006",), ()]


def test_a_long_cell_is_read_and_half_a_character_is_no_list(tmp_path):
    (tmp_path / "m.csv").write_text('record,report,labels\na,%s,"[""\\ud800""]"\n' % ("word " * 40_000))
    (row,) = table_manifest("/src", str(tmp_path / "m.csv")).rows
    assert len(row.report) > 190_000
    assert row.labels[0].isprintable()


def test_a_file_whose_name_is_no_utf_8_is_rejected_and_the_others_are_read(tmp_path):
    (tmp_path / "ok.xml").write_bytes(b"x")
    (tmp_path / os.fsdecode(b"M\xfcller.xml")).write_bytes(b"x")
    bad, good = sorted(all_files(tmp_path).rows, key=lambda row: row.fault is None)
    assert (bad.record_id, bad.fault[0]) == (r"M\xfcller.xml", "unsafe_path")
    assert (good.record_id, good.fault) == ("ok.xml", None)


@pytest.mark.parametrize("word", ["N/A", "nan", "-", "", None])
def test_a_file_that_names_no_patient_by_a_word_is_a_patient_of_its_own(word):
    row = ManifestRow("r", "r", 1, "/src/r", "", (), (), None, None, from_file=("patient_id", "fold"))
    assert completed(row, EcgMeta(patient_id=word)).patient_id == "r"
    assert completed(row, EcgMeta(patient_id="7")).patient_id == "7"

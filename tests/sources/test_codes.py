"""sources/sph.py and sources/code15.py: labels and text from codes, in the layouts of the data sets."""

import io
from pathlib import Path

import numpy as np
import pytest

from mets_ray.ecg.ecg import LEADS
from mets_ray.ecg.preprocess import SignalConfig, preprocess
from mets_ray.errors import ConfigError, DatasetError, RecordError
from mets_ray.sources.code15 import WORDS, Code15, code15_manifest
from mets_ray.sources.manifest import fold_of
from mets_ray.sources.sph import Sph, sph_manifest
from mets_ray.tasks.label_sets import label_matrix, load_label_sets
from tests.support.datasets import write_rows

CODES = """Category,Code,Description
A,1,Normal ECG
C,22,Sinus bradycardia
C,23,Sinus arrhythmia
F,60,Ventricular premature complex(es)
D,31,"Atrial premature complexes, nonconducted"
Modifier,310,Frequent
"""

# --- SPH


def write_sph(folder: Path) -> Path:
    (folder / "code.csv").write_text(CODES)
    (folder / "metadata.csv").write_text(
        "ECG_ID,AHA_Code,Patient_ID,Age,Sex,N,Date\n"
        "A00001,60+310;22,S1,44,M,5000,2020-01-01\n"
        "A00002,1,S2,61,F,5000,2020-01-01\n"
        "A00003,31;999,S2,,F,5500,2020-01-01\n"
    )
    return folder


def test_sph_says_its_codes_in_words(tmp_path):
    manifest = sph_manifest(str(write_sph(tmp_path)))
    first, second, third = manifest.rows
    assert first.statements == ("Ventricular premature complex(es), frequent", "Sinus bradycardia")
    assert first.report == "Ventricular premature complex(es), frequent. Sinus bradycardia"
    assert first.labels == ("60+310", "60", "22")
    assert (first.age, first.sex, first.patient_id) == (44.0, "male", "S1")
    assert second.fold == third.fold == fold_of("S2")
    assert third.statements == ("Atrial premature complexes, nonconducted",)
    assert third.labels == ("31", "999")
    assert "1 codes have no words in code.csv: 999" in manifest.notes
    (tmp_path / "records").mkdir()
    assert sph_manifest(str(tmp_path)).rows[0].record_uri == f"{tmp_path}/records/A00001.h5"


def test_sph_without_words(tmp_path):
    write_sph(tmp_path)
    scored = sph_manifest(str(tmp_path), has_reports=False)
    assert not scored.has_reports
    assert (scored.rows[0].report, scored.rows[0].labels) == ("", ("60+310", "60", "22"))
    (tmp_path / "code.csv").write_text("Category,Code,Description\nA,7,Nothing here\n")
    with pytest.raises(DatasetError, match="words for no code"):
        sph_manifest(str(tmp_path))
    (tmp_path / "code.csv").unlink()
    with pytest.raises(DatasetError, match=r"code\.csv` does not exist"):
        sph_manifest(str(tmp_path))


def test_real_sph(data_folder, tmp_path):
    """Five records at hand; the table's other rows have no file. Amplitudes are compared with h5py."""
    h5py = pytest.importorskip("h5py")
    folder = data_folder / "formats" / "sph_h5"
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "code.csv").write_text(CODES)
    manifest = sph_manifest(str(tmp_path))
    assert [row.report for row in manifest.rows[:2]] == ["Sinus bradycardia. Sinus arrhythmia", "Normal ECG"]
    source = Sph(kind="sph", uri=str(tmp_path))
    summary = write_rows(tmp_path / "out", manifest.rows, source=source)
    assert summary.rejected.pop("missing_file") == 5 - summary.rejected.get("empty_report", 0)
    ecg = source.read(manifest.rows[1].record_uri)
    with h5py.File(folder / "SPH00002.h5") as file:
        assert np.array_equal(ecg.signal_mv, file["ecg"][()].astype(np.float64))
    assert (ecg.leads, ecg.sampling_rate_hz, ecg.signal_mv.shape) == (LEADS, 500.0, (12, 6000))


# --- CODE-15%

EXAMS = """exam_id,age,is_male,nn_predicted_age,1dAVb,RBBB,LBBB,SB,ST,AF,patient_id,death,timey,normal_ecg,trace_file
101,50,True,51.0,False,True,False,True,False,False,7,False,1.0,False,exams_part0.hdf5
102,61,False,60.2,False,False,False,False,False,False,8,,,True,exams_part0.hdf5
103,44,True,45.1,False,False,False,False,False,False,7,,,False,exams_part1.hdf5
104,44,True,45.1,False,False,False,False,False,False,7,,,False,exams_part1.hdf5
"""


def write_code15(folder: Path) -> np.ndarray:
    h5py = pytest.importorskip("h5py")
    (folder / "exams.csv").write_text(EXAMS)
    tracings = np.zeros((4, 4096, 12), np.float32)
    tracings[:3, 648:-648] = np.random.default_rng(0).normal(0, 0.3, (3, 2800, 12))
    for part, (ids, rows) in enumerate((([102, 101, 0], [1, 0, 3]), ([103], [2]))):
        file = io.BytesIO()
        with h5py.File(file, "w") as hdf5:
            hdf5["exam_id"] = np.array(ids)
            hdf5["tracings"] = tracings[rows]
        (folder / f"exams_part{part}.hdf5").write_bytes(file.getvalue())
    return tracings


def test_code15_rows_and_exams(tmp_path):
    tracings = write_code15(tmp_path)
    manifest = code15_manifest(str(tmp_path), unit="mV", has_reports=True)
    assert [row.labels for row in manifest.rows] == [("RBBB", "SB"), ("normal_ecg",), (), ()]
    assert manifest.rows[0].statements == ("Right bundle branch block", "Sinus bradycardia")
    assert (manifest.rows[0].age, manifest.rows[0].sex, manifest.rows[1].sex) == (50.0, "male", "female")
    assert manifest.rows[0].fold == manifest.rows[2].fold == fold_of("7")
    assert "2 exams are neither normal nor have one of the six diagnoses" in manifest.notes
    source = Code15(kind="code15", uri=str(tmp_path), unit="mV")
    for number in range(3):
        ecg = source.read(manifest.rows[number].record_uri)
        assert (ecg.leads, ecg.sampling_rate_hz) == (LEADS, 400.0)
        assert np.array_equal(ecg.signal_mv, tracings[number, 648:-648].T.astype(np.float64))
    assert preprocess(ecg, SignalConfig(100, 7.0)).shape == (12, 700)
    with pytest.raises(RecordError) as caught:
        source.read(manifest.rows[3].record_uri)
    assert caught.value.reason == "missing_exam"
    scored = code15_manifest(str(tmp_path), unit="mV", has_reports=False)
    assert not scored.has_reports
    assert scored.rows[0].statements == ()
    assert code15_manifest(str(tmp_path), unit="V", has_reports=False).sha256 != scored.sha256


def test_code15_is_scored_with_its_six_diagnoses(tmp_path):
    write_code15(tmp_path)
    rows = code15_manifest(str(tmp_path), unit="mV", has_reports=False).rows
    label_set = load_label_sets("code15")["code15"]
    matrix, kept = label_matrix(label_set, [row.labels for row in rows])
    assert list(label_set.classes.values()) == [(name,) for name in ("normal_ecg", *list(WORDS)[:6])]
    assert list(label_set.classes) == [
        WORDS[code][0].lower() + WORDS[code][1:] for (code,) in label_set.classes.values()
    ]
    assert matrix[0].tolist() == [False, False, True, False, True, False, False]
    assert kept.tolist() == [True, True, False, False]


def test_code15_guesses_no_unit_and_no_label(tmp_path):
    write_code15(tmp_path)
    with pytest.raises(ConfigError, match=r"source\.unit"):
        Code15(kind="code15", uri=str(tmp_path)).check()
    path = tmp_path / "exams.csv"
    path.write_text(EXAMS.replace("51.0,False,True", "51.0,perhaps,True").replace(",61,False", ",61,"))
    rows = code15_manifest(str(tmp_path), unit="mV", has_reports=False).rows
    assert rows[0].fault == ("unreadable_cell", "`1dAVb` of exam 101 is neither true nor false")
    assert rows[1].sex is None
    with pytest.raises(DatasetError, match="not an exam"):
        Code15(kind="code15", uri=str(tmp_path), unit="mV").read(f"{tmp_path}/exams_part0.hdf5")

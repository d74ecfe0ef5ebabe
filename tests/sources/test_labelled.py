"""sources/mitbih.py and sources/cinc.py: small records made by hand, and the real ones; no reports, labels to score."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import wfdb

from mets_ray.config.load import load_config
from mets_ray.dataset.folds import Selection
from mets_ray.dataset.prepared import PreparedDataset
from mets_ray.ecg.ecg import LEADS, Ecg
from mets_ray.ecg.preprocess import SignalConfig, preprocess
from mets_ray.errors import DatasetError, RecordError
from mets_ray.sources.cinc import Cinc, cinc_manifest
from mets_ray.sources.csn import ACRONYMS, CLASSES, published_classes
from mets_ray.sources.manifest import Manifest, ManifestRow, in_patient_folds, shuffle_reports
from mets_ray.sources.mitbih import AAMI_CLASSES, DS1, DS2, PACED, MitBih, mitbih_manifest, read_beat
from mets_ray.sources.snomed import SnomedWords
from mets_ray.tasks.label_sets import label_matrix, load_label_sets
from mets_ray.tasks.questions import dataset_tasks
from tests.support.datasets import write_card, write_rows

SIGNAL = SignalConfig(100, 10.0)


@pytest.fixture
def data() -> Path:
    if "METS_TEST_DATA" not in os.environ:
        pytest.skip("METS_TEST_DATA is not set")
    return Path(os.environ["METS_TEST_DATA"])


def positives(rows, source, task):
    label_set = load_label_sets(source)[task]
    matrix, kept = label_matrix(label_set, [row.labels for row in rows])
    counts = {name: int(count) for name, count in zip(label_set.classes, matrix.sum(axis=0), strict=True)}
    return counts, int(kept.sum())


# --- leads that were never recorded


def some_ecg(**changes):
    signal_mv = np.random.default_rng(0).normal(0, 0.3, (2, 1000))
    return Ecg(signal_mv, ("V1", "II"), 100.0, **changes)


def test_absent_leads_are_zeros_only_when_declared():
    absent = tuple(lead for lead in LEADS if lead not in ("V1", "II"))
    signal_uv = preprocess(some_ecg(absent_leads=absent), SIGNAL)
    assert signal_uv.dtype == np.int16
    assert np.array_equal(signal_uv[[6, 1]], np.rint(some_ecg().signal_mv * 1000))
    assert not signal_uv[[row for row in range(12) if row not in (6, 1)]].any()
    with pytest.raises(RecordError, match="10 of 12 leads missing"):
        preprocess(some_ecg(), SIGNAL)
    with pytest.raises(RecordError, match="1 of 12 leads missing: aVR"):
        preprocess(some_ecg(absent_leads=tuple(lead for lead in absent if lead != "aVR")), SIGNAL)


def test_absent_leads_must_be_leads_that_are_not_there():
    for absent in (("II",), ("X",)):
        with pytest.raises(ValueError, match="absent_leads"):
            preprocess(some_ecg(absent_leads=absent), SIGNAL)
    with pytest.raises(RecordError, match="missing"):  # an ECG of zeros alone is none
        preprocess(some_ecg(absent_leads=("I",)), SignalConfig(100, 10.0, ("I",)))
    flat = some_ecg(absent_leads=tuple(lead for lead in LEADS if lead not in ("V1", "II")))
    with pytest.raises(RecordError, match="equal in II"):  # a lead that was recorded must not be flat
        preprocess(replace(flat, signal_mv=flat.signal_mv * [[1], [0]]), SIGNAL)


# --- MIT-BIH


def write_recording(folder: Path, name: str, beats, leads=("MLII", "V5"), seconds=30) -> np.ndarray:
    """As MIT-BIH's: 360 Hz, gain 200, no unit in the header. Answers the samples."""
    digital = np.random.default_rng(int(name)).integers(-400, 400, (360 * seconds, len(leads)))
    wfdb.wrsamp(
        name,
        fs=360,
        units=["mV"] * len(leads),
        sig_name=list(leads),
        d_signal=digital,
        fmt=["16"] * len(leads),
        adc_gain=[200.0] * len(leads),
        baseline=[0] * len(leads),
        comments=["64 F 1508 694 x1", "Digoxin"],
        write_dir=str(folder),
    )
    header = folder / f"{name}.hea"
    header.write_text(header.read_text().replace("200.0(0)/mV", "200").replace("200(0)/mV", "200"))
    assert "/mV" not in header.read_text()
    samples, symbols = zip(*beats, strict=True)
    wfdb.wrann(name, "atr", np.array(samples), symbol=list(symbols), write_dir=str(folder))
    return digital


BEATS = [(100, "N"), (1800, "N"), (2000, "+"), (2400, "L"), (3000, "a"), (5000, "V"), (9000, "/"), (9100, "V")]


def test_mitbih_rows(tmp_path):
    write_recording(tmp_path, "109", BEATS)
    write_recording(tmp_path, "202", BEATS)
    write_recording(tmp_path, "107", BEATS, leads=("V2", "V5"))
    (tmp_path / "more").mkdir()
    write_recording(tmp_path / "more", "100", BEATS)  # not of the folder itself
    manifest = mitbih_manifest(str(tmp_path), duration_s=10.0, beats=None, seed=0)
    assert (manifest.source, manifest.has_reports, len(manifest.rows)) == ("mitbih", False, 21)
    paced, first, other = manifest.rows[3], manifest.rows[9], manifest.rows[16]
    assert first.record_id == "109-002400"
    assert first.labels == ("beat:L", "aami:N", "set:DS1", "leads:II+V5")
    assert (first.patient_id, first.fold, first.age, first.sex, first.report) == ("109", 1, 64.0, "female", "")
    assert paced.labels == ("beat:a", "set:paced", "leads:V2+V5")
    assert paced.fold == 3
    assert (other.patient_id, other.fold) == ("201", 2)  # 201 and 202 are one person
    assert manifest.focus_s == 0.5
    assert "records: 107 109 202" in manifest.notes
    assert any(note.startswith("21 of 22 records of DS1 are not in the folder") for note in manifest.notes)
    assert any("the headers give no unit, which means mV" in note for note in manifest.notes)
    assert "3 annotations are not beats and have no row" in manifest.notes
    assert positives(manifest.rows, "mitbih", "mitbih")[0] == {"N": 6, "L": 3, "R": 0, "A": 0, "V": 6}
    assert positives(manifest.rows, "mitbih", "mitbih_aami") == ({"N": 6, "S": 2, "V": 4, "F": 0, "Q": 2}, 14)


def test_mitbih_window_is_centred_on_its_beat(tmp_path):
    digital = write_recording(tmp_path, "109", BEATS)
    row = mitbih_manifest(str(tmp_path), duration_s=10.0, beats=None, seed=0).rows[2]
    ecg = read_beat(row.record_uri)
    assert (ecg.leads, ecg.sampling_rate_hz, len(ecg.absent_leads)) == (("II", "V5"), 360.0, 10)
    assert np.array_equal(ecg.signal_mv[:, :3600], digital[600:4200].T / 200)
    signal_uv = preprocess(ecg, SignalConfig(360, 10.0))
    assert np.array_equal(signal_uv[1], digital[600:4200, 0] * 5)
    assert np.array_equal(signal_uv[10], digital[600:4200, 1] * 5)
    assert not signal_uv[[0, 2, 3, 4, 5, 6, 7, 8, 9, 11]].any()
    assert preprocess(ecg, SIGNAL).shape == (12, 1000)


def test_mitbih_window_outside_is_rejected_and_counted(tmp_path):
    write_recording(tmp_path, "109", BEATS)
    manifest = mitbih_manifest(str(tmp_path), duration_s=10.0, beats=None, seed=0)
    summary = write_rows(tmp_path / "out", manifest.rows, source=MitBih(kind="mitbih"), reports=False)
    assert summary.rejected == {"window_outside_recording": 2}  # at 100, and at 9100 of 10800; 9000 and 1800 just fit
    assert summary.folds == {1: 5}
    assert summary.records_in == 7
    dataset = PreparedDataset(str(tmp_path / "out"), write_card(tmp_path / "out", [summary]))
    with pytest.raises(DatasetError, match="no reports to train with"):
        list(dataset.distinct_reports(Selection((1,))))


def test_mitbih_draw_depends_on_seed_and_record_alone(tmp_path):
    beats = [(2000 + 5 * number, "NV"[number % 2]) for number in range(200)]
    write_recording(tmp_path, "109", beats)
    alone = mitbih_manifest(str(tmp_path), duration_s=10.0, beats=7, seed=3).rows
    assert positives(alone, "mitbih", "mitbih")[0] == {"N": 7, "L": 0, "R": 0, "A": 0, "V": 7}
    assert [row.record_id for row in alone] == sorted(row.record_id for row in alone)
    write_recording(tmp_path, "101", beats)
    both = mitbih_manifest(str(tmp_path), duration_s=10.0, beats=7, seed=3).rows
    assert both[14:] == alone
    assert mitbih_manifest(str(tmp_path), duration_s=10.0, beats=7, seed=4).rows[14:] != alone


def test_mitbih_elsewhere_and_damaged(tmp_path):
    with pytest.raises(DatasetError, match="no recording of the MIT-BIH"):
        mitbih_manifest(str(tmp_path), duration_s=10.0, beats=None, seed=0)
    write_recording(tmp_path, "109", BEATS, leads=("MLII", "D4"))
    with pytest.raises(DatasetError, match="`D4` is not MLII"):
        mitbih_manifest(str(tmp_path), duration_s=10.0, beats=None, seed=0)
    (tmp_path / "109.hea").unlink()
    with pytest.raises(DatasetError, match=r"109\.hea` does not exist"):
        mitbih_manifest(str(tmp_path), duration_s=10.0, beats=None, seed=0)
    with pytest.raises(DatasetError, match="not a beat"):
        read_beat("109#mitbih:beat=x")


def test_mitbih_records_are_48():
    assert len({*DS1, *DS2, *PACED}) == 48
    assert (len(DS1), len(DS2)) == (22, 22)
    assert sum(len(symbols) for symbols in AAMI_CLASSES.values()) == 15


def test_real_mitbih(data):
    """DS1: its AAMI counts are those of de Chazal et al. 2004, table III; 114 has V5 before MLII."""
    manifest = mitbih_manifest(str(data / "mitdb"), duration_s=10.0, beats=None, seed=0)
    counts, scored = positives(manifest.rows, "mitbih", "mitbih")
    assert counts == {"N": 38102, "L": 3949, "R": 3783, "A": 810, "V": 3683}
    assert scored == 50327
    aami = {"N": 45866, "S": 944, "V": 3788, "F": 415, "Q": 8}
    assert positives(manifest.rows, "mitbih", "mitbih_aami") == (aami, 51021)
    assert {row.fold for row in manifest.rows} == {1}
    assert {label for row in manifest.rows for label in row.labels if label.startswith("leads:")} == {
        "leads:II+V1",
        "leads:V5+II",
        "leads:II+V4",
    }
    row = next(row for row in manifest.rows if row.record_id.startswith("114-") and row.labels[0] == "beat:V")
    ecg = read_beat(row.record_uri)
    beat = int(row.record_id[4:])
    theirs = wfdb.rdrecord(str(data / "mitdb" / "114"), sampfrom=beat - 1800, sampto=beat + 1800).p_signal.T
    assert np.allclose(ecg.signal_mv[:, :3600], theirs)
    signal_uv = preprocess(ecg, SignalConfig(360, 10.0))
    assert np.array_equal(signal_uv[[10, 1]], np.rint(theirs * 1000))


# --- CinC


def write_challenge(folder: Path, name: str, dx: str, samples: int = 5000, more=()) -> np.ndarray:
    digital = np.random.default_rng(samples).integers(-3000, 3000, (samples, 12))
    wfdb.wrsamp(
        name,
        fs=500,
        units=["mV"] * 12,
        sig_name=list(LEADS),
        d_signal=digital,
        fmt=["16"] * 12,
        adc_gain=[1000.0] * 12,
        baseline=[0] * 12,
        comments=["Age: 85", "Sex: Male", f"Dx: {dx}", *more],
        write_dir=str(folder),
    )
    return digital


def test_cinc_rows(tmp_path):
    (tmp_path / "g1").mkdir()
    write_challenge(tmp_path / "g1", "A0001", "164889003,59118001", more=["Rx: Unknown"])
    write_challenge(tmp_path, "A0002", "AF, PVC", samples=4999)
    (tmp_path / "A0003.hea").write_text("nonsense\n")
    manifest = cinc_manifest(str(tmp_path), database="cpsc2018", stretch="start", duration_s=10.0)
    second, third, first = manifest.rows
    assert (manifest.source, manifest.has_reports) == ("cpsc2018", False)
    assert (first.record_id, first.patient_id, first.labels) == ("A0001", "A0001", ("164889003", "59118001"))
    assert (first.age, first.sex, first.report) == (85.0, "male", "")
    assert second.labels == ("AF", "PVC")
    assert third.labels == ()
    assert "1 headers cannot be read, so they give no codes" in manifest.notes
    counts, scored = positives(manifest.rows, "cpsc2018", "cpsc2018")
    assert ({name: count for name, count in counts.items() if count}, scored) == ({"AFIB": 2, "VPC": 1, "CRBBB": 1}, 2)
    summary = write_rows(tmp_path / "out", manifest.rows, source=Cinc(kind="cinc"), reports=False)
    assert summary.rejected == {"too_short": 1, "unreadable_header": 1}


def test_cinc_first_five_seconds_and_zeros(tmp_path):
    digital = write_challenge(tmp_path, "A0001", "164889003")
    short = write_challenge(tmp_path, "A0002", "164889003", samples=2000)
    rows = cinc_manifest(str(tmp_path), database="cpsc2018", stretch="first_5s_padded", duration_s=10.0).rows
    signal_uv = preprocess(Cinc(kind="cinc").read(rows[0].record_uri), SignalConfig(500, 10.0))
    assert np.array_equal(signal_uv[:, :2500], digital[:2500].T)
    assert not signal_uv[:, 2500:].any()
    signal_uv = preprocess(Cinc(kind="cinc").read(rows[1].record_uri), SignalConfig(500, 10.0))
    assert np.array_equal(signal_uv[:, :2000], short.T)
    assert not signal_uv[:, 2000:].any()


def test_cinc_windows_cover_the_record(tmp_path):
    digital = write_challenge(tmp_path, "A0001", "164889003", samples=12001)
    short = write_challenge(tmp_path, "A0002", "164889003", samples=4000)
    manifest = cinc_manifest(str(tmp_path), database="any", stretch="windows", duration_s=10.0)
    assert manifest.source == "cinc"
    assert dataset_tasks("cinc") == {}
    assert [row.record_id for row in manifest.rows] == ["A0001-w0", "A0001-w1", "A0001-w2", "A0002-w0"]
    assert {row.patient_id for row in manifest.rows} == {"A0001", "A0002"}
    windows = [preprocess(Cinc(kind="cinc").read(row.record_uri), SignalConfig(500, 10.0)) for row in manifest.rows]
    for window, start in zip(windows, (0, 3500, 7001), strict=False):
        assert np.array_equal(window, digital[start : start + 5000].T)
    assert np.array_equal(windows[3][:, :4000], short.T)
    assert not windows[3][:, 4000:].any()
    assert any("2 records are 4 windows of 10 s, 1 of them with zeros" in note for note in manifest.notes)


def test_cinc_comments_that_cannot_be_read(tmp_path):
    write_challenge(tmp_path, "A0001", "164889003.0, nan,Unknown,")
    path = tmp_path / "A0001.hea"
    text = path.read_text()
    for old, new in (("Age: 85", "Age: 300"), ("Sex: Male", "Sex: Other")):
        assert old in text
        text = text.replace(old, new)
    path.write_text(text)
    manifest = cinc_manifest(str(tmp_path), database="any", stretch="start", duration_s=10.0)
    (row,) = manifest.rows
    assert (row.labels, row.age, row.sex) == (("164889003",), None, None)
    assert "1 cell of `age` could not be read, so it is unknown there: `300` (1)" in manifest.notes
    assert "1 cell of `sex` could not be read, so it is unknown there: `Other` (1)" in manifest.notes


@pytest.mark.parametrize("rate", ["500.0001", "499.9999"])
@pytest.mark.parametrize("stretch", ["start", "first_5s_padded", "windows"])
def test_cinc_at_a_rate_that_is_not_quite_round(tmp_path, rate, stretch):
    digital = write_challenge(tmp_path, "A0001", "164889003", samples=10_000)
    path = tmp_path / "A0001.hea"
    path.write_text(path.read_text().replace("A0001 12 500 ", f"A0001 12 {rate} "))
    manifest = cinc_manifest(str(tmp_path), database="any", stretch=stretch, duration_s=10.0)
    windows = [preprocess(Cinc(kind="cinc").read(row.record_uri), SignalConfig(500, 10.0)) for row in manifest.rows]
    kept = 2500 if stretch == "first_5s_padded" else 4999
    assert np.array_equal(windows[0][:, :kept], digital[:kept].T)
    assert not any("1 of them with zeros" in note for note in manifest.notes)


def test_cinc_elsewhere(tmp_path):
    with pytest.raises(DatasetError, match="no WFDB header"):
        cinc_manifest(str(tmp_path), database="any", stretch="start", duration_s=10.0)
    with pytest.raises(DatasetError, match="not a stretch"):
        Cinc(kind="cinc").read("A0001#cut:start=x")


@pytest.mark.parametrize(
    ("acronyms", "found"),
    [  # rows of MERL's chapman_test.csv: JS24831, JS06216, JS01817, JS11559, JS06182, JS10589
        ("SB STE ERV", "STE ERV ST"),
        ("SB APB LVQRSAL", "APB SA"),
        ("SB 1AVB STTC", "VB STTC AVB 1AVB ST"),
        ("AT 1AVB SR APB", "SR AT VB APB AVB 1AVB"),
        ("AFIB IDC", "AF AFIB"),
        ("SVT LBBB", "LBBB SVT"),
        ("SB", ""),
    ],
)
def test_csn_as_published(acronyms, found):
    """The published labels find an acronym inside another; the corrected ones do not."""
    codes = {name: code for code, name in ACRONYMS.items()}
    assert set(published_classes(tuple(codes[name] for name in acronyms.split()))) == set(found.split())
    exact = load_label_sets("csn")["csn_exact"]
    row = label_matrix(exact, [[codes[name] for name in acronyms.split()]])[0][0]
    names = {name for name, hit in zip(exact.classes, row, strict=True) if hit}
    assert names == set(acronyms.split()) & set(CLASSES)


def test_csn_record_with_an_unknown_code_has_no_published_label():
    assert published_classes(("426783006", "55827005")) == ()


def test_csn_label_sets_are_the_table():
    sets = load_label_sets("csn")
    codes = {name: code for code, name in ACRONYMS.items()}
    assert tuple(sets["csn"].classes) == tuple(sets["csn_exact"].classes) == CLASSES
    assert all(found == (f"csn:{name}",) for name, found in sets["csn"].classes.items())
    assert all(found[0] == codes[name] for name, found in sets["csn_exact"].classes.items())


def test_class_orders_are_the_published_ones(data):
    import json

    orders = json.loads((data / "prompts" / "melp_class_names.json").read_text())
    assert list(dataset_tasks("csn")["csn"].classes) == orders["chapman"]
    assert list(dataset_tasks("cpsc2018")["cpsc2018"].classes) == orders["icbeb"]


def test_real_cpsc2018(data):
    """99 records; some headers are of the first release, with words for codes. Some records have several classes."""
    source = str(data / "cinc2021" / "cpsc_2018")
    manifest = cinc_manifest(source, database="cpsc2018", stretch="start", duration_s=10.0)
    counts, scored = positives(manifest.rows, "cpsc2018", "cpsc2018")
    assert scored == len(manifest.rows) == 99
    expected = "AFIB 33, VPC 9, NORM 12, 1AVB 4, CRBBB 19, STE 8, PAC 7, CLBBB 4, STD 9"
    assert ", ".join(f"{name} {count}" for name, count in counts.items()) == expected
    windows = cinc_manifest(source, database="cpsc2018", stretch="windows", duration_s=10.0)
    assert len(windows.rows) == 186
    for row in windows.rows[::20]:
        preprocess(Cinc(kind="cinc").read(row.record_uri), SIGNAL)


def test_real_csn(data):
    source = str(data / "cinc2021" / "chapman_shaoxing_ningbo")
    manifest = cinc_manifest(source, database="csn", stretch="start", duration_s=10.0)
    assert len(manifest.rows) == 41
    published, scored = positives(manifest.rows, "csn", "csn")
    assert scored == 17
    exact, scored = positives(manifest.rows, "csn", "csn_exact")
    assert scored == 29
    assert (published["VB"], exact["VB"], published["AVB"], exact["AVB"]) == (1, 0, 1, 0)
    assert (published["AF"], published["AFIB"], exact["AF"], exact["AFIB"]) == (4, 2, 4, 2)


@pytest.mark.parametrize("name", ["mitbih", "cpsc2018", "csn"])
def test_example_settings_can_be_read(name):
    config = load_config(Path(__file__).parents[2] / "jobs" / "configs" / f"{name}.yaml")
    assert set(config.evaluate.tasks or ()) <= set(dataset_tasks(name))


def test_patient_folds_take_the_place_of_the_sources():
    rows = tuple(
        ManifestRow(f"r{n}", f"p{n // 3}", n % 10 + 1, f"uri{n}", "report", (), (), None, None, from_file=("fold",))
        for n in range(300)
    )
    found = in_patient_folds(Manifest(rows, "wfdb", "0" * 64), 4)
    assert {row.fold for row in found.rows} == {1, 2, 3, 4}
    assert len({(row.patient_id, row.fold) for row in found.rows}) == 100
    assert "folds 1 to 4" in found.notes[-1]
    for row, before in zip(found.rows, rows, strict=True):
        assert row == replace(before, fold=row.fold, from_file=())
    unnamed = (replace(rows[0], from_file=("patient_id", "fold")), *rows[1:])
    with pytest.raises(DatasetError, match=r"too late for folds(.|\n)*patient_id"):
        in_patient_folds(Manifest(unnamed, "wfdb", "0" * 64), 4)


def test_shuffled_reports_are_others_of_the_same_fold():
    rows = tuple(
        ManifestRow(f"r{n}", f"p{n}", n % 2 + 1, f"uri{n}", f"report {n}", (f"statement {n}",), (f"L{n}",), None, None)
        for n in range(20)
    )
    manifest = Manifest(rows, "wfdb", "0" * 64)
    shuffled = shuffle_reports(manifest, 1)
    assert shuffled == shuffle_reports(manifest, 1)
    assert shuffled.rows != shuffle_reports(manifest, 2).rows
    assert "SHUFFLED" in shuffled.notes[-1]
    giver = {row.report: row for row in rows}
    for row, before in zip(shuffled.rows, rows, strict=True):
        assert row.report != before.report
        assert giver[row.report].fold == before.fold
        assert row.statements == giver[row.report].statements
        assert replace(row, report=before.report, statements=before.statements) == before
    assert {row.report for row in shuffled.rows} == set(giver)
    with pytest.raises(DatasetError, match="has no reports to shuffle"):
        shuffle_reports(replace(manifest, has_reports=False), 1)


# --- the words of SNOMED codes


def test_every_code_of_the_challenge_has_words_and_every_scored_one_a_class(data):
    words = SnomedWords.read("/nowhere")
    assert len(words.words) == 133
    label_set = load_label_sets("cinc2021")["cinc2021"]
    assert len(label_set.classes) == 26
    assert {code for codes in label_set.classes.values() for code in codes} < set(words.words)
    for folder in ("georgia", "ptb", "cpsc_2018_extra", "chapman_shaoxing_ningbo"):
        manifest = cinc_manifest(
            str(data / "cinc2021" / folder), database="cinc2021", stretch="start", duration_s=10.0, words=words
        )
        assert (manifest.source, manifest.has_reports) == ("cinc2021", True)
        assert all(len(row.statements) <= len(row.labels) for row in manifest.rows)
        assert any(row.statements for row in manifest.rows)
    (first, *_) = cinc_manifest(
        str(data / "cinc2021" / "ptb"), database="cinc2021", stretch="start", duration_s=10.0, words=words
    ).rows
    assert first.report == "Low QRS voltages. Sinus rhythm"


def test_chapmans_own_layout_and_its_own_words(tmp_path, data):
    folder = tmp_path / "WFDBRecords" / "01" / "010"
    folder.mkdir(parents=True)
    for name in ("JS00001", "JS00002"):
        for suffix in (".hea", ".mat"):
            path = data / "cinc2021" / "chapman_shaoxing_ningbo" / f"{name}{suffix}"
            (folder / path.name).write_bytes(path.read_bytes())
    (tmp_path / "ConditionNames_SNOMED-CT.csv").write_text(
        "Acronym Name,Full Name,Snomed_CT\n"
        "AFIB,Atrial  Fibrillation,164889003\nRBBB,right bundle branch block,59118001\n"
        "RBBB2,another name,59118001\n"
    )
    source = Cinc(kind="cinc", uri=str(tmp_path), database="csn", report="snomed")
    manifest = source.manifest(SIGNAL, seed=0)
    first = manifest.rows[0]
    assert first.record_id == "JS00001"
    assert first.statements == ("Atrial Fibrillation", "right bundle branch block", "Abnormal T wave")
    assert "csn:AFIB" in first.labels
    assert source.read(first.record_uri).signal_mv.shape == (12, 5000)
    assert "reports are the words of the records' SNOMED CT codes" in manifest.notes

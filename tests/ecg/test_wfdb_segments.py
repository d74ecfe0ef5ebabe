"""WFDB beyond one file of one rate: segments, gaps, skew, several samples in a frame, null signals. Against wfdb."""

import random
import zipfile
from pathlib import Path

import numpy as np
import pytest
import wfdb

from mets_ray.ecg.ecg import LEADS
from mets_ray.ecg.gaps import behind_gaps
from mets_ray.ecg.preprocess import SignalConfig, preprocess
from mets_ray.ecg.read import read_ecg
from mets_ray.ecg.wfdb import decode_wfdb, main_headers, read_header, read_wfdb
from mets_ray.errors import RecordError
from mets_ray.model.windows import cut_windows
from tests.support.wfdb_records import DIGITAL, edit_header, rejected, write_record
from tests.support.zips import zipped

LAYOUT = "r_layout 3 100 0\n~ 0 1000/mV 16 0 0 0 0 II\n~ 0 1/mmHg 9 0 0 0 0 ABP\n~ 0 1000/mV 16 0 0 0 0 V5\n"


def write_variable(folder: Path) -> str:
    """A gap, II and ABP, V5 and II of another gain, a gap, ABP alone."""
    write_record(folder, "r_1", DIGITAL[:300, :2], sig_name=["ABP", "II"], units=["mmHg", "mV"])
    write_record(folder, "r_2", DIGITAL[:200, :2], sig_name=["V5", "II"], adc_gain=[500.0, 2000.0], fmt="24")
    write_record(folder, "r_3", DIGITAL[:50, :1], sig_name=["ABP"], units=["mmHg"])
    (folder / "r_layout.hea").write_text(LAYOUT)
    (folder / "r.hea").write_text("r/6 3 100 750\nr_layout 0\n~ 120\nr_1 300\nr_2 200\n~ 80\nr_3 50\n# a comment\n")
    return str(folder / "r")


def write_fixed(folder: Path, leads: int = 12, seconds: tuple[int, ...] = (4, 6)) -> str:
    start = 0
    for number, length in enumerate(seconds):
        write_record(folder, f"r_{number}", DIGITAL[start * 100 : (start + length) * 100, :leads])
        start += length
    lines = "".join(f"r_{number} {length * 100}\n" for number, length in enumerate(seconds))
    (folder / "r.hea").write_text(f"r/{len(seconds)} {leads} 100 {start * 100}\n{lines}")
    return str(folder / "r")


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_fixed_layout(tmp_path):
    record = write_fixed(tmp_path)
    ecg = read_wfdb(record)
    assert np.array_equal(ecg.signal_mv, DIGITAL.T / 1000)
    assert np.array_equal(ecg.signal_mv, wfdb.rdrecord(record).p_signal.T)
    assert (read_header(record).leads, read_header(record).num_samples) == (LEADS, 1000)
    sent = decode_wfdb("r.hea", files_of(tmp_path), max_samples=12_000, max_duration_s=10.0)
    assert np.array_equal(sent.signal_mv, ecg.signal_mv)


def test_variable_layout(tmp_path):
    record = write_variable(tmp_path)
    ecg, theirs = read_wfdb(record), wfdb.rdrecord(record)
    assert (ecg.leads, ecg.other_signals) == (("II", "V5"), ("ABP",))
    assert np.array_equal(ecg.signal_mv, theirs.p_signal[:, [0, 2]].T, equal_nan=True)
    recorded = np.isfinite(ecg.signal_mv).any(axis=1)
    assert recorded.all()
    assert np.isnan(ecg.signal_mv).sum(axis=1).tolist() == [750 - 500, 750 - 200]


def test_windows_over_a_gap_are_left_out(tmp_path):
    """Three windows of 10 s; the gap is in the second."""
    for number in (1, 2):
        write_record(tmp_path, f"r_{number}", np.tile(DIGITAL, (2, 1))[:1400])
    (tmp_path / "r.hea").write_text("r/3 12 100 3000\nr_1 1400\n~ 200\nr_2 1400\n")
    windows = cut_windows(read_wfdb(str(tmp_path / "r")), SignalConfig(100, 10.0))
    assert len(windows.signal_uv) == 2
    assert "window 2 of 3" in dict(windows.warnings)["window_left_out"]


def test_a_zip_of_segments_is_one_record(tmp_path):
    write_variable(tmp_path)
    archive = tmp_path.parent / f"{tmp_path.name}.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for name, data in files_of(tmp_path).items():
            file.writestr(f"folder/{name}", data)
    assert np.array_equal(read_ecg(archive).signal_mv, read_wfdb(str(tmp_path / "r")).signal_mv, equal_nan=True)
    assert main_headers({f"folder/{name}": data for name, data in files_of(tmp_path).items()}) == ["folder/r.hea"]


@pytest.mark.parametrize(
    ("lines", "reason", "fact"),
    [
        ("r/2 12 100 1000\nr_0 400\nr 600\n", "header_mismatch", "segments of its own"),
        ("r/2 12 100 1000\nr_0 400\nr_9 600\n", "missing_file", "`r_9.hea`"),
        ("r/2 12 100 1000\nr_0 400\n../r_1 600\n", "unreadable_header", "not one in the header's own folder"),
        ("r/2 12 100 1000\nr_0 400\nsub/r_1 600\n", "unreadable_header", "it is a folder"),
        ("r/2 12 100 1000\nr_0 400\nr_1 many\n", "unreadable_header", "segment line"),
        ("r/2 12 100 1000\nr_0 400\nr_1 500\n", "header_mismatch", "have 900 samples"),
        ("r/2 12 100 900\nr_0 400\nr_1 500\n", "header_mismatch", "says 600 samples"),
        ("r/3 12 100 1000\nr_0 400\nr_1 600\n", "header_mismatch", "3 segments"),
        ("r/2 12 500 1000\nr_0 400\nr_1 600\n", "header_mismatch", "100 Hz, the record 500 Hz"),
        ("r/2 8 100 1000\nr_0 400\nr_1 600\n", "header_mismatch", "12 signals, the record has 8"),
        ("r/1 12 100 1000\n~ 1000\n", "header_mismatch", "all segments are gaps"),
        ("r/2 12 100\nr_0 400\n~ 999999999999\n", "too_long", "asks for"),
    ],
)
def test_segments_that_disagree(tmp_path, lines, reason, fact):
    record = write_fixed(tmp_path)
    Path(f"{record}.hea").write_text(lines)
    assert fact in rejected(record, reason).fact
    with pytest.raises(RecordError) as caught:
        decode_wfdb("r.hea", files_of(tmp_path), max_samples=10**13, max_duration_s=1e12)
    assert caught.value.reason == reason


def test_other_leads_in_a_segment_of_a_fixed_layout(tmp_path):
    record = write_fixed(tmp_path)
    write_record(tmp_path, "r_1", DIGITAL[400:], sig_name=[*LEADS[6:], *LEADS[:6]])
    assert "segment `r_1`: its leads are V1" in rejected(record, "header_mismatch").fact


@pytest.mark.parametrize("fmt", ["16", "212", "24", "80", "516"])
def test_several_samples_in_a_frame(tmp_path, fmt):
    """As bedside monitors store them: leads four times as often as the pressure between them."""
    rng = np.random.default_rng(3)
    order = [("II", 4), ("V5", 4)] if fmt == "516" else [("II", 4), ("ABP", 1), ("foot GSR", 2), ("V5", 4)]
    digital = [rng.integers(-100, 100, 500 * count) for _, count in order]
    wfdb.wrsamp(
        "r",
        fs=62.5,
        units=["mmHg" if name == "ABP" else "mV" for name, _ in order],
        sig_name=[name for name, _ in order],
        fmt=[fmt] * len(order),
        adc_gain=[200.0] * len(order),
        baseline=[0] * len(order),
        e_d_signal=digital,
        samps_per_frame=[count for _, count in order],
        write_dir=str(tmp_path),
    )
    record = str(tmp_path / "r")
    ecg, theirs = read_wfdb(record), wfdb.rdrecord(record, smooth_frames=False)
    assert (ecg.leads, ecg.sampling_rate_hz) == (("II", "V5"), 250.0)
    assert np.array_equal(ecg.signal_mv, np.stack([theirs.e_p_signal[0], theirs.e_p_signal[-1]]))
    assert ecg.other_signals == tuple(name for name, _ in order[1:-1])
    assert read_header(record).num_samples == 2000
    if fmt != "516":
        edit_header(record, ("foot GSR", "V1"))
        assert "II 4, V1 2, V5 4" in rejected(record, "unsupported_format").fact


def test_a_skew_shifts_a_lead(tmp_path):
    record = write_record(tmp_path)
    lines = Path(f"{record}.hea").read_text().split("\n")
    lines = [
        line.replace("r.dat 16 ", "r.dat 16:7 ") if number in (3, 5) else line for number, line in enumerate(lines)
    ]
    Path(f"{record}.hea").write_text("\n".join(lines))
    ecg = read_wfdb(record)
    assert np.array_equal(ecg.signal_mv, wfdb.rdrecord(record).p_signal.T, equal_nan=True)
    assert np.array_equal(ecg.signal_mv[2, :-7], DIGITAL[7:, 2] / 1000)
    assert np.isnan(ecg.signal_mv).sum() == 2 * 7


def test_a_null_signal_was_not_recorded(tmp_path):
    record = write_record(tmp_path, digital=DIGITAL[:, :2])
    edit_header(record, ("r 2 100", "r 3 100"))
    with Path(f"{record}.hea").open("a") as file:
        file.write("~ 0 1000/mV 16 0 0 0 0 V1\n")
    ecg = read_wfdb(record)
    assert ecg.leads == ("I", "II", "V1")
    assert np.isnan(ecg.signal_mv[2]).all()
    assert np.array_equal(ecg.signal_mv[:2], DIGITAL[:, :2].T / 1000)


def test_a_checksum_of_zero_without_a_length_is_a_placeholder(tmp_path):
    record = write_record(tmp_path)
    lines = [line.split() for line in Path(f"{record}.hea").read_text().split("\n") if line]
    lines[0] = lines[0][:3]
    Path(f"{record}.hea").write_text("\n".join(" ".join([*f[:6], "0", *f[7:]] if len(f) > 6 else f) for f in lines))
    assert np.array_equal(read_wfdb(record).signal_mv, DIGITAL.T / 1000)


def test_flac_over_http_is_bounded(tmp_path):
    write_record(tmp_path, digital=DIGITAL[:, :2], fmt="516")
    sent = decode_wfdb("r.hea", files_of(tmp_path), max_samples=2000, max_duration_s=10.0)
    assert np.array_equal(sent.signal_mv, DIGITAL[:, :2].T / 1000)
    for header in ("r 2 100 1000", "r 2 100"):
        edit_header(str(tmp_path / "r"), ("r 2 100 1000", header))
        with pytest.raises(RecordError) as caught:
            decode_wfdb("r.hea", files_of(tmp_path), max_samples=1999, max_duration_s=10.0)
        assert caught.value.reason == "too_long"


WORDS = (
    b"0",
    b"-1",
    b"~",
    b"../x",
    b"r",
    b"r/3",
    b"16x9999",
    b"8",
    b"516",
    b"310",
    b"16:99999",
    b"16+99",
    b"1e999",
    b"9" * 5000,
)


def test_damaged_records_are_refused_with_a_reason(tmp_path):
    """One word of a header or a bit of a file exchanged, 150 times: read, or RecordError, and nothing else."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    write_variable(tmp_path / "a")
    write_record(tmp_path / "b", digital=DIGITAL[:, :3], fmt="516")
    chance = random.Random(0)
    for number in range(150):
        files = files_of(tmp_path / "ab"[number % 2])
        name = chance.choice(sorted(files))
        if name.endswith(".hea"):
            words = files[name].split(b" ")
            words[chance.randrange(len(words))] = chance.choice(WORDS)
            files[name] = b" ".join(words)
        else:
            data = bytearray(files[name])
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
            files[name] = bytes(data[: chance.choice([len(data), chance.randrange(len(data))])])
        try:
            ecg = decode_wfdb("r.hea", files, max_samples=10**6, max_duration_s=3600.0)
        except RecordError:
            continue
        assert ecg.signal_mv.shape[0] == len(ecg.leads)


def test_prepare_takes_the_first_window_without_a_gap(tmp_path):
    """Monitors begin with a gap: 3 s here, then 2 s of leads, a gap, and 10 s."""
    write_record(tmp_path, "r_1", DIGITAL[:200])
    write_record(tmp_path, "r_2", DIGITAL)
    (tmp_path / "r.hea").write_text("r/4 12 100 1550\n~ 300\nr_1 200\n~ 50\nr_2 1000\n")
    config = SignalConfig(100, 10.0)
    ecg = read_wfdb(str(tmp_path / "r"))
    assert np.array_equal(preprocess(behind_gaps(ecg, config), config), DIGITAL.T)
    whole = read_wfdb(str(tmp_path / "r_2"))
    assert behind_gaps(whole, config) is whole
    with pytest.raises(RecordError, match="no stretch of 11 s without a gap") as caught:
        behind_gaps(ecg, SignalConfig(100, 11.0))
    assert caught.value.reason == "non_finite"


def test_a_null_signal_may_name_the_file_of_the_others():
    samples = np.stack([np.full(100, 111), np.full(100, 222)], 1).astype("<i2").tobytes()
    header = "r 3 500 100\nr.dat 0 1000 16 0 0 0 0 RESP\n"
    header += "r.dat 16 1000 16 0 0 11100 0 II\nr.dat 16 1000 16 0 0 22200 0 III\n"
    ecg = read_ecg(zipped({"r.hea": header, "r.dat": samples}))
    assert ecg.leads == ("II", "III")
    np.testing.assert_allclose(ecg.signal_mv, [[0.111] * 100, [0.222] * 100])


@pytest.mark.parametrize("layout", ["", "lay 0\n"])
def test_two_signals_of_one_name_keep_their_order(layout):
    def segment(name, count, data="{name}.dat"):
        lines = (f"{data.format(name=name)} 16 1000 16 0 0 {total} 0 ECG\n" for total in (11100, 22200))
        return f"{name} 2 500 {count}\n{''.join(lines)}"

    samples = np.stack([np.full(100, 111), np.full(100, 222)], 1).astype("<i2").tobytes()
    files = {"m.hea": f"m/{3 if layout else 2} 2 500 200\n{layout}s1 100\ns2 100\n"}
    files |= {f"{name}.hea": segment(name, 100) for name in ("s1", "s2")}
    files |= {"lay.hea": segment("lay", 0, "~").replace(" 16 ", " 0 ", 1)} if layout else {}
    files |= {f"{name}.dat": samples for name in ("s1", "s2")}
    ecg = read_ecg(zipped(files))
    np.testing.assert_allclose(ecg.signal_mv, [[0.111] * 200, [0.222] * 200])

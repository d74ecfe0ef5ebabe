"""WFDB records written by wfdb itself and damaged one way each."""

from pathlib import Path

import numpy as np
import pytest
import wfdb

from mets_ray.ecg.ecg import LEADS
from mets_ray.ecg.leads import standard_lead
from mets_ray.ecg.preprocess import SignalConfig, preprocess
from mets_ray.ecg.wfdb import REASONS, decode_wfdb, read_header, read_wfdb
from mets_ray.errors import RecordError
from tests.support.wfdb_records import DIGITAL, edit_header, packed, rejected, write_record


@pytest.mark.parametrize(
    ("comments", "age", "sex"),
    [
        ("#Age: 74\n#Sex: Male\n#Dx: 426783006\n", 74.0, "male"),
        ("# age: 0.5\n# sex: F\n", 0.5, "female"),
        ("# Age: NaN\n# Sex: Unknown\n", None, None),
        ("# age: 999\n# 69 M 1085 1629 x1\n", None, None),
        ("", None, None),
    ],
)
def test_age_and_sex_are_what_comments_name(tmp_path, comments, age, sex):
    record = write_record(tmp_path)
    header = Path(f"{record}.hea")
    header.write_text(header.read_text() + comments)
    meta = read_wfdb(record).meta
    assert (meta.age, meta.sex) == (age, sex)


@pytest.mark.parametrize("extension", ["", ".hea"])
def test_reads_what_wfdb_wrote(tmp_path, extension):
    ecg = read_wfdb(write_record(tmp_path) + extension)
    assert (ecg.leads, ecg.sampling_rate_hz) == (LEADS, 100.0)
    assert np.array_equal(ecg.signal_mv, DIGITAL.T / 1000)


def test_relative_path(tmp_path, monkeypatch):
    write_record(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert np.array_equal(read_wfdb("r").signal_mv, DIGITAL.T / 1000)


@pytest.mark.parametrize("fmt", ["16", "80", "212", "24", "32", "61", "160", "310", "311"])
@pytest.mark.parametrize("samples", [1000, 998, 3])
@pytest.mark.parametrize("leads", [2, 3])
def test_formats(tmp_path, fmt, samples, leads):
    """Against wfdb.rdrecord and the known samples; the numbers of samples do not all fill whole groups of bytes."""
    digital = np.random.default_rng(1).integers(-100, 100, (samples, leads))
    by_hand = fmt in ("61", "160", "310", "311")
    record = write_record(
        tmp_path,
        digital=digital,
        fmt="16" if by_hand else fmt,
        adc_gain=[100.0, 200.5, 400.0][:leads],
        baseline=[0, -7, 30][:leads],
    )
    if by_hand:
        edit_header(record, ("r.dat 16 ", f"r.dat {fmt} "))
        (tmp_path / "r.dat").write_bytes(packed(digital, fmt))
    ecg = read_wfdb(record)
    np.testing.assert_allclose(ecg.signal_mv[1], (digital[:, 1] + 7) / 200.5, rtol=1e-12)
    assert np.array_equal(ecg.signal_mv, wfdb.rdrecord(record).p_signal.T)


def test_differences_are_added_up(tmp_path):
    """Format 8: differences of one byte from the initial value of each signal; wfdb writes none, and reads them."""
    digital = np.random.default_rng(2).integers(-60, 60, (1000, 3)).cumsum(axis=0)
    record = write_record(tmp_path, digital=digital)
    first = np.array([5, -1, 0])
    (tmp_path / "r.dat").write_bytes(np.diff(digital, axis=0, prepend=first[None]).astype("i1").tobytes())
    lines = Path(f"{record}.hea").read_text().replace("r.dat 16 ", "r.dat 8 ").split("\n")
    for number, value in enumerate(first, start=1):
        fields = lines[number].split()
        lines[number] = " ".join([*fields[:5], str(value), *fields[6:]])
    Path(f"{record}.hea").write_text("\n".join(lines))
    assert np.array_equal(read_wfdb(record).signal_mv, digital.T / 1000)
    assert np.array_equal(wfdb.rdrecord(record).p_signal, digital / 1000)


@pytest.mark.parametrize("fmt", ["508", "516", "524"])
def test_flac(tmp_path, fmt):
    digital = np.random.default_rng(1).integers(-100, 100, (1000, 3))
    digital[7, 1] = {"508": -(2**7), "516": -(2**15), "524": -(2**23)}[fmt]  # marked as invalid
    record = write_record(tmp_path, digital=digital, fmt=fmt)
    ecg = read_wfdb(record)
    assert np.argwhere(np.isnan(ecg.signal_mv)).tolist() == [[1, 7]]
    np.testing.assert_array_equal(ecg.signal_mv, wfdb.rdrecord(record).p_signal.T)
    (tmp_path / "r.dat").write_bytes(b"fLaC" + bytes(500))
    rejected(record, "truncated_file")


def test_each_lead_has_its_own_unit_and_gain(tmp_path):
    record = write_record(
        tmp_path, units=["uV", "V"] + ["mV"] * 10, adc_gain=[1.0, 1e6, *[1000.0] * 10], baseline=[100, 0, *[0] * 10]
    )
    expected = DIGITAL.T / 1000.0
    expected[0] -= 0.1
    np.testing.assert_allclose(read_wfdb(record).signal_mv, expected, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
def test_micro_signs_survive(tmp_path, encoding):
    """wfdb reads headers as ASCII and drops the rest, which would make 1 V of 1 µV."""
    record = write_record(tmp_path, adc_gain=[1.0] * 12, units=["uV"] * 12)
    edit_header(record, ("/uV", "/\u00b5V"), encoding=encoding)
    assert np.array_equal(read_wfdb(record).signal_mv, DIGITAL.T / 1000)


def test_microvolts_reach_the_shard_unchanged(tmp_path):
    record = write_record(tmp_path, adc_gain=[1.0] * 12, units=["uV"] * 12)
    assert np.array_equal(preprocess(read_wfdb(record), SignalConfig(100, 10.0)), DIGITAL.T)


def test_shuffled_leads_give_the_same_array(tmp_path):
    order = np.random.default_rng(2).permutation(12)
    shuffled = write_record(tmp_path, "shuffled", DIGITAL[:, order], sig_name=[LEADS[n].upper() for n in order])
    config = SignalConfig(100, 10.0)
    assert np.array_equal(
        preprocess(read_wfdb(shuffled), config), preprocess(read_wfdb(write_record(tmp_path)), config)
    )


def test_two_signal_files_and_a_byte_offset(tmp_path):
    """The layout of the CinC challenges' .mat (24 bytes before the samples), and leads spread over two files."""
    record = write_record(tmp_path)
    samples = DIGITAL.astype("<i2")
    (tmp_path / "r.dat").write_bytes(b"\0" * 24 + samples[:, :5].tobytes())
    (tmp_path / "r2.dat").write_bytes(b"\0" * 24 + samples[:, 5:].tobytes())
    lines = Path(f"{record}.hea").read_text().replace("r.dat 16 ", "r.dat 16x1+24 ").splitlines()
    lines = [line.replace("r.dat", "r2.dat") if number > 5 else line for number, line in enumerate(lines)]
    Path(f"{record}.hea").write_text("\n".join(["# made by hand", *lines, "#Dx: 426783006"]))
    assert np.array_equal(read_wfdb(record).signal_mv, DIGITAL.T / 1000)
    assert np.array_equal(wfdb.rdrecord(record).p_signal, DIGITAL / 1000)


def test_length_missing_in_the_header(tmp_path):
    record = write_record(tmp_path)
    edit_header(record, ("r 12 100 1000", "r 12 100"))
    assert np.array_equal(read_wfdb(record).signal_mv, DIGITAL.T / 1000)


@pytest.mark.parametrize(("fmt", "mark"), [("16", -32768), ("212", -2048), ("24", -(2**23)), ("32", -(2**31))])
def test_invalid_samples_become_nan(tmp_path, fmt, mark):
    digital = np.clip(DIGITAL, -2000, 2000)
    digital[20:23, 4] = mark
    ecg = read_wfdb(write_record(tmp_path, digital=digital, fmt=fmt))
    assert np.argwhere(np.isnan(ecg.signal_mv)).tolist() == [[4, 20], [4, 21], [4, 22]]
    with pytest.raises(RecordError) as caught:
        preprocess(ecg, SignalConfig(100, 10.0))
    assert caught.value.reason == "non_finite"


def test_missing_files(tmp_path):
    assert "`nothing.hea`" in rejected(str(tmp_path / "nothing"), "missing_file").fact
    record = write_record(tmp_path)
    (tmp_path / "r.dat").unlink()
    assert "`r.dat`" in rejected(record, "missing_file").fact


@pytest.mark.parametrize("fmt", ["16", "212", "32"])
@pytest.mark.parametrize("cut", [1, 2, 24, 10_000])
def test_truncated_file(tmp_path, fmt, cut):
    record = write_record(tmp_path, digital=np.clip(DIGITAL, -2000, 2000), fmt=fmt)
    data = (tmp_path / "r.dat").read_bytes()
    (tmp_path / "r.dat").write_bytes(data[:-cut])
    assert f"{len(data) - cut} bytes of the {len(data)}" in rejected(record, "truncated_file").fact


def test_truncated_file_of_unknown_length(tmp_path):
    record = write_record(tmp_path)
    edit_header(record, ("r 12 100 1000", "r 12 100"))
    data = (tmp_path / "r.dat").read_bytes()
    (tmp_path / "r.dat").write_bytes(data[:-2])
    rejected(record, "truncated_file")
    (tmp_path / "r.dat").write_bytes(data[:-1])
    rejected(record, "truncated_file")
    (tmp_path / "r.dat").write_bytes(data[:-24])  # a whole frame: only the checksums know
    rejected(record, "header_mismatch")


@pytest.mark.parametrize("fmt", ["16", "212"])
@pytest.mark.parametrize("more", [b"\0" * 24, b"\0" * 36, b"x" * 5000])
def test_extended_file(tmp_path, fmt, more):
    record = write_record(tmp_path, digital=np.clip(DIGITAL, -2000, 2000), fmt=fmt)
    (tmp_path / "r.dat").write_bytes((tmp_path / "r.dat").read_bytes() + more)
    assert "bytes, the header says" in rejected(record, "header_mismatch").fact


@pytest.mark.parametrize("fmt", ["16", "212"])
def test_changed_byte(tmp_path, fmt):
    record = write_record(tmp_path, digital=np.clip(DIGITAL, -2000, 2000), fmt=fmt)
    data = bytearray((tmp_path / "r.dat").read_bytes())
    data[(500 * 12 + 7) * 2 if fmt == "16" else (500 * 12 + 6) * 3 // 2] ^= 1
    (tmp_path / "r.dat").write_bytes(data)
    lead = "V2" if fmt == "16" else "V1"
    assert f"the samples of {lead} do not add up" in rejected(record, "header_mismatch").fact


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("1000.0(0)/mV", "0(0)/mV", "missing_unit"),
        ("1000.0(0)/mV", "0", "missing_unit"),
        ("1000.0(0)/mV", "0.00/uV", "missing_unit"),
        ("1000.0(0)/mV", "1e999/mV", "unreadable_header"),
        ("1000.0(0)/mV", "1000.0(0)/mmHg", "unknown_unit"),
        ("1000.0(0)/mV", "lots/mV", "unreadable_header"),
        ("r 12 100 1000", "r 13 100 1000", "header_mismatch"),
        ("r 12 100 1000", "r 11 100 1000", "header_mismatch"),
        ("r 12 100 1000", "r 0 100 1000", "header_mismatch"),
        ("r 12 100 1000", "r 12", "unreadable_header"),
        ("r 12 100 1000", "r 12 100,5 1000", "unreadable_header"),
        ("r 12 100 1000", "r 12 100Hz 1000", "unreadable_header"),
        ("r 12 100 1000", "r twelve 100 1000", "unreadable_header"),
        ("r 12 100 1000", "r 12 100 many", "unreadable_header"),
        ("r.dat 16 ", "r.dat ? ", "unreadable_header"),
        ("r.dat 16 ", "../r.dat 16 ", "unreadable_header"),
        ("r.dat 16 ", "r.dat 17 ", "unsupported_format"),
        ("r.dat 16 ", "r.dat 16x2 ", "truncated_file"),
        ("r.dat 16 ", "r.dat 16x0 ", "unreadable_header"),
        ("r 12 100 1000", "r/2 12 100 1000", "header_mismatch"),
        ("r 12 100 1000", "r 12 100 -1000", "header_mismatch"),
    ],
)
def test_wrong_headers(tmp_path, old, new, reason):
    record = write_record(tmp_path)
    edit_header(record, (old, new))
    rejected(record, reason)


def test_signal_line_without_a_gain(tmp_path):
    record = write_record(tmp_path)
    Path(f"{record}.hea").write_text("r 12 100 1000\n" + "r.dat 16\n" * 12)
    rejected(record, "missing_unit")


@pytest.mark.parametrize("data", [b"", b"\n\n", b"# only a comment\n", b"\xff\xfe\x00" * 50, b"<html>404</html>"])
def test_no_header_at_all(tmp_path, data):
    record = write_record(tmp_path)
    Path(f"{record}.hea").write_bytes(data)
    rejected(record, "unreadable_header")


def test_leads_that_are_wrong_reach_preprocess(tmp_path):
    config = SignalConfig(100, 10.0)
    cases = {
        "missing_leads": write_record(tmp_path, "few", DIGITAL[:, :8]),
        "unknown_lead": write_record(tmp_path, "odd", sig_name=["-aVR", *LEADS[1:]]),
        "duplicate_lead": write_record(tmp_path, "twice", sig_name=["MLII", *LEADS[1:]]),
        "flat_lead": write_record(tmp_path, "flat", DIGITAL * (np.arange(12) != 3)),
        "amplitude_too_large": write_record(tmp_path, "large", adc_gain=[100.0] * 12),
        "too_short": write_record(tmp_path, "short", DIGITAL[:999]),
    }
    for reason, record in cases.items():
        with pytest.raises(RecordError) as caught:
            preprocess(read_wfdb(record), config)
        assert caught.value.reason == reason


def test_every_reason_has_a_test():
    text = Path(__file__).read_text() + Path(__file__).with_name("test_wfdb_segments.py").read_text()
    assert all(f'"{reason}"' in text for reason in REASONS)


# --- what headers hold beside what is needed


@pytest.mark.parametrize(
    "rest",
    ["12:00:00 25/12/2020", "12/25/2020", "24:00:00 01/01/2000", "00:00:00 00/00/0000", "10:00 29/02/2021",
     "2020-12-25",
     "05-May-2020 12:33:36", "12:00:00.123456 1/1/20", "25.12.2020 12h", "[a remark] é"],
)  # fmt: skip
def test_base_time_and_date_are_not_read(tmp_path, rest):
    record = write_record(tmp_path)
    edit_header(record, ("r 12 100 1000", f"r 12 100 1000 {rest}"))
    assert np.array_equal(read_wfdb(record).signal_mv, DIGITAL.T / 1000)


@pytest.mark.parametrize("fields", ["16 0 0", "12.5 - x", "? 0.5 1e3"])
def test_fields_that_are_not_needed_are_not_read(tmp_path, fields):
    """Resolution, ADC zero beside a baseline, and initial value of what holds no differences."""
    record = write_record(tmp_path)
    lines = [line.split() for line in Path(f"{record}.hea").read_text().split("\n") if line]
    text = "\n".join(" ".join([*line[:3], fields, *line[6:]] if line[0] == "r.dat" else line) for line in lines)
    Path(f"{record}.hea").write_text(text)
    assert np.array_equal(read_wfdb(record).signal_mv, DIGITAL.T / 1000)


@pytest.mark.parametrize("rate", ["100", "100.", "1e2", "+100", "100/360", "100/1(0)", "100/360.5(-7.25)"])
def test_a_rate_may_have_a_counter_frequency(tmp_path, rate):
    record = write_record(tmp_path)
    edit_header(record, ("r 12 100 1000", f"r 12 {rate} 1000"))
    assert read_wfdb(record).sampling_rate_hz == 100.0


@pytest.mark.parametrize("code", [0x0B, 0x0C, 0x1C, 0x1D, 0x1E, 0x85, 0x2028, 0x2029, 0x0D])
@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
def test_only_a_linefeed_ends_a_line(tmp_path, code, encoding):
    """str.splitlines ends lines at all of these. 0x85 is an ellipsis in Windows' encoding."""
    if code > 0xFF and encoding == "latin-1":
        return
    record = write_record(tmp_path)
    edit_header(record, ("r 12 100 1000", f"# Dr{chr(code)}Who\nr 12 100 1000"), encoding=encoding)
    with Path(f"{record}.hea").open("ab") as file:
        file.write(f"#Dx: a{chr(code)}b\n".encode(encoding))
    assert np.array_equal(read_wfdb(record).signal_mv, DIGITAL.T / 1000)
    assert read_header(record).comments == (f"Dr{chr(code)}Who", f"Dx: a{chr(code)}b")


def test_windows_line_ends_and_a_byte_order_mark(tmp_path):
    record = write_record(tmp_path)
    data = Path(f"{record}.hea").read_bytes()
    Path(f"{record}.hea").write_bytes(b"\xef\xbb\xbf" + data.replace(b"\n", b"\r\n"))
    assert read_wfdb(record).leads == LEADS
    assert np.array_equal(read_wfdb(record).signal_mv, DIGITAL.T / 1000)


# --- units and signals beside the ECG


@pytest.mark.parametrize("gain", ["1000", "1000.0(0)", "1e3", "1000.0"])
def test_a_gain_without_a_unit_is_in_millivolts(tmp_path, gain):
    """header(5): a missing unit may be assumed to be a millivolt."""
    record = write_record(tmp_path)
    edit_header(record, ("1000.0(0)/mV", gain))
    assert np.array_equal(read_wfdb(record).signal_mv, DIGITAL.T / 1000)


MONITOR = ("RESP", "ABP", "PLETH", "HR", "anything")


def test_signals_that_are_no_ecg_are_left_out(tmp_path):
    """The lines of a bedside monitor: other units, no unit and no calibration, in the same file as the ECG."""
    digital = np.concatenate([DIGITAL[:, :6], DIGITAL[:, :5] * 3, DIGITAL[:, 6:]], axis=1)
    names = [*LEADS[:6], *MONITOR, *LEADS[6:]]
    record = write_record(tmp_path, digital=digital, sig_name=names, units=["mV"] * 17)
    lines = Path(f"{record}.hea").read_text().split("\n")
    for name, calibration in zip(MONITOR, ["1000/mV", "12.5(-3)/mmHg", "0", "1/bpm", "2/NU"], strict=True):
        lines[1 + names.index(name)] = lines[1 + names.index(name)].replace("1000.0(0)/mV", calibration)
    Path(f"{record}.hea").write_text("\n".join(lines))
    ecg = read_wfdb(record)
    assert (ecg.leads, ecg.other_signals) == (LEADS, MONITOR)
    assert np.array_equal(ecg.signal_mv, DIGITAL.T / 1000)
    assert np.array_equal(preprocess(ecg, SignalConfig(100, 10.0)), DIGITAL.T)
    assert read_header(record).leads == LEADS


def test_a_record_without_an_ecg(tmp_path):
    ecg = read_wfdb(write_record(tmp_path, digital=DIGITAL[:, :2], sig_name=["ABP", "CVP"], units=["mmHg", "mmHg"]))
    assert (ecg.leads, ecg.other_signals, ecg.signal_mv.shape) == ((), ("ABP", "CVP"), (0, 1000))
    with pytest.raises(RecordError, match="12 of 12 leads missing") as caught:
        preprocess(ecg, SignalConfig(100, 10.0))
    assert caught.value.reason == "missing_leads"


def test_signal_files_of_different_lengths(tmp_path):
    record = write_record(tmp_path)
    samples = DIGITAL.astype("<i2")
    (tmp_path / "r.dat").write_bytes(samples[:, :5].tobytes())
    (tmp_path / "r2.dat").write_bytes(samples[:-1, 5:].tobytes())
    lines = Path(f"{record}.hea").read_text().replace("r 12 100 1000", "r 12 100").split("\n")
    lines = [line.replace("r.dat", "r2.dat") if number > 5 else line for number, line in enumerate(lines)]
    Path(f"{record}.hea").write_text(
        "\n".join(" ".join(line.split()[:3]) if number else line for number, line in enumerate(lines))
    )
    error = rejected(record, "header_mismatch")
    assert "different numbers" in error.fact


# --- real records


def test_real_mitdb(data_folder):
    """Its headers give 200 and no unit, which is mV."""
    for header in sorted((data_folder / "mitdb").glob("*.hea"))[::11]:
        ecg, theirs = read_wfdb(str(header)), wfdb.rdrecord(str(header)[:-4])
        assert np.array_equal(ecg.signal_mv, theirs.p_signal.T)
        assert {standard_lead(lead) for lead in ecg.leads} <= {"II", "V1", "V2", "V4", "V5"}


def test_real_ptb_diagnostic(data_folder):
    """Gain 2000 without a unit, lead names in lower case, Frank leads in a second file."""
    path = data_folder / "formats" / "wfdb_15lead" / "s0010_re"
    if not path.with_suffix(".hea").exists():
        pytest.skip("METS_TEST_DATA has no formats/wfdb_15lead")
    ecg = read_wfdb(str(path))
    assert np.array_equal(ecg.signal_mv, wfdb.rdrecord(str(path)).p_signal.T)
    files = {f"r{suffix}": path.with_suffix(suffix).read_bytes() for suffix in (".hea", ".dat", ".xyz")}
    files |= {f"{path.name}{suffix}": files[f"r{suffix}"] for suffix in (".dat", ".xyz")}
    sent = decode_wfdb("r.hea", files, max_samples=8 * 2**20, max_duration_s=120.0)  # as at the endpoint
    assert np.array_equal(sent.signal_mv, ecg.signal_mv)
    assert np.abs(preprocess(ecg, SignalConfig(1000, 10.0)) - ecg.signal_mv[:12, :10_000] * 1000).max() <= 0.5


@pytest.mark.parametrize(("fmt", "bits"), [("16", 16), ("24", 24), ("32", 32), ("212", 12), ("80", 8)])
def test_whole_range_of_each_format(tmp_path, fmt, bits):
    """All values, other than the mark of an invalid one: their sums overflow 16 and 32 bits; checksums are modulo."""
    top = 2 ** (bits - 1)
    digital = np.random.default_rng(bits).integers(top // 2, top, (3000, 2)) * np.array([1, -1])
    record = write_record(tmp_path, digital=digital, fmt=fmt, adc_gain=[3.0, 7.0], baseline=[5, 0])
    assert np.array_equal(read_wfdb(record).signal_mv, wfdb.rdrecord(record).p_signal.T)
    changed = bytearray((tmp_path / "r.dat").read_bytes())
    changed[0] ^= 1
    (tmp_path / "r.dat").write_bytes(changed)
    rejected(record, "header_mismatch")

"""WFDB records written by wfdb itself and damaged one way each."""

from pathlib import Path

import numpy as np
import pytest
import wfdb

from mets_ray.ecg.ecg import LEADS
from mets_ray.ecg.preprocess import SignalConfig, preprocess
from mets_ray.ecg.wfdb import REASONS, read_wfdb
from mets_ray.errors import RecordError
from tests.support.wfdb_records import DIGITAL, edit_header, packed, rejected, write_record


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


@pytest.mark.parametrize(("fmt", "mark"), [("16", -32768), ("212", -2048)])
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
        ("1000.0(0)/mV", "1000.0(0)", "missing_unit"),
        ("1000.0(0)/mV", "1000.0", "missing_unit"),
        ("1000.0(0)/mV", "0(0)/mV", "missing_unit"),
        ("1000.0(0)/mV", "1000.0(0)/mmHg", "unknown_unit"),
        ("1000.0(0)/mV", "lots/mV", "unreadable_header"),
        ("r 12 100 1000", "r 13 100 1000", "header_mismatch"),
        ("r 12 100 1000", "r 11 100 1000", "header_mismatch"),
        ("r 12 100 1000", "r 0 100 1000", "header_mismatch"),
        ("r 12 100 1000", "r 12", "unreadable_header"),
        ("r 12 100 1000", "r twelve 100 1000", "unreadable_header"),
        ("r 12 100 1000", "r 12 100 many", "unreadable_header"),
        ("r.dat 16 ", "r.dat ? ", "unreadable_header"),
        ("r.dat 16 ", "../r.dat 16 ", "unreadable_header"),
        ("r.dat 16 ", "r.dat 17 ", "unsupported_format"),
        ("r.dat 16 ", "r.dat 16x2 ", "unsupported_format"),
        ("r.dat 16 ", "r.dat 16:5 ", "unsupported_format"),
        ("r 12 100 1000", "r/2 12 100 1000", "unsupported_format"),
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
        "unknown_lead": write_record(tmp_path, "odd", sig_name=["MLII", *LEADS[1:]]),
        "flat_lead": write_record(tmp_path, "flat", DIGITAL * (np.arange(12) != 3)),
        "amplitude_too_large": write_record(tmp_path, "large", adc_gain=[100.0] * 12),
        "too_short": write_record(tmp_path, "short", DIGITAL[:999]),
    }
    for reason, record in cases.items():
        with pytest.raises(RecordError) as caught:
            preprocess(read_wfdb(record), config)
        assert caught.value.reason == reason


def test_every_reason_has_a_test():
    text = Path(__file__).read_text()
    assert all(f'"{reason}"' in text for reason in REASONS)


def test_real_mitdb_has_no_unit(data_folder):
    """Its headers give 200 and nothing else; header(5) lets one assume mV, and we do not."""
    for header in sorted((data_folder / "mitdb").glob("*.hea")):
        rejected(str(header), "missing_unit")

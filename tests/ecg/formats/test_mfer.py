"""MFER files written from ISO 22077-1, read back beside ecgdatakit's values."""

import struct

import numpy as np
import pytest
from ecgdatakit.parsing.parsers.mfer import MFERParser

from mets_ray.ecg.ecg import LEADS
from mets_ray.ecg.formats.lead_codes import LEAD_CODES
from mets_ray.ecg.formats.mfer import read, recognises
from mets_ray.errors import RecordError
from tests.support.clinical_files import mfer_header, tlv
from tests.support.damaged_files import refuses_damage

STORED = np.random.default_rng(0).integers(-2000, 2000, (3, 500)).astype(np.int16)
CODES = (1, 2, 61)
END = b"\x80\0"
DATA, CHANNEL = 0x1E, b"\x3f"


def frame(stored=STORED, dtype="<i2"):
    return tlv(DATA, stored.T.astype(dtype).tobytes())


def of_channel(number, *definitions):
    return CHANNEL + bytes([number]) + tlv(0, b"".join(definitions))[1:]


def refused(data, reason):
    with pytest.raises(RecordError) as caught:
        read(data)
    assert caught.value.reason == reason


def theirs(data, folder):
    (folder / "r.mwf").write_bytes(data)
    leads = MFERParser().parse(folder / "r.mwf").leads
    return [lead.label for lead in leads], np.array([lead.samples * lead.resolution + lead.offset for lead in leads])


@pytest.mark.parametrize("order", ["little", "big"])
def test_reads_what_the_specification_says(order, tmp_path):
    data = mfer_header(CODES, order=order) + frame(dtype="<i2" if order == "little" else ">i2") + END
    assert recognises(data[:4096])
    assert recognises(data[34:4096])  # without the preamble, which is optional
    ecg = read(data)
    assert (ecg.leads, ecg.sampling_rate_hz) == (("I", "II", "III"), 500.0)
    np.testing.assert_allclose(ecg.signal_mv, STORED / 1000, rtol=1e-12)
    names, microvolts = theirs(data, tmp_path)
    assert names == list(ecg.leads)
    np.testing.assert_allclose(ecg.signal_mv * 1000, microvolts, rtol=1e-12)


def test_lead_codes():
    codes = [next(code for code, name in LEAD_CODES.items() if name == lead) for lead in LEADS]
    stored = np.tile(STORED, (4, 1))
    assert read(mfer_header(codes) + frame(stored)).leads == LEADS


KINDS = {0: "<i2", 2: "<i4", 3: "<u1", 5: "<i1", 6: "<u4", 7: "<f4", 8: "<f8"}


@pytest.mark.parametrize("kind", KINDS)
def test_kinds_of_sample(kind, tmp_path):
    dtype = KINDS[kind]
    stored = (STORED % 100).astype(dtype)
    data = mfer_header(CODES, kind=kind) + frame(stored, dtype) + END
    np.testing.assert_allclose(read(data).signal_mv, stored / 1000, rtol=1e-6)
    np.testing.assert_allclose(read(data).signal_mv * 1000, theirs(data, tmp_path)[1], rtol=1e-6)


def test_blocks_scales_offsets_and_null(tmp_path):
    """Blocks of 100 samples of each channel in turn; a scale, an offset and a null for one channel alone."""
    own = of_channel(1, tlv(0x0C, b"\0\xf7" + struct.pack("<h", 2500)), tlv(0x0D, struct.pack("<h", 7)))
    null = tlv(0x12, struct.pack("<h", -32768))
    stored = STORED.copy()
    stored[:, 3] = -32768
    blocks = stored.reshape(3, 5, 100).transpose(1, 0, 2)
    header = mfer_header(CODES) + tlv(0x04, b"\x64") + tlv(0x06, b"\x05") + null + own
    data = header + tlv(DATA, blocks.astype("<i2").tobytes()) + END
    ecg = read(data)
    expected = stored / 1000
    expected[1] = (stored[1] + 7.0) * 0.0025
    expected[:, 3] = np.nan
    np.testing.assert_allclose(ecg.signal_mv, expected, rtol=1e-12)
    np.testing.assert_allclose(ecg.signal_mv * 1000, theirs(data, tmp_path)[1], rtol=1e-12)


def test_rates():
    hertz = tlv(0x0B, b"\0\0" + struct.pack("<h", 250))
    assert read(mfer_header(CODES) + hertz + frame()).sampling_rate_hz == 250.0
    reset = tlv(0x0B, b"")
    assert read(mfer_header(CODES) + reset + frame()).sampling_rate_hz == 1000.0  # what the standard says
    refused(mfer_header(CODES) + tlv(0x0B, b"\2\0\1") + frame(), "implausible_sampling_rate")


def test_frames_follow_or_leave_a_gap():
    half = [frame(STORED[:, :200]), frame(STORED[:, 200:])]
    joined = read(mfer_header(CODES) + half[0] + half[1])
    np.testing.assert_allclose(joined.signal_mv, STORED / 1000, rtol=1e-12)
    later = read(mfer_header(CODES) + half[0] + tlv(0x07, struct.pack("<i", 300)) + half[1])
    assert later.signal_mv.shape == (3, 600)
    assert np.isnan(later.signal_mv[:, 200:300]).all()
    np.testing.assert_allclose(later.signal_mv[:, 300:], STORED[:, 200:] / 1000, rtol=1e-12)
    refused(mfer_header(CODES) + half[0] + tlv(0x07, struct.pack("<i", 100)) + half[1], "unreadable_file")
    refused(mfer_header(CODES) + half[0] + tlv(0x07, struct.pack("<I", 2**31)) + half[1], "too_large")


def test_beats_and_other_signals_are_left_out():
    beat = tlv(0x08, struct.pack("<H", 9)) + frame(STORED[:, :50])
    rhythm = tlv(0x08, struct.pack("<H", 1)) + frame()
    assert read(mfer_header(CODES) + beat + rhythm).signal_mv.shape == (3, 500)
    refused(mfer_header(CODES) + beat, "no_ecg_lead")
    pressure = of_channel(2, tlv(0x09, struct.pack("<H", 143) + b"ABP"), tlv(0x0C, b"\1\0\1\0"))
    ecg = read(mfer_header(CODES) + pressure + frame())
    assert (ecg.leads, ecg.other_signals) == (("I", "II"), ("ABP",))


def test_what_a_file_says():
    person = tlv(0x81, b"Doe^^Jane") + tlv(0x82, b"P-3^x") + tlv(0x84, b"\2")
    person += tlv(0x83, b"\x44\0\0" + struct.pack("<HBB", 1950, 12, 10))
    device = tlv(0x17, b"Nihon Kohden^ECG-2550^1.0^99") + tlv(0x11, b"HPF=0.05") + tlv(0x11, b"LPF=150")
    when = tlv(0x85, struct.pack("<HBBBBBHH", 2019, 5, 24, 8, 30, 15, 0, 0))
    meta = read(mfer_header(CODES) + person + device + when + tlv(0x11, b"BEF=50^hum filter") + frame()).meta
    assert (meta.patient_id, meta.age, meta.sex, meta.device) == ("P-3", 68.0, "female", "Nihon Kohden ECG-2550")
    assert meta.recorded_at == "2019-05-24T08:30:15"
    assert (meta.highpass_hz, meta.lowpass_hz, meta.notch_hz) == (0.05, 150.0, 50.0)
    assert "Doe" not in repr(meta)


def test_indefinite_lengths():
    header = mfer_header(CODES).replace(b"\x3f\x01\x04", b"\x3f\x01\x80") + b""
    at = header.index(b"\x3f\x01\x80") + 7
    assert read(header[:at] + b"\0\0" + header[at:] + frame()).leads == ("I", "II", "III")
    refused(header + frame()[:9], "unreadable_file")


def test_refusals():
    assert not recognises(b"\t\t\t\nI,II\n1,2\n")
    assert not recognises(b"I;II;III\n1;2;3\n" * 50)
    assert not recognises(bytes(4096))
    step_of_none = tlv(0x0C, b"")
    refused(mfer_header(CODES) + step_of_none + frame(), "missing_unit")
    refused(mfer_header(CODES) + frame()[:-1], "truncated_file")
    refused(mfer_header(CODES) + tlv(0x06, struct.pack("<I", 501)) + frame(), "truncated_file")
    refused(mfer_header(CODES) + tlv(0x04, struct.pack("<I", 2**31)) + frame(), "truncated_file")
    refused(mfer_header(CODES) + tlv(0x0A, b"\x09") + frame(), "unsupported_format")
    refused(mfer_header(CODES) + tlv(0x0E, b"\x01\x00") + frame(), "unsupported_format")
    refused(mfer_header(CODES) + tlv(0x05, b"\xff\xff") + frame(), "unsupported_format")
    refused(mfer_header(CODES), "no_ecg_lead")
    refused(b"\x67\x80" * 50_000, "unreadable_file")  # groups in groups


def test_damage_is_refused():
    assert refuses_damage(read, mfer_header(CODES) + frame() + END, 100)["truncated_file"]


def test_samples_behind_the_last_sequence_are_refused():
    samples = np.random.default_rng(0).integers(-999, 999, (3, 500)).astype("<i2")
    header = mfer_header((1, 2, 61))
    for block in (499, 300):
        blocks = tlv(4, struct.pack("<I", block))
        refused(header + blocks + tlv(0x1E, samples.tobytes()) + b"\x80\0", "header_mismatch")
    one = tlv(4, struct.pack("<I", 250)) + tlv(6, struct.pack("<I", 1))
    refused(header + one + tlv(0x1E, samples.tobytes()) + b"\x80\0", "header_mismatch")

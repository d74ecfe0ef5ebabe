"""A real SCP file beside ecgdatakit's values, and files written from EN 1064 whose samples are known."""

import binascii
import struct
import tracemalloc

import numpy as np
import pytest
from ecgdatakit.parsing.parsers.scp_ecg import SCPECGParser

from mets_ray.ecg.formats import scp
from mets_ray.ecg.formats.scp import read, recognises
from mets_ray.ecg.formats.scp_huffman import decode, default_table, parse_tables
from mets_ray.errors import RecordError
from tests.support import clinical_files as files
from tests.support.damaged_files import refuses_damage

LEADS = ("II", "V2", "aVR")
COUNT = 1000
DEFAULT = struct.pack("<H", 19999)


def rhythm():
    steps = np.random.default_rng(0).integers(-30, 31, (3, COUNT))
    steps[:, 400] = 900  # a code of 16 bits
    steps[:, 401] = -900
    return np.cumsum(steps, axis=1)


RHYTHM = rhythm()


def written(rows=None, order=2, coded=True, flags=4, firsts=None, **sections):
    coded_rows = [files.differences(row, order) if order else row for row in (RHYTHM if rows is None else rows)]
    body = files.scp_signal(
        [files.huffman(row) if coded else row.astype("<i2").tobytes() for row in coded_rows], order=order
    )
    bodies = {3: files.scp_leads(LEADS, COUNT, flags, firsts), 6: body} | ({2: DEFAULT} if coded else {})
    return files.scp(bodies | {int(name[1:]): section for name, section in sections.items()})


def refused(data, reason):
    with pytest.raises(RecordError) as caught:
        read(data)
    assert caught.value.reason == reason


def test_real_file(data_folder):
    """All 60,000 samples as ecgdatakit has them."""
    path = data_folder / "formats" / "scp" / "ecgtoolkit_Example.scp"
    data = path.read_bytes()
    assert recognises(data[:4096])
    ecg = read(data)
    theirs = SCPECGParser().parse(path)
    assert (ecg.signal_mv.shape, ecg.sampling_rate_hz) == ((12, 5000), 500.0)
    assert ecg.leads == tuple(lead.label for lead in theirs.leads)
    expected = [lead.samples * lead.resolution for lead in theirs.leads]
    np.testing.assert_allclose(ecg.signal_mv * 1000, expected, rtol=1e-12)
    assert (ecg.meta.age, ecg.meta.sex, ecg.meta.recorded_at) == (49.0, "male", "2002-11-22T09:10:00")


def test_same_ecg_as_dicom(data_folder):
    """The toolkit's two examples are one ECG."""
    from mets_ray.ecg.formats import dicom

    ours = read((data_folder / "formats/scp/ecgtoolkit_Example.scp").read_bytes())
    other = dicom.read((data_folder / "formats/dicom/ecgtoolkit_Example.dcm").read_bytes())
    rows = [ours.leads.index(lead) for lead in other.leads]
    np.testing.assert_allclose(ours.signal_mv[rows], np.nan_to_num(other.signal_mv), rtol=1e-12)


@pytest.mark.parametrize("order", [0, 1, 2])
@pytest.mark.parametrize("coded", [True, False])
def test_codes_and_differences(order, coded, tmp_path):
    data = written(order=order, coded=coded)
    ecg = read(data)
    np.testing.assert_allclose(ecg.signal_mv, RHYTHM * 0.0025, rtol=1e-12)
    assert (ecg.leads, ecg.sampling_rate_hz) == (LEADS, 500.0)
    (tmp_path / "r.scp").write_bytes(data)
    theirs = SCPECGParser().parse(tmp_path / "r.scp")
    np.testing.assert_allclose(ecg.signal_mv * 1000, [lead.samples * lead.resolution for lead in theirs.leads])


def test_reference_beat_is_added_again(tmp_path):
    """Around the fiducial point of each beat of type 0, in a unit that both multipliers share."""
    beat = np.cumsum(np.random.default_rng(1).integers(-20, 21, (3, 300)), axis=1)
    fiducial, zones = 120, [(0, 41, 140, 300), (1, 400, 420, 500), (0, 600, 700, 860)]
    residual = RHYTHM.copy()
    for kind, first, at, last in zones:
        if kind == 0:
            begin = at - fiducial + 1
            residual[:, first - 1 : last] -= 2 * beat[:, first - begin : last - begin + 1]
    section_4 = struct.pack("<HHH", 600, fiducial, len(zones)) + b"".join(struct.pack("<HIII", *one) for one in zones)
    section_5 = files.scp_signal([files.huffman(files.differences(row, 2)) for row in beat], step_nv=5000, order=2)
    data = written(residual, flags=5, _4=section_4, _5=section_5)
    ecg = read(data)
    np.testing.assert_allclose(ecg.signal_mv, RHYTHM * 0.0025, rtol=1e-12)
    (tmp_path / "r.scp").write_bytes(data)
    theirs = SCPECGParser().parse(tmp_path / "r.scp")
    np.testing.assert_allclose(ecg.signal_mv * 1000, [lead.samples * lead.resolution for lead in theirs.leads])
    refused(written(residual, flags=5, _4=section_4), "unreadable_file")
    slow = files.scp_signal([files.huffman(row) for row in beat[:, :150]], interval_us=4000)
    refused(written(residual, flags=5, _4=section_4, _5=slow), "unsupported_format")


def test_leads_that_begin_later():
    ecg = read(written(firsts=[1, 101, 1]))
    assert ecg.signal_mv.shape == (3, 1100)
    assert np.isnan(ecg.signal_mv[1, :100]).all()
    np.testing.assert_allclose(ecg.signal_mv[1, 100:], RHYTHM[1] * 0.0025, rtol=1e-12)


def test_tables_of_its_own_and_switches():
    """Two tables: in the first 0 is 0, 10 is 1, 11 leads to the second; there 0 is -5, 10 and
    4 bits are 100 and more, and 14 ones are 7."""
    first = [(1, 1, 1, 0, 0b0), (2, 2, 1, 1, 0b01), (2, 2, 0, 2, 0b11)]
    second = [(1, 1, 1, -5, 0b0), (2, 6, 1, 100, 0b01), (3, 3, 0, 1, 0b011), (14, 14, 1, 7, (1 << 14) - 1)]
    tables = struct.pack("<H", 2)
    for codes in (first, second):
        tables += struct.pack("<H", len(codes)) + b"".join(struct.pack("<BBBhI", *one) for one in codes)
    bits = "0" + "10" + "11" + "0" + "10" + "1101" + "1" * 14 + "110" + "10" + "0"
    numbers = [0, 1, -5, 100 - 3, 7, 1, 0]
    row = int(bits.ljust(40, "0"), 2).to_bytes(5, "big")
    body = {2: tables, 3: files.scp_leads(["I"], len(numbers)), 6: files.scp_signal([row], step_nv=1000)}
    np.testing.assert_allclose(read(files.scp(body)).signal_mv[0] * 1000, numbers)
    refused(files.scp(body | {3: files.scp_leads(["I"], 30)}), "truncated_file")
    in_the_added_number = int("000" + "11" + "10" + "1", 2).to_bytes(1, "big")
    refused(files.scp(body | {6: files.scp_signal([in_the_added_number])}), "truncated_file")


def test_no_code_at_all():
    tables = struct.pack("<HH", 1, 2) + struct.pack("<BBBhI", 2, 2, 1, 0, 0) + struct.pack("<BBBhI", 2, 2, 1, 0, 1)
    refused(files.scp({2: tables, 3: files.scp_leads(["I"], 4), 6: files.scp_signal([b"\xff"])}), "unreadable_file")
    with pytest.raises(RecordError):
        parse_tables(struct.pack("<HH", 1, 1) + struct.pack("<BBBhI", 9, 3, 1, 0, 0))


def tag(number, value):
    return struct.pack("<BH", number, len(value)) + value


def statements(*texts, kind=None):
    parts = [text.encode("latin-1") + b"\0" for text in texts]
    parts = parts if kind is None else [bytes([kind]) + part for part in parts]
    body = b"\1" + struct.pack("<HBBBBB", 2020, 1, 2, 3, 4, 5) + bytes([len(parts)])
    return body + b"".join(struct.pack("<BH", number, len(part)) + part for number, part in enumerate(parts, 1))


def test_what_a_file_says():
    device = (
        struct.pack("<HHHBB", 1, 2, 3, 0, 8) + b"EL250\0" + bytes([20, 0xA0, 0, 0, 1]) + bytes(17) + b"a\0b\0c\0d\0\0"
    )
    person = tag(0, b"Doe\0") + tag(2, b"P-3\0") + tag(4, struct.pack("<HB", 18, 2)) + tag(8, b"\2") + tag(14, device)
    person += tag(25, struct.pack("<HBB", 2021, 3, 4)) + tag(26, bytes([5, 6, 7])) + tag(34, struct.pack("<h", -90))
    person += (
        tag(27, struct.pack("<H", 5))
        + tag(28, struct.pack("<H", 150))
        + tag(29, b"\2")
        + tag(31, b"7\0")
        + tag(255, b"")
    )
    meta = read(written(_1=person, _8=statements("Sinusrhythmus", "Linksschenkelblock möglich"))).meta
    assert meta.statements == ("Sinusrhythmus", "Linksschenkelblock möglich")
    assert (meta.patient_id, meta.age, meta.sex, meta.device) == ("P-3", 1.5, "female", "Mortara EL250")
    assert (meta.recorded_at, meta.record_id) == ("2021-03-04T05:06:07-01:30", "7")
    assert (meta.highpass_hz, meta.lowpass_hz, meta.notch_hz) == (0.05, 150.0, 50.0)
    assert "Doe" not in repr(meta)
    assert read(written(_11=statements("Normal ECG", kind=2))).meta.statements == ("Normal ECG",)
    assert read(written(_11=statements("NSR", kind=1))).meta.statements == ()


def test_checksums():
    """That of the record, or those of all sections that have one, as after a change of section 1 alone."""
    data = written(_1=tag(2, b"P-3\0") + tag(255, b""))
    at = data.index(b"P-3")
    changed = data[:at] + b"Q" + data[at + 1 :]
    refused(changed, "header_mismatch")
    begin = struct.unpack_from("<HII", data, 32)[2] - 1
    length = struct.unpack_from("<HII", data, 32)[1]
    section = changed[begin + 2 : begin + length]
    crc = binascii.crc_hqx(section, 0xFFFF).to_bytes(2, "little")
    for stored in (crc, b"\0\0"):
        assert read(changed[:begin] + stored + section + changed[begin + length :]).meta.patient_id == "Q-3"


def test_refusals():
    data = written()
    refused(data[:-10], "truncated_file")
    refused(files.scp({6: b"", 3: b""}), "no_ecg_lead")
    refused(files.scp({3: files.scp_leads(["I"], 5)}), "no_ecg_lead")
    refused(files.scp({12: bytes(20), 3: files.scp_leads(["I"], 5)}), "unsupported_format")
    refused(files.scp({3: files.scp_leads(["I"], 2**31), 6: files.scp_signal([b"\0"])}), "too_large")
    refused(files.scp({3: files.scp_leads(["I"], 1), 6: files.scp_signal([b"\0\0"], step_nv=0)}), "missing_unit")
    refused(written(_6=files.scp_signal([b"\0\0"] * 3, order=3)), "unsupported_format")
    assert not recognises(data[:30])


def test_damage_is_refused(monkeypatch):
    """Also behind the checksums, which stop nearly all of it."""
    data = written()
    assert "unreadable_file" not in refuses_damage(read, data, 30)
    monkeypatch.setattr(scp, "_has_checksum", lambda part: True)
    assert refuses_damage(read, data, 60)["truncated_file"]


def test_a_small_file_cannot_ask_for_minutes_of_work():
    beat = files.scp_signal([files.huffman(np.zeros(100, int))] * 3, interval_us=1)
    refused(written(flags=5, s4=struct.pack("<HHH", 65535, 100, 0), s5=beat), "too_large")


def test_what_lies_behind_the_last_sample_costs_nothing():
    tables = (default_table(),) * 4
    few = np.array([3, -70, 900])
    long = files.huffman(few) + bytes(np.random.default_rng(0).integers(0, 256, 60_000, dtype=np.uint8))
    tracemalloc.start()
    try:
        assert decode(long, 3, tables).tolist() == few.tolist()
        assert tracemalloc.get_traced_memory()[1] < 1024**2  # all bits of all tables would take 100 MB
    finally:
        tracemalloc.stop()

"""EDF and BDF files that edfio writes, read back beside edfio's and ecgdatakit's values; real files without an ECG."""

import datetime
import warnings

import edfio
import numpy as np
import pytest
from ecgdatakit.parsing.parsers.edf import EDFParser

from mets_ray.ecg.formats.edf import read, recognises
from mets_ray.errors import RecordError
from tests.support.damaged_files import refuses_damage

MILLIVOLTS = np.random.default_rng(0).uniform(-2, 2, (3, 2000))
KINDS = {"EDF": (edfio.Edf, edfio.EdfSignal, edfio.read_edf), "BDF": (edfio.Bdf, edfio.BdfSignal, edfio.read_bdf)}


def signal(values, label, kind="EDF", unit="mV", rate=200, **changes):
    return KINDS[kind][1](values, rate, label=label, physical_dimension=unit, physical_range=(-5, 5), **changes)


def written(labels=("ECG I", "ECG II", "V1"), kind="EDF", others=(), **changes):
    signals = [signal(row, label, kind) for row, label in zip(MILLIVOLTS, labels, strict=False)]
    return KINDS[kind][0]([*signals, *others], **changes).to_bytes()


def refused(data, reason):
    with pytest.raises(RecordError) as caught:
        read(data)
    assert caught.value.reason == reason
    return str(caught.value)


@pytest.mark.parametrize("kind", ["EDF", "BDF"])
def test_reads_what_edfio_wrote(kind, tmp_path):
    data = written(kind=kind, data_record_duration=2, annotations=[edfio.EdfAnnotation(1, None, "beat")])
    assert recognises(data[:4096])
    ecg = read(data)
    assert (ecg.leads, ecg.sampling_rate_hz, ecg.other_signals) == (("ECG I", "ECG II", "V1"), 200.0, ())
    theirs = KINDS[kind][2](data)
    np.testing.assert_allclose(ecg.signal_mv, [one.data for one in theirs.signals], rtol=0, atol=1e-12)
    np.testing.assert_allclose(ecg.signal_mv, MILLIVOLTS, rtol=0, atol=1e-3)
    if kind == "EDF":  # ecgdatakit reads no BDF
        (tmp_path / "r.edf").write_bytes(data)
        leads = EDFParser().parse(tmp_path / "r.edf").leads
        expected = [lead.samples * lead.resolution + lead.offset for lead in leads]
        np.testing.assert_allclose(ecg.signal_mv * 1000, np.array(expected) * 1000, rtol=0, atol=1e-9)


def test_other_signals_at_other_rates():
    others = [signal(np.zeros(20), "Resp oro-nasal", rate=2), signal(MILLIVOLTS[0, :1000], "EEG C3-A2", rate=100)]
    ecg = read(written(others=others))
    assert ecg.leads == ("ECG I", "ECG II", "V1")
    assert ecg.other_signals == ("Resp oro-nasal", "EEG C3-A2")
    np.testing.assert_allclose(ecg.signal_mv, MILLIVOLTS, rtol=0, atol=1e-3)
    refused(written(others=[signal(np.zeros(1000), "V2", rate=100)]), "unsupported_format")


def test_electrodes_of_the_eeg_are_no_chest_leads():
    """C3 and C4 are places on the head, unless limb leads stand beside them."""
    refused(written(("C3", "C4", "O1")), "no_ecg_lead")
    assert read(written(("I", "II", "C1"))).leads == ("I", "II", "C1")
    # A sleep study's ECG of no stated lead: kept, so that the refusal to come names it.
    assert read(written(("C3", "C4", "ECG"))).leads == ("ECG",)


@pytest.mark.parametrize(("unit", "factor"), [("uV", 1e-3), ("V", 1e3), ("µV", 1e-3), ("nV", 1e-6)])
def test_units(unit, factor):
    data = written()
    place = 256 + 3 * (16 + 80)
    encoded = [unit.encode("latin-1"), unit.encode("utf-8")]
    for one in encoded:
        changed = data[:place] + one.ljust(8) * 3 + data[place + 24 :]
        np.testing.assert_allclose(read(changed).signal_mv, read(data).signal_mv * factor, rtol=1e-12)


def discontinuous(starts_s):
    """The data records of a recording of 1 s each at other times: edfio writes continuous ones only."""
    data = written(data_record_duration=1, annotations=[edfio.EdfAnnotation(0, None, "room for long numbers")])
    assert data[192:197] == b"EDF+C"
    data = data.replace(b"EDF+C", b"EDF+D", 1)
    for number, start in enumerate(starts_s):
        old, new = f"+{number}\x14\x14".encode(), f"+{start}\x14\x14".encode()
        at = data.index(old)
        room = max(len(old), len(new))
        data = data[:at] + new.ljust(room, b"\0") + data[at + room :]
    return data


def test_gaps_are_nan():
    ecg = read(discontinuous([0, 1, 2, 3, 4, 5.5, 6.5, 7.5, 8.5, 9.5]))
    assert ecg.signal_mv.shape == (3, 2100)
    assert np.isnan(ecg.signal_mv[:, 1000:1100]).all()
    np.testing.assert_allclose(ecg.signal_mv[:, :1000], MILLIVOLTS[:, :1000], atol=1e-3)
    np.testing.assert_allclose(ecg.signal_mv[:, 1100:], MILLIVOLTS[:, 1000:], atol=1e-3)
    assert read(discontinuous(range(10))).signal_mv.shape == (3, 2000)
    refused(discontinuous([0, 1, 2, 3, 4, 5, 6, 7, 8, 10**9]), "too_large")
    refused(discontinuous([0, 1, 2, 3, 4, 4.5, 6, 7, 8, 9]), "unreadable_file")


def test_what_a_file_says():
    patient = edfio.Patient(code="P_3", sex="F", birthdate=datetime.date(1951, 5, 2), name="Doe")
    recording = edfio.Recording(startdate=datetime.date(2019, 12, 24), equipment_code="Holter_7")
    data = written(
        others=[],
        patient=patient,
        recording=recording,
        starttime=datetime.time(8, 30, 15),
        annotations=[],
    )
    filters = b"HP:0.05Hz LP:150Hz N:50Hz".ljust(80)
    place = 256 + 4 * (16 + 80 + 8 * 5)
    data = data[:place] + filters * 4 + data[place + 320 :]
    meta = read(data).meta
    assert (meta.patient_id, meta.age, meta.sex, meta.device) == ("P 3", 68.0, "female", "Holter 7")
    assert meta.recorded_at == "2019-12-24T08:30:15"
    assert (meta.highpass_hz, meta.lowpass_hz, meta.notch_hz) == (0.05, 150.0, 50.0)
    assert "Doe" not in repr(meta)


def test_plain_edf_says_its_time_only():
    """Its patient field is free text: a name may stand there."""
    data = written(starttime=datetime.time(8, 30, 15))
    plain = (
        data[:8]
        + b"Jane Doe 1951".ljust(80)
        + b"ward 3".ljust(80)
        + b"24.12.99"
        + data[176:192]
        + b" " * 44
        + data[236:]
    )
    meta = read(plain).meta
    assert (meta.patient_id, meta.recorded_at) == (None, "1999-12-24T08:30:15")


def test_real_files_without_an_ecg(data_folder):
    folder = data_folder / "formats" / "edf"
    for name in ("edfio_short_psg.edf", "edfio_short_psg.bdf"):
        data = (folder / name).read_bytes()
        assert recognises(data[:4096])
        assert "EEG Fpz-Cz" in refused(data, "no_ecg_lead")
    assert "annotations only" in refused((folder / "wfdb_test_edfann.edf").read_bytes(), "no_ecg_lead")


def field(data, at, value, width=8):
    return data[:at] + str(value).encode().ljust(width) + data[at + width :]


def test_refusals():
    data = written(data_record_duration=1)
    refused(data[:-1], "truncated_file")
    refused(data[:300], "truncated_file")
    refused(data + data[-1200:], "header_mismatch")
    assert read(field(data, 236, -1)).signal_mv.shape == (3, 2000)  # a recorder that was not closed
    refused(field(data, 252, 9999, 4), "unsupported_format")
    refused(field(data, 244, 0), "implausible_sampling_rate")
    refused(field(data, 244, "nan"), "implausible_sampling_rate")
    limits = 256 + 3 * (16 + 80 + 8)
    refused(field(data, limits, "nan"), "unreadable_file")
    refused(field(data, limits, 5), "missing_unit")
    refused(field(data, 256 + 3 * 96, ""), "missing_unit")
    refused(field(data, 256 + 3 * 96, "mmHg"), "unknown_unit")
    refused(field(data, 256 + 3 * (96 + 8 * 5 + 80), 0), "unreadable_file")
    refused(field(data, 256 + 3 * (96 + 8 * 5 + 80), 99_999_999), "implausible_sampling_rate")


def test_damage_is_refused():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert refuses_damage(read, written(data_record_duration=1), 60)["truncated_file"]
        refuses_damage(read, discontinuous([0, 1, 2, 3, 4, 5.5, 6.5, 7.5, 8.5, 9.5]), 60)


def test_electrodes_of_the_eeg_beside_an_ecg_are_no_chest_leads():
    for labels in (("C3", "ECG II", "O1"), ("Fp1", "C3", "ECG II"), ("C3", "C4", "ECG II")):
        found = read(written(labels))
        assert not {"C3", "C4"} & set(found.leads), labels
        assert "C3" in found.other_signals

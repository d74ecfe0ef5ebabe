"""Holter files written from the ISHNE specification, read back beside ecgdatakit's values."""

import struct

import numpy as np
import pytest
from ecgdatakit.parsing.parsers.ishne_holter import ISHNEHolterParser

from mets_ray.ecg.formats.ishne import read, recognises
from mets_ray.errors import RecordError
from tests.support.clinical_files import ISHNE_LEADS, ishne
from tests.support.damaged_files import refuses_damage

STORED = np.random.default_rng(0).integers(-2000, 2000, (3, 4000)).astype(np.int16)
CODES = [ISHNE_LEADS[lead] for lead in ("V1", "V5", "II")]


def refused(data, reason):
    with pytest.raises(RecordError) as caught:
        read(data)
    assert caught.value.reason == reason


def test_reads_what_the_specification_says(tmp_path):
    data = ishne(STORED, CODES, steps_nv=[2500, 1000, 153], text=b"24 h, second day")
    assert recognises(data[:4096])
    ecg = read(data)
    assert (ecg.leads, ecg.sampling_rate_hz, ecg.meta.format) == (("V1", "V5", "II"), 200.0, "ishne")
    np.testing.assert_allclose(ecg.signal_mv, STORED * np.array([[2500], [1000], [153]]) / 1e6, rtol=1e-12)
    (tmp_path / "r.ecg").write_bytes(data)
    theirs = ISHNEHolterParser().parse(tmp_path / "r.ecg").leads
    assert [lead.label for lead in theirs] == list(ecg.leads)
    np.testing.assert_allclose(ecg.signal_mv * 1000, [lead.samples * lead.resolution for lead in theirs], rtol=1e-12)


@pytest.mark.parametrize("lead", ISHNE_LEADS)
def test_lead_codes(lead):
    assert read(ishne(STORED[:1], [ISHNE_LEADS[lead]])).leads == (lead,)


def test_what_a_file_says():
    meta = read(ishne(STORED, CODES)).meta
    assert (meta.patient_id, meta.age, meta.sex) == ("P-7", 68.0, "female")
    assert (meta.recorded_at, meta.device) == ("2019-05-24T08:30:15", "digital")
    assert "Lovelace" not in repr(meta)


def test_faults_and_leads_that_are_not_there():
    stored = STORED.copy()
    stored[0, 10:20] = -32768
    ecg = read(ishne(stored, [*CODES[:2], -9]))
    assert ecg.leads == ("V1", "V5")
    assert np.isnan(ecg.signal_mv[0, 10:20]).all()
    assert not np.isnan(ecg.signal_mv[1]).any()
    refused(ishne(STORED, [-9, -9, -9]), "no_ecg_lead")


def test_number_of_samples():
    """Of one lead, or in some files of all; what is fewer than either was cut off."""
    assert read(ishne(STORED, CODES, count=12_000)).signal_mv.shape == (3, 4000)
    assert read(ishne(STORED, CODES, count=3000)).signal_mv.shape == (3, 3000)
    refused(ishne(STORED, CODES, count=4001), "truncated_file")
    refused(ishne(STORED, CODES)[:-2], "truncated_file")
    refused(ishne(STORED, CODES, count=-1), "truncated_file")
    refused(ishne(STORED, CODES, count=2**31 - 1), "truncated_file")


def test_checksum():
    """Written in either order, or as 0 for none; one that is wrong is refused."""
    data = ishne(STORED, CODES, text=b"x")
    assert read(data[:8] + data[9:10] + data[8:9] + data[10:]).leads == ("V1", "V5", "II")
    assert read(ishne(STORED, CODES, checksum=b"\0\0")).leads == ("V1", "V5", "II")
    refused(data[:8] + b"\1\2" + data[10:], "header_mismatch")
    # Without one, two statements of where the samples begin must agree.
    unchecked = ishne(STORED, CODES, text=b"x", checksum=b"\0\0")
    refused(unchecked[:22] + struct.pack("<i", 600) + unchecked[26:], "header_mismatch")


def test_refusals():
    assert not recognises(b"ANN  1.0" + bytes(600))
    refused(ishne(STORED, CODES)[:500], "truncated_file")
    refused(ishne(STORED, CODES, steps_nv=[0, 1, 1]), "missing_unit")
    refused(ishne(STORED, CODES, rate=0), "implausible_sampling_rate")


def test_damage_is_refused():
    assert refuses_damage(read, ishne(STORED, CODES), 60)["truncated_file"]
    refuses_damage(read, ishne(STORED, CODES, checksum=b"\0\0"), 60)

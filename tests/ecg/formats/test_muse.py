"""GE MUSE XML: real files beside ecgdatakit's values, and small ones for what MUSE writes beside the signal."""

import numpy as np
import pytest
from ecgdatakit.parsing.parsers.ge_muse_xml import GEMuseXMLParser

from mets_ray.ecg.formats.muse import read, recognises
from mets_ray.errors import RecordError
from tests.support.damaged_files import refuses_damage
from tests.support.xml_ecgs import diagnosis, muse

LEADS = ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6")
STORED = {lead: [number, -number, 1000, -32768] for number, lead in enumerate(LEADS)}
PERSON = """<PatientDemographics><PatientID>id-3</PatientID><PatientAge>18</PatientAge><AgeUnits>MONTHS</AgeUnits>
<Gender>FEMALE</Gender></PatientDemographics><TestDemographics><AcquisitionDevice>MAC55</AcquisitionDevice>
<AcquisitionTime>17:05:09</AcquisitionTime><AcquisitionDate>02-29-2024</AcquisitionDate></TestDemographics>"""


@pytest.mark.parametrize("name", ["braveheart_example1.xml", "braveheart_example2.xml"])
def test_real_files_have_the_values_of_another_program(data_folder, name):
    path = data_folder / "formats" / "muse_xml" / name
    ecg, theirs = read(path.read_bytes()), GEMuseXMLParser().parse(path)
    assert recognises(path.read_bytes()[:4096])
    assert ecg.leads == LEADS == tuple(lead.label for lead in theirs.leads)
    assert (ecg.sampling_rate_hz, ecg.signal_mv.shape) == (500.0, (8, 5000))
    assert np.allclose(ecg.signal_mv * 1000, [lead.samples * lead.resolution for lead in theirs.leads], atol=1e-9)
    assert (ecg.meta.highpass_hz, ecg.meta.lowpass_hz, ecg.meta.notch_hz) == (0.16, 150.0, 60.0)


def test_values_are_integers_times_units_per_bit():
    ecg = read(muse(STORED, changes={"SampleBase": 25, "SampleExponent": 1}))
    assert np.allclose(ecg.signal_mv[1], [0.00488, -0.00488, 4.88, -159.90784])
    assert ecg.sampling_rate_hz == 250.0
    in_millivolts = read(muse(STORED, lead_fields={"LeadAmplitudeUnits": "MILLIVOLTS"}))
    assert np.allclose(in_millivolts.signal_mv, ecg.signal_mv * 1000)


@pytest.mark.parametrize(
    ("unit", "factor"), [("uV", 1e-3), ("mV", 1.0), ("Millivolts", 1.0), ("nV", 1e-6), ("NANOVOLTS", 1e-6)]
)
def test_units_are_read_as_they_are_written(unit, factor):
    ecg = read(muse({"I": [1, -2, 3]}, lead_fields={"LeadAmplitudeUnits": unit, "LeadAmplitudeUnitsPerBit": 2}))
    assert np.allclose(ecg.signal_mv, np.array([[2, -4, 6]]) * factor, rtol=1e-12)


@pytest.mark.parametrize("unit", ["MV", "mv/bit", "uVolts"])
def test_an_unknown_unit_is_shown_as_it_is_written(unit):
    with pytest.raises(RecordError, match=f"`{unit}`") as caught:
        read(muse({"I": [1, -2, 3]}, lead_fields={"LeadAmplitudeUnits": unit}))
    assert caught.value.reason == "unknown_unit"


def test_what_muse_says_beside_the_signal():
    meta = read(muse(STORED, head=PERSON)).meta
    assert (meta.patient_id, meta.age, meta.sex, meta.device) == ("id-3", 1.5, "female", "MAC55")
    assert meta.recorded_at == "2024-02-29T17:05:09"


def test_statements_are_lines_of_the_edited_diagnosis():
    device = diagnosis("OriginalDiagnosis", ("Atrial fibrillation", True), ("Abnormal ECG", True))
    edited = diagnosis(
        "Diagnosis", ("Sinus rhythm", False), ("with", False), ("1st degree A-V block", True), ("Névrosé", False)
    )
    assert read(muse(STORED, head=device)).meta.statements == ("Atrial fibrillation", "Abnormal ECG")
    both = read(muse(STORED, head=device + edited)).meta.statements
    assert both == ("Sinus rhythm with 1st degree A-V block", "Névrosé")
    plain = diagnosis("Diagnosis", ("Sinus rhythm", False), ("Normal ECG", False))
    assert read(muse(STORED, head=plain)).meta.statements == ("Sinus rhythm", "Normal ECG")


def test_the_median_beat_is_never_the_rhythm():
    with pytest.raises(RecordError) as caught:
        read(muse(STORED, kind="Median"))
    assert caught.value.reason == "no_ecg_lead"


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"LeadAmplitudeUnits": None}, "missing_unit"),
        ({"LeadAmplitudeUnitsPerBit": None}, "missing_unit"),
        ({"LeadAmplitudeUnits": "FURLONGS"}, "unknown_unit"),
        ({"LeadSampleCountTotal": 5}, "header_mismatch"),
        ({"LeadByteCountTotal": 5}, "header_mismatch"),
        ({"LeadDataCRC32": 1}, "header_mismatch"),
        ({"LeadSampleSize": 3}, "header_mismatch"),
        ({"WaveFormData": "no base64!"}, "unreadable_file"),
    ],
)
def test_what_contradicts_itself_is_refused_with_its_reason(fields, reason):
    with pytest.raises(RecordError) as caught:
        read(muse(STORED, lead_fields=fields))
    assert caught.value.reason == reason


def test_leads_of_different_lengths_and_rates_that_are_not_there():
    with pytest.raises(RecordError) as caught:
        read(muse(STORED | {"V6": [1, 2]}))
    assert caught.value.reason == "unsupported_format"
    with pytest.raises(RecordError) as caught:
        read(muse(STORED, changes={"SampleBase": None}))
    assert caught.value.reason == "missing_sampling_rate"


def test_damaged_files_are_read_or_refused():
    reasons = refuses_damage(read, muse(STORED, head=PERSON + diagnosis("Diagnosis", ("Sinus rhythm", True))), 150)
    assert reasons["read"] > 0
    assert {"unreadable_file", "header_mismatch"} <= set(reasons)

"""HL7 aECG: real files beside ecgdatakit's values, and small ones for what the specification allows."""

import numpy as np
import pytest
from ecgdatakit.parsing.parsers.hl7_aecg import HL7aECGParser

from mets_ray.ecg import formats
from mets_ray.ecg.formats.aecg import read, recognises
from mets_ray.ecg.leads import standard_lead
from mets_ray.errors import RecordError
from tests.support.damaged_files import refuses_damage
from tests.support.xml_ecgs import aecg, annotation_set, sequence_set

I_AND_II = {"MDC_ECG_LEAD_I": [1, -2, 3], "MDC_ECG_LEAD_II": [4, 5, -6]}
PERSON = "<author><assignedEntity><assignedAuthorType><assignedPerson/></assignedAuthorType></assignedEntity></author>"
STATEMENT = "MDC_ECG_INTERPRETATION_STATEMENT"


@pytest.mark.parametrize("name", ["fda_minimum_aecg.xml", "fda_subject1_0.xml", "liryc_hl7aecg_example.xml"])
def test_real_files_have_the_values_of_another_program(data_folder, name):
    path = data_folder / "formats" / "hl7_aecg" / name
    ecg, theirs = read(path.read_bytes()), HL7aECGParser().parse(path)
    assert recognises(path.read_bytes()[:4096])
    assert ecg.leads == tuple(lead.label for lead in theirs.leads)
    assert ecg.sampling_rate_hz == theirs.leads[0].sampling_rate
    for row, lead in zip(ecg.signal_mv, theirs.leads, strict=True):
        assert np.allclose(row * 1000, lead.samples * lead.resolution, atol=1e-9)


def test_what_a_real_file_says_beside_its_signal(data_folder):
    folder = data_folder / "formats" / "hl7_aecg"
    meta = read((folder / "fda_subject1_0.xml").read_bytes()).meta
    assert (meta.format, meta.age, meta.sex, meta.device) == ("aecg", 46.0, "male", "Mortara Instrument, Inc. ELI250")
    assert (meta.recorded_at, meta.lowpass_hz, meta.notch_hz) == ("2002-11-22T09:10:00", 150.0, 60.0)
    assert meta.statements == ("Sinus Rhythm",)
    french = read((folder / "liryc_hl7aecg_example.xml").read_bytes()).meta
    assert french.statements[0] == "Rythme sinusal avec ESA"
    assert french.statements[-1] == "ECG limite"
    assert french.language is None, "the file does not name it"


def test_values_are_origin_and_scale_times_digits_in_their_units():
    ecg = read(aecg(sequence_set(I_AND_II, scale="0.005", unit="mV", origin="0.1", step='value="4" unit="ms"')))
    assert ecg.sampling_rate_hz == 250.0
    assert np.allclose(ecg.signal_mv, [[0.105, 0.09, 0.115], [0.12, 0.125, 0.07]])


def test_nanovolts():
    ecg = read(aecg(sequence_set(I_AND_II, scale="5000", unit="nV", origin="100000")))
    assert np.allclose(ecg.signal_mv, [[0.105, 0.09, 0.115], [0.12, 0.125, 0.07]])


@pytest.mark.parametrize("code", ["MDC_ECG_LEAD_dI", "MDC_ECG_LEAD_DIII", "MDC_ECG_LEAD_daVR", "MDC_ECG_LEAD_dV1"])
def test_leads_that_are_computed_from_other_electrodes_are_no_standard_leads(code):
    (lead,) = read(aecg(sequence_set({code: [1, 2, 3]}))).leads
    assert lead.startswith("derived")
    assert standard_lead(lead) is None


def test_a_long_comment_before_the_root_hides_nothing():
    """Study software puts licences and style sheets there."""
    whole = aecg(sequence_set(I_AND_II))
    begin = whole.index(b"<AnnotatedECG")
    assert formats.recognise(whole[:begin] + b"<!--" + b"x" * 20_000 + b"-->" + whole[begin:]).name == "aecg"


def test_averaged_beats_and_other_signals_are_no_leads_of_the_rhythm():
    beat = sequence_set({"MDC_ECG_LEAD_I": [9, 9]})
    other = sequence_set({"MDC_ECG_LEAD_V1": [7, 7, 7]})
    pulse = '<component><sequence><code code="MDC_PULS_OXIM_PLETH"/><value/></sequence></component>'
    first = f'<component><series><code code="REPRESENTATIVE_BEAT"/>{beat}</series></component>'
    derived = f'<derivation><derivedSeries><code code="REPRESENTATIVE_BEAT"/>{beat}</derivedSeries></derivation>'
    ecg = read(aecg(sequence_set(I_AND_II, more=pulse), other, before=first, inside=derived))
    assert (ecg.leads, ecg.signal_mv.shape) == (("I", "II"), (2, 3))
    assert ecg.other_signals == ("MDC_PULS_OXIM_PLETH", "rhythm series 1")


def test_what_a_person_wrote_comes_before_the_device():
    device = annotation_set(
        (STATEMENT, '<value xsi:type="ST">atrial fibrillation</value>'),
        ("MDC_ECG_INTERPRETATION_COMMENT", "<value>unconfirmed</value>"),
    )
    person = annotation_set(
        (STATEMENT, '<value xsi:type="ED" language="fr">Rythme  sinusal</value>'),
        ("MDC_ECG_RHY", '<value xsi:type="CE" code="MDC_ECG_RHY_SINUS_RHY" displayName="Sinus rhythm"/>'),
        author=PERSON,
    )
    ecg = read(aecg(sequence_set(I_AND_II), inside=device))
    assert ecg.meta.statements == ("atrial fibrillation",)
    ecg = read(aecg(sequence_set(I_AND_II), inside=device + person))
    assert (ecg.meta.statements, ecg.meta.language) == (("Rythme sinusal", "Sinus rhythm"), "fr")
    named = annotation_set((STATEMENT, "<value>Sinusrhythmus</value>"), language='<languageCode code="de"/>')
    assert read(aecg(sequence_set(I_AND_II), inside=named)).meta.language == "de"


def test_ids_age_sex_and_time():
    meta = read(aecg(sequence_set(I_AND_II))).meta
    assert (meta.record_id, meta.patient_id) == ("record-7", "subject-9")
    assert (meta.age, meta.sex) == (53.0, "female"), "born on 1 March"
    assert meta.recorded_at == "2024-02-29T10:15:00+01:00"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (aecg(), "no_ecg_lead"),
        (aecg(sequence_set(I_AND_II), code="REPRESENTATIVE_BEAT"), "no_ecg_lead"),
        (aecg(sequence_set({"MDC_PRESS_BLD": [1, 2]})), "no_ecg_lead"),
        (aecg(sequence_set(I_AND_II | {"MDC_ECG_LEAD_V1": [1]})), "header_mismatch"),
        (aecg(sequence_set(I_AND_II, unit="")), "missing_unit"),
        (aecg(sequence_set(I_AND_II, scale="")), "missing_unit"),
        (aecg(sequence_set(I_AND_II, unit="mm[Hg]")), "unknown_unit"),
        (aecg(sequence_set(I_AND_II, step='value="0.002"')), "missing_sampling_rate"),
        (aecg(sequence_set(I_AND_II, step='value="0" unit="s"')), "missing_sampling_rate"),
        (aecg(sequence_set({"MDC_ECG_LEAD_I": ["one"]})), "unreadable_file"),
        (aecg(sequence_set({f"MDC_ECG_LEAD_V{n}": [1] for n in range(65)})), "unsupported_format"),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_reason(data, reason):
    with pytest.raises(RecordError) as caught:
        read(data)
    assert caught.value.reason == reason


def test_damaged_files_are_read_or_refused():
    whole = aecg(sequence_set(I_AND_II), inside=annotation_set((STATEMENT, "<value>x</value>"), author=PERSON))
    reasons = refuses_damage(read, whole, 150)
    assert reasons["read"] > 5
    assert reasons["unreadable_file"] > 20

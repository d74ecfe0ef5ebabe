"""Names of leads as devices write them: what is read, and above all what is not."""

import pytest

from mets_ray.ecg.ecg import LEADS
from mets_ray.ecg.leads import is_ecg_signal, is_other_lead, standard_lead


@pytest.mark.parametrize("lead", LEADS)
@pytest.mark.parametrize(
    "pattern",
    ["{}", " {} ", "ECG {}", "ecg {}", "EKG {}", "ECG_{}", "ECG{}", "Lead {}", "LEAD_{}", "lead{}", "ECG Lead {}",
     "ECG: {}", "MDC_ECG_LEAD_{}"],
)  # fmt: skip
def test_the_twelve_leads_in_every_case_and_with_every_prefix(lead, pattern):
    for spelling in (lead, lead.upper(), lead.lower()):
        assert standard_lead(pattern.format(spelling)) == lead


@pytest.mark.parametrize(
    ("name", "lead"),
    [
        ("MLII", "II"), ("mlii", "II"), ("ML2", "II"), ("MLI", "I"), ("MLIII", "III"), ("ECG MLII", "II"),
        ("D1", "I"), ("D2", "II"), ("D3", "III"), ("DI", "I"), ("DII", "II"), ("DIII", "III"),
        ("C1", "V1"), ("c6", "V6"), ("V 1", "V1"), ("v_6", "V6"),
        ("\u2160", "I"), ("\u2161", "II"), ("\uff36\uff11", "V1"),
    ],
)  # fmt: skip
def test_other_spellings(name, lead):
    assert standard_lead(name) == lead


@pytest.mark.parametrize(
    "name",
    [
        "-aVR", "aVR-", "ECG -aVR", "ECG-aVR", "\u2212aVR", "MDC_ECG_LEAD_AVRneg", "aVRneg", "inv aVR", "-I",  # signs
        "MDC_ECG_LEAD_dI", "MDC_ECG_LEAD_DII", "MDC_ECG_LEAD_dV1", "MDC_ECG_LEAD_daVR",  # computed
        "1", "2", "ECG", "ECG1", "ECG 2", "Lead 1", "lead2", "CH1", "ECG C1", "signal 0",  # numbers of channels
        "VR", "VL", "VF", "V", "C", "CR1", "D4", "DV1", "C7", "V0", "V7", "V3R", "V10", "MCL1", "MV1", "VX",
        "l", "ll", "IIII", "IV", "I II", "II/V5", "V1-V2", "I,II", "", " ", "ECG ", "aV", "aVR2", "V1V1",
    ],
)  # fmt: skip
def test_names_with_another_or_with_two_meanings(name):
    assert standard_lead(name) is None


@pytest.mark.parametrize(
    "name", ["vx", "VY", "Z", "V7", "V9", "v3r", "V4R", "MCL1", "ECG V8", "MDC_ECG_LEAD_V3R", "CM5"]
)
def test_leads_beside_the_twelve(name):
    assert is_other_lead(name)
    assert is_ecg_signal(name, "mV")


@pytest.mark.parametrize(
    ("name", "unit"),
    [
        ("ABP", "mmHg"), ("ABP", None), ("ART 1", "mV"), ("PLETH", "NU"), ("pleth", "mV"), ("RESP", "mV"),
        ("RESP2", "Ohm"),
        ("HR", "bpm"), ("SpO2", "%"), ("SO2", None), ("CVP", "mmHg"), ("EEG C3-A2", "uV"), ("EMG", "uV"),
        ("CO2", "mmHg"),
        ("anything", "mmHg"), ("Temp", "degC"), ("PULSE", "bpm"), ("flow", "l/min"), ("BP", None),
    ],
)  # fmt: skip
def test_signals_that_are_no_ecg(name, unit):
    assert not is_ecg_signal(name, unit)
    assert standard_lead(name) is None
    assert not is_other_lead(name)


@pytest.mark.parametrize(
    ("name", "unit"), [("II", "mmHg"), ("ECG", "counts"), ("MLII", None), ("chest", "mV"), ("A", None)]
)
def test_signals_that_may_be_a_lead_are_not_left_out(name, unit):
    assert is_ecg_signal(name, unit)

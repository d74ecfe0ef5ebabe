"""Limb leads that a record lacks: exact sums, from real limb leads only."""

from dataclasses import replace

import numpy as np
import pytest

from mets_ray.ecg.derived_leads import derive_leads
from mets_ray.ecg.ecg import LEADS, Ecg
from mets_ray.ecg.preprocess import SignalConfig, preprocess
from mets_ray.ecg.wfdb import read_wfdb
from mets_ray.errors import RecordError
from mets_ray.model.windows import cut_windows
from tests.support.wfdb_records import write_record

TEN_SECONDS = SignalConfig(100, 10.0)
CHEST = LEADS[6:]
I_UV, II_UV = np.random.default_rng(5).integers(-500, 500, (2, 1000)) * 2  # even, so that halves are whole µV
LIMB_UV = {
    "I": I_UV,
    "II": II_UV,
    "III": II_UV - I_UV,
    "aVR": -(I_UV + II_UV) // 2,
    "aVL": I_UV - II_UV // 2,
    "aVF": II_UV - I_UV // 2,
}


def with_limb_leads(*leads: str, chest: tuple[str, ...] = CHEST) -> Ecg:
    rows = [LIMB_UV[lead] for lead in leads]
    rows += [np.random.default_rng(number).integers(-900, 900, 1000) for number in range(len(chest))]
    return Ecg(np.stack(rows) / 1000, (*leads, *chest), 100.0)


@pytest.mark.parametrize("pair", [("I", "II"), ("II", "I"), ("I", "III"), ("II", "III")])
def test_eight_leads_are_twelve(pair):
    ecg = with_limb_leads(*pair)
    signal_uv = preprocess(ecg, TEN_SECONDS)
    assert np.array_equal(signal_uv[:6], np.stack([LIMB_UV[lead] for lead in LEADS[:6]]))
    derived = tuple(lead for lead in LEADS[:6] if lead not in pair)
    assert derive_leads(ecg, LEADS).derived_leads == derived
    warnings = dict(cut_windows(ecg, TEN_SECONDS).warnings)
    sources = " and ".join(sorted(pair))
    assert warnings["leads_derived"] == f"{', '.join(derived)} were derived from {sources}"


def test_what_is_stored_is_kept():
    ecg = with_limb_leads("I", "II", "aVL")
    ecg.signal_mv[2] += 0.1  # a recorder that rounds, or one of another gain
    assert np.array_equal(preprocess(ecg, TEN_SECONDS)[4], LIMB_UV["aVL"] + 100)
    whole = with_limb_leads(*LEADS[:6])
    assert derive_leads(whole, LEADS) is whole
    assert "leads_derived" not in dict(cut_windows(whole, TEN_SECONDS).warnings)


@pytest.mark.parametrize(
    ("ecg", "missing"),
    [
        (with_limb_leads("I", "II", chest=CHEST[:5]), "1 of 12 leads missing: V6"),  # never a chest lead
        (with_limb_leads("II"), "5 of 12 leads missing: I, III"),
        (with_limb_leads("II", "aVL"), "4 of 12 leads missing: I, III"),
        (replace(with_limb_leads("I", "II"), leads=("I", "MLII", *CHEST)), "4 of 12 leads missing: III"),
        (replace(with_limb_leads("I", "II"), leads=("ML1", "ECG II", *CHEST)), "4 of 12 leads missing: III"),
    ],
)
def test_what_cannot_be_derived_is_missing(ecg, missing):
    with pytest.raises(RecordError, match=missing) as caught:
        preprocess(ecg, TEN_SECONDS)
    assert caught.value.reason == "missing_leads"


def test_a_lead_that_is_there_twice():
    ecg = replace(with_limb_leads("I", "II", "III"), leads=("I", "II", "D2", *CHEST))
    with pytest.raises(RecordError) as caught:
        preprocess(ecg, TEN_SECONDS)
    assert caught.value.reason == "duplicate_lead"


def test_an_absent_lead_stays_absent():
    ecg = replace(with_limb_leads("I", "II"), absent_leads=("III", "aVR"))
    signal_uv = preprocess(ecg, TEN_SECONDS)
    assert not signal_uv[2:4].any()
    assert np.array_equal(signal_uv[4], LIMB_UV["aVL"])


def test_a_gap_in_one_is_a_gap_in_what_is_derived():
    ecg = with_limb_leads("I", "II")
    ecg.signal_mv[0, 700] = np.nan
    derived = derive_leads(ecg, LEADS)
    assert np.argwhere(np.isnan(derived.signal_mv)).tolist() == [[row, 700] for row in (0, 8, 9, 10, 11)]
    with pytest.raises(RecordError, match=r"I \(1\), III \(1\), aVR \(1\)") as caught:
        preprocess(ecg, TEN_SECONDS)
    assert caught.value.reason == "non_finite"


@pytest.mark.parametrize("leads", [LEADS, ("III", "V1")])
def test_nothing_is_derived_from_an_electrode_that_is_off(leads):
    """Where I is 0, III is II; also where the flat lead itself is not wanted."""
    ecg = with_limb_leads("I", "II")
    ecg.signal_mv[0] = 0.25
    with pytest.raises(RecordError, match="all samples are equal in I") as caught:
        preprocess(ecg, SignalConfig(100, 10.0, leads))
    assert caught.value.reason == "flat_lead"


def test_each_lead_with_its_own_unit_and_gain(tmp_path):
    digital = np.stack([I_UV, II_UV * 4, *[np.arange(1000) % 7] * 6], axis=1)
    record = write_record(
        tmp_path,
        digital=digital,
        sig_name=["I", "II", *CHEST],
        units=["uV", *["mV"] * 7],
        adc_gain=[1.0, 4000.0, *[1000.0] * 6],
    )
    signal_uv = preprocess(read_wfdb(record), TEN_SECONDS)
    assert np.array_equal(signal_uv[2:6], np.stack([LIMB_UV[lead] for lead in LEADS[2:6]]))


def test_real_ptbxl(data_folder):
    """Its recorders stored twelve leads, so eight of them must give the others, within the rounding of each."""
    files = sorted((data_folder / "ptb-xl" / "records100").rglob("*.hea"))[::50]
    eight = ("I", "II", *CHEST)
    for file in files:
        stored = read_wfdb(str(file))
        names = [lead.upper() for lead in stored.leads]
        rows = [names.index(lead.upper()) for lead in eight]
        ecg = Ecg(stored.signal_mv[rows], eight, stored.sampling_rate_hz)
        assert np.abs(preprocess(ecg, TEN_SECONDS) - preprocess(stored, TEN_SECONDS)).max() <= 2

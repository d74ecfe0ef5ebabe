"""Abbreviations in typed words: spelt out where they have one meaning, and left alone where they have several."""

import pytest

from mets_ray.text.abbreviations import spell_out


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("AF", "atrial fibrillation"),
        ("afib", "atrial fibrillation"),
        ("PVCs", "premature ventricular complexes"),
        ("new LBBB, old inferior MI", "new left bundle branch block, old inferior myocardial infarction"),
        ("CLBBB or IRBBB", "complete left bundle branch block or incomplete right bundle branch block"),
        ("1st degree AVB", "1st degree AV block"),
        ("NSTEMI/STEMI", "non-ST elevation myocardial infarction/ST elevation myocardial infarction"),
    ],
)
def test_abbreviations_are_spelt_out(typed, meant):
    assert spell_out(typed) == meant


@pytest.mark.parametrize(
    "words",
    [
        "atrial fibrillation",
        "ST depression",  # ST is the segment here, and a sinus tachycardia elsewhere
        "LAD",
        "AMI",
        "AV block",
        "AF-like",
        "aftermath of a MIx",
        "Vorhofflimmern",
        "",
    ],
)
def test_words_and_what_has_several_meanings_stay(words):
    assert spell_out(words) == words

"""What is said about classes of one's own."""

import pytest

from mets_ray.tasks.class_warnings import softmax_warnings, verbatim_warnings, wording_warnings
from mets_ray.tasks.prompt_sets import load_prompt_set
from mets_ray.text.abbreviations import spell_out


def test_abbreviations_and_other_languages_are_named():
    (short,) = wording_warnings(["AF", "sinus rhythm", "AF"])
    assert short == ("abbreviation", "read `AF` as `atrial fibrillation`")
    (foreign,) = wording_warnings(["bloqueo de rama izquierda", "sinus rhythm"])
    assert foreign[0] == "other_language"
    assert foreign[1].startswith("not in English: `bloqueo de rama izquierda` (Spanish); ")
    many = dict(wording_warnings([f"Vorhofflimmern {number}" for number in range(12)]))
    assert "`Vorhofflimmern 9` (German) and 2 more" in many["other_language"]


@pytest.mark.parametrize("name", ["mets", "descriptive", "class_names"])
def test_no_packaged_wording_is_taken_for_another_language(name):
    tasks = load_prompt_set(name).tasks.values()
    wordings = [spell_out(text) for classes in tasks for texts in classes.values() for text in texts]
    assert len(wordings) > 50
    assert wording_warnings(wordings) == ()


def test_one_class_is_no_choice():
    assert [reason for reason, _ in softmax_warnings(1, multi_label=False)] == ["one_class"]
    assert softmax_warnings(1, multi_label=True) == softmax_warnings(2, multi_label=False) == ()


def test_texts_of_a_file_are_taken_as_they_stand_and_abbreviations_named():
    ((reason, message),) = verbatim_warnings(["AF", "Sinus rhythm", "AF", "old MI"])
    assert reason == "abbreviation_as_is"
    assert message.endswith("better write `AF` as `atrial fibrillation`, `old MI` as `old myocardial infarction`")
    assert verbatim_warnings(["Sinus rhythm", "ST elevation"]) == ()

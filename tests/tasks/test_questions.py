"""Tasks of a source, the words for their classes, and what is refused."""

from dataclasses import replace

import pytest

from mets_ray.errors import ConfigError
from mets_ray.tasks.label_sets import LabelSet, load_label_sets
from mets_ray.tasks.prompt_sets import PromptSet, load_prompt_set
from mets_ray.tasks.questions import Questions, prompt_classes


@pytest.fixture
def own_file(tmp_path):
    path = tmp_path / "own.json"
    path.write_text('{"rhythm": {"b": "text b", "a": ["text a", "other a"]}, "form": {"c": "text c"}}')
    return str(path)


def test_all_tasks_of_a_labelled_source_with_the_words_of_a_packaged_set():
    questions = Questions.read("descriptive", "ptbxl")
    known, prompts = load_label_sets("ptbxl"), load_prompt_set("descriptive")
    assert questions.tasks == known
    assert questions.prompts == prompts
    for task, label_set in known.items():
        classes = questions.classes(task)
        assert list(classes) == list(label_set.classes)
        assert all(classes[name] == prompts.tasks[task][name] for name in classes)
    texts = {text for task in known for wordings in questions.prompts.tasks[task].values() for text in wordings}
    assert questions.texts() == sorted(texts)


def test_named_tasks_come_in_their_order_and_unknown_ones_are_refused():
    assert list(Questions.read("mets", "ptbxl", ("ptbxl_rhythm", "ptbxl_super")).tasks) == [
        "ptbxl_rhythm",
        "ptbxl_super",
    ]
    with pytest.raises(ConfigError, match=r"`evaluate.tasks` names `synthetic`, which the source `ptbxl`"):
        Questions.read("mets", "ptbxl", ("synthetic",))


def test_a_source_of_ones_own_has_the_tasks_of_the_prompt_file(own_file):
    questions = Questions.read(own_file, "my clinic")
    assert questions.tasks == {
        "rhythm": LabelSet("rhythm", {"b": ("b",), "a": ("a",)}),
        "form": LabelSet("form", {"c": ("c",)}),
    }
    assert questions.classes("rhythm") == {"b": ("text b",), "a": ("text a", "other a")}
    assert questions.texts() == ["other a", "text a", "text b", "text c"]


def test_a_class_without_words_is_refused_however_the_questions_are_made(own_file):
    with pytest.raises(ConfigError, match="prompt set `own` version 1 has no prompt for"):
        Questions.read(own_file, "ptbxl")
    whole = Questions.read("mets", "synthetic")
    with pytest.raises(ConfigError, match="prompt set `few` version 3 has no prompt for"):
        replace(whole, prompts=PromptSet("few", 3, "", {"synthetic": {"SR": ("sinus rhythm",)}}))


def test_scores_without_labels_take_the_tasks_of_the_first_source_that_has_some(own_file):
    family = set(load_label_sets("synthetic"))
    assert set(Questions.without_labels("mets", ("my clinic", "synthetic")).tasks) == family
    assert set(Questions.without_labels("mets", ("ptbxl", "synthetic")).tasks) == set(load_label_sets("ptbxl"))
    assert list(Questions.without_labels(own_file, ("my clinic", "synthetic")).tasks) == ["rhythm", "form"]
    named = Questions.without_labels(own_file, ("synthetic",), ("form",))
    assert named.tasks == {"form": LabelSet("form", {"c": ()})}
    with pytest.raises(ConfigError, match=r"`score.tasks` names `shape`, which prompt set `own` has no prompts for"):
        Questions.without_labels(own_file, (), ("shape",))


def test_the_only_task_of_a_set_needs_no_name(own_file):
    assert prompt_classes(PromptSet("one", 1, "", {"only": {"a": ("b",)}}), None) == {"a": ("b",)}
    with pytest.raises(ConfigError, match="has 2 tasks, and `task` names none of them") as refused:
        prompt_classes(Questions.read(own_file, "x").prompts, None)
    assert "rhythm, form" in str(refused.value)

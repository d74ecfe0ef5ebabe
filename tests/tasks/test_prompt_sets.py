"""Prompt sets: the packaged ones against PTB-XL's own words, and those of faulty files."""

import hashlib
import pickle

import pytest
import yaml

from mets_ray.errors import ConfigError
from mets_ray.tasks.label_sets import packaged_label_sets
from mets_ray.tasks.prompt_files import parse_prompt_file
from mets_ray.tasks.prompt_sets import load_prompt_set
from tests.support.tables import csv_rows

TASKS = {
    "ptbxl_super": 5,
    "ptbxl_sub": 23,
    "ptbxl_form": 19,
    "ptbxl_rhythm": 12,
    "synthetic": 12,
    "mitbih": 5,
    "mitbih_aami": 5,
    "code15": 7,
    "cinc2021": 26,
    "cpsc2018": 9,
    "csn": 38,
    "csn_exact": 38,
}


def test_the_class_names_are_those_of_mets_without_its_sentences():
    names, sentences = load_prompt_set("class_names"), load_prompt_set("mets")
    assert set(names.tasks) == set(sentences.tasks)
    for task, classes in sentences.tasks.items():
        assert set(names.tasks[task]) == set(classes)
        for class_name, prompts in classes.items():
            bare = names.tasks[task][class_name]
            assert len(bare) == len(prompts)
            assert all(word in prompt and word != prompt for word, prompt in zip(bare, prompts, strict=True))


@pytest.mark.parametrize("name", ["mets", "descriptive"])
def test_packaged_prompts_speak_of_every_class(name):
    prompts = load_prompt_set(name)
    labels = packaged_label_sets()
    assert (prompts.name, prompts.version) == (name, {"mets": 1, "descriptive": 5}[name])
    assert {task: len(classes) for task, classes in prompts.tasks.items()} == TASKS
    for task, classes in prompts.tasks.items():
        assert set(classes) == set(labels[task].classes)
        most = 40 if task == "ptbxl_super" else 10  # a superclass has the words of its subclasses too
        for wordings in classes.values():
            assert len(wordings) == 1 if name == "mets" else 1 <= len(wordings) <= most


def test_mets_prompts_are_the_papers():
    tasks = load_prompt_set("mets").tasks
    assert tasks["ptbxl_super"]["NORM"] == ("The ECG of Normal ECG, a type of diagnostic.",)
    assert tasks["ptbxl_form"]["PVC"] == ("The ECG of ventricular premature complex, a type of form.",)
    assert tasks["ptbxl_rhythm"]["AFIB"] == ("The ECG of atrial fibrillation, a type of rhythm.",)


def test_mets_prompts_use_ptbxls_descriptions(data_folder):
    tasks = load_prompt_set("mets").tasks
    for row in csv_rows(data_folder / "ptb-xl" / "scp_statements.csv"):
        for kind in ("form", "rhythm"):
            if row[kind] == "1.0":
                assert tasks[f"ptbxl_{kind}"][row[""]] == (f"The ECG of {row['description']}, a type of {kind}.",)


GOOD = {
    "name": "mine",
    "version": 3,
    "source": "me",
    "tasks": {"heart": {"template": "ECG: {}", "classes": {"MI": ["infarct", "old infarct"], "NORM": ["normal"]}}},
}


def test_prompt_set_of_a_users_file():
    content = yaml.safe_dump(GOOD).encode()
    found = parse_prompt_file(content, "mine.yaml")
    assert (found.name, found.version, found.sha256) == ("mine", 3, hashlib.sha256(content).hexdigest())
    assert found.tasks == {"heart": {"MI": ("ECG: infarct", "ECG: old infarct"), "NORM": ("ECG: normal",)}}
    assert pickle.loads(pickle.dumps(found)) == found


def changed(path: str, value: object) -> bytes:
    tree = yaml.safe_load(yaml.safe_dump(GOOD))
    *parents, last = path.split(".")
    place = tree
    for parent in parents:
        place = place[parent]
    if value is None:
        del place[last]
    else:
        place[last] = value
    return yaml.safe_dump(tree).encode()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (changed("verson", 1), "`verson` is not a key of the file\n.*\nhint: did you mean `version`?"),
        (changed("source", None), "the file lacks the key `source`"),
        (changed("version", "one"), "`version` is 'one', not a whole number of 1 or more"),
        (changed("version", True), "`version` is True, not a whole number of 1 or more"),
        (changed("tasks", {}), "`tasks` is {}"),
        (changed("tasks.heart.templat", "x"), "`templat` is not a key of `tasks.heart`"),
        (changed("tasks.heart.template", "no place"), "0 `{}`, not exactly one"),
        (changed("tasks.heart.template", 5), "`tasks.heart.template` is 5"),
        (changed("version", 0), "`version` is 0, not a whole number"),
        (changed("name", " "), "`name` is ' ', not a text with words"),
        (changed("tasks", {5: GOOD["tasks"]["heart"]}), "`tasks` has the task 5, not text"),
        (changed("tasks.heart.classes", {"\ud83d": ["x"]}), "has the class '\\ud83d', with half a character"),
        (changed("tasks.heart", [1]), "`tasks.heart` is [1]"),
        (changed("tasks.heart.classes", []), "not a mapping of classes"),
        (changed("tasks.heart.classes.MI", []), "`tasks.heart.classes.MI` is []"),
        (changed("tasks.heart.classes.MI", "infarct"), "`tasks.heart.classes.MI` is 'infarct', not a list"),
        (changed("tasks.heart.classes.MI", ["infarct", " "]), "holds ' ', not a text"),
        (changed("tasks.heart.classes.MI", [False]), "holds False, not a text"),
        (changed("tasks.heart.classes.MI", ["normal"]), "'ECG: normal' stands under `MI` and under `NORM`"),
        (yaml.safe_dump(GOOD).encode().replace(b"      NORM:", b"      MI:"), "`MI` appears twice"),
        (b"name: mine\ntasks: {off: 1, off: 2}", "`False` appears twice"),
        (b"- a list", "holds a list"),
        (b"a: [", "not YAML"),
        (b"\xff\xfe\xfa", "not YAML"),
    ],
)
def test_faulty_prompt_files_are_refused(content, message):
    with pytest.raises(ConfigError) as caught:
        parse_prompt_file(content, "mine.yaml")
    first, *rest = message.split("\n.*\n")
    assert first in str(caught.value)
    assert all(part in str(caught.value) for part in rest)


def test_class_without_quotes_is_explained():
    content = b"name: a\nversion: 1\nsource: b\ntasks: {t: {template: '{}', classes: {NO: [x]}}}"
    with pytest.raises(ConfigError, match=r"class False, not text(.|\n)*put it in quotes"):
        parse_prompt_file(content, "mine.yaml")


def test_unknown_names_get_a_suggestion():
    with pytest.raises(ConfigError, match=r"no packaged prompt set is called `met`(.|\n)*did you mean `mets`\?"):
        load_prompt_set("met")
    with pytest.raises(ConfigError, match="known are `class_names`, `descriptive`, `mets`"):
        load_prompt_set("s3://bucket/x.yaml")

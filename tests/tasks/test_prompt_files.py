"""prompt_files.py: each form as a file, MERL's real one, and what each fault is answered with."""

import hashlib
import json
import os
from pathlib import Path

import pytest
import yaml

from mets_ray.errors import ConfigError
from mets_ray.tasks.label_sets import packaged_label_sets
from mets_ray.tasks.prompt_files import LARGEST_BYTES, MERL_NAMES, MERL_UNSCORED, parse_prompt_file, read_prompt_set
from mets_ray.tasks.questions import check_prompts

OURS = {
    "name": "mine",
    "version": 3,
    "source": "me",
    "tasks": {"heart": {"template": "ECG: {}", "classes": {"MI": ["infarct", "old infarct"], "NORM": ["normal"]}}},
}


@pytest.fixture(scope="session")
def merl_file() -> Path:
    path = Path(os.environ.get("METS_TEST_DATA", "")) / "prompts" / "merl_ckepe.json"
    if not os.environ.get("METS_TEST_DATA") or not path.is_file():
        pytest.skip("METS_TEST_DATA names no folder with prompts/merl_ckepe.json")
    return path


def read(folder: Path, name: str, content: str | bytes | dict | list):
    path = folder / name
    if isinstance(content, dict | list):
        content = json.dumps(content)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return read_prompt_set(str(path))


def refusal(folder: Path, name: str, content: str | bytes | dict | list) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        read(folder, name, content)
    return caught.value


def test_our_form_is_the_same_in_yaml_and_json(tmp_path):
    for name, text in (("a.yaml", yaml.safe_dump(OURS)), ("a.yml", yaml.safe_dump(OURS)), ("a.json", json.dumps(OURS))):
        found = read(tmp_path, name, text)
        assert (found.name, found.version) == ("mine", 3)
        assert found.sha256 == hashlib.sha256(text.encode()).hexdigest()
        assert found.tasks == {"heart": {"MI": ("ECG: infarct", "ECG: old infarct"), "NORM": ("ECG: normal",)}}


def test_texts_by_task_and_class_are_whole_prompts(tmp_path):
    found = read(tmp_path, "my-words.json", {"heart": {"MI": ["Infarct {}", " old "], "NORM": "A normal ECG."}})
    assert (found.name, found.version) == ("my-words", 1)
    assert found.tasks == {"heart": {"MI": ("Infarct {}", " old "), "NORM": ("A normal ECG.",)}}


def test_flat_classes_go_to_each_task_that_has_them_in_its_order(tmp_path):
    found = read(tmp_path, "flat.json", {"STTC": "ST-T change", "NORM": ["normal", "nothing found"], "WPW": "delta"})
    normal, change, delta = ("normal", "nothing found"), ("ST-T change",), ("delta",)
    csn = {"WPW": delta, "STTC": change}
    assert found.tasks == {
        "ptbxl_super": {"STTC": change, "NORM": normal},
        "ptbxl_sub": {"STTC": change, "NORM": normal, "WPW": delta},
        "cpsc2018": {"NORM": normal},
        "csn": csn,
        "csn_exact": csn,
    }
    assert list(found.tasks["csn"]) == ["WPW", "STTC"]


def test_merls_names_stand_for_ptbxls_only_where_the_file_lacks_those(tmp_path):
    found = read(tmp_path, "merl.json", {"STE": "elevation", "AVB": "block"})
    assert found.tasks["ptbxl_form"] == {"STE_": ("elevation",)}
    assert found.tasks["ptbxl_sub"] == {"_AVB": ("block",)}
    assert found.tasks["cpsc2018"] == {"STE": ("elevation",)}
    assert found.tasks["csn"] == {"STE": ("elevation",), "AVB": ("block",)}
    both = read(tmp_path, "both.json", {"STE": "elevation", "STE_": "non-specific elevation"})
    assert both.tasks["ptbxl_form"] == {"STE_": ("non-specific elevation",)}
    assert both.tasks["cpsc2018"] == {"STE": ("elevation",)}


def test_merls_names_are_ptbxls_without_underscores():
    label_sets = packaged_label_sets()
    for task in ("ptbxl_super", "ptbxl_sub", "ptbxl_form", "ptbxl_rhythm"):
        spelt = {name: name.strip("_") for name in label_sets[task].classes if name != name.strip("_")}
        assert MERL_NAMES.get(task, {}) == spelt


def test_merls_own_file(merl_file):
    found = read_prompt_set(str(merl_file))
    file = json.loads(merl_file.read_bytes())
    label_sets = packaged_label_sets()
    published = ("ptbxl_super", "ptbxl_sub", "ptbxl_form", "ptbxl_rhythm", "cpsc2018", "csn", "csn_exact")
    check_prompts(found, {task: label_sets[task] for task in published})
    assert (found.name, found.version) == ("merl_ckepe", 1)
    assert found.sha256 == "468b9b23220bbc6190618db6e0138ae34d95097456214a1b12cd0d1ad30e233c"
    assert set(found.tasks) == {*published, "synthetic"}
    assert found.tasks["ptbxl_super"]["CD"] == (file["CD"],)
    assert found.tasks["ptbxl_sub"]["_AVB"] == found.tasks["csn"]["AVB"] == (file["AVB"],)
    assert found.tasks["ptbxl_form"]["STD_"] == found.tasks["cpsc2018"]["STD"] == (file["STD"],)
    used = {text for classes in found.tasks.values() for texts in classes.values() for text in texts}
    assert {name for name, text in file.items() if text not in used} == MERL_UNSCORED


def test_melps_classes_all_have_a_prompt_in_merls_file(merl_file):
    found = read_prompt_set(str(merl_file))
    names = json.loads((merl_file.parent / "melp_class_names.json").read_bytes())
    ours = {"icbeb": "cpsc2018", "chapman": "csn", "ptbxl_super_class": "ptbxl_super", "ptbxl_sub_class": "ptbxl_sub"}
    for task, classes in names.items():
        task = ours.get(task, task)
        merls = MERL_NAMES.get(task, {})
        assert {merls.get(name, name) for name in found.tasks[task]} == set(classes)


def test_part_of_merls_unscored_classes_is_a_mistake(tmp_path):
    whole = {name: f"text of {name}" for name in MERL_UNSCORED} | {"NORM": "normal"}
    assert read(tmp_path, "whole.json", whole).tasks["ptbxl_super"] == {"NORM": ("normal",)}
    error = refusal(tmp_path, "some.json", {"NORM": "normal", "LAFB": "hemiblock", "SB": "slow"})
    assert error.fact == "no packaged label set has the class `LAFB`, `SB`"
    assert error.where == "prompt file `some.json`"
    assert error.hint == "did you mean `AFIB`? Or write {task: {class: prompt}}"


def test_csv_with_columns_in_any_order(tmp_path):
    rows = 'prompt,task,class\r\n"Infarct, old",heart,MI\r\n\r\n"two\nlines",heart,MI\r\nnormal,heart,NORM\r\n'
    rows += "fast,rate,ST\r\n"
    for mark in (b"", b"\xef\xbb\xbf"):
        found = read(tmp_path, "Rows.CSV", mark + rows.encode())
        assert (found.name, found.version) == ("Rows", 1)
        assert found.sha256 == hashlib.sha256(mark + rows.encode()).hexdigest()
        assert found.tasks == {
            "heart": {"MI": ("Infarct, old", "two\nlines"), "NORM": ("normal",)},
            "rate": {"ST": ("fast",)},
        }


def test_json_with_a_byte_order_mark(tmp_path):
    found = read(tmp_path, "a.json", b"\xef\xbb\xbf" + '{"t": {"c": "Übersicht"}}'.encode())
    assert found.tasks == {"t": {"c": ("Übersicht",)}}


@pytest.mark.parametrize(
    ("content", "fact", "hint"),
    [
        ('{"NORM": "a", "MI": "b", "MI": "c"}', "`MI` appears twice", "one list"),
        ('{"t": {"MI": "b", "MI": "c"}}', "`MI` appears twice", "one list"),
        ({"NORM": " "}, "`NORM` holds ' ', not a text with words", "take it out"),
        ({"NORM": []}, "`NORM` is [], not a list of texts", "take it out"),
        ({"NORM": ["a", 5]}, "`NORM` holds 5, not a text with words", ""),
        ({"NORM": 5}, "`NORM` is 5, not a list of texts", ""),
        ({"NORM": None}, "`NORM` is None, not a list of texts", ""),
        ('{"NORM": NaN}', "`NORM` is nan, not a list of texts", ""),
        ({"t": {"c": "a", "d": ["b", ""]}}, "`t.d` holds '', not a text with words", ""),
        ({"t": {"c": {"d": "a"}}}, "`t.c` is {'d': 'a'}, not a list of texts", ""),
        ({"t": {"c": "a"}, "NORM": "b"}, "`NORM` is 'b', not a mapping of classes", ""),
        ({"t": {"c": "a"}, "u": {}}, "`u` is {}, not a mapping of classes", ""),
        ({"CD": "a", "MI": "a"}, "'a' stands under `MI` and under `CD` of `ptbxl_super`", "wordings of its own"),
        ({"t": {"c": "a", "d": ["b", "a"]}}, "'a' stands under `c` and under `d` of `t`", "wordings of its own"),
        ({"t": {"c": ["a", "a"]}}, "'a' stands under `c` and under `c` of `t`", "each once"),
        ({"norm": "a"}, "no packaged label set has the class `norm`", "known are"),
        ({"NORMAL": "a", "MI": "b"}, "no packaged label set has the class `NORMAL`", "did you mean `NORM`?"),
        ({"NST": "a", "NST_": "b"}, "no packaged label set has the class `NST`", "did you mean `NST_`?"),
        (r'{"NORM": "half \ud83d"}', r"`NORM` holds 'half \ud83d', with half a character", "the character itself"),
        ({}, "the file holds nothing", '{"class": "prompt"}'),
        ([], "the file holds a list, not classes", '{"class": "prompt"}'),
        ('{"NORM": "a",}', "this is not JSON: ", ""),
        ("[" * 100_000, "this is not JSON: ", ""),
        ('{"NORM": ' + "1" * 5000 + "}", "this is not JSON: ", ""),
        (b'{"NORM": "\xe9"}', "byte 10 of the file, 0xe9, is not UTF-8", "save the file as UTF-8"),
        (OURS | {"tasks": {}}, "`tasks` is {}", ""),
        (OURS | {"verson": 1}, "`verson` is not a key of the file", "did you mean `version`?"),
        (OURS | {"name": "../mine"}, "the prompt set is called '../mine', not a plain name", "letters, digits"),
        ({"tasks": OURS["tasks"]}, "the file lacks the key `name`", "add `name:`"),
    ],
)
def test_faulty_json_is_refused(tmp_path, content, fact, hint):
    error = refusal(tmp_path, "words.json", content)
    assert fact in error.fact
    assert error.where == "prompt file `words.json`"
    assert hint in error.hint


@pytest.mark.parametrize(
    ("content", "fact", "place"),
    [
        ("", "the file has no row with a prompt", ""),
        ("task,class,prompt\n", "the file has no row with a prompt", ""),
        ("task,class\nt,c\n", "the file lacks the column `prompt`", ", line 1"),
        ("task,class,prompt,note\nt,c,p,n\n", "`note` is not a column of a prompt file", ", line 1"),
        ("task;class;prompt\nt;c;p\n", "`task;class;prompt` is not a column", ", line 1"),
        ("task, class,prompt\nt,c,p\n", "` class` is not a column", ", line 1"),
        ("task,class,task,prompt\nt,c,t,p\n", "the column `task` appears twice", ", line 1"),
        ("task,class,prompt\nt,c,p, q\n", "the row has 4 cells, not 3", ", line 2"),
        ("task,class,prompt\nt,c\n", "the row has 2 cells, not 3", ", line 2"),
        ("task,class,prompt\nt,c,a\nt,c, \n", "`prompt` is ' ', not a text with words", ", line 3"),
        ("task,class,prompt\nt, c,a\n", "`class` is ' c', not a name without blanks around it", ", line 2"),
        ("task,class,prompt\n,c,a\n", "`task` is '', not a name", ", line 2"),
        ("task,class,prompt\nt,c,a\nt,d,a\n", "'a' stands under `c` and under `d` of `t`", ""),
        ("task,class,prompt\nt,c,a\nt,c,a\n", "'a' stands under `c` and under `c` of `t`", ""),
        ('task,class,prompt\nt,c,"a\n', "this is not CSV: ", ", line 2"),
        (b"task,class,prompt\nt,c,\xe9\n", "byte 22 of the file, 0xe9, is not UTF-8", ""),
    ],
)
def test_faulty_csv_is_refused(tmp_path, content, fact, place):
    error = refusal(tmp_path, "words.csv", content)
    assert fact in error.fact
    assert error.where == f"prompt file `words.csv`{place}"
    assert error.hint or "not CSV" in error.fact


def test_a_faulty_yaml_file_is_called_by_its_name(tmp_path):
    assert refusal(tmp_path, "a.yaml", "- a list").where == "prompt file `a.yaml`"
    assert refusal(tmp_path, "a.yaml", yaml.safe_dump(OURS | {"tasks": {"t": 1}})).where == "prompt file `a.yaml`"
    for content in ("{a: 2026-13-01}", "[" * 3000):
        assert "this is not YAML: " in refusal(tmp_path, "a.yaml", content).fact


@pytest.mark.parametrize("name", ["my words.json", "-x.csv", ".json.json", "con.json", f"{'x' * 201}.csv"])
def test_a_file_without_a_plain_name_is_refused(tmp_path, name):
    content = 'task,class,prompt\nt,c,"p"\n' if name.endswith("csv") else '{"NORM": "a"}'
    error = refusal(tmp_path, name, content)
    assert f"the prompt set is called {name.rpartition('.')[0]!r}, not a plain name" in error.fact


@pytest.mark.parametrize("task", ["../../../x", "a/b", "..", "a\\b", "C:x", "x\0", "nul", ".x", "x" * 300, "s3://x"])
def test_a_task_that_no_file_can_be_named_after_is_refused(tmp_path, task):
    """Results are kept in files of the tasks' names."""
    forms = {
        "words.json": {task: {"c": "a"}},
        "ours.json": OURS | {"tasks": {task: {"template": "{}", "classes": {"c": ["a"]}}}},
        "ours.yaml": yaml.safe_dump(OURS | {"tasks": {task: {"template": "{}", "classes": {"c": ["a"]}}}}),
        "words.csv": f'task,class,prompt\n"{task}",c,a\n',
    }
    for name, content in forms.items():
        error = refusal(tmp_path, name, content)
        assert f"has the task {task!r}, which files cannot be named after" in error.fact
        assert error.where.startswith(f"prompt file `{name}`")
        assert "letters" in error.hint


def test_a_file_of_another_kind_or_size_is_refused(tmp_path):
    with pytest.raises(
        ConfigError, match=r"`.txt` is the suffix of no prompt file\n(.|\n)*known are .yaml, .yml, .json"
    ):
        parse_prompt_file(b"NORM", "s3://bucket/words.txt")
    with pytest.raises(ConfigError, match="`` is the suffix of no prompt file"):
        parse_prompt_file(b"{}", ".json")
    content = b'{"NORM": "a"}'
    assert read(tmp_path, "a.json", content.ljust(LARGEST_BYTES)).tasks["ptbxl_super"] == {"NORM": ("a",)}
    error = refusal(tmp_path, "a.json", content.ljust(LARGEST_BYTES + 1))
    assert error.fact == "the file has 1048577 bytes, and prompts may have 1048576"


def test_packaged_names_still_work():
    assert read_prompt_set("mets").name == "mets"
    with pytest.raises(ConfigError, match="did you mean `mets`"):
        read_prompt_set("met")

"""report.py: cleaning against real reports, prompt sets and label sets against PTB-XL's own table."""

import ast
import csv
import hashlib
import os
import pickle
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import yaml

from mets_ray.errors import ConfigError, RecordError
from mets_ray.tasks.label_sets import LabelSet, label_matrix, load_label_sets
from mets_ray.tasks.prompt_sets import load_prompt_set
from mets_ray.tasks.questions import LABELLED_SOURCES
from mets_ray.text.reports import METS_TRAIN_TEMPLATE, apply_template, clean_report, text_hash, text_id

PTBXL_TASKS = {"ptbxl_super": 5, "ptbxl_sub": 23, "ptbxl_form": 19, "ptbxl_rhythm": 12}
TASKS = PTBXL_TASKS | {"synthetic": 12, "mitbih": 5, "mitbih_aami": 5, "cpsc2018": 9, "csn": 38, "csn_exact": 38}


@pytest.fixture(scope="session")
def ptbxl_path() -> Path:
    if "METS_TEST_DATA" not in os.environ:
        pytest.skip("METS_TEST_DATA does not name a folder with real data")
    path = Path(os.environ["METS_TEST_DATA"]) / "ptb-xl"
    if not path.is_dir():
        pytest.skip(f"{path} is absent")
    return path


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


# Real PTB-XL reports and what must be left of them.
@pytest.mark.parametrize(
    ("report", "cleaned"),
    [
        ("sinus rhythm. normal ecg.", "sinus rhythm. normal ecg."),
        ("  sinusrhythmus \n  normales ekg ", "sinusrhythmus normales ekg"),
        ("schrittmacher ekg 4.46 unbestÄtigter bericht", "schrittmacher ekg"),
        ("schrittmacher ekg 4.46 unbestätigter bericht.", "schrittmacher ekg"),
        ("linkstyp 4.46 unbestÄtigter beri", "linkstyp"),
        ("linkstyp 4.46 unbestÄtig", "linkstyp"),
        ("linkstyp 4.46 unbest", "linkstyp"),
        ("linkstyp 4.46", "linkstyp"),
        ("linkstyp unbestaetigter bericht", "linkstyp"),
        ("Sinus rhythm. UNCONFIRMED REPORT", "Sinus rhythm."),
        # "alter unbest." is "age undetermined": a finding
        ("inferiorer infarkt alter unbest. 4.46 unbestÄtigter bericht", "inferiorer infarkt alter unbest."),
        ("inferiorer infarkt alter unbest.", "inferiorer infarkt alter unbest."),
        ("inferiorer infarkt, unbestÄtigter befund in v2", "inferiorer infarkt, unbestÄtigter befund in v2"),
        # the annotators' note holds the labels
        ("sinus rhythm. normal ecg. Edit: NORM 100, (NORM 100)", "sinus rhythm. normal ecg."),
        ("lagetyp normal 4.46 unbestÄtigter bericht Edit: NORM 100, (ISCIL)", "lagetyp normal"),
        # numbers that are measurements or dates stay
        ("prolonged pr interval 0.28", "prolonged pr interval 0.28"),
        ("10.05.93: vorhofflattern 2:1", "10.05.93: vorhofflattern 2:1"),
        ("trace only requested. sinus rhythm", "trace only requested. sinus rhythm"),
    ],
)
def test_cleaned_report(report, cleaned):
    assert clean_report(report) == cleaned
    assert clean_report(cleaned) == cleaned


@pytest.mark.parametrize(
    ("report", "reason"),
    [
        ("", "empty_report"),
        (" \n\t", "empty_report"),
        (" . - ", "empty_report"),
        ("4.46 unbestÄtigter bericht", "empty_report"),
        ("Edit: NORM 100", "empty_report"),
        ("trace only requested.", "no_findings"),
        ("  TRACE  only\nrequested ", "no_findings"),
        ("trace only requested. Edit: IMI 50", "no_findings"),
    ],
)
def test_text_that_is_no_report(report, reason):
    with pytest.raises(RecordError) as caught:
        clean_report(report)
    assert caught.value.reason == reason
    assert pickle.loads(pickle.dumps(caught.value)).reason == reason


def test_real_reports(ptbxl_path):
    outcome: Counter[str] = Counter()
    for row in rows(ptbxl_path / "ptbxl_database.csv"):
        try:
            cleaned = clean_report(row["report"])
        except RecordError as error:
            outcome[error.reason] += 1
            continue
        whole = " ".join(row["report"].split())
        assert whole.startswith(cleaned)  # only tails go
        tail = whole[len(cleaned) :]
        outcome["kept whole" if not tail else "shortened"] += 1
        assert tail == "" or tail.startswith((" 4.46", " Edit: "))
        assert "Edit:" not in cleaned
        assert not cleaned.endswith(("bericht", "4.46"))
    assert outcome == {"kept whole": 1992 - 206 - 46 - 2, "shortened": 206, "no_findings": 46, "empty_report": 2}


def test_template():
    assert apply_template(METS_TRAIN_TEMPLATE, "normal {0} ecg {}") == "The report of the ECG is that normal {0} ecg {}"
    for template in ("no place", "{} and {}", "{0}"):
        with pytest.raises(ConfigError, match="not exactly one"):
            apply_template(template, "x")


def test_text_id_is_the_head_of_the_hash():
    text = "sinusrytm hÖgersidigt skÄnkelblock"
    assert text_hash(text) == hashlib.sha256(text.encode()).hexdigest()
    assert text_id(text) % 2**64 == int(text_hash(text)[:16], 16)
    ids = [text_id(f"text {number}") for number in range(200)]
    assert min(ids) < 0 < max(ids)
    assert len(set(np.array(ids, dtype=np.int64).tolist())) == 200
    assert (
        text_id("sinus rhythm") == 6116843544572650550
    )  # sha256sum says 54e3…; stored in checkpoints and tables: must never change


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
    labels = {task: classes for source in LABELLED_SOURCES for task, classes in load_label_sets(source).items()}
    assert (prompts.name, prompts.version) == (name, {"mets": 1, "descriptive": 4}[name])
    assert {task: len(classes) for task, classes in prompts.tasks.items()} == TASKS
    for task, classes in prompts.tasks.items():
        assert set(classes) == set(labels[task].classes)
        for wordings in classes.values():
            assert len(wordings) == 1 if name == "mets" else 1 <= len(wordings) <= 8


def test_mets_prompts_are_the_papers():
    tasks = load_prompt_set("mets").tasks
    assert tasks["ptbxl_super"]["NORM"] == ("The ECG of Normal ECG, a type of diagnostic.",)
    assert tasks["ptbxl_form"]["PVC"] == ("The ECG of ventricular premature complex, a type of form.",)
    assert tasks["ptbxl_rhythm"]["AFIB"] == ("The ECG of atrial fibrillation, a type of rhythm.",)


def test_mets_prompts_use_ptbxls_descriptions(ptbxl_path):
    tasks = load_prompt_set("mets").tasks
    for row in rows(ptbxl_path / "scp_statements.csv"):
        for kind in ("form", "rhythm"):
            if row[kind] == "1.0":
                assert tasks[f"ptbxl_{kind}"][row[""]] == (f"The ECG of {row['description']}, a type of {kind}.",)


def test_label_sets_are_ptbxls_table(ptbxl_path):
    expected: dict[str, dict[str, list[str]]] = {task: {} for task in PTBXL_TASKS}
    for row in rows(ptbxl_path / "scp_statements.csv"):
        code = row[""]
        if row["diagnostic"] == "1.0":
            expected["ptbxl_super"].setdefault(row["diagnostic_class"], []).append(code)
            expected["ptbxl_sub"].setdefault(row["diagnostic_subclass"], []).append(code)
        for kind in ("form", "rhythm"):
            if row[kind] == "1.0":
                expected[f"ptbxl_{kind}"][code] = [code]
    found = load_label_sets("ptbxl")
    assert {task: {name: list(codes) for name, codes in found[task].classes.items()} for task in found} == expected
    assert [found[task].task for task in found] == list(found)


def test_label_matrix():
    labels = LabelSet("heart", {"MI": ("IMI", "AMI"), "CD": ("CLBBB",), "ANY": ("IMI", "CLBBB")})
    matrix, keep = label_matrix(labels, [["IMI", "SR"], ["SR"], [], ["CLBBB", "AMI", "IMI"]])
    assert matrix.tolist() == [[True, False, True], [False] * 3, [False] * 3, [True, True, True]]
    assert keep.tolist() == [True, False, False, True]
    empty, nothing = label_matrix(labels, [])
    assert empty.shape == (0, 3)
    assert nothing.shape == (0,)


def test_label_matrix_of_real_records(ptbxl_path):
    records = rows(ptbxl_path / "ptbxl_database.csv")
    codes = [list(ast.literal_eval(row["scp_codes"])) for row in records]
    statements = {row[""]: row for row in rows(ptbxl_path / "scp_statements.csv")}
    label_set = load_label_sets("ptbxl")["ptbxl_super"]
    matrix, keep = label_matrix(label_set, codes)
    classes = list(label_set.classes)
    for row, record in enumerate(codes):
        expected = {statements[code]["diagnostic_class"] for code in record if statements[code]["diagnostic"] == "1.0"}
        assert {classes[column] for column in np.flatnonzero(matrix[row])} == expected
        assert keep[row] == bool(expected)
    assert 0 < keep.sum() < len(keep)


GOOD = {
    "name": "mine",
    "version": 3,
    "source": "me",
    "tasks": {"heart": {"template": "ECG: {}", "classes": {"MI": ["infarct", "old infarct"], "NORM": ["normal"]}}},
}


def test_prompt_set_of_a_users_file():
    content = yaml.safe_dump(GOOD).encode()
    found = load_prompt_set(content)
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
        (changed("version", "one"), "`version` is 'one', not a int"),
        (changed("version", True), "`version` is True, not a int"),
        (changed("tasks", {}), "`tasks` is {}"),
        (changed("tasks.heart.templat", "x"), "`templat` is not a key of `tasks.heart`"),
        (changed("tasks.heart.template", "no place"), "0 `{}`, not exactly one"),
        (changed("tasks.heart.template", 5), "`tasks.heart.template` is 5"),
        (changed("tasks.heart", [1]), "`tasks.heart` is [1]"),
        (changed("tasks.heart.classes", []), "not a mapping of classes"),
        (changed("tasks.heart.classes.MI", []), "`tasks.heart.classes.MI` is []"),
        (changed("tasks.heart.classes.MI", "infarct"), "`tasks.heart.classes.MI` is 'infarct', not a list"),
        (changed("tasks.heart.classes.MI", ["infarct", " "]), "holds ' ', not a text"),
        (changed("tasks.heart.classes.MI", [False]), "holds False, not a text"),
        (changed("tasks.heart.classes.MI", ["normal"]), "'ECG: normal' stands under `MI` and under `NORM`"),
        (yaml.safe_dump(GOOD).encode().replace(b"      NORM:", b"      MI:"), "`MI` stands twice"),
        (b"name: mine\ntasks: {off: 1, off: 2}", "`False` stands twice"),
        (b"- a list", "holds a list"),
        (b"a: [", "not YAML"),
        (b"\xff\xfe\xfa", "not YAML"),
    ],
)
def test_faulty_prompt_files_are_refused(content, message):
    with pytest.raises(ConfigError) as caught:
        load_prompt_set(content)
    first, *rest = message.split("\n.*\n")
    assert first in str(caught.value)
    assert all(part in str(caught.value) for part in rest)


def test_class_without_quotes_is_explained():
    content = b"name: a\nversion: 1\nsource: b\ntasks: {t: {template: '{}', classes: {NO: [x]}}}"
    with pytest.raises(ConfigError, match=r"class False, not text(.|\n)*put it in quotes"):
        load_prompt_set(content)


def test_unknown_names_get_a_suggestion():
    with pytest.raises(ConfigError, match=r"no packaged prompt set is called `met`(.|\n)*did you mean `mets`\?"):
        load_prompt_set("met")
    with pytest.raises(ConfigError, match="known are `class_names`, `descriptive`, `mets`"):
        load_prompt_set("s3://bucket/x.yaml")
    with pytest.raises(ConfigError, match=r"no packaged label set is called `ptb-xl`(.|\n)*did you mean `ptbxl`\?"):
        load_label_sets("ptb-xl")

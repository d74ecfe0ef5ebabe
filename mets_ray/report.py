"""Texts: a report as it enters the data set, templates, and the packaged class prompts and label sets.

A prompt set (`prompts/*.yaml`) says in words what each class of a task looks like in a report; a label set
(`label_sets/*.yaml`) says which of the source's codes count for which class. Both are keyed by task, then class.
"""

import difflib
import hashlib
import importlib.resources
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources.abc import Traversable
from typing import Any

import numpy as np
import yaml
from jaxtyping import Bool

from mets_ray.errors import ConfigError, RecordError

METS_TRAIN_TEMPLATE = "The report of the ECG is that {}"
"""Text that METS trains on (Li et al. 2023, PMLR v227 li24a)."""

# PTB-XL, annotators' note behind some reports: ` Edit: NORM 100, (ISCIL)`. It holds the very SCP codes that evaluation
# scores, so a report that keeps it leaks labels into the text. The capital E is theirs; reports are lower case.
_ANNOTATION = re.compile(r"(?:^|\s)Edit:.*$")
# `4.46 unbestÄtigter bericht` = program version and "unconfirmed report". The field is cut at a fixed length, hence the
# incomplete endings. `alter unbest.` ("age undetermined") is a finding and stays.
_UNCONFIRMED = re.compile(
    r"(?:(?:^|\s)\d\.\d\d)?(?:^|\s)unbest(?:ä|ae)tig\w*(?:\s+b\w*)?[\s.]*$"
    r"|(?:^|\s)unconfirmed (?:report|ecg|interpretation)[\s.]*$"
    r"|\s4\.46(?:\s+unbest\w*)?$",
    re.IGNORECASE,
)
_SENTENCE_END = re.compile(r"(?<=[^\d\s.;])[.;]+(?:\s+|$)")  # not within 4.46
_NO_FINDINGS = re.compile(r"trace only requested[\s.]*", re.IGNORECASE)


@dataclass(frozen=True)
class PromptSet:
    """Named, versioned class prompts: `tasks[task][class_name]` are full prompts, template applied."""

    name: str
    version: int
    sha256: str
    tasks: dict[str, dict[str, tuple[str, ...]]]


@dataclass(frozen=True)
class LabelSet:
    """The classes of one task, each with the source's codes that count for it."""

    task: str
    classes: dict[str, tuple[str, ...]]


def clean_report(text: str) -> str:
    """The report itself, on one line, in its own case and language.

    Takes off what is about the report and not about the ECG: the tail "unbestätigter bericht" ("unconfirmed report")
    with the program version before it, and PTB-XL's annotation note ` Edit: ...`, which holds label codes.

    Raises RecordError `empty_report` when no word is left and `no_findings` for "trace only requested".
    """
    report = " ".join(text.split())
    report = _UNCONFIRMED.sub("", _ANNOTATION.sub("", report)).strip()
    if not any(character.isalnum() for character in report):
        raise RecordError("empty_report", f"the report {text!r} holds no words")
    if _NO_FINDINGS.fullmatch(report):
        raise RecordError("no_findings", f"the report {text!r} describes no finding")
    return report


def sentences(text: str) -> tuple[str, ...]:
    """Sentences of a report, once cleaned because the raw one may hold label codes; none where nothing is left."""
    try:
        report = clean_report(text)
    except RecordError:
        return ()
    return tuple(part.strip() for part in _SENTENCE_END.split(report) if part.strip())


def apply_template(template: str, text: str) -> str:
    """`template` with its one `{}` replaced by `text`, in which braces mean nothing. Raises ConfigError otherwise."""
    if template.count("{}") != 1:
        raise ConfigError(
            f"template {template!r} holds {template.count('{}')} `{{}}`, not exactly one",
            hint=f"write it like {METS_TRAIN_TEMPLATE!r}",
        )
    return template.replace("{}", text)


def text_hash(text: str) -> str:
    """SHA-256 of the text in UTF-8, 64 hexadecimal digits."""
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def text_id(text: str) -> int:
    """Signed 64-bit id of a text: the first 8 bytes, big-endian, of its SHA-256.

    Two of 800,000 distinct texts (MIMIC-IV-ECG) share an id with probability 2e-8.
    """
    return int.from_bytes(hashlib.sha256(text.encode("utf-8")).digest()[:8], "big", signed=True)


def load_prompt_set(source: str | bytes, *, where: str = "") -> PromptSet:
    """A packaged prompt set by name (`mets`, `descriptive`), or one from the bytes of a YAML file.

    Form: `name`, `version`, `source` and `tasks: {task: {template: "... {} ...", classes: {class_name: [wording]}}}`.
    Raises ConfigError for an unknown name, unknown or missing keys, repeated keys, a class without wordings, an empty
    wording, and a prompt that stands twice in a task; `where` is what it calls the file.
    """
    content, where = (
        (_packaged("prompts", source), f"prompt set `{source}`") if isinstance(source, str) else (source, where)
    )
    tree = _read_yaml(content, where or "prompt set file")
    return prompt_set_of(tree, content, where or f"prompt set `{tree['name']}`")


def prompt_set_of(tree: dict[str, Any], content: bytes, where: str) -> PromptSet:
    """The prompt set of a tree that `require_head` let pass; `content` is the file. Errors as in `load_prompt_set`."""
    tasks = {}
    for task, body in tree["tasks"].items():
        if not isinstance(body, dict):
            raise ConfigError(f"`tasks.{task}` is {body!r}, not a mapping", where=where)
        _require_keys(body, ("template", "classes"), f"`tasks.{task}`", where)
        if not isinstance(body["template"], str):
            raise ConfigError(f"`tasks.{task}.template` is {body['template']!r}, not text", where=where)
        tasks[task] = {
            class_name: tuple(apply_template(body["template"], wording) for wording in wordings)
            for class_name, wordings in texts_by_class(body["classes"], f"tasks.{task}.classes", where).items()
        }
        require_distinct_prompts(f"tasks.{task}", tasks[task], where)
    return PromptSet(tree["name"], tree["version"], hashlib.sha256(content).hexdigest(), tasks)


def require_distinct_prompts(name: str, classes: Mapping[str, Sequence[str]], where: str) -> None:
    """Raise ConfigError where a prompt stands twice in a task, whose place in the file is `name`."""
    owner: dict[str, str] = {}
    for class_name, prompts in classes.items():
        for prompt in prompts:
            if prompt in owner:
                raise ConfigError(
                    f"{prompt!r} stands under `{owner[prompt]}` and under `{class_name}` of `{name}`",
                    where=where,
                    hint="give each class wordings of its own, each once",
                )
            owner[prompt] = class_name


def load_label_sets(name: str) -> dict[str, LabelSet]:
    """A packaged family of label sets by name (`ptbxl`, `mitbih`, …), keyed by task. Raises ConfigError."""
    where = f"label set `{name}`"
    tree = _read_yaml(_packaged("label_sets", name), where)
    return {
        task: LabelSet(task, texts_by_class(classes, f"tasks.{task}", where)) for task, classes in tree["tasks"].items()
    }


def packaged_label_sets() -> dict[str, LabelSet]:
    """The label sets of every packaged family, keyed by task."""
    families = sorted(packaged_files("label_sets"))
    return {task: label_set for family in families for task, label_set in load_label_sets(family).items()}


def label_matrix(
    label_set: LabelSet, labels: Sequence[Sequence[str]]
) -> tuple[Bool[np.ndarray, "record class"], Bool[np.ndarray, "record"]]:
    """(which classes each record has, which records have any), from each record's codes.

    A code counts whatever its likelihood, and records with no class of this task are not scored: the protocol of the
    PTB-XL benchmark (Strodthoff et al. 2021) and of MERL. Codes of other tasks are passed over.
    """
    columns: dict[str, list[int]] = {}
    for column, codes in enumerate(label_set.classes.values()):
        for code in codes:
            columns.setdefault(code, []).append(column)
    matrix = np.zeros((len(labels), len(label_set.classes)), dtype=np.bool_)
    for row, codes_of_record in enumerate(labels):
        for code in codes_of_record:
            matrix[row, columns.get(code, [])] = True
    keep = np.any(matrix, axis=1)
    return matrix, keep


class _UniqueKeyLoader(yaml.SafeLoader):
    """PyYAML keeps the last of equal keys without a word; a class written twice must be seen."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for position, key in enumerate(keys):
            if key in keys[:position]:
                raise ConfigError(f"`{key}` stands twice", where=f"line {node.value[position][0].start_mark.line + 1}")
        return super().construct_mapping(node, deep=deep)


def did_you_mean(word: str, known: Sequence[str]) -> str:
    """A hint: the nearest of the known words, or all of them where none is near."""
    close = difflib.get_close_matches(word, known, n=1)
    return f"did you mean `{close[0]}`?" if close else f"known are {', '.join(f'`{name}`' for name in known)}"


def packaged_files(folder: str) -> dict[str, Traversable]:
    """The YAML files of a folder of the package, by name."""
    return {
        entry.name.removesuffix(".yaml"): entry
        for entry in importlib.resources.files("mets_ray").joinpath(folder).iterdir()
        if entry.name.endswith(".yaml")
    }


def _packaged(folder: str, name: str) -> bytes:
    files = packaged_files(folder)
    if name not in files:
        kind = {"prompts": "prompt set", "label_sets": "label set"}[folder]
        raise ConfigError(f"no packaged {kind} is called `{name}`", hint=did_you_mean(name, sorted(files)))
    return files[name].read_bytes()


def _read_yaml(content: bytes, where: str) -> dict[str, Any]:
    try:
        tree = yaml.load(content, Loader=_UniqueKeyLoader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: bytes, and dates like 2026-13-01
        raise ConfigError(f"this is not YAML: {error}", where=where) from error
    except ConfigError as error:
        raise ConfigError(error.fact, where=f"{where}, {error.where}") from None
    return require_head(tree, where)


def require_head(tree: Any, where: str) -> dict[str, Any]:
    """`tree`, a mapping of `name`, `version`, `source` and `tasks`, each of its kind, and no more; or ConfigError."""
    if not isinstance(tree, dict):
        raise ConfigError(f"the file holds a {type(tree).__name__}, not a mapping", where=where)
    _require_keys(tree, ("name", "version", "source", "tasks"), "the file", where)
    for key, kind in (("name", str), ("version", int), ("source", str), ("tasks", dict)):
        if not isinstance(tree[key], kind) or isinstance(tree[key], bool) or not tree[key]:
            raise ConfigError(f"`{key}` is {tree[key]!r}, not a {kind.__name__} with content", where=where)
    return tree


def _require_keys(mapping: dict[Any, Any], keys: tuple[str, ...], name: str, where: str) -> None:
    for key in mapping:
        if key not in keys:
            raise ConfigError(f"`{key}` is not a key of {name}", where=where, hint=did_you_mean(str(key), keys))
    for key in keys:
        if key not in mapping:
            raise ConfigError(f"{name} lacks the key `{key}`", where=where, hint=f"add `{key}:`")


def texts_by_class(mapping: Any, name: str, where: str) -> dict[str, tuple[str, ...]]:
    """`{class: [text, ...]}`, checked: no list empty, no text blank or of another type (YAML reads `NO` as false).

    name: the mapping's place in the file, "" for the whole file. Raises ConfigError.
    """
    if not isinstance(mapping, dict) or not mapping:
        raise ConfigError(f"`{name}` is {mapping!r}, not a mapping of classes to lists", where=where)
    for class_name, texts in mapping.items():
        if not isinstance(class_name, str):
            raise ConfigError(f"`{name}` has the class {class_name!r}, not text", where=where, hint="put it in quotes")
        key = f"{name}.{class_name}" if name else class_name
        if not isinstance(texts, list) or not texts:
            raise ConfigError(
                f"`{key}` is {texts!r}, not a list of texts", where=where, hint="give the class a text, or take it out"
            )
        for text in texts:
            if not isinstance(text, str) or not text.strip():
                raise ConfigError(
                    f"`{key}` holds {text!r}, not a text with words", where=where, hint="write words, or take it out"
                )
            # json and yaml both read half of a surrogate pair, which has no UTF-8 and so neither hash nor tokens.
            if any("\ud800" <= character <= "\udfff" for character in text):
                raise ConfigError(
                    f"`{key}` holds {text!r}, with half a character that UTF-8 cannot write",
                    where=where,
                    hint="write the character itself and not its \\u escape",
                )
    return {class_name: tuple(texts) for class_name, texts in mapping.items()}

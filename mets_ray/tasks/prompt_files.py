"""Prompt sets from files that users bring: our YAML form, the same in JSON, MERL's flat JSON, and a CSV of wordings."""

import csv
import io
import json
import posixpath
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from mets_ray import storage
from mets_ray.errors import ConfigError
from mets_ray.packaged import did_you_mean, read_yaml
from mets_ray.tasks.class_files import FlatClasses, PromptFile, dotted, validated
from mets_ray.tasks.label_sets import packaged_label_sets
from mets_ray.tasks.prompt_sets import PromptSet, load_prompt_set

LARGEST_BYTES = 1 << 20
"""MERL's file, with 131 classes, has 20,302 bytes."""

MERL_NAMES = {
    "ptbxl_sub": {"NST_": "NST", "ISC_": "ISC", "_AVB": "AVB"},
    "ptbxl_form": {"NST_": "NST", "STD_": "STD", "NT_": "NT", "TAB_": "TAB", "STE_": "STE"},
}
"""By task, MERL's name of each class that PTB-XL spells with an underscore; all others are spelt alike.

From the headers of finetune/data_split/ptbxl/{sub_class,form}/*.csv, which index zeroshot/CKEPE_prompt.json
(cheliu-computation/MERL-ICML2024, 7a931db, MIT).
"""

# The other classes of CKEPE_prompt.json: codes of PTB-XL that only count within a class, and statements of
# Chapman-Shaoxing-Ningbo that are not among its 38 classes.
_UNSCORED = (
    "ASMI LAFB ISCAL ILMI ALMI ISCIN INJAS ISCIL LPFB ISCAS INJAL ISCLA ANEUR EL IPLMI ISCAN IPMI INJIN INJLA 3AVB "
    "INJIL 2AVB2 ABI FQRS IDC IVB JPT LBBBB LFBBB LVQRSAL LVQRSCL LVQRSLL MIBW MIFW MILW MISW RAH VFW VPE VET WAVN SB "
    "AVNRT AVRT SAAWR"
)
MERL_UNSCORED = frozenset(_UNSCORED.split())

_COLUMNS = ("task", "class", "prompt")
_HEADER = "the first line is `task,class,prompt`, in any order, with commas"
_PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def parse_prompt_file(content: bytes, file_name: str) -> PromptSet:
    """The prompt set that a file holds; the suffix of `file_name` (a name, path or URI) says in which form.

    - `.yaml`, `.yml`: `name`, `version`, `source` and
      `tasks: {task: {template: "... {} ...", classes: {class_name: [wording, ...]}}}`.
    - `.json`: the same keys (a file with `tasks`); or `{task: {class: text | [text, ...]}}`; or MERL's
      `{class: text | [text, ...]}`, in which a class counts for each packaged task that has it, `MERL_NAMES` included.
    - `.csv`: the columns task, class and prompt in any order, one row per wording.

    JSON and CSV are UTF-8, with or without a byte order mark. Where the file gives neither name nor version, the set is
    named after the file, its version is 1, and its texts are whole prompts: no template, no change of case (MERL's own
    code lower-cases them).

    Raises ConfigError for another suffix; more than `LARGEST_BYTES`; a name that is not plain; unknown, missing or
    repeated keys; a class without texts; a blank text; a prompt that stands twice in a task; and in a flat file for
    classes that no packaged label set has. The classes that only MERL's file has (`MERL_UNSCORED`) are ignored where
    all of them are there.
    """
    where = f"prompt file `{posixpath.basename(file_name)}`"
    stem, suffix = posixpath.splitext(posixpath.basename(file_name))
    if suffix.lower() not in _PARSERS:
        raise ConfigError(
            f"`{suffix}` is the suffix of no prompt file", where=where, hint=f"known are {', '.join(_PARSERS)}"
        )
    if len(content) > LARGEST_BYTES:
        raise ConfigError(
            f"the file has {len(content)} bytes, and prompts may have {LARGEST_BYTES}",
            where=where,
            hint="is this a file of prompts? 131 classes take 20 kB",
        )
    prompt_set = PromptSet.of(_PARSERS[suffix.lower()](content, stem, where), content)
    if not _PLAIN_NAME.fullmatch(prompt_set.name) or storage.name_fault(
        prompt_set.name
    ):  # results are kept in a folder of this name
        raise ConfigError(
            f"the prompt set is called {prompt_set.name!r}, not a plain name",
            where=where,
            hint="name it with letters, digits, `.`, `_` and `-` only",
        )
    return prompt_set


def _parse_yaml(content: bytes, stem: str, where: str) -> PromptFile:
    return validated(PromptFile, read_yaml(content, where), where)


def _parse_json(content: bytes, stem: str, where: str) -> PromptFile:
    tree = _read_json(content, where)
    if not isinstance(tree, dict) or not tree:
        raise ConfigError(
            f"the file holds {'nothing' if tree == {} else f'a {type(tree).__name__}'}, not classes with their prompts",
            where=where,
            hint='write {"class": "prompt"} or {"task": {"class": ["prompt", "other wording"]}}',
        )
    if "tasks" in tree:
        return validated(PromptFile, tree, where)
    if any(isinstance(value, dict) for value in tree.values()):
        return _whole_prompts(stem, {task: _as_lists(classes) for task, classes in tree.items()}, where)
    classes = validated(FlatClasses, _as_lists(tree), where).root
    return _whole_prompts(stem, _tasks_of_classes(classes, where), where)


def _parse_csv(content: bytes, stem: str, where: str) -> PromptFile:
    tasks: dict[str, dict[str, list[str]]] = {}
    for line, cells in _csv_rows(_text(content, where), where):
        for column in ("task", "class"):
            if not cells[column] or cells[column] != cells[column].strip():
                raise ConfigError(
                    f"`{column}` is {cells[column]!r}, not a name without blanks around it",
                    where=line,
                    hint="remove the blanks, or name it",
                )
        if not cells["prompt"].strip():
            raise ConfigError(
                f"`prompt` is {cells['prompt']!r}, not a text with words",
                where=line,
                hint="write words, or remove the row",
            )
        tasks.setdefault(cells["task"], {}).setdefault(cells["class"], []).append(cells["prompt"])
    if not tasks:
        raise ConfigError("the file has no row with a prompt", where=where, hint=_HEADER)
    return _whole_prompts(stem, tasks, where)


def _whole_prompts(name: str, tasks: Mapping[str, Any], where: str) -> PromptFile:
    """Texts by task and class, as the file of our own form that says the same."""

    def place(keys: Sequence[str | int]) -> str:
        return dotted([key for level, key in enumerate(keys) if level not in (0, 2)])  # neither `tasks` nor `classes`

    bodies = {task: {"template": "{}", "classes": classes} for task, classes in tasks.items()}
    tree = {"name": name, "version": 1, "source": where, "tasks": bodies}
    return validated(PromptFile, tree, where, place)


def _read_json(content: bytes, where: str) -> Any:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        tree = dict(pairs)
        if len(tree) < len(pairs):
            names = [name for name, _ in pairs]
            repeated = next(name for name in names if names.count(name) > 1)
            raise ConfigError(f"`{repeated}` appears twice", where=where, hint="put all texts of a class in one list")
        return tree

    try:
        return json.loads(_text(content, where), object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"this is not JSON: {error}", where=where) from error


def _csv_rows(text: str, where: str) -> Iterator[tuple[str, dict[str, str]]]:
    """(its place in the file, cell by column) of each row below the header; blank lines are skipped."""
    rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    header: list[str] = []
    try:
        for row in rows:
            line = f"{where}, line {rows.line_num}"
            if row and not header:
                header = row
                _require_columns(header, line)
            elif row:
                if len(row) != len(header):
                    raise ConfigError(
                        f"the row has {len(row)} cells, not {len(header)}",
                        where=line,
                        hint="put a text with commas in quotes",
                    )
                yield line, dict(zip(header, row, strict=True))
    except csv.Error as error:
        raise ConfigError(f"this is not CSV: {error}", where=f"{where}, line {rows.line_num}") from error


_PARSERS: dict[str, Callable[[bytes, str, str], PromptFile]] = {
    ".yaml": _parse_yaml,
    ".yml": _parse_yaml,
    ".json": _parse_json,
    ".csv": _parse_csv,
}
SUFFIXES = tuple(_PARSERS)
"""What the names of prompt files end in; upper case does too."""


def _text(content: bytes, where: str) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"byte {error.start} of the file, 0x{content[error.start]:02x}, is not UTF-8",
            where=where,
            hint="save the file as UTF-8",
        ) from error


def _as_lists(classes: Any) -> Any:
    """Each lone text made a list of one; anything else stays as it is, to be validated."""
    if not isinstance(classes, dict):
        return classes
    return {name: [texts] if isinstance(texts, str) else texts for name, texts in classes.items()}


def _tasks_of_classes(classes: Mapping[str, list[str]], where: str) -> dict[str, dict[str, list[str]]]:
    """The classes under each packaged task that has them, in its order."""
    label_sets = packaged_label_sets()
    tasks: dict[str, dict[str, list[str]]] = {}
    used = set(MERL_UNSCORED) if classes.keys() >= MERL_UNSCORED else set()
    for task, label_set in label_sets.items():
        for name in label_set.classes:
            given = name if name in classes else MERL_NAMES.get(task, {}).get(name, name)
            if given in classes:
                tasks.setdefault(task, {})[name] = classes[given]
                used.add(given)
    if unknown := [name for name in classes if name not in used]:
        known = sorted({name for label_set in label_sets.values() for name in label_set.classes})
        raise ConfigError(
            f"no packaged label set has the class {', '.join(f'`{name}`' for name in unknown)}",
            where=where,
            hint=did_you_mean(unknown[0], known) + " Or write {task: {class: prompt}}",
        )
    return tasks


def _require_columns(header: list[str], where: str) -> None:
    for column in header:
        if column not in _COLUMNS:
            raise ConfigError(f"`{column}` is not a column of a prompt file", where=where, hint=_HEADER)
        if header.count(column) > 1:
            raise ConfigError(f"the column `{column}` appears twice", where=where, hint=_HEADER)
    for column in _COLUMNS:
        if column not in header:
            raise ConfigError(f"the file lacks the column `{column}`", where=where, hint=_HEADER)


def is_prompt_file(name_or_uri: str) -> bool:
    """Whether a prompt set is named by a file and not by its name."""
    return name_or_uri.lower().endswith(SUFFIXES)


def read_prompt_set(name_or_uri: str) -> PromptSet:
    """A packaged prompt set by name, or a YAML, JSON or CSV file at a URI (`parse_prompt_file`)."""
    if is_prompt_file(name_or_uri):
        uri = storage.absolute(name_or_uri)
        return parse_prompt_file(storage.read_bytes(uri), uri)
    return load_prompt_set(name_or_uri)

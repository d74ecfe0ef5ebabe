"""Class prompts: a packaged set by name, or one from the tree of a file."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mets_ray.errors import ConfigError
from mets_ray.packaged import packaged_bytes, read_yaml, require_keys, texts_by_class
from mets_ray.text.reports import apply_template


@dataclass(frozen=True)
class PromptSet:
    """Named, versioned class prompts: `tasks[task][class_name]` are full prompts, template applied."""

    name: str
    version: int
    sha256: str
    tasks: dict[str, dict[str, tuple[str, ...]]]


def load_prompt_set(source: str | bytes, *, where: str = "") -> PromptSet:
    """A packaged prompt set by name (`mets`, `descriptive`), or one from the bytes of a YAML file.

    Form: `name`, `version`, `source` and `tasks: {task: {template: "... {} ...", classes: {class_name: [wording]}}}`.
    Raises ConfigError for an unknown name, unknown or missing keys, repeated keys, a class without wordings, an empty
    wording, and a prompt that stands twice in a task; `where` is what it calls the file.
    """
    content, where = (
        (packaged_bytes("tasks/prompts", source), f"prompt set `{source}`")
        if isinstance(source, str)
        else (source, where)
    )
    tree = read_yaml(content, where or "prompt set file")
    return prompt_set_of(tree, content, where or f"prompt set `{tree['name']}`")


def prompt_set_of(tree: dict[str, Any], content: bytes, where: str) -> PromptSet:
    """The prompt set of a tree that `require_head` let pass; `content` is the file. Errors as in `load_prompt_set`."""
    tasks = {}
    for task, body in tree["tasks"].items():
        if not isinstance(body, dict):
            raise ConfigError(f"`tasks.{task}` is {body!r}, not a mapping", where=where)
        require_keys(body, ("template", "classes"), f"`tasks.{task}`", where)
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


PACKAGED_PROMPT_SETS = ("mets", "descriptive")


def prompt_texts(prompt_sets: Iterable[PromptSet], tasks: Iterable[str]) -> list[str]:
    """All prompts of some tasks, each once, in a fixed order."""
    tasks = list(tasks)
    return sorted(
        {
            prompt
            for prompt_set in prompt_sets
            for task in tasks
            for prompts in prompt_set.tasks.get(task, {}).values()
            for prompt in prompts
        }
    )

"""Class prompts: what a prompt set is, and the packaged ones by name."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from mets_ray.packaged import packaged_bytes, read_yaml
from mets_ray.tasks.class_files import PromptFile, validated

PACKAGED_PROMPT_SETS = ("mets", "descriptive")


@dataclass(frozen=True)
class PromptSet:
    """Named, versioned class prompts: `tasks[task][class_name]` are full prompts, template applied.

    `sha256` is the hash of the file that they come from, 64 hexadecimal digits.
    """

    name: str
    version: int
    sha256: str
    tasks: dict[str, dict[str, tuple[str, ...]]]

    @classmethod
    def of(cls, file: PromptFile, content: bytes) -> "PromptSet":
        """From a file and its bytes."""
        tasks = {task: body.prompts for task, body in file.tasks.items()}
        return cls(file.name, file.version, hashlib.sha256(content).hexdigest(), tasks)


def load_prompt_set(name: str) -> PromptSet:
    """A packaged prompt set by name (`mets`, `descriptive`, `class_names`). Raises ConfigError for an unknown name."""
    content, where = packaged_bytes("tasks/prompts", name), f"prompt set `{name}`"
    return PromptSet.of(validated(PromptFile, read_yaml(content, where), where), content)


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

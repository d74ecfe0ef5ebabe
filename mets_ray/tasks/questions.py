"""What ECGs are scored on: tasks with their classes, and words for each class."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from mets_ray.errors import ConfigError
from mets_ray.packaged import packaged_files
from mets_ray.tasks.label_sets import LabelSet, load_label_sets
from mets_ray.tasks.prompt_files import read_prompt_set
from mets_ray.tasks.prompt_sets import PromptSet, prompt_texts
from mets_ray.text.abbreviations import spell_out
from mets_ray.text.reports import apply_template


@dataclass(frozen=True)
class Questions:
    """The tasks that records are scored on, and a prompt set with words for each of their classes.

    Raises ConfigError as `check_prompts`.
    """

    prompts: PromptSet
    tasks: Mapping[str, LabelSet]

    def __post_init__(self) -> None:
        check_prompts(self.prompts, self.tasks)

    @classmethod
    def read(cls, prompts: str, source: str, names: Sequence[str] | None = None) -> "Questions":
        """The named tasks of a source, or all of them, each class counting for some of the source's labels.

        prompts: a packaged prompt set, or the URI of a file. A source without packaged label sets has the tasks of the
        prompt set, each class counting for the label of its own name. Raises ConfigError where a name is not one of
        the tasks, as `check_prompts`, and as `read_prompt_set`.
        """
        prompt_set = read_prompt_set(prompts)
        known = dataset_tasks(source) or {
            task: LabelSet(task, {name: (name,) for name in classes}) for task, classes in prompt_set.tasks.items()
        }
        unknown = [name for name in names or () if name not in known]
        if unknown:
            raise ConfigError(
                f"`evaluate.tasks` names `{unknown[0]}`, which the source `{source}` has no labels for",
                hint=f"choose from {', '.join(known)}",
            )
        return cls(prompt_set, known if names is None else {name: known[name] for name in names})

    @classmethod
    def without_labels(cls, prompts: str, sources: Sequence[str], names: Sequence[str] | None = None) -> "Questions":
        """The named tasks of a prompt set, each class in its order and counting for no label: for scores alone.

        Without names, the tasks of the first of `sources` that has any, else all. Raises ConfigError where the prompt
        set lacks a named task, and as `read_prompt_set`.
        """
        prompt_set = read_prompt_set(prompts)
        known = tuple(prompt_set.tasks)
        unknown = [name for name in names or () if name not in known]
        if unknown:
            raise ConfigError(
                f"`score.tasks` names `{unknown[0]}`, which prompt set `{prompt_set.name}` has no prompts for",
                hint=f"choose from {', '.join(known)}",
            )
        if names is None:
            of_sources = ([name for name in known if name in dataset_tasks(source)] for source in sources)
            names = next(filter(None, of_sources), known)
        return cls(prompt_set, {name: LabelSet(name, dict.fromkeys(prompt_set.tasks[name], ())) for name in names})

    def classes(self, task: str) -> dict[str, tuple[str, ...]]:
        """Prompts by class, in the order of the task's label set."""
        return {name: self.prompts.tasks[task][name] for name in self.tasks[task].classes}

    def texts(self) -> list[str]:
        """All prompts of the tasks, each once, in a fixed order."""
        return prompt_texts([self.prompts], self.tasks)


def labelled_sources() -> frozenset[str]:
    """Sources whose labels a packaged label set knows: `label_sets/<source>.yaml`."""
    return frozenset(packaged_files("tasks/label_sets"))


def dataset_tasks(source: str) -> dict[str, LabelSet]:
    """Label sets of a source, by task; empty for a source that no packaged set covers (any WFDB folder)."""
    return load_label_sets(source) if source in labelled_sources() else {}


def unknown_labels(tasks: Mapping[str, LabelSet], labels: Iterable[Iterable[str]]) -> list[str]:
    """Labels of records that count for no class of any task, sorted."""
    known = {code for label_set in tasks.values() for codes in label_set.classes.values() for code in codes}
    return sorted({label for of_record in labels for label in of_record} - known)


def check_prompts(prompt_set: PromptSet, tasks: Mapping[str, LabelSet]) -> None:
    """Raise ConfigError where the prompt set has no prompt for a task or for one of its classes."""
    for task, label_set in tasks.items():
        missing = [name for name in label_set.classes if name not in prompt_set.tasks.get(task, {})]
        if missing:
            raise ConfigError(
                f"prompt set `{prompt_set.name}` version {prompt_set.version} has no prompt for `{missing[0]}` of "
                f"`{task}`",
                hint="add the class to the prompt set, or remove the task from evaluate.tasks",
            )


def label_classes(labels: Sequence[str] | Mapping[str, Sequence[str]], template: str) -> dict[str, tuple[str, ...]]:
    """Texts by class, abbreviations spelt out (`spell_out`) and `template` applied. Of a list each label is a class and
    its own wording.

    Raises ConfigError for no, blank or repeated labels, a class without wordings, and a template without one `{}`.
    """
    if isinstance(labels, str):
        raise ConfigError(f"`labels` is the text {labels!r}, not a list", hint=f"write [{labels!r}, ...]")
    if not labels:
        raise ConfigError("`labels` is empty", hint='give at least one, for example ["atrial fibrillation"]')
    if not isinstance(labels, Mapping):
        if repeated := [label for label, times in Counter(labels).items() if times > 1]:
            raise ConfigError(f"`labels` holds {repeated[0]!r} twice", hint="give each label once")
        labels = {label: (label,) for label in labels}
    for name, wordings in labels.items():
        if isinstance(wordings, str) or not wordings:
            raise ConfigError(
                f"`labels[{name!r}]` is {wordings!r}, not a list of wordings", hint=f"write {{{name!r}: [{name!r}]}}"
            )
        if blank := [wording for wording in wordings if not any(map(str.isalnum, wording))]:
            raise ConfigError(f"`labels[{name!r}]` holds {blank[0]!r}, a wording without words", hint="write words")
    return {
        name: tuple(apply_template(template, spell_out(wording)) for wording in wordings)
        for name, wordings in labels.items()
    }


def prompt_classes(prompt_set: PromptSet, task: str | None) -> dict[str, tuple[str, ...]]:
    """Texts by class of one task of a prompt set.

    Raises ConfigError for an unknown task, and for None where the set has several.
    """
    known = ", ".join(prompt_set.tasks)
    if task is None:
        if len(prompt_set.tasks) != 1:
            raise ConfigError(
                f"prompt set `{prompt_set.name}` has {len(prompt_set.tasks)} tasks, and `task` names none of them",
                hint=f"set `task` to one of {known}",
            )
        (task,) = prompt_set.tasks
    if task not in prompt_set.tasks:
        raise ConfigError(
            f"`task` is {task!r}, which prompt set `{prompt_set.name}` does not have", hint=f"choose from {known}"
        )
    return dict(prompt_set.tasks[task])

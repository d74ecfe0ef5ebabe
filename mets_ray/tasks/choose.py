"""What a data set is scored on: its tasks, and whether a prompt set has prompts for them."""

from collections.abc import Iterable

from mets_ray.errors import ConfigError
from mets_ray.tasks.label_sets import LabelSet, load_label_sets
from mets_ray.tasks.prompt_sets import PromptSet

LABELLED_SOURCES = ("ptbxl", "synthetic", "mitbih", "cpsc2018", "csn")


def dataset_tasks(source: str) -> dict[str, LabelSet]:
    """Label sets of a source, by task; empty for a source that no packaged set covers (any WFDB folder)."""
    return load_label_sets(source) if source in LABELLED_SOURCES else {}


def choose_tasks(source: str, names: tuple[str, ...] | None, prompt_set: PromptSet) -> dict[str, LabelSet]:
    """The named tasks, or all of the source's.

    A source without packaged label sets has the tasks of the prompt set, each class counting for the label of its own
    name. Raises ConfigError where a name is not one of them.
    """
    known = dataset_tasks(source) or {
        task: LabelSet(task, {name: (name,) for name in classes}) for task, classes in prompt_set.tasks.items()
    }
    unknown = [name for name in names or () if name not in known]
    if unknown:
        raise ConfigError(
            f"`evaluate.tasks` names `{unknown[0]}`, which the source `{source}` has no labels for",
            hint=f"choose from {', '.join(known)}",
        )
    return known if names is None else {name: known[name] for name in names}


def unknown_labels(tasks: dict[str, LabelSet], labels: Iterable[Iterable[str]]) -> list[str]:
    """Labels of records that count for no class of any task, sorted."""
    known = {code for label_set in tasks.values() for codes in label_set.classes.values() for code in codes}
    return sorted({label for of_record in labels for label in of_record} - known)


def check_prompts(prompt_set: PromptSet, tasks: dict[str, LabelSet]) -> None:
    """Raise ConfigError where the prompt set has no prompt for a task or for one of its classes."""
    for task, label_set in tasks.items():
        missing = [name for name in label_set.classes if name not in prompt_set.tasks.get(task, {})]
        if missing:
            raise ConfigError(
                f"prompt set `{prompt_set.name}` version {prompt_set.version} has no prompt for `{missing[0]}` of "
                f"`{task}`",
                hint="add the class to the prompt set, or remove the task from evaluate.tasks",
            )

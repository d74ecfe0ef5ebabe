"""What a file of label sets or prompt sets may hold, whatever form it is written in, and how its faults are named."""

from collections.abc import Callable, Sequence
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, RootModel, Strict, ValidationError, model_validator
from pydantic_core import ErrorDetails, PydanticCustomError

from mets_ray.errors import ConfigError
from mets_ray.packaged import did_you_mean
from mets_ray.storage import name_fault
from mets_ray.text.reports import apply_template


def _characters(text: str) -> str:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:  # json and yaml both read half of a surrogate pair
        raise PydanticCustomError("half_character", "half a character") from error
    return text


def _file_name(text: str) -> str:
    if fault := name_fault(text):  # results of a task are kept in files of its name
        raise PydanticCustomError("file_name", "no file name", {"fault": fault})
    return text


def _words(text: str) -> str:
    if not text.strip():
        raise PydanticCustomError("blank", "no words")
    return _characters(text)


def _template(text: str) -> str:
    if text.count("{}") != 1:
        raise PydanticCustomError("template", "not one place")
    return _characters(text)


Name = Annotated[str, Strict(), AfterValidator(_characters)]  # strict: YAML reads `NO` as false

TaskName = Annotated[Name, AfterValidator(_file_name)]

Text = Annotated[str, Strict(), AfterValidator(_words)]

Classes = Annotated[dict[Name, Annotated[list[Text], Strict(), Field(min_length=1)]], Field(min_length=1)]
"""Texts by class: codes in a label set, wordings in a prompt set."""


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class _File(_Model):
    name: Text
    version: Annotated[int, Strict(), Field(ge=1)]
    source: Text


class LabelFile(_File):
    """A family of label sets: the codes of each class, by task."""

    tasks: Annotated[dict[TaskName, Classes], Field(min_length=1)]


class PromptTask(_Model):
    """The wordings of each class of a task, and the template that makes prompts of them."""

    template: Annotated[str, Strict(), AfterValidator(_template)]
    classes: Classes

    @property
    def prompts(self) -> dict[str, tuple[str, ...]]:
        """Full prompts by class."""
        return {
            name: tuple(apply_template(self.template, wording) for wording in wordings)
            for name, wordings in self.classes.items()
        }

    @model_validator(mode="after")
    def _each_prompt_once(self) -> "PromptTask":
        owner: dict[str, str] = {}
        for name, prompts in self.prompts.items():
            for prompt in prompts:
                if prompt in owner:
                    fault = {"prompt": prompt, "classes": (owner[prompt], name)}
                    raise PydanticCustomError("repeated", "one prompt twice", fault)
                owner[prompt] = name
        return self


class PromptFile(_File):
    """A prompt set: `tasks[task].prompts[class_name]`."""

    tasks: Annotated[dict[TaskName, PromptTask], Field(min_length=1)]


class FlatClasses(RootModel[Classes]):
    """Texts by class, of no task yet."""


_AnyModel = TypeVar("_AnyModel", bound=BaseModel)

_Keys = Sequence[str | int]


def dotted(keys: _Keys) -> str:
    """Where something stands in a file, as `tasks.heart.classes`."""
    return ".".join(map(str, keys))


def validated(kind: type[_AnyModel], tree: Any, where: str, place: Callable[[_Keys], str] = dotted) -> _AnyModel:
    """The tree of a file as the model `kind`.

    Raises ConfigError for the first fault: unknown keys, missing keys, then values. `where` names the file in the
    error, and `place` says where in the file the keys of the tree lead to.
    """
    try:
        return kind.model_validate(tree)
    except ValidationError as error:
        first = {"extra_forbidden": 0, "missing": 1}
        fault = min(error.errors(include_url=False), key=lambda fault: first.get(fault["type"], 2))
        fact, hint = _fact(kind, fault, place)
        raise ConfigError(fact, where=where, hint=hint) from error


def _fact(kind: type[BaseModel], details: ErrorDetails, place: Callable[[_Keys], str]) -> tuple[str, str]:
    """(fact, hint) of one of pydantic's faults."""
    fault, keys, value = details["type"], details["loc"], details["input"]
    parent = place(keys[:-1])
    if not keys:
        return f"the file holds a {type(value).__name__}, not a mapping", ""
    if fault in ("extra_forbidden", "missing"):
        owner = f"`{parent}`" if parent else "the file"
        if fault == "missing":
            return f"{owner} lacks the key `{keys[-1]}`", f"add `{keys[-1]}:`"
        known = list((kind if len(keys) == 1 else PromptTask).model_fields)
        return f"`{keys[-1]}` is not a key of {owner}", did_you_mean(str(keys[-1]), known)
    if keys[-1] == "[key]":
        thing = "task" if keys[:-2] == ("tasks",) else "class"
        if fault == "file_name":
            why = details["ctx"]["fault"]
            owner = f"`{place(keys[:-2])}`" if place(keys[:-2]) else "the file"
            return f"{owner} has the task {value!r}, which files cannot be named after: {why}", _PLAIN
        return f"`{place(keys[:-2])}` has the {thing} {value!r}, {_NOT_TEXT[fault][0]}", _NOT_TEXT[fault][1]
    if fault == "repeated":
        first, second = details["ctx"]["classes"]
        fact = f"{details['ctx']['prompt']!r} stands under `{first}` and under `{second}` of `{place(keys)}`"
        return fact, "give each class wordings of its own, each once"
    expected, hint = _expected(fault, keys, value)
    if isinstance(keys[-1], int):
        return f"`{parent}` holds {value!r}, {expected}", hint
    return f"`{place(keys)}` is {value!r}, {expected}", hint


_HALF = ("with half a character that UTF-8 cannot write", "write the character itself and not its \\u escape")

_PLAIN = "name it with letters, digits, blanks, `.`, `_` and `-`"

_NOT_TEXT = {"string_type": ("not text", "put it in quotes"), "half_character": _HALF}


def _expected(fault: str, keys: _Keys, value: Any) -> tuple[str, str]:
    """(what a value is not, hint)."""
    if fault == "half_character":
        return _HALF
    if fault == "template":
        return f"with {value.count('{}')} `{{}}`, not exactly one", "put {} where the wording goes"
    if fault in ("string_type", "blank"):
        return "not a text with words", "write words, or take it out"
    if fault in ("int_type", "greater_than_equal"):
        return "not a whole number of 1 or more", "count the versions of the file: 1, 2, 3"
    if fault == "model_type":
        return "not a mapping", "give it the keys `template` and `classes`"
    if fault == "dict_type" or (fault == "too_short" and isinstance(value, dict)):
        return f"not a mapping of {'tasks' if keys == ('tasks',) else 'classes to lists of texts'}", ""
    return "not a list of texts", "give the class a text, or take it out"

"""Class lists as values: given with a request or stored in the bundle, and the limits on both."""

import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from mets_ray.errors import ConfigError, RequestError
from mets_ray.model.bundle import BundleFacts
from mets_ray.serve.settings import WORDINGS_PER_CLASS, ServeConfig
from mets_ray.tasks.class_warnings import wording_warnings
from mets_ray.text.abbreviations import spell_out
from mets_ray.text.reports import apply_template

# Unicode's control characters (Cc) and its two line separators: nobody sees them, and they separate what is joined.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_CONTROL_WITHIN_REPORTS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")  # reports have lines and tabs


_LETTER = re.compile(r"[^\W_]")  # or a digit


@dataclass(frozen=True)
class ClassList:
    """The classes that a request chooses between: full texts by class, template applied.

    `warnings`: what to know about the wordings of the request, as (reason, message).
    """

    classes: Mapping[str, tuple[str, ...]]
    template: str | None = None
    name: str | None = None
    version: int = 0
    warnings: tuple[tuple[str, str], ...] = ()

    @property
    def label(self) -> str | None:
        """`name@version`, or None for classes given in the request itself."""
        return None if self.name is None else f"{self.name}@{self.version}"

    @property
    def texts(self) -> list[str]:
        return [text for wordings in self.classes.values() for text in wordings]

    def is_same_as(self, other: "ClassList") -> bool:
        """Whether the classes and their texts are the same, in the same order."""
        return list(self.classes.items()) == list(other.classes.items())


def class_list(
    classes: Mapping[str, Sequence[str]], template: str | None, config: ServeConfig, *, default_template: str
) -> ClassList:
    """`classes` checked against the limits of `config`, abbreviations spelt out, the template applied to each wording.

    Raises RequestError 422 for no, too many, blank, repeated or too long classes, for control characters, and for a
    template without one `{}`.
    """
    template = default_template if template is None else template
    _check_counts(classes, config)
    wordings = [wording for of_class in classes.values() for wording in of_class]
    words = [*classes, *wordings]
    _check_words(words, config.max_label_chars)
    spelt_out = {wording: meaning for wording in wordings if (meaning := spell_out(wording)) != wording}
    _check_words(spelt_out.values(), config.max_label_chars)
    _check_characters([*words, template], config.max_label_chars, _CONTROL)
    try:
        filled = {
            name: tuple(apply_template(template, spelt_out.get(text, text)) for text in texts)
            for name, texts in classes.items()
        }
    except ConfigError as error:
        raise RequestError(422, "bad_template", error.fact, hint="write it like `The ECG shows {}`") from error
    return ClassList(filled, template, warnings=(*wording_warnings(wordings), *_same_words(filled)))


def check_filled(filled: ClassList, config: ServeConfig) -> None:
    """Hold a stored list, whose template is applied already, to the limits on requests. Raises RequestError."""
    _check_counts(filled.classes, config)
    _check_words(filled.texts, 2 * config.max_label_chars)  # a wording within a template
    _check_words(list(filled.classes), config.max_label_chars)
    template = [] if filled.template is None else [filled.template]
    _check_characters([*filled.classes, *filled.texts, *template], 2 * config.max_label_chars, _CONTROL)


def check_texts(texts: Collection[str], config: ServeConfig) -> None:
    """Hold texts that are embedded as given, such as reports, to the limits for classes. Raises RequestError 422."""
    _check_counts({str(number): ("",) for number in range(len(texts))}, config)  # a repeated text is work, too
    _check_words(texts, config.max_label_chars)
    _check_characters(texts, config.max_label_chars, _CONTROL_WITHIN_REPORTS)


def labels_as_classes(labels: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Each label is its own class and its own wording. Raises RequestError 422 if one is repeated."""
    times = Counter(map(_as_seen, labels))
    repeated = [label for label in labels if times[_as_seen(label)] > 1]
    if repeated:
        raise RequestError(
            422,
            "repeated_class",
            f"{len({*map(_as_seen, repeated)})} of the candidate labels are repeated, first {min(repeated)[:80]!r}",
        )
    return {label: (label,) for label in labels}


def _as_seen(label: str) -> str:
    """What a reader sees of a label: composed, without invisible characters, with single blanks."""
    composed = unicodedata.normalize("NFC", label)
    return " ".join("".join(one for one in composed if unicodedata.category(one) != "Cf").split())


def _same_words(filled: Mapping[str, Sequence[str]]) -> tuple[tuple[str, str], ...]:
    """A warning where two classes have the same words once abbreviations are spelt out: they share their score."""
    classes = list(dict.fromkeys(tuple(sorted(text.casefold() for text in texts)) for texts in filled.values()))
    if len(classes) == len(filled):
        return ()
    return (("same_words", "some classes are the same words, spelt in another way, and share their score"),)


def bundle_prompt_sets(facts: BundleFacts) -> dict[str, ClassList]:
    """Every task of every prompt set in the bundle, as `set:task`."""
    return {
        f"{name}:{task}": ClassList(classes, None, f"{name}:{task}", prompt_set.version)
        for name, prompt_set in facts.prompt_sets.items()
        for task, classes in prompt_set.tasks.items()
    }


def check_default(reference: str, facts: BundleFacts, *, has_store: bool) -> None:
    """Raise ConfigError for a setting `prompt_set` with which every request without classes would fail.

    has_store: whether a name without a task may be one that is registered.
    """
    name, at, version = reference.partition("@")
    known = bundle_prompt_sets(facts)
    fitting = [one for task, one in known.items() if name in (task, task.partition(":")[0])]
    if not fitting and has_store and ":" not in name:
        return
    if len(fitting) != 1 or (at and version != str(fitting[0].version)):
        why = f"has {len(fitting)} tasks" if len(fitting) > 1 else "is not one of the bundle's prompt sets"
        raise ConfigError(
            f"`prompt_set` is `{reference}`, which {why}", hint=f"choose one: {', '.join(map(_label, known.values()))}"
        )


def _label(one: ClassList) -> str:
    return one.label or ""


def _check_counts(classes: Mapping[str, Sequence[str]], config: ServeConfig) -> None:
    if not classes:
        raise RequestError(422, "no_classes", "there are no classes to choose between", hint="give at least one")
    if len(classes) > config.max_classes:
        raise RequestError(
            422, "too_many_classes", f"there are {len(classes)} classes; at most {config.max_classes} are allowed"
        )
    total = sum(len(wordings) for wordings in classes.values())
    if total > WORDINGS_PER_CLASS * config.max_classes:
        raise RequestError(
            422,
            "too_many_classes",
            f"there are {total} wordings; at most {WORDINGS_PER_CLASS * config.max_classes} are allowed",
        )
    if empty := [name for name, wordings in classes.items() if not wordings]:
        raise RequestError(422, "blank_class", f"the class {empty[0][:80]!r} has no wording")


def _check_words(texts: Collection[str], max_chars: int) -> None:
    for text in texts:
        if not _LETTER.search(text):
            raise RequestError(422, "blank_class", f"the class or wording {text[:80]!r} contains no word")
        if len(text) > max_chars:
            raise _too_long(text, max_chars)


def _check_characters(texts: Collection[str], max_chars: int, refused: re.Pattern[str]) -> None:
    for text in texts:
        if len(text) > max_chars:  # of a template: the others have been checked
            raise _too_long(text, max_chars)
        if found := refused.search(text):
            raise RequestError(
                422,
                "control_character",
                f"a class, wording or template holds the control character U+{ord(found[0]):04X}",
                hint="send plain text on one line",
            )
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise RequestError(
                422, "not_unicode", "a text contains a lone surrogate, which is not a character"
            ) from error


def _too_long(text: str, max_chars: int) -> RequestError:
    fact = f"a text has {len(text)} characters; at most {max_chars} are allowed"
    return RequestError(422, "class_too_long", fact, hint="say it in fewer words")

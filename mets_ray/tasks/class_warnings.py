"""What to know about the scores of classes of one's own, as (reason, message) pairs: for HTTP and Python alike."""

import itertools
from collections.abc import Iterable

from mets_ray.text.abbreviations import spell_out
from mets_ray.text.languages import NAMES, UNKNOWN, language_of

_MOST_NAMED = 10


def wording_warnings(wordings: Iterable[str]) -> tuple[tuple[str, str], ...]:
    """About words as they were typed, without a template: `abbreviation`, which is read as what it means, and
    `other_language`, which the model may not know."""
    wordings = list(dict.fromkeys(wordings))
    found = []
    if spelt_out := _spelt_out(wordings):
        found.append(("abbreviation", f"read {_listed(spelt_out)}"))
    foreign = [
        f"`{wording}` ({NAMES[language]})"
        for wording in wordings
        if (language := language_of(wording)) not in ("en", UNKNOWN)
    ]
    if foreign:
        message = f"not in English: {_listed(foreign)}; unless the model was trained on texts of that language, the "
        found.append(("other_language", f"{message}scores mean little: write classes in English"))
    return tuple(found)


def verbatim_warnings(prompts: Iterable[str]) -> tuple[tuple[str, str], ...]:
    """About the prompts of a file, which are taken as they stand: `abbreviation_as_is`."""
    short = _spelt_out(dict.fromkeys(prompts))
    if not short:
        return ()
    message = "a prompt file is taken as it stands, and a language model hardly knows abbreviations: better write"
    return (("abbreviation_as_is", f"{message} {_listed(short)}"),)


def softmax_warnings(classes: int, *, multi_label: bool) -> tuple[tuple[str, str], ...]:
    """About the number of classes: `one_class`."""
    if classes != 1 or multi_label:
        return ()
    return (("one_class", "with one class the softmax is 1 whatever the ECG: give more classes, or set multi_label"),)


def _spelt_out(texts: Iterable[str]) -> list[str]:
    """Those with an abbreviation, each with what it means."""
    return [f"`{text}` as `{meaning}`" for text in texts if (meaning := spell_out(text)) != text]


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return ", ".join(itertools.islice(names, _MOST_NAMED)) + more

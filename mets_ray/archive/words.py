"""Words become directions: by the language model of a bundle, and its calibrations where the words name a class."""

import difflib
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from mets_ray.archive.query import Direction, Query, Term
from mets_ray.errors import ConfigError
from mets_ray.model.calibrated_classes import PLAIN_LABELS, CalibratedClasses
from mets_ray.model.predictor import Predictor
from mets_ray.tasks.prompt_sets import PromptSet
from mets_ray.text.abbreviations import spell_out
from mets_ray.text.reports import apply_template, sentences

MOST_STATEMENTS = 64
"""Statements of a report that is searched for."""

_FULL_NAME = re.compile(r"[\w.-]+:[\w.-]+/.+")


class _NamedClass(NamedTuple):
    """A class of one of the bundle's prompt sets, with its words."""

    prompts: PromptSet
    task: str
    name: str
    wordings: tuple[str, ...]

    @property
    def full_name(self) -> str:
        return f"{self.prompts.name}:{self.task}/{self.name}"


def read_query(predictor: Predictor, query: str | Query) -> tuple[Direction, ...]:
    """The terms of a query as unit vectors; a text is read by `Query.parse`.

    Words that name a class of a prompt set for which the bundle has a calibration, or are all that it is asked by, mean
    that class, with its wordings and its calibration; so does `set:task/class` for any class of the bundle's prompt
    sets, and one that is not there is refused. All other words stand alone in a bundle that was trained on statements,
    which are as short, and otherwise in its template.

    Features that are missing are computed with the language model, which is loaded when first needed. Raises
    ConfigError for words that cannot be read, and as `Predictor.learn`.
    """
    query = _parsed(query)
    predictor.learn(query_texts(predictor, query))
    return tuple(_direction(predictor, term) for term in query.terms)


def query_texts(predictor: Predictor, query: str | Query) -> list[str]:
    """Every text whose features `read_query` needs."""
    return [text for term in _parsed(query).terms for text in _wordings(predictor, term)]


def report_query(predictor: Predictor, report: str) -> Query:
    """A report as one term: the mean over its statements, or the whole of it, as the bundle was trained.

    Raises ConfigError for a report without a finding.
    """
    parts = sentences(report)[:MOST_STATEMENTS]
    if not parts:
        raise ConfigError("the report holds no finding to search for", hint="give at least one sentence about the ECG")
    text = predictor.bundle.config.text
    whole = " ".join(report.split())
    texts = parts if text.unit == "statement" else (apply_template(text.template, whole),)
    return Query((Term(whole[:200], wordings=texts),))


def _parsed(query: str | Query) -> Query:
    return Query.parse(query) if isinstance(query, str) else query


def _direction(predictor: Predictor, term: Term) -> Direction:
    vectors = predictor.class_vectors({term.words: _wordings(predictor, term)})
    assert vectors is not None, "the features that were just learnt are gone"
    vector = np.ascontiguousarray(vectors[0].numpy(), dtype=np.float32)
    named = None if term.wordings else _named(predictor, term.words)
    if named is None:
        return Direction(vector, term.words, term.weight, term.negated, not_calibrated=PLAIN_LABELS[1])
    calibrated = _calibrated(predictor, named)
    if fault := calibrated.faults[0]:
        return Direction(vector, term.words, term.weight, term.negated, named.full_name, not_calibrated=fault[1])
    return Direction(vector, term.words, term.weight, term.negated, named.full_name, calibrated)


def _wordings(predictor: Predictor, term: Term) -> tuple[str, ...]:
    if term.wordings:
        return term.wordings
    if named := _named(predictor, term.words):
        return named.wordings
    return (apply_template(predictor.template, spell_out(term.words)),)


def _named(predictor: Predictor, words: str) -> _NamedClass | None:
    """The class that words name: in full, or the first calibrated one of this name, or with these words alone.

    One of several wordings is not the class: a left bundle branch block is one conduction disturbance of several.
    """
    wanted = words.casefold()
    for named in _classes(list(predictor.facts.prompt_sets.values())):
        if wanted == named.full_name.casefold():
            return named
    if _FULL_NAME.fullmatch(words):
        raise _unknown_class(predictor, words)
    for named in _classes(_calibrated_sets(predictor)):
        is_named = wanted == named.name.casefold() or {wanted} == {text.casefold() for text in named.wordings}
        if is_named and _calibrated(predictor, named).fault is None:
            return named
    return None


def _unknown_class(predictor: Predictor, words: str) -> ConfigError:
    names = [named.full_name for named in _classes(list(predictor.facts.prompt_sets.values()))]
    near = difflib.get_close_matches(words, names, n=3)
    hint = f"did you mean {' or '.join(f'`{name}`' for name in near)}?" if near else "write the finding in words"
    return ConfigError(f"`{words[:80]}` is not a class of the bundle's prompt sets", hint=hint)


def _calibrated_sets(predictor: Predictor) -> list[PromptSet]:
    files = predictor.bundle.calibrations.files
    versions = {(file.prompts.name, file.prompts.version) for file in files}
    return [one for one in predictor.facts.prompt_sets.values() if (one.name, one.version) in versions]


def _calibrated(predictor: Predictor, named: _NamedClass) -> CalibratedClasses:
    name = f"{named.prompts.name}:{named.task}"
    return predictor.calibrated({named.name: named.wordings}, name, named.prompts.version)


def _classes(prompt_sets: Sequence[PromptSet]) -> Iterator[_NamedClass]:
    for prompts in prompt_sets:
        for task, classes in prompts.tasks.items():
            for name, wordings in classes.items():
                yield _NamedClass(prompts, task, name, wordings)

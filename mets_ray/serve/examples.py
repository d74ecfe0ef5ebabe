"""Synthetic ECGs for trying the server: not from patients, and each with a known answer."""

import functools
import itertools

import numpy as np

from mets_ray.ecg.synthetic_patients import CLASSES, RHYTHMS, describe
from mets_ray.ecg.synthetic_waveforms import render
from mets_ray.serve import messages
from mets_ray.serve.bodies import JsonEcg

_SEED = 2026
_SAMPLING_RATE_HZ = 500


@functools.cache
def _records() -> dict[str, int]:
    """For each class, the first synthetic patient of this seed who has it and no other finding than sinus rhythm."""
    found: dict[str, int] = {}
    for index in itertools.count():
        labels = describe(index, seed=_SEED).labels
        findings = [label for label in labels if label not in RHYTHMS] or list(labels)
        if len(findings) == 1 and (findings[0] in RHYTHMS or "SR" in labels):
            found.setdefault(findings[0].lower(), index)
        if len(found) == len(CLASSES):
            return {code.lower(): found[code.lower()] for code in CLASSES}
    raise AssertionError("unreachable")


def list_examples() -> list[messages.Example]:
    """One for each class of the synthetic ECGs, all with the same suggested labels."""
    labels = list(CLASSES.values())
    return [
        messages.Example(
            name=name,
            title=f"{CLASSES[name.upper()][0].upper()}{CLASSES[name.upper()][1:]} (synthetic)",
            candidate_labels=labels,
        )
        for name in _records()
    ]


def example_json(name: str, duration_s: float) -> bytes | None:
    """The example `name` in the form that a request takes, in whole microvolts at 500 Hz; None for an unknown name."""
    index = _records().get(name)
    return None if index is None else _rendered(index, duration_s)


@functools.lru_cache(maxsize=len(CLASSES))  # of known examples only: a third of a megabyte each
def _rendered(index: int, duration_s: float) -> bytes:
    ecg = render(describe(index, seed=_SEED), sampling_rate_hz=_SAMPLING_RATE_HZ, duration_s=duration_s)
    found = JsonEcg(
        signal=np.rint(ecg.signal_mv * 1000).tolist(),
        unit="uV",
        leads=list(ecg.leads),
        sampling_rate_hz=ecg.sampling_rate_hz,
    )
    return found.model_dump_json().encode()

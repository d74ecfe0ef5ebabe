"""ECGs for trying the server: real ones that lie beside the bundle, and synthetic ones, each with a known answer."""

import functools
import itertools
import logging

import numpy as np

from mets_ray import storage
from mets_ray.bundles.examples import read_examples
from mets_ray.ecg.ecg import Ecg
from mets_ray.ecg.read import read_ecg
from mets_ray.ecg.synthetic_patients import CLASSES, RHYTHMS, describe
from mets_ray.ecg.synthetic_waveforms import render
from mets_ray.errors import MetsError, RequestError
from mets_ray.serve import messages
from mets_ray.serve.bodies import JsonEcg

_log = logging.getLogger("ray.serve")
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


class Examples:
    """The examples of a server, real ones first.

    bundle_uri: that of the served bundle; its list of examples is read now, and each record when it is asked for. A
    list that cannot be read is logged, and there are synthetic ones only. duration_s: of these.
    """

    def __init__(self, bundle_uri: str, duration_s: float) -> None:
        try:
            self._folder, real = read_examples(bundle_uri)
        except MetsError as error:
            _log.warning("the bundle's examples are left out: %s", error)
            self._folder, real = "", None
        self._credit = "" if real is None else real.credit
        self._real = {} if real is None else {example.record: example for example in real.examples}
        self._duration_s = duration_s
        self._read = functools.lru_cache(maxsize=len(self._real))(self._read_real)

    def listed(self) -> list[messages.Example]:
        """All examples. Those of a group have the same suggested labels: the findings of all of them."""
        findings, classes = [example.finding for example in self._real.values()], list(CLASSES.values())
        real = [
            messages.Example(name=name, title=example.title, candidate_labels=findings, credit=self._credit)
            for name, example in self._real.items()
        ]
        synthetic = [
            messages.Example(
                name=name,
                title=f"{CLASSES[name.upper()][0].upper()}{CLASSES[name.upper()][1:]} (synthetic)",
                candidate_labels=classes,
            )
            for name in _records()
        ]
        return real + synthetic

    def as_json(self, name: str) -> bytes | None:
        """The example `name` in the form that a request takes, in whole microvolts; None for an unknown name.

        Raises RequestError for a real one that cannot be read, and says why in the log: 503 if its storage does not
        respond, 500 otherwise.
        """
        if name in self._real:
            return self._read(name)
        return example_json(name, self._duration_s)

    def _read_real(self, name: str) -> bytes:
        try:
            return _as_json(read_ecg(storage.join(self._folder, name)))
        except MetsError as error:
            _log.error("the bundle's example `%s` cannot be read: %s", name, error)
            if isinstance(error, storage.UnreachableError):
                raise RequestError(
                    503, "storage", "the storage of the bundle's examples does not respond", hint="try again"
                ) from error
            raise RequestError(
                500,
                "damaged_file",
                f"the example `{name}` lies beside the bundle and cannot be read",
                hint="choose another one; the server's log says why",
            ) from error


def example_json(name: str, duration_s: float) -> bytes | None:
    """A synthetic example in the form that a request takes, in whole microvolts at 500 Hz; None for an unknown name."""
    index = _records().get(name)
    return None if index is None else _rendered(index, duration_s)


@functools.lru_cache(maxsize=len(CLASSES))  # of known examples only: a third of a megabyte each
def _rendered(index: int, duration_s: float) -> bytes:
    return _as_json(render(describe(index, seed=_SEED), sampling_rate_hz=_SAMPLING_RATE_HZ, duration_s=duration_s))


def _as_json(ecg: Ecg) -> bytes:
    found = JsonEcg(
        signal=np.rint(ecg.signal_mv * 1000).tolist(),
        unit="uV",
        leads=list(ecg.leads),
        sampling_rate_hz=ecg.sampling_rate_hz,
    )
    return found.model_dump_json().encode()

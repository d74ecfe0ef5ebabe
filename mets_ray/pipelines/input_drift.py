"""Compares the ECGs of a scoring job with the reference of the bundle's inputs: `drift.html`, `drift.json`.

Each shard's file carries counts of its ECGs in its metadata, so a job that goes on where it was killed compares all of
them and reads no signal again.
"""

import json
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mets_ray import storage
from mets_ray.console import say
from mets_ray.dataset.card import DatasetCard
from mets_ray.ecg.signal_features import feature_names, signal_features
from mets_ray.errors import MetsError
from mets_ray.metrics.input_drift import InputCounts, InputDrift, find_drift
from mets_ray.metrics.input_reference import InputReference
from mets_ray.model.bundle import Bundle
from mets_ray.model.input_references import ReferenceFile
from mets_ray.results.drift_page import drift_json, drift_page
from mets_ray.results.page import render

PAGE_NAME, JSON_NAME = "drift.html", "drift.json"
METADATA_KEY = b"mets_ray_inputs"
_FILES_IN_FLIGHT = 32


@dataclass(frozen=True)
class WrittenDrift:
    """Where the page is, and what has drifted. `notice`: why nothing could be compared; then there is no page."""

    page_uri: str = ""
    drifted: tuple[str, ...] = ()
    notice: str = ""


NO_DRIFT = WrittenDrift()


class InputCounter:
    """Counts the ECGs of one shard after another, for one reference."""

    def __init__(self, reference: InputReference, card: DatasetCard) -> None:
        self._reference, self._card = reference, card
        self._names = feature_names(card.leads)
        self._sha256 = _digest(reference)
        self._counts: InputCounts | None = None
        self._patients: set[str] = set()

    def add(self, signal_uv: np.ndarray, embeddings: np.ndarray, patients: list[str]) -> None:
        """signal_uv: int16 [row, lead, sample]; embeddings: float32 [row, dimension]; patients: of each row."""
        features = signal_features(signal_uv, self._card.leads, self._card.sampling_rate_hz)
        counts = InputCounts.of(self._reference, self._names, features, embeddings, np.asarray(patients))
        self._counts = counts if self._counts is None else self._counts.plus(counts)
        self._patients.update(patients)

    def take(self) -> dict[bytes, bytes]:
        """The metadata of a file with the ECGs since the last call."""
        if self._counts is None:
            return {}
        counts = self._counts._replace(patients=len(self._patients))
        self._counts, self._patients = None, set()
        return {METADATA_KEY: json.dumps({"reference": self._sha256} | counts.to_json()).encode()}


def write_drift(output_uri: str, score_uris: Iterable[str], bundle: Bundle, card: DatasetCard) -> WrittenDrift:
    """Add up the counts of all files of scores, compare, and write the page. Raises DatasetError as writing does."""
    if bundle.reference is None:
        return _without(f"inputs are not compared: {bundle.reference_fault}")
    file = bundle.reference
    try:
        counts, missing = _sum(score_uris, _digest(file.reference))
        if counts is None:
            return _without("inputs are not compared: no file of scores has counts for this reference")
        drift = find_drift(file.reference, counts)
    except MetsError as error:
        return _without(f"inputs are not compared: {error.fact}")
    of = file.reference.embeddings
    page = drift_page(
        drift,
        f"Inputs of {card.source} beside those of {file.run}",
        _facts(file, card, missing),
        held_out=of is not None and of.held_out,
    )
    told = drift_json(drift) | {"reference": _digest(file.reference), "bundle_digest": file.bundle_digest}
    storage.write_bytes(
        storage.join(output_uri, JSON_NAME), json.dumps(told | {"files_without": missing}, indent=1).encode()
    )
    page_uri = storage.join(output_uri, PAGE_NAME)
    storage.write_bytes(page_uri, render(page).encode())
    _say_drift(drift, page_uri)
    return WrittenDrift(page_uri, tuple(one.name for one in drift.drifted))


def _sum(score_uris: Iterable[str], reference: str) -> tuple[InputCounts | None, int]:
    """The counts of all files together, and how many files have none for this reference.

    A patient with ECGs in several files is one patient: thresholds depend on their number.
    """
    total, missing = None, 0
    patients: set[str] = set()
    with ThreadPoolExecutor(_FILES_IN_FLIGHT) as pool:
        for state, of_file in pool.map(_read, score_uris):
            if state.get("reference") != reference:
                missing += 1
                continue
            counts = InputCounts.from_json(state)
            total = counts if total is None else total.plus(counts)
            patients.update(of_file)
    return total and total._replace(patients=len(patients)), missing


def _read(uri: str) -> tuple[dict[str, Any], list[str]]:
    """What a file says of its counts, and its patients."""
    with storage.open_file(uri) as file, pq.ParquetFile(file) as table:
        metadata = table.schema_arrow.metadata or {}
        patients = pc.unique(table.read(["patient_id"])["patient_id"]).to_pylist()
    return dict(json.loads(metadata.get(METADATA_KEY, b"{}"))), patients


def _facts(file: ReferenceFile, card: DatasetCard, missing: int) -> dict[str, str]:
    reference = file.reference
    of = reference.embeddings
    facts = {
        "here": f"{card.source}, {card.signal}, sha256 {card.content_sha256[:16]}",
        "reference": f"{reference.records:,} ECGs of {reference.patients:,} patients of {file.source}, sha256 "
        f"{file.dataset_sha256[:16]}",
    }
    if of is not None:
        facts["embeddings"] = (
            f"{of.records:,} ECGs of {of.patients:,} patients, {len(of.variances)} axes with {of.explained:.0%} of the "
            "variance"
        )
    if missing:
        facts["left out"] = f"{missing} files of scores, from before there was this reference"
    return facts


def _say_drift(drift: InputDrift, page_uri: str) -> None:
    names = [one.name for one in drift.drifted]
    shown = ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
    say(f"inputs: {f'drifted: {shown}' if names else 'no drift found'}; {page_uri}")


def _without(notice: str) -> WrittenDrift:
    say(notice)
    return WrittenDrift(notice=notice)


def _digest(reference: InputReference) -> str:
    return storage.digest_of(reference.to_json())

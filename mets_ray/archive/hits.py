"""From rows of an index to hits: similarity, percentile and probability of the whole query and of each term."""

from collections.abc import Collection, Sequence

import numpy as np
import pyarrow as pa
from jaxtyping import Float, Float32

from mets_ray.archive.query import MOST_TERMS, Direction
from mets_ray.archive.results import Hit, TermFacts, TermMatch
from mets_ray.archive.sample import Sample, percentiles
from mets_ray.archive.schema import HIT_COLUMNS
from mets_ray.errors import ConfigError

_NOT_COUNTS = 0.5  # on PTB-XL, "A and not B" finds more so than with 1, and more than A alone; docs/findings.md
_UNIT = 1e-3  # how far the length of a unit vector may be from 1


class HitMaker:
    """Directions as the one `vector` that an index is searched by, and what a record's embedding says of each.

    Of several terms, `vector` is their weighted sum, each divided by the standard deviation of the archive's
    similarities to it, so that a term by which all records are much alike still counts; "not" subtracts half. windowed:
    keys of data sets whose records are windows of recordings, or means of these: no calibration is for them. Raises
    ConfigError for no direction, or too many, and for vectors of another length than the index's.
    """

    def __init__(
        self, directions: Sequence[Direction], sample: Sample, dimension: int, windowed: Collection[str] = ()
    ) -> None:
        if not 1 <= len(directions) <= MOST_TERMS or all(one.negated for one in directions):
            raise ConfigError(
                f"the search has {len(directions)} vectors, or only unwanted ones",
                hint=f"give at least one that is wanted, and at most {MOST_TERMS}",
            )
        for one in directions:
            _check_vector(one.vector, dimension)
        self.directions = tuple(directions)
        self._windowed = frozenset(windowed)
        vectors = np.stack([one.vector for one in directions]).astype(np.float32)
        self._vectors = vectors  # the query itself first, where it is not its only term
        if len(directions) > 1:
            combined = _combined(directions, vectors, sample.spreads(vectors))
            self._vectors = np.concatenate([combined[None], vectors])
        self.vector: Float32[np.ndarray, " dimension"] = self._vectors[0]
        self._ascending = sample.similarities(self._vectors)

    @property
    def terms(self) -> tuple[TermFacts, ...]:
        """The terms as they were understood."""
        return tuple(
            TermFacts(one.words, one.weight, one.negated, one.class_name, one.not_calibrated) for one in self.directions
        )

    def hits(self, rows: pa.Table) -> tuple[Hit, ...]:
        """One for each row, which has an `embedding`."""
        if not rows.num_rows:
            return ()
        embeddings = rows["embedding"].combine_chunks().flatten().to_numpy().reshape(rows.num_rows, -1)
        similarity = embeddings @ self._vectors.T
        ranks = [
            percentiles(column, ascending) for column, ascending in zip(similarity.T, self._ascending, strict=True)
        ]
        whole = np.asarray(
            [
                not missing and dataset not in self._windowed
                for missing, dataset in zip(rows["leads_missing"].to_pylist(), rows["dataset"].to_pylist(), strict=True)
            ]
        )
        first = len(self._vectors) - len(self.directions)
        probabilities = [
            _probabilities(one, similarity[:, column : column + 1], whole)
            for column, one in enumerate(self.directions, start=first)
        ]
        columns = rows.select(["record_id", "patient_id", *HIT_COLUMNS]).to_pylist()
        return tuple(
            self._hit(row, similarity[place], [rank[place] for rank in ranks], [one[place] for one in probabilities])
            for place, row in enumerate(columns)
        )

    def _hit(
        self,
        row: dict[str, object],
        similarity: Float32[np.ndarray, " vector"],
        ranks: list[np.float64],
        probabilities: list[float | None],
    ) -> Hit:
        terms = tuple(
            TermMatch(float(cosine), float(rank), probability)
            for cosine, rank, probability in zip(
                similarity[-len(probabilities) :], ranks[-len(probabilities) :], probabilities, strict=True
            )
        )
        return Hit(
            record_id=str(row.pop("record_id")),
            patient_id=str(row.pop("patient_id")),
            similarity=float(similarity[0]),
            percentile=float(ranks[0]),
            probability=probabilities[0] if len(probabilities) == 1 else None,
            terms=terms,
            columns=row,
        )


def _combined(
    directions: Sequence[Direction],
    vectors: Float32[np.ndarray, "term dimension"],
    spreads: Float[np.ndarray, " term"],
) -> Float32[np.ndarray, " dimension"]:
    signed = [-_NOT_COUNTS * one.weight if one.negated else one.weight for one in directions]
    weights = np.asarray(signed) / np.abs(signed).max() / spreads  # the largest is 1: only their ratios count
    total = weights @ vectors.astype(np.float64)
    length = float(np.linalg.norm(total))
    if length < _UNIT * float(np.abs(weights).max()):
        raise ConfigError(
            "the terms of the search cancel each other", hint="leave out the term that is both wanted and not wanted"
        )
    found: np.ndarray = (total / length).astype(np.float32)
    return found


def _probabilities(
    direction: Direction, similarity: Float[np.ndarray, "record one"], whole: np.ndarray
) -> list[float | None]:
    """Of each record; None without a calibration, and for those that no calibration is for, which are not `whole`."""
    if direction.calibrated is None:
        return [None] * len(whole)
    found = direction.calibrated.probabilities(similarity)[0][:, 0]
    return [float(one) if is_whole else None for one, is_whole in zip(found, whole, strict=True)]


def _check_vector(vector: np.ndarray, dimension: int) -> None:
    if vector.shape != (dimension,):
        raise ConfigError(
            f"the vector has the shape {list(vector.shape)}, and the index is of {dimension} dimensions",
            hint="give an embedding of the index's bundle",
        )
    if not abs(float(np.linalg.norm(vector.astype(np.float64))) - 1.0) < _UNIT:
        raise ConfigError(
            "the vector is not a unit vector", hint="give an embedding as `Predictor.embed` returns it, of length 1"
        )

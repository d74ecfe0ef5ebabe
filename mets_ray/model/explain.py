"""Why a class has its score: the training statements near this ECG and this class, and the parts that carry it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float32, Int16
from torch import Tensor

from mets_ray.errors import ConfigError, RecordError
from mets_ray.model.anchor_statements import AnchorStatement
from mets_ray.model.bundle import Bundle
from mets_ray.model.calibrations import Reason
from mets_ray.model.mets import Mets
from mets_ray.model.occlusion import Parts
from mets_ray.model.zero_shot import wording_vectors

MOST_CLASSES = 16
"""Classes of one explanation: all of them share its forward passes, but the answer grows with each."""

MOST_STATEMENTS = 5
"""Statements of each list."""

NO_STATEMENTS = (
    "no_statements",
    "this bundle names no training statements: it is older than they are, was trained on whole reports "
    "(text.unit=report), or with text.named_from_patients=null",
)


# Of the classes of PTB-XL in the words of `descriptive`, four are less like a statement than that (docs/findings.md).
_UNLIKE = 0.1
_ROWS_AT_ONCE = 256


class Statement(NamedTuple):
    """A training statement: how many training patients have it in a report, and its cosine similarity to the ECG."""

    text: str
    patients: int
    similarity: float


@dataclass(frozen=True)
class ClassReasons:
    """What speaks for a class and against it.

    `near` and `far`: of the training statements that are nearest to the class, those that the ECG is more similar to
    than to the average statement, and the others; the most telling first. `no_statements`: why there are none.
    `lead_drops` [lead], `segment_drops` [segment], `drops` [lead, segment]: how far the similarity falls without this
    part; see `occlusion.Drops`.
    """

    class_name: str
    similarity: float
    near: tuple[Statement, ...]
    far: tuple[Statement, ...]
    no_statements: Reason | None
    lead_drops: Float32[np.ndarray, " lead"]
    segment_drops: Float32[np.ndarray, " segment"]
    drops: Float32[np.ndarray, "lead segment"]


@dataclass(frozen=True)
class Explanation:
    """Of one window. `leads`: those that were recorded, the rows of all drops. Segment i begins i * `segment_s` behind
    `start_s`, where the window begins in the recording.

    `nearest`: the training statements nearest to the ECG, whatever the classes; `no_statements`: why there are none.
    `windows_encoded`: what the drops cost, in forward passes of one window each.
    """

    leads: tuple[str, ...]
    start_s: float
    segment_s: float
    nearest: tuple[Statement, ...]
    no_statements: Reason | None
    classes: tuple[ClassReasons, ...]
    windows_encoded: int


class StatementSpace:
    """The training statements that a bundle names, as unit vectors that ECGs and classes are compared with.

    `gap`: why there are none, or None.
    """

    def __init__(self, bundle: Bundle) -> None:
        self.gap = _gap(bundle)
        self._named: tuple[AnchorStatement, ...] = ()
        if self.gap is None:
            assert bundle.statements is not None
            assert bundle.model.anchors is not None
            self._named = bundle.statements.statements
            self._vectors = _vectors(bundle.model, bundle.model.anchors, self._named)
            self._least_like = _least_like(self._vectors)

    def nearest(self, embedding: Float32[np.ndarray, " dimension"]) -> tuple[Statement, ...]:
        """The statements nearest to an ECG, the nearest first; none where there is a `gap`."""
        if self.gap is not None:
            return ()
        cosines = self._vectors @ embedding
        return self._told(np.argsort(-cosines, kind="stable")[:MOST_STATEMENTS], cosines)

    def near_and_far(
        self, embedding: Float32[np.ndarray, " dimension"], class_vector: Float32[np.ndarray, " dimension"]
    ) -> tuple[tuple[Statement, ...], tuple[Statement, ...], Reason | None]:
        """The statements nearest to a class, parted by how similar they are to an ECG; and why there are none.

        See `ClassReasons`. There are none where there is a `gap`, and for a class that is like no statement.
        """
        if self.gap is not None:
            return (), (), self.gap
        of_class = self._vectors @ class_vector
        order = np.argsort(-of_class, kind="stable")[:MOST_STATEMENTS]
        if of_class[order[0]] < self._least_like:
            return (), (), _unlike(self._named[order[0]].text, float(of_class[order[0]]))
        cosines = self._vectors @ embedding
        order = order[np.argsort(-cosines[order], kind="stable")]
        is_near = cosines[order] > cosines.mean()
        return self._told(order[is_near], cosines), self._told(order[~is_near][::-1], cosines), None

    def _told(self, places: np.ndarray, cosines: np.ndarray) -> tuple[Statement, ...]:
        rows = (self._named[place] for place in places.tolist())
        return tuple(
            Statement(row.text, row.patients, float(cosine)) for row, cosine in zip(rows, cosines[places], strict=True)
        )


def explain(
    parts: Parts,
    embeddings: Float32[np.ndarray, "window dimension"],
    vectors: Mapping[str, Float32[np.ndarray, " dimension"]],
    space: StatementSpace,
    leads: Sequence[str],
    start_s: float = 0.0,
) -> Explanation:
    """The explanation of a window whose parts have been encoded.

    embeddings: of `parts.without(window)`, in its order; the first is the window's own. vectors: unit vectors of the
    classes by name. leads: the names of all leads of the bundle. start_s: where the window begins in the recording.
    """
    drops = parts.drops(embeddings, np.stack(list(vectors.values())))
    ecg = embeddings[0]
    classes = [
        ClassReasons(
            name,
            float(drops.similarity[number]),
            *space.near_and_far(ecg, vector),
            lead_drops=drops.leads[number],
            segment_drops=drops.segments[number],
            drops=drops.cells[number],
        )
        for number, (name, vector) in enumerate(vectors.items())
    ]
    return Explanation(
        leads=tuple(leads[row] for row in parts.rows),
        start_s=start_s,
        segment_s=parts.step_s,
        nearest=space.nearest(ecg),
        no_statements=space.gap,
        classes=tuple(classes),
        windows_encoded=parts.windows,
    )


def choose_classes(wanted: Sequence[str] | None, known: Sequence[str]) -> list[str]:
    """The classes to explain, in the order of the request: all of `known`, or those of `wanted`.

    Raises ConfigError for more than `MOST_CLASSES`, none, repeated ones, and those that are not in `known`.
    """
    chosen = list(known if wanted is None else wanted)
    if unknown := [name for name in chosen if name not in set(known)]:
        raise ConfigError(
            f"{unknown[0][:80]!r} is to be explained and is not one of the {len(known)} classes",
            hint="give the classes to explain by the names that they are scored under",
        )
    if not chosen or len(set(chosen)) < len(chosen):
        fact = "no class is to be explained" if not chosen else "a class is to be explained twice"
        raise ConfigError(fact, hint="name each class once, or leave them out to explain all")
    if len(chosen) > MOST_CLASSES:
        raise ConfigError(
            f"{len(chosen)} classes are to be explained; at most {MOST_CLASSES} are",
            hint=f"name at most {MOST_CLASSES} of them",
        )
    return chosen


def one_window(
    signal_uv: Int16[np.ndarray, "window lead sample"], duration_s: float
) -> Int16[np.ndarray, "lead sample"]:
    """The only window of an ECG. Raises RecordError `several_windows` where it has more."""
    if len(signal_uv) > 1:
        raise RecordError(
            "several_windows",
            f"the recording has {len(signal_uv)} windows of {duration_s:g} s, and an explanation is of one",
            hint=f"give a part of at most {duration_s:g} s",
        )
    window: np.ndarray = signal_uv[0]
    return window


def _gap(bundle: Bundle) -> Reason | None:
    if bundle.statements is None:
        return NO_STATEMENTS
    if not bundle.statements.statements:
        least = bundle.statements.least_patients
        return "no_statements", f"no training statement is shared by {least} patients or more, so none may be named"
    return None


def _vectors(
    model: Mets, anchors: Tensor, named: Sequence[AnchorStatement]
) -> Float32[np.ndarray, "statement dimension"]:
    features = anchors[[row.anchor for row in named]]
    if model.anchor_directions is None:
        with torch.inference_mode():
            vectors = model.embed_text(features.to(model.text_projection.weight.device))
    else:  # a class's vector is a mix of both then, and statements are compared with it as what they are
        (vectors,) = wording_vectors(model, features.numpy(), [[row.text for row in named]])
    found: np.ndarray = vectors.float().cpu().numpy()
    return found


def _least_like(vectors: Float32[np.ndarray, "statement dimension"]) -> float:
    """How similar a class must be to its nearest statement to be like it: as most statements are to theirs."""
    nearest = []
    for first in range(0, len(vectors), _ROWS_AT_ONCE):
        rows = np.arange(first, min(first + _ROWS_AT_ONCE, len(vectors)))
        cosines = vectors[rows] @ vectors.T
        cosines[np.arange(len(rows)), rows] = -1.0
        nearest.append(cosines.max(axis=1))
    return float(np.quantile(np.concatenate(nearest), _UNLIKE))


def _unlike(text: str, cosine: float) -> Reason:
    return (
        "words_without_statements",
        f"no training statement that the bundle names is like these words: the nearest, {text!r}, has a cosine of "
        f"{cosine:.2f} to them, and nine in ten statements have a nearer one among themselves",
    )

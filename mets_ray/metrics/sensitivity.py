"""How much a zero-shot score depends on the wording: the AUROC of each wording of a class alone."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from mets_ray.errors import MetsError
from mets_ray.metrics.auroc import macro_auroc


@dataclass(frozen=True)
class WordingSensitivity:
    """AUROCs of one class by wording; all are nan if its AUROC is undefined. `spread` is `highest` − `lowest`."""

    auroc: Float[np.ndarray, "wording"]
    lowest: float
    highest: float
    spread: float


def wording_sensitivity(
    similarity: Sequence[Float[np.ndarray, "record _"]], truth: Bool[np.ndarray, "record class"]
) -> list[WordingSensitivity]:
    """How the AUROC of each class varies between wordings, in the order of `truth`'s columns.

    similarity: for each class the cosines of all records with each wording, [record, wording]; classes may have
    different numbers of wordings. The AUROC of a class without positives or without negatives is nan.

    The score of all wordings together is not included: they are averaged as vectors (`zero_shot.class_embeddings`),
    and the AUROC of that mean may be above `highest` or below `lowest`.

    Raises MetsError if the numbers of classes differ or a class has no wording, and as `auroc.macro_auroc`.
    """
    if len(similarity) != truth.shape[1]:
        raise MetsError(f"`similarity` has {len(similarity)} classes and `truth` {truth.shape[1]}")
    return [_of_class(cosines, truth[:, [column]], column) for column, cosines in enumerate(similarity)]


def _of_class(
    cosines: Float[np.ndarray, "record wording"], positive: Bool[np.ndarray, "record 1"], column: int
) -> WordingSensitivity:
    wordings = cosines.shape[1]
    if wordings == 0:
        raise MetsError(f"class {column} of `similarity` has no wording", hint="give each class at least one")
    _, auroc = macro_auroc(cosines, np.repeat(positive, wordings, axis=1))
    lowest, highest = float(auroc.min()), float(auroc.max())  # the labels are the same for all, so all are nan or none
    return WordingSensitivity(auroc, lowest, highest, highest - lowest)

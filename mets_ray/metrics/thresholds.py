"""From which cosine on a class is reported as present: the rules, on VALIDATION records."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from mets_ray.config.kinds import ThresholdKind
from mets_ray.errors import MetsError

_ROUNDING = 1e-12  # 9 of 10 reach a share of 0.9


@dataclass(frozen=True)
class ThresholdRule:
    """best_f1: the highest F1. sensitivity, specificity: at least `share` of it, and as much of the other as possible.

    `share` is not used by best_f1.
    """

    kind: ThresholdKind = "best_f1"
    share: float = 1.0

    def __str__(self) -> str:
        return self.kind if self.kind == "best_f1" else f"{self.kind}:{self.share:g}"


@dataclass(frozen=True)
class OperatingPoint:
    """A threshold (a cosine: present at or above it) and what it gives on the records that it was chosen on.

    The three scores are optimistic, because the threshold was chosen on the same records.
    """

    threshold: float
    f1: float
    sensitivity: float
    specificity: float


def choose_threshold(
    rule: ThresholdRule, cosine: Float[np.ndarray, "record"], present: Bool[np.ndarray, "record"]
) -> OperatingPoint:
    """The threshold that `rule` asks for, among the cosines of the records.

    best_f1, sensitivity: ties go to the lowest cosine for F1 (a reader can dismiss a false positive but cannot see a
    false negative), and to the highest cosine that still has the sensitivity. specificity: the lowest cosine that has
    it, or just above all of them if none has.

    Raises MetsError if no record has the class, or all have it.
    """
    positives, negatives = int(present.sum()), int((~present).sum())
    if not positives or not negatives:
        raise MetsError(f"a threshold needs records with the class and without it: {positives} and {negatives}")
    highest = float(cosine.max())
    candidates = np.append(np.unique(cosine), np.nextafter(highest, np.inf))
    hits = positives - np.searchsorted(np.sort(cosine[present]), candidates, side="left")
    alarms = negatives - np.searchsorted(np.sort(cosine[~present]), candidates, side="left")
    f1 = 2.0 * hits / (hits + alarms + positives)
    sensitivity, specificity = hits / positives, 1.0 - alarms / negatives
    if rule.kind == "best_f1":
        best = int(np.argmax(f1))
    elif rule.kind == "sensitivity":
        best = int(np.flatnonzero(sensitivity >= rule.share - _ROUNDING)[-1])
    else:
        best = int(np.flatnonzero(specificity >= rule.share - _ROUNDING)[0])
    return OperatingPoint(*(float(values[best]) for values in (candidates, f1, sensitivity, specificity)))

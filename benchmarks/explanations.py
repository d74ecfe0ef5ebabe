"""Does an explanation point at the finding? On synthetic ECGs, whose makers know where it is.

    mets-ray quickstart                                       # trains the bundle
    python benchmarks/explanations.py .runs/pretrain-…/bundle

For a premature ventricular complex the segment that carries the class most must lie on one of them, from the beginning
of its QRS to the end of its T. For ST elevation the lead that carries the class most must be one of those that show it.
The ECGs are of patients whom no training with the default seed has seen, and each finding's first ones count, whether
the bundle scores them rightly or not. `chance` is what pointing anywhere would hit. The last line of stdout is one JSON
object.
"""

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass

import numpy as np

from mets_ray.console import say
from mets_ray.ecg.synthetic_patients import ST_ELEVATION_LEADS, SyntheticRecord, describe
from mets_ray.ecg.synthetic_waveforms import ectopic_beats_s, render
from mets_ray.model.explain import Explanation
from mets_ray.model.predictor import Predictor, load_predictor

SEED = 2  # the quickstart trains with 0; how leads are taken away was chosen with 1
FINDINGS = ("PVC", *ST_ELEVATION_LEADS)
BEFORE_S, AFTER_S = 0.1, 0.4  # of an ectopic beat's R peak: QRS begins, T ends


@dataclass(frozen=True)
class Hits:
    """How many ECGs' explanations point at the finding, and the share that chance would have."""

    ecgs: int
    hits: int
    chance: float

    @property
    def rate(self) -> float:
        return self.hits / self.ecgs


def hit_rates(predictor: Predictor, *, each: int) -> dict[str, Hits]:
    """By finding, over its first `each` ECGs."""
    found = {}
    for finding in FINDINGS:
        told = [_hit(predictor, record, finding) for record in _with(finding, each)]
        hits, chances = zip(*told, strict=True)
        found[finding] = Hits(each, sum(hits), float(np.mean(chances)))
    return found


def _with(finding: str, count: int) -> Iterator[SyntheticRecord]:
    index = 0
    while count:
        record = describe(index, seed=SEED)
        index += 1
        if finding in record.labels and (finding != "PVC" or ectopic_beats_s(record)):
            count -= 1
            yield record


def _hit(predictor: Predictor, record: SyntheticRecord, finding: str) -> tuple[bool, float]:
    signal = predictor.signal
    ecg = render(record, sampling_rate_hz=signal.sampling_rate_hz, duration_s=signal.duration_s)
    explained = predictor.explain(ecg, prompt_set="descriptive", task="synthetic", classes=[finding])
    (reasons,) = explained.classes
    if finding == "PVC":
        is_there = _holds_ectopic(explained, record, signal.duration_s)
        return bool(is_there[reasons.segment_drops.argmax()]), float(is_there.mean())
    leads = ST_ELEVATION_LEADS[finding]
    return explained.leads[int(reasons.lead_drops.argmax())] in leads, len(leads) / len(explained.leads)


def _holds_ectopic(explained: Explanation, record: SyntheticRecord, duration_s: float) -> np.ndarray:
    begin_s = explained.segment_s * np.arange(len(explained.classes[0].segment_drops))
    end_s = begin_s + explained.segment_s
    beats_s = np.asarray(ectopic_beats_s(record, duration_s=duration_s))[:, None]
    found: np.ndarray = ((begin_s < beats_s + AFTER_S) & (end_s > beats_s - BEFORE_S)).any(axis=0)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle_uri")
    parser.add_argument("--each", type=int, default=100, help="ECGs of each finding")
    arguments = parser.parse_args()
    predictor = load_predictor(arguments.bundle_uri)
    found = hit_rates(predictor, each=arguments.each)
    for finding, hits in found.items():
        say(f"{finding:<10}{hits.hits:>4} of {hits.ecgs}  {hits.rate:>5.0%}  by chance {hits.chance:.0%}")
    print(json.dumps({"bundle": predictor.model_version, "hits": {name: asdict(row) for name, row in found.items()}}))


if __name__ == "__main__":
    main()

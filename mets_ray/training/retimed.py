"""Training ECGs that get a finding which they did not have, and the statements that say so."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mets_ray.ecg.retiming import FINDINGS, retimed
from mets_ray.model.augment import BatchPlace
from mets_ray.text.reports import text_id
from mets_ray.text.retimed_statements import MOST_WAYS, retimed_key, retimed_statements
from mets_ray.text.statements import ReportStatements, spellings

_PURPOSE = 1  # the views of the same rows have random numbers of their own


def retimed_reports(of_reports: Mapping[str, Sequence[str]]) -> dict[str, tuple[str, ...]]:
    """The statements of all ECGs that can be made of those with these reports, by `retimed_key`; in one spelling."""
    known = spellings(of_reports)
    return {
        retimed_key(text_id(report), one.finding, one.way): one.statements
        for report, parts in of_reports.items()
        for one in retimed_statements(parts, known)
    }


def with_some_retimed(
    batch: dict[str, Any],
    statements: ReportStatements,
    *,
    share: float,
    place: BatchPlace,
    first_row: int,
    sampling_rate_hz: int,
) -> dict[str, Any]:
    """The batch with `signal_uv` and `text_id` of a share of its rows replaced: those in regular sinus rhythm only.

    statements: with those of `retimed_reports`. first_row: of this worker in the global batch. What a row gets depends
    on its place in the global batch alone, as its view does.
    """
    drawn = np.random.default_rng([place.seed, place.epoch, place.step, _PURPOSE]).random((place.rows, 3))
    signal_uv = text_ids = None
    for row, (chance, of_finding, of_way) in enumerate(drawn[first_row : first_row + len(batch["text_id"])]):
        if chance >= share:
            continue
        finding = FINDINGS[int(of_finding * len(FINDINGS))]
        ids = [text_id(retimed_key(int(batch["text_id"][row]), finding, way)) for way in range(MOST_WAYS)]
        known = [one for one in ids if statements.holds(one)]
        if not known:
            continue
        random = np.random.default_rng([place.seed, place.epoch, place.step, _PURPOSE, first_row + row])
        signal_mv = batch["signal_uv"][row].astype(np.float32) / np.float32(1000.0)
        changed = retimed(signal_mv, sampling_rate_hz, finding, random)
        if changed is None:
            continue
        if signal_uv is None or text_ids is None:
            signal_uv, text_ids = batch["signal_uv"].copy(), batch["text_id"].copy()
        signal_uv[row] = np.rint(changed * 1000.0).clip(-32768, 32767).astype(np.int16)
        text_ids[row] = known[int(of_way * len(known))]
    return batch if signal_uv is None else batch | {"signal_uv": signal_uv, "text_id": text_ids}

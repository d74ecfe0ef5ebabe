"""Which rows of a batch get a finding, and that neither the workers nor anything else but their place decides it."""

import numpy as np
import pytest

from mets_ray.ecg.beats import beat_times_s
from mets_ray.model.augment import BatchPlace
from mets_ray.text.reports import text_id
from mets_ray.text.statements import ReportStatements
from mets_ray.training.retimed import retimed_reports, with_some_retimed
from tests.ecg.test_retiming import ecg

REPORTS = {
    "Normal sinus rhythm. Normal ECG.": ("Normal sinus rhythm", "Normal ECG"),
    "Atrial fibrillation.": ("Atrial fibrillation",),
}
ROWS = 40


@pytest.fixture(scope="module")
def statements():
    return ReportStatements.build(REPORTS | retimed_reports(REPORTS))


def batch_of(rows=range(ROWS)):
    """Rows in turn of a regular and of an irregular rhythm, by their reports; all ECGs are regular."""
    ids = [text_id(report) for report in REPORTS]
    signal_uv = np.round(ecg(100) * 1000).astype(np.int16)
    return {"signal_uv": np.stack([signal_uv] * len(rows)), "text_id": np.asarray([ids[row % 2] for row in rows])}


def changed(statements, share=1.0, rows=range(ROWS), step=0):
    batch = batch_of(rows)
    before = {name: column.copy() for name, column in batch.items()}
    found = with_some_retimed(
        batch, statements, share=share, place=BatchPlace(7, 0, step, ROWS), first_row=rows.start, sampling_rate_hz=100
    )
    for name, column in before.items():  # Ray's blocks are shared and read-only
        np.testing.assert_array_equal(batch[name], column)
    return found


def test_only_reported_sinus_rhythms_change_and_their_statements_with_them(statements):
    found, before = changed(statements), batch_of()
    moved = (found["signal_uv"] != before["signal_uv"]).any(axis=(1, 2))
    assert moved.tolist() == [True, False] * (ROWS // 2)
    assert (moved == (found["text_id"] != before["text_id"])).all()
    texts = {text_id(part): part for parts in (REPORTS | retimed_reports(REPORTS)).values() for part in parts}
    said = [{texts[one] for one in ids.tolist()} for ids in statements.of(found["text_id"])]
    assert not any("Normal ECG" in one for one in said)
    assert len({frozenset(one) for one in said}) == 3  # with those that stay as they are
    for row, one in enumerate(said):
        if any("premature" in part for part in one):
            intervals_s = np.diff(beat_times_s(found["signal_uv"][row].astype(np.float32) / 1000, 100))
            assert intervals_s.min() < 0.88 * np.median(intervals_s)


def test_a_share_of_them_changes(statements):
    before = batch_of()["signal_uv"]
    moved = [
        (changed(statements, 0.3, step=step)["signal_uv"] != before).any(axis=(1, 2))[::2].mean() for step in range(40)
    ]
    assert 0.2 < np.mean(moved) < 0.4
    assert changed(statements, 0.0)["signal_uv"].tobytes() == before.tobytes()


def test_a_row_of_the_global_batch_is_the_same_whichever_worker_has_it(statements):
    whole = changed(statements)
    for rows in (range(5), range(5, 6), range(6, ROWS)):
        part = changed(statements, rows=rows)
        for name in ("signal_uv", "text_id"):
            np.testing.assert_array_equal(part[name], whole[name][rows.start : rows.stop])
    assert (changed(statements, step=1)["signal_uv"] != whole["signal_uv"]).any()

"""Rows that are read once in stored order come out in the planned order, whatever the blocks and the chunks."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mets_ray.dataset.plan import RowGroup, block_order, plan_epoch, worker_blocks, worker_lanes
from mets_ray.dataset.planned_rows import plan_delivery, planned_batches


def in_step_order(blocks):
    """The rows of blocks as the plan defines them, (row group, row) each."""
    for block in blocks:
        stored = np.concatenate(
            [
                np.stack([np.full(piece.rows, piece.row_group), np.arange(piece.start, piece.stop)], axis=1)
                for lane in block.lanes
                for piece in lane.pieces
            ]
        )
        yield from stored[block_order(block)].reshape(block.steps, -1, 2)


def delivered(delivery, *, cut):
    """What all reads deliver, each row naming its row group and row, in chunks of `cut` rows."""
    rows = np.concatenate(
        [
            np.stack([np.full(piece.rows, piece.row_group), np.arange(piece.start, piece.stop)], axis=1)
            for read in delivery.reads
            for piece in read.pieces
        ]
    )
    for start in range(0, len(rows), cut):
        part = rows[start : start + cut]
        yield {"position": np.arange(start, start + len(part)), "row": part, "name": part[:, 1].astype(str)}


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 60), min_size=1, max_size=12),
    lanes=st.integers(1, 9),
    per_lane=st.integers(1, 4),
    block_rows=st.integers(1, 50),
    cut=st.integers(1, 200),
    data=st.data(),
)
def test_batches_are_those_of_the_plan_and_each_row_is_read_once(sizes, lanes, per_lane, block_rows, cut, data):
    batch_size = min(lanes * per_lane, sum(sizes) // lanes * lanes)
    if batch_size == 0:
        return
    groups = [RowGroup("a.parquet", number, rows) for number, rows in enumerate(sizes)]
    plan = plan_epoch(groups, seed=5, epoch=2, batch_size=batch_size, lanes=lanes, block_rows=block_rows)
    workers = data.draw(st.integers(1, lanes))
    owned = worker_lanes(lanes, workers, data.draw(st.integers(0, workers - 1)))
    first_step = data.draw(st.integers(0, plan.steps - 1))
    blocks = worker_blocks(plan, owned, first_step=first_step)
    delivery = plan_delivery(blocks)

    found = list(planned_batches(delivery, delivered(delivery, cut=cut), first_step=first_step))
    planned = list(in_step_order(blocks))[first_step - blocks[0].first_step :]
    assert [batch["step"].tolist() for batch in found] == [
        [step] * (len(owned) * plan.rows_per_lane_step) for step in range(first_step, plan.steps)
    ]
    for batch, expected in zip(found, planned, strict=True):
        np.testing.assert_array_equal(batch["row"], expected)
        assert batch["name"].tolist() == [str(row) for row in expected[:, 1]]
    assert sum(read.rows for read in delivery.reads) == sum(len(batch) for batch in in_step_order(blocks))
    assert [read.first for read in delivery.reads] == np.cumsum([0, *(r.rows for r in delivery.reads)])[:-1].tolist()
    # A lane needs a row group once, however many of its blocks do.
    assert sum(len(read.pieces) for read in delivery.reads) <= len(groups) + len(owned) - 1


def test_a_run_may_resume_at_any_step_whatever_rows_come_last():
    plan = plan_epoch([RowGroup("a.parquet", 0, 20)], seed=0, epoch=0, batch_size=1, lanes=1, block_rows=50)
    for first_step in range(plan.steps):
        delivery = plan_delivery(worker_blocks(plan, range(1), first_step=first_step))
        found = list(planned_batches(delivery, delivered(delivery, cut=1), first_step=first_step))
        assert [int(batch["step"][0]) for batch in found] == list(range(first_step, plan.steps))


def test_a_chunk_is_let_go_when_its_rows_are_used():
    groups = [RowGroup("a.parquet", number, 256) for number in range(40)]
    plan = plan_epoch(groups, seed=0, epoch=0, batch_size=64, lanes=4, block_rows=256)
    delivery = plan_delivery(worker_blocks(plan, range(4)))
    alive: set[int] = set()

    class Rows(np.ndarray):
        def __del__(self):
            alive.discard(self.name)

    def chunks():
        for number, read in enumerate(delivery.reads):
            rows = np.zeros(read.rows).view(Rows)
            rows.name = number
            alive.add(number)
            yield {"position": np.arange(read.first, read.first + read.rows), "row": rows}
            del rows

    most = max(len(alive) for _ in planned_batches(delivery, chunks(), first_step=0))
    assert most <= 3
    assert len(delivery.reads) == 10


def test_chunks_in_another_order_are_noticed():
    groups = [RowGroup("a.parquet", number, 16) for number in range(8)]
    plan = plan_epoch(groups, seed=0, epoch=0, batch_size=8, lanes=2, block_rows=8)
    delivery = plan_delivery(worker_blocks(plan, range(2)))
    swapped = list(delivered(delivery, cut=16))
    swapped[0], swapped[1] = swapped[1], swapped[0]
    with pytest.raises(AssertionError, match="left the planned order"):
        list(planned_batches(delivery, iter(swapped), first_step=0))

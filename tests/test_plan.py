"""The order of training: the same global batches for any number of workers, and a resume that rereads nothing."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mets_ray.errors import ConfigError
from mets_ray.plan import RowGroup, block_order, plan_epoch, worker_blocks, worker_lanes

GROUPS = [RowGroup(f"shards/part-{n // 3}.parquet", n % 3, rows) for n, rows in enumerate([256, 7, 130, 256, 1, 90])]


def rows_of(block):
    """(step, row) of a block, each row named by where it is stored."""
    stored = [
        (piece.path, piece.row_group, row)
        for lane in block.lanes
        for piece in lane.pieces
        for row in range(piece.start, piece.stop)
    ]
    steps = np.repeat(np.arange(block.first_step, block.first_step + block.steps), block.rows_per_step)
    return [(int(step), stored[position]) for step, position in zip(steps, block_order(block), strict=True)]


def global_batches(groups, *, workers, epoch=0, batch_size=16, lanes=8, block_rows=16, first_step=0, seed=3):
    plan = plan_epoch(groups, seed=seed, epoch=epoch, batch_size=batch_size, lanes=lanes, block_rows=block_rows)
    batches = {step: [] for step in range(first_step, plan.steps)}
    for worker in range(workers):
        for block in worker_blocks(plan, worker_lanes(lanes, workers, worker), first_step=first_step):
            for step, row in rows_of(block):
                if step >= first_step:
                    batches[step].append(row)
    return batches


@pytest.mark.parametrize("workers", [2, 3, 4, 5, 7, 8])
def test_global_batches_do_not_depend_on_the_number_of_workers(workers):
    assert global_batches(GROUPS, workers=workers) == global_batches(GROUPS, workers=1)


def test_each_record_comes_once_but_for_a_tail_of_less_than_a_batch():
    batches = global_batches(GROUPS, workers=3)
    rows = [row for batch in batches.values() for row in batch]
    assert all(len(batch) == 16 for batch in batches.values())
    assert len(rows) == len(set(rows))
    assert 0 <= sum(group.rows for group in GROUPS) - len(rows) < 16
    assert set(rows) <= {(g.path, g.index, row) for g in GROUPS for row in range(g.rows)}


def test_another_epoch_and_another_seed_are_other_orders():
    first = global_batches(GROUPS, workers=2)
    assert first != global_batches(GROUPS, workers=2, epoch=1)
    assert first != global_batches(GROUPS, workers=2, seed=4)
    assert first == global_batches(GROUPS, workers=2)


@pytest.mark.parametrize("first_step", [1, 7, 8, 30])
def test_a_resume_goes_on_with_the_same_batches_and_names_no_finished_block(first_step):
    whole = global_batches(GROUPS, workers=2)
    rest = global_batches(GROUPS, workers=3, first_step=first_step)
    assert rest == {step: batch for step, batch in whole.items() if step >= first_step}
    plan = plan_epoch(GROUPS, seed=3, epoch=0, batch_size=16, lanes=8, block_rows=16)
    blocks = worker_blocks(plan, range(8), first_step=first_step)
    assert all(block.first_step + block.steps > first_step for block in blocks)


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 60), min_size=1, max_size=12),
    lanes=st.integers(1, 9),
    per_lane=st.integers(1, 4),
    block_rows=st.integers(1, 50),
    data=st.data(),
)
def test_any_shape_of_data_set_is_cut_without_loss_or_repeat(sizes, lanes, per_lane, block_rows, data):
    groups = [RowGroup("a.parquet", n, rows) for n, rows in enumerate(sizes)]
    batch_size = lanes * per_lane
    if sum(sizes) < batch_size:
        with pytest.raises(ConfigError, match="train folds hold"):
            plan_epoch(groups, seed=0, epoch=0, batch_size=batch_size, lanes=lanes, block_rows=block_rows)
        return
    workers = data.draw(st.integers(1, lanes))
    shape = {"batch_size": batch_size, "lanes": lanes, "block_rows": block_rows}
    one, many = (global_batches(groups, workers=w, **shape) for w in (1, workers))
    assert one == many
    rows = [row for batch in many.values() for row in batch]
    assert len(rows) == len(set(rows)) == sum(sizes) // batch_size * batch_size


def test_shuffling_reaches_across_row_groups_and_inside_them():
    groups = [RowGroup("a.parquet", n, 64) for n in range(32)]
    shape = {"workers": 1, "block_rows": 64}
    places = []
    for epoch in range(9):
        batches = global_batches(groups, epoch=epoch, **shape)
        places.append({row: n for n, row in enumerate(row for batch in batches.values() for row in batch)})
    pairs = itertools.pairwise(places)
    correlations = [
        np.corrcoef([first[row] for row in first], [second[row] for row in first])[0, 1] for first, second in pairs
    ]
    assert abs(np.mean(correlations)) < 0.15  # 32 row groups: one pair of epochs scatters by 0.18
    assert len({group for _, group, _ in global_batches(groups, **shape)[5]}) >= 4


def test_lanes_that_do_not_divide_the_batch_are_refused():
    with pytest.raises(ConfigError, match="16 lanes cannot share equally"):
        plan_epoch(GROUPS, seed=0, epoch=0, batch_size=100, lanes=16, block_rows=16)

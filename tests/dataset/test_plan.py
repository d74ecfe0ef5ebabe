"""The order of training: the same global batches for any number of workers, and a resume that rereads nothing."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

from mets_ray.dataset.plan import RowGroup, block_order, plan_epoch, worker_blocks, worker_lanes
from mets_ray.errors import ConfigError

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


def test_shuffling_at_the_size_of_ptbxl():
    """Where a record stands in one epoch says nothing of the next, and what a batch shares with a row group is known.

    Measured: mean |rank correlation| of five pairs of epochs 0.06. Of a batch of 64, each lane gives 4 neighbouring
    rows of its own row group or two, so row-group mates are 2.6 times as frequent as in a uniform shuffle.
    """
    records, rows_per_group, batch_size = 20_000, 256, 64
    counts = [min(rows_per_group, records - start) for start in range(0, records, rows_per_group)]
    groups = [RowGroup("a.parquet", number, rows) for number, rows in enumerate(counts)]
    orders = [_stored_order(groups, epoch, batch_size=batch_size, lanes=16, block_rows=256) for epoch in range(6)]
    assert all(len(set(order.tolist())) == records // batch_size * batch_size for order in orders)

    correlations = []
    for first, second in itertools.pairwise(orders):
        both = np.intersect1d(first, second)
        places = [np.argsort(order)[np.searchsorted(np.sort(order), both)] for order in (first, second)]
        correlations.append(spearmanr(*places).statistic)
    # 79 row groups: by chance alone one pair of epochs scatters by about 0.11.
    assert np.abs(correlations).max() < 0.35
    assert abs(np.mean(correlations)) < 0.15

    mates = uniform = 0.0
    for order in orders:
        batches = (order // rows_per_group).reshape(-1, batch_size)
        mates += np.mean([_pairs_alike(batch) for batch in batches])
        shuffled = np.random.default_rng(0).permutation(order // rows_per_group).reshape(-1, batch_size)
        uniform += np.mean([_pairs_alike(batch) for batch in shuffled])
        # A row group is spread over a good part of the epoch: its 256 rows come in stretches of 64 steps.
        assert np.mean([len(set(batch.tolist())) for batch in batches]) > 16
    assert mates / uniform < 3.0


def _stored_order(groups, epoch, **shape):
    """Each row as its place in storage, in the order of training."""
    plan = plan_epoch(groups, seed=0, epoch=epoch, **shape)
    starts = dict(
        zip([group.index for group in groups], np.cumsum([0, *(group.rows for group in groups)]).tolist(), strict=False)
    )
    parts = []
    for block in worker_blocks(plan, range(shape["lanes"])):
        pieces = [piece for lane in block.lanes for piece in lane.pieces]
        stored = [np.arange(piece.start, piece.stop) + starts[piece.row_group] for piece in pieces]
        parts.append(np.concatenate(stored)[block_order(block)])
    return np.concatenate(parts)


def _pairs_alike(batch):
    """The share of a batch's pairs that are of one row group."""
    _, counts = np.unique(batch, return_counts=True)
    return (counts * (counts - 1)).sum() / (len(batch) * (len(batch) - 1))


def test_lanes_that_do_not_divide_the_batch_are_refused():
    with pytest.raises(ConfigError, match="16 lanes cannot share equally"):
        plan_epoch(GROUPS, seed=0, epoch=0, batch_size=100, lanes=16, block_rows=16)

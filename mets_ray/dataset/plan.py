"""The training order: a pure function of (row groups, seed, epoch), the same for any number of workers.

Row groups are permuted and concatenated. The first `steps × batch_size` rows are cut into `lanes` equal parts.
Each lane is cut into blocks, and each block is shuffled with the seed (seed, epoch, lane, block). Global step t takes
`batch_size / lanes` rows of every lane; worker r of W owns the lanes `[r·L//W, (r+1)·L//W)`. So the global batch at
(epoch, step) never depends on W, and a run that resumes at a cursor reads no finished block.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64

from mets_ray.errors import ConfigError


@dataclass(frozen=True)
class RowGroup:
    """One row group of a shard; `rows` counts the rows that this run uses (the rest belong to other folds)."""

    path: str
    index: int
    rows: int


@dataclass(frozen=True)
class Piece:
    """Rows [start, stop) of one row group, counted over the rows that this run uses."""

    path: str
    row_group: int
    start: int
    stop: int

    @property
    def rows(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True)
class LaneBlock:
    """A part of one lane that is read and shuffled together."""

    pieces: tuple[Piece, ...]
    seed: tuple[int, int, int, int]

    @property
    def rows(self) -> int:
        return sum(piece.rows for piece in self.pieces)


@dataclass(frozen=True)
class Block:
    """What one read task delivers: the rows of steps [first_step, first_step + steps) for some lanes."""

    first_step: int
    steps: int
    lanes: tuple[LaneBlock, ...]

    @property
    def rows_per_step(self) -> int:
        return sum(lane.rows for lane in self.lanes) // self.steps


@dataclass(frozen=True)
class EpochPlan:
    """One epoch's order; `offsets[i]` is where the i-th permuted row group begins."""

    row_groups: tuple[RowGroup, ...]
    offsets: tuple[int, ...]
    seed: int
    epoch: int
    steps: int
    lanes: int
    rows_per_lane_step: int
    steps_per_block: int


def plan_epoch(
    row_groups: Sequence[RowGroup], *, seed: int, epoch: int, batch_size: int, lanes: int, block_rows: int
) -> EpochPlan:
    """The order of one epoch. Rows beyond the last full batch (fewer than `batch_size`) are skipped in this epoch.

    Raises ConfigError if `batch_size` is not a multiple of `lanes`, or the rows do not fill one batch.
    """
    if batch_size % lanes:
        raise ConfigError(
            f"`train.batch_size` is {batch_size}, which {lanes} lanes cannot share equally",
            hint=f"use a multiple of {lanes}",
        )
    rows = sum(group.rows for group in row_groups)
    if rows < batch_size:
        raise ConfigError(
            f"`train.batch_size` is {batch_size}, but the train folds hold {rows} records",
            hint="use a smaller batch or more train folds",
        )
    order = np.random.default_rng((seed, epoch)).permutation(len(row_groups))
    shuffled = tuple(row_groups[position] for position in order)
    offsets = np.concatenate([[0], np.cumsum([group.rows for group in shuffled])]).tolist()
    per_lane_step = batch_size // lanes
    return EpochPlan(
        row_groups=shuffled,
        offsets=tuple(offsets),
        seed=seed,
        epoch=epoch,
        steps=rows // batch_size,
        lanes=lanes,
        rows_per_lane_step=per_lane_step,
        steps_per_block=max(1, block_rows // per_lane_step),
    )


def worker_lanes(lanes: int, num_workers: int, rank: int) -> range:
    """Lanes that worker `rank` owns; over all ranks in order, these are all lanes in order."""
    return range(rank * lanes // num_workers, (rank + 1) * lanes // num_workers)


def worker_blocks(plan: EpochPlan, lanes: range, *, first_step: int = 0) -> list[Block]:
    """Blocks of `lanes` that still hold a step ≥ `first_step`, in order; finished blocks are omitted."""
    blocks = []
    for number, start in enumerate(range(0, plan.steps, plan.steps_per_block)):
        steps = min(plan.steps_per_block, plan.steps - start)
        if start + steps > first_step:
            lane_blocks = tuple(_lane_block(plan, lane, number, start, steps) for lane in lanes)
            blocks.append(Block(first_step=start, steps=steps, lanes=lane_blocks))
    return blocks


def _lane_block(plan: EpochPlan, lane: int, number: int, first_step: int, steps: int) -> LaneBlock:
    begin = (lane * plan.steps + first_step) * plan.rows_per_lane_step
    end = begin + steps * plan.rows_per_lane_step
    pieces = []
    position = bisect_right(plan.offsets, begin) - 1
    while begin < end:
        group, offset = plan.row_groups[position], plan.offsets[position]
        stop = min(end, offset + group.rows)
        if stop > begin:
            pieces.append(Piece(group.path, group.index, begin - offset, stop - offset))
        begin = stop
        position += 1
    return LaneBlock(tuple(pieces), (plan.seed, plan.epoch, lane, number))


def block_order(block: Block) -> Int64[np.ndarray, " row"]:
    """For each row of the block in step order, its position in the concatenated pieces of the lanes.

    Every step holds `rows_per_step` rows: those of the first lane, then those of the second, and so on.
    """
    orders, base = [], 0
    for lane in block.lanes:
        shuffled = np.random.default_rng(lane.seed).permutation(lane.rows)
        orders.append((base + shuffled).reshape(block.steps, -1))
        base += lane.rows
    return np.concatenate(orders, axis=1).reshape(-1).astype(np.int64)


def share(row_groups: Sequence[RowGroup], num_workers: int, rank: int) -> list[RowGroup]:
    """Row groups that worker `rank` validates: contiguous, so all ranks in order cover all row groups in order."""
    count = len(row_groups)
    return list(row_groups[rank * count // num_workers : (rank + 1) * count // num_workers])

"""From rows in stored order to batches in the planned order, so that a row group is decoded once for each lane.

The blocks of a lane begin and end inside row groups, so neighbouring blocks need rows of the same one. A read
therefore delivers all rows that the lane needs of a row group when the first of its blocks does, and the rows wait in
the worker for the blocks that follow. Each row is copied once, into its batch.
"""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
from jaxtyping import Int64

from mets_ray.dataset.plan import Block, Piece, block_order

Columns = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Read:
    """What one read task delivers, in this order; `first` is the position of its first row among those of all reads."""

    first: int
    pieces: tuple[Piece, ...]

    @property
    def rows(self) -> int:
        return sum(piece.rows for piece in self.pieces)


@dataclass(frozen=True)
class Delivery:
    """The reads of one worker, and where the rows of its blocks are among the rows that all reads deliver.

    `rows[i]`: of block i, the positions of its rows in step order, `block_order` applied.
    """

    blocks: tuple[Block, ...]
    reads: tuple[Read, ...]
    rows: tuple[Int64[np.ndarray, " _"], ...]


def plan_delivery(blocks: Sequence[Block]) -> Delivery:
    """The reads that deliver each row of `blocks`, of one worker and in order, once."""
    # By lane and row group: the piece that all blocks together need, and the first block that needs it.
    wanted: dict[tuple[int, str, int], tuple[int, Piece]] = {}
    for number, block in enumerate(blocks):
        for key, piece in _pieces(block):
            first, before = wanted.get(key, (number, piece))
            wanted[key] = first, Piece(piece.path, piece.row_group, before.start, piece.stop)
    # A dict keeps the order in which its keys came: by first block, then by lane.
    reads: dict[int, list[Piece]] = {}
    for first, piece in wanted.values():
        reads.setdefault(first, []).append(piece)
    ends = accumulate(piece.rows for _, piece in wanted.values())
    # Row r of the row group behind `key` is at position `base[key] + r`.
    base = {key: end - piece.stop for (key, (_, piece)), end in zip(wanted.items(), ends, strict=True)}
    starts = accumulate((sum(piece.rows for piece in pieces) for pieces in reads.values()), initial=0)
    rows = []
    for block in blocks:
        stored = [np.arange(base[key] + piece.start, base[key] + piece.stop) for key, piece in _pieces(block)]
        rows.append(np.concatenate(stored)[block_order(block)])
    planned = tuple(Read(start, tuple(pieces)) for start, pieces in zip(starts, reads.values(), strict=False))
    return Delivery(tuple(blocks), planned, tuple(rows))


def _pieces(block: Block) -> Iterator[tuple[tuple[int, str, int], Piece]]:
    for lane, of_lane in enumerate(block.lanes):
        for piece in of_lane.pieces:
            yield (lane, piece.path, piece.row_group), piece


def planned_batches(
    delivery: Delivery, chunks: Iterator[Columns], *, first_step: int
) -> Iterator[dict[str, np.ndarray]]:
    """The batches of all steps from `first_step` on, with a column `step` beside those of the chunks.

    chunks: the rows of all reads in order, cut anywhere, with their `position` in a column. A chunk is let go once no
    later batch needs it. All are asked for, also the one after the last, so that the stream ends by itself.
    """
    held = _Held(chunks)
    # The lowest position that a block or one after it needs.
    needed = list(accumulate((int(rows.min()) for rows in reversed(delivery.rows)), min))[::-1]
    for block, rows, lowest in zip(delivery.blocks, delivery.rows, needed, strict=True):
        held.let_go(lowest)
        for step, of_step in enumerate(rows.reshape(block.steps, -1), block.first_step):
            if step >= first_step:
                yield {"step": np.full(len(of_step), step), **held.take(of_step)}
    held.read_to_the_end()
    assert held.end == sum(read.rows for read in delivery.reads), "the stream left the planned rows"


class _Held:
    """The chunks that are still needed, the earliest first."""

    def __init__(self, chunks: Iterator[Columns]) -> None:
        self._chunks = chunks
        self._held: deque[tuple[int, int, Columns]] = deque()  # positions [start, stop)
        self.end = 0

    def read_to_the_end(self) -> None:
        """Receive what no batch needs: rows of steps that a resumed run had trained on may come last."""
        for chunk in self._chunks:
            self._receive(chunk)

    def let_go(self, lowest: int) -> None:
        """Drop the chunks before position `lowest`."""
        while self._held and self._held[0][1] <= lowest:
            self._held.popleft()

    def take(self, rows: Int64[np.ndarray, " row"]) -> dict[str, np.ndarray]:
        """The rows at some positions, as arrays of their own."""
        while self.end <= rows.max():
            self._held.append(self._receive(next(self._chunks)))
        taken: dict[str, np.ndarray] = {}
        for start, stop, columns in self._held:
            (here,) = np.nonzero((rows >= start) & (rows < stop))
            for name, column in columns.items():
                if name not in taken:
                    taken[name] = np.empty((len(rows), *column.shape[1:]), column.dtype)
                # Row by row: indexing with an array would make a copy of the rows first.
                for at, row in zip(here.tolist(), (rows[here] - start).tolist(), strict=True):
                    taken[name][at] = column[row]
        return taken

    def _receive(self, chunk: Columns) -> tuple[int, int, Columns]:
        columns = dict(chunk)
        position = columns.pop("position")
        start, self.end = self.end, self.end + len(position)
        assert (position == np.arange(start, self.end)).all(), "the stream left the planned order"
        return start, self.end, columns

"""Counts of what is most frequent, in bounded memory, which can be added up over shards in any order."""

from collections import Counter
from collections.abc import Hashable, Iterable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class Tally(Generic[K]):
    """Counts per key. With more than `capacity` keys the rarest are dropped: a summary of Misra & Gries, merged as in
    Agarwal et al. 2012 (doi:10.1145/2213556.2213562).

    Each count is then too low by at most `missing`, which is at most total / capacity; without drops, 0.
    """

    def __init__(self, keys: Iterable[K] = (), *, capacity: int = 10_000) -> None:
        self.capacity = capacity
        self.counts: Counter[K] = Counter()
        self.total = 0
        self.missing = 0
        self.add(keys)

    def add(self, keys: Iterable[K]) -> None:
        """Count each key once more."""
        self.include(Counter(keys))

    def include(self, counts: Counter[K]) -> None:
        """Add counts."""
        self._include(counts, counts.total(), 0)

    def merge(self, other: "Tally[K]") -> None:
        """Add the counts of another tally."""
        self._include(other.counts, other.total, other.missing)

    def top(self, count: int, *, least: int = 1) -> list[tuple[K, int]]:
        """The most frequent keys with at least `least` counts; ties by key."""
        ranked = sorted(self.counts.items(), key=lambda item: (-item[1], str(item[0])))
        return [item for item in ranked[:count] if item[1] >= least]

    def _include(self, counts: Counter[K], total: int, missing: int) -> None:
        self.counts.update(counts)
        self.total += total
        self.missing += missing
        if len(self.counts) > self.capacity:
            cut = sorted(self.counts.values(), reverse=True)[self.capacity]
            self.counts = Counter({key: count - cut for key, count in self.counts.items() if count > cut})
            self.missing += cut

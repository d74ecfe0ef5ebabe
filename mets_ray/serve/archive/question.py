"""What the archive is asked, as it travels from the model's replicas to the archive's."""

from dataclasses import dataclass

from mets_ray.archive.query import Direction, RecordKey


@dataclass(frozen=True)
class Question:
    """What is looked for: directions, or a record of the archive.

    source: where several have a record with this id.
    """

    directions: tuple[Direction, ...] = ()
    record_id: str | None = None
    source: str | None = None

    @property
    def record(self) -> RecordKey | None:
        """The record, whose patient is left out of what is found."""
        return None if self.record_id is None else RecordKey(self.record_id, self.source)

"""What the archive is asked, as it travels from the model's replicas to the archive's."""

from dataclasses import dataclass

from mets_ray.archive.query import Direction


@dataclass(frozen=True)
class Question:
    """What is looked for: directions, or a record of the archive.

    source: where several have a record with this id.
    """

    directions: tuple[Direction, ...] = ()
    record_id: str | None = None
    source: str | None = None

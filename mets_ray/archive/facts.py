"""The facts of an index, in `archive.json`: its bundle, its data sets, and the version that readers see."""

import json

from pydantic import BaseModel, ConfigDict, ValidationError

from mets_ray import storage
from mets_ray.errors import CheckpointError, DatasetError

SCHEMA_VERSION = 1
FACTS_NAME = "archive.json"


class IndexedDataset(BaseModel):
    """A data set whose records are in the index; rows name it by its key in `ArchiveFacts.datasets`.

    `shards`: how many of its shards are in the index. `windows`: whether they are windows of recordings, or means of
    these.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    uri: str
    source: str
    content_sha256: str
    synthetic: bool
    shards: int = 0
    windows: bool = False


class ArchiveFacts(BaseModel):
    """What an index holds.

    `table_version`: of the Lance table; later ones are of a job that has not finished, and 0 is an index that was never
    finished. `partitions`: of its vector index; 0 where it has none, because there are few records. `sample`: records
    in the sample that percentiles come from, whose file has `sample_sha256`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = SCHEMA_VERSION
    bundle_uri: str
    bundle_run: str
    bundle_digest: str
    dimension: int
    has_reports: bool
    records: int = 0
    patients: int = 0
    datasets: dict[str, IndexedDataset] = {}
    table_version: int = 0
    partitions: int = 0
    sample: int = 0
    sample_sha256: str = ""
    created_at: str = ""

    def require_bundle(self, digest: str, where: str) -> None:
        """Raise CheckpointError if the index is not of the bundle with this digest."""
        if digest != self.bundle_digest:
            raise CheckpointError(
                f"the index is of another bundle: `{self.bundle_run}` with digest {self.bundle_digest[:8]}, and this "
                f"one has {digest[:8]}: their embeddings cannot be compared",
                where=where,
                hint="use the bundle that the index was made with, or index scores of this one into another folder",
            )


def write_facts(uri: str, facts: ArchiveFacts) -> None:
    """Write `archive.json` with the digest of its content."""
    storage.write_bytes(storage.join(uri, FACTS_NAME), storage.seal(facts.model_dump_json()))


def read_facts(uri: str) -> ArchiveFacts | None:
    """The facts of an index, finished or not; None where there is none. Raises DatasetError for damaged ones."""
    place = storage.join(uri, FACTS_NAME)
    try:
        data = storage.read_bytes(place)
    except storage.MissingFileError:
        return None
    try:
        sealed = storage.unseal(data)
        version = sealed.facts.get("schema_version")
        if version != SCHEMA_VERSION:
            raise DatasetError(
                f"`{place}` has schema version {version}, this mets_ray reads {SCHEMA_VERSION}",
                hint="index the scores again into another folder, or install the version of mets_ray that wrote it",
            )
        sealed.check()
        return ArchiveFacts.model_validate_json(json.dumps(sealed.facts))
    except (ValidationError, ValueError) as error:
        raise storage.DamagedFileError(
            f"`{place}` is not what was written: {error}",
            hint="delete the folder and run mets-ray index again: it is made from the scores",
        ) from error


def finished_facts(uri: str) -> ArchiveFacts:
    """The facts of an index that can be searched. Raises DatasetError if there is none or it was never finished."""
    facts = read_facts(uri)
    if facts is None:
        raise DatasetError(
            f"`{uri}` holds no {FACTS_NAME}, so it is not an archive's index",
            hint="give the output_uri that mets-ray index printed",
        )
    if not facts.table_version:
        raise DatasetError(
            f"`{uri}` is half-written: the job that makes this index has not finished",
            hint="run the same mets-ray index command again: it continues where it stopped",
        )
    return facts

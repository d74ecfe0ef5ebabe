"""The facts of an index, in `archive.json`: its bundle, its data sets, its columns, and the version that readers see."""

from pydantic import BaseModel, ConfigDict

SCHEMA_VERSION = 1
FACTS_NAME = "archive.json"


class IndexedDataset(BaseModel):
    """A data set whose records are in the index; rows name it by the key in `ArchiveFacts.datasets`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    uri: str
    source: str
    content_sha256: str
    synthetic: bool
    pseudonymised: bool | None = None


class ArchiveFacts(BaseModel):
    """What an index holds. `table_version`: of the Lance table; later ones are of a job that has not finished."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int
    bundle_uri: str
    bundle_run: str
    bundle_digest: str
    dimension: int
    records: int
    patients: int
    datasets: dict[str, IndexedDataset]
    has_reports: bool
    table_version: int
    sample: int
    """Records of the sample that percentiles come from."""
    created_at: str

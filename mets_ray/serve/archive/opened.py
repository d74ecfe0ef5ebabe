"""An index as it was opened, and the data sets that its records come from."""

from threading import Lock

from mets_ray.archive.archive import open_archive
from mets_ray.archive.query import Direction
from mets_ray.archive.results import Hit
from mets_ray.dataset.prepared import PreparedDataset
from mets_ray.dataset.single_records import SingleRecords
from mets_ray.errors import ConfigError, RequestError
from mets_ray.serve.archive.question import Question
from mets_ray.serve.settings import ServeConfig


class OpenedArchive:
    """`archive`, the state of the index when it was opened, and `records` of its data sets. Thread-safe.

    Raises as `open_archive`, CheckpointError if the index is of another bundle than that with `bundle_digest`, and
    ConfigError if `archive_dataset_uri` is not among its data sets.
    """

    def __init__(self, config: ServeConfig, bundle_digest: str) -> None:
        assert config.archive_uri is not None
        self.archive = open_archive(config.archive_uri, cache_bytes=config.archive_memory_bytes // 2)
        self.archive.require_bundle(bundle_digest)
        self._config = config
        self._uris = {key: dataset.uri for key, dataset in self.archive.facts.datasets.items()}
        if config.archive_dataset_uri is not None:
            self._uris |= self._moved(config.archive_dataset_uri)
        self._records: dict[str, SingleRecords] = {}
        self._opening = Lock()

    def record(self, record_id: str, source: str | None) -> Hit:
        """A record by its id. Raises RequestError 404."""
        try:
            return self.archive.record(record_id, source=source)
        except ConfigError as error:
            raise RequestError(404, "unknown_record", error.fact, hint=error.hint) from error

    def directions(self, question: Question) -> tuple[Direction, ...]:
        """What a question looks for; of a record, its embedding. Raises as `record`."""
        if question.record_id is None:
            return question.directions
        self.record(question.record_id, question.source)
        return (Direction(self.archive.embedding(question.record_id, source=question.source)),)

    def records(self, key: str) -> SingleRecords:
        """The records of a data set, by its key in the index's facts. Raises as `PreparedDataset.open`."""
        with self._opening:
            if key not in self._records:
                each = self._config.archive_signal_cache_bytes // len(self._uris)
                self._records[key] = SingleRecords(PreparedDataset.open(self._uris[key]), cache_bytes=each)
            return self._records[key]

    def _moved(self, uri: str) -> dict[str, str]:
        content = PreparedDataset.open(uri).card.content_sha256
        datasets = self.archive.facts.datasets
        keys = [key for key, dataset in datasets.items() if dataset.content_sha256 == content]
        if not keys:
            raise ConfigError(
                f"`archive_dataset_uri` {uri} is none of the data sets in the index {self._config.archive_uri}",
                hint="name the data set that was scored, or leave the setting out",
            )
        return dict.fromkeys(keys, uri)

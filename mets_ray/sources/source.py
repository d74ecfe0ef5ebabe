"""A source of ECGs: its settings, its manifest, and how to read one record."""

from collections.abc import Iterator
from typing import ClassVar

from mets_ray import storage
from mets_ray.config.source import SourceSettings
from mets_ray.ecg.ecg import Ecg
from mets_ray.ecg.preprocess import SignalConfig
from mets_ray.ecg.wfdb import read_wfdb
from mets_ray.errors import ConfigError
from mets_ray.sources.manifest import Manifest


class Source(SourceSettings):
    """A kind of source. Its fields are the settings under `prepare.source`; a subclass defines how to read it.

    One file, one entry in `mets_ray.config.source.SOURCES` and one test make a new source. Your own source needs no
    entry: `prepare.source=my_package.my_module:MySource`. Its labels are scored with the packaged label set named by
    `Manifest.source`, if there is one, otherwise with a prompt file (see `docs/extend`).
    """

    synthetic: ClassVar[bool] = False
    """True for synthetic ECGs: everything made from them says so."""

    licence: ClassVar[str] = ""
    """What the data may be used for, as its publisher writes it; "" for data of your own."""

    citation: ClassVar[str] = ""
    """Who asks to be cited, with a DOI or a URL."""

    needs: ClassVar[dict[str, str]] = {}
    """Settings that may be missing until `prepare` reads the source: name → what to set it to."""

    @property
    def root(self) -> str:
        """The folder that all record URIs begin with; "" for none. A copy elsewhere gives the same data set.

        `prepare` rejects a record whose URI is not below it.
        """
        uri = getattr(self, "uri", None)
        return storage.absolute(uri) if uri else ""

    def faults(self) -> Iterator[tuple[str, str]]:
        """What prevents `prepare` from reading this source: (fact, hint)."""
        for name, remedy in self.needs.items():
            if getattr(self, name) is None:
                yield f"`prepare.source` is {self.kind}, but `prepare.source.{name}` is not set", remedy

    def check(self) -> None:
        """Raise ConfigError with all `faults`. Jobs that only read a prepared data set never call this."""
        faults = list(self.faults())
        if faults:
            raise ConfigError("\n".join(fact for fact, _ in faults), hint="; ".join(hint for _, hint in faults))

    def manifest(self, signal: SignalConfig, *, seed: int) -> Manifest:
        """One row per record: who, which fold, which report, which labels, and a URI that `read` takes.

        signal: the signal that `prepare` will write, for sources that cut their records. Raises DatasetError if the
        source cannot be read.
        """
        raise NotImplementedError

    def read(self, record_uri: str) -> Ecg:
        """The ECG that `ManifestRow.record_uri` names; by default a whole WFDB record.

        Runs concurrently on workers. Raises RecordError for an unusable record, DatasetError for a store that does not
        respond.
        """
        return read_wfdb(record_uri)

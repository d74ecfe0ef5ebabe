"""What a source of ECGs is: its settings, its manifest, and how one of its records is read."""

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
    """A kind of source. Its fields are the settings below `prepare.source`; a subclass says how to read it.

    One file, one entry in `mets_ray.config.source.SOURCES` and one test make a new source. A source of your own needs
    no entry: `prepare.source=my_package.my_module:MySource`. Its labels are scored with the packaged label set of the
    name that `manifest` gives as `Manifest.source`, if there is one, else with a prompt file (see `docs/extend`).
    """

    synthetic: ClassVar[bool] = False
    """True for made-up ECGs: everything that is made from them says so."""

    needs: ClassVar[dict[str, str]] = {}
    """Settings that may be absent until `prepare` reads the source: name → what to set it to."""

    @property
    def root(self) -> str:
        """The folder that all record URIs begin with; "" for none. A copy elsewhere makes the same data set."""
        uri = getattr(self, "uri", None)
        return storage.absolute(uri) if uri else ""

    def faults(self) -> Iterator[tuple[str, str]]:
        """What keeps `prepare` from reading this source: (fact, hint)."""
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

        signal: what `prepare` will write, for sources that cut their records. Raises DatasetError for a source that
        cannot be read.
        """
        raise NotImplementedError

    def read(self, record_uri: str) -> Ecg:
        """The ECG behind `ManifestRow.record_uri`; by default a whole WFDB record.

        Runs on workers, many at a time. Raises RecordError for a record that cannot be used, DatasetError for a store
        that does not answer.
        """
        return read_wfdb(record_uri)

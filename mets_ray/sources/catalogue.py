"""The configured source: its manifest, and where its prepared data set lies."""

from mets_ray import storage
from mets_ray.config.settings import Config
from mets_ray.ecg.preprocess import SignalConfig
from mets_ray.errors import ConfigError
from mets_ray.sources.manifest import Manifest, shuffle_reports
from mets_ray.sources.source import Source
from mets_ray.sources.synthetic import Synthetic


def source_of(config: Config) -> Source:
    """The source that `prepare.source` names, with its settings."""
    source = config.prepare.source
    assert isinstance(source, Source)
    return source


def read_manifest(config: Config, signal: SignalConfig) -> Manifest:
    """The rows of the configured source, with each other's reports where `prepare.shuffle_reports` says so.

    Raises ConfigError where the source lacks a setting, DatasetError where it cannot be read.
    """
    manifest = source_of(config).manifest(signal, seed=config.seed)
    return shuffle_reports(manifest, config.seed) if config.prepare.shuffle_reports else manifest


def dataset_uri_of(config: Config) -> str:
    """Where the prepared data set lies: `dataset_uri`, or for the synthetic source a folder under `run_uri`.

    Raises ConfigError where a real source has no `dataset_uri`.
    """
    if config.dataset_uri is not None:
        return storage.absolute(config.dataset_uri)
    settings, source = config.prepare, config.prepare.source
    if not isinstance(source, Synthetic):
        raise ConfigError("`dataset_uri` is not set", hint="say where the prepared data set is, or shall be written")
    name = (
        f"synthetic-{source.records}-{settings.sampling_rate_hz}hz-{settings.duration_s:g}s-seed{config.seed}"
        f"{'-shuffled' if settings.shuffle_reports else ''}"
    )
    return storage.join(storage.absolute(config.run_uri), name)

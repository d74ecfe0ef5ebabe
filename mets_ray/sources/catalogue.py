"""The configured source: its manifest, and the URI of its prepared data set."""

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
    """The manifest of the configured source, with reports shuffled if `prepare.shuffle_reports` is set.

    Raises ConfigError if a setting of the source is missing, DatasetError if it cannot be read.
    """
    manifest = source_of(config).manifest(signal, seed=config.seed)
    return shuffle_reports(manifest, config.seed) if config.prepare.shuffle_reports else manifest


def dataset_uri_of(config: Config) -> str:
    """The URI of the prepared data set: `dataset_uri`, or for the synthetic source a folder under `run_uri`.

    Raises ConfigError if `dataset_uri` is not set for a real source.
    """
    if config.dataset_uri is not None:
        return storage.absolute(config.dataset_uri)
    settings, source = config.prepare, config.prepare.source
    if not isinstance(source, Synthetic):
        raise ConfigError(
            "`dataset_uri` is not set", hint="set it to where the prepared data set is, or will be written"
        )
    name = (
        f"synthetic-{source.records}-{settings.sampling_rate_hz}hz-{settings.duration_s:g}s-seed{config.seed}"
        f"{'-shuffled' if settings.shuffle_reports else ''}"
    )
    return storage.join(storage.absolute(config.run_uri), name)

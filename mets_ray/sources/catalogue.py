"""The configured source: its manifest, and the URI of its prepared data set."""

from mets_ray import storage
from mets_ray.config.settings import Config
from mets_ray.ecg.preprocess import SignalConfig
from mets_ray.errors import ConfigError
from mets_ray.sources.manifest import Manifest, in_patient_folds, shuffle_reports
from mets_ray.sources.source import Source
from mets_ray.sources.synthetic import Synthetic


def source_of(config: Config) -> Source:
    """The source that `prepare.source` names, with its settings."""
    source = config.prepare.source
    assert isinstance(source, Source)
    return source


def read_manifest(config: Config, signal: SignalConfig) -> Manifest:
    """The manifest of the configured source, in `prepare.patient_folds`, with reports shuffled if
    `prepare.shuffle_reports` is set.

    Raises ConfigError if a setting of the source is missing, DatasetError if it cannot be read.
    """
    manifest = source_of(config).manifest(signal, seed=config.seed)
    if config.prepare.patient_folds is not None:
        manifest = in_patient_folds(manifest, config.prepare.patient_folds)
    return shuffle_reports(manifest, config.seed) if config.prepare.shuffle_reports else manifest


def window_stride_s(config: Config) -> float | None:
    """From one window's start to the next where each record becomes several rows; None where a row is a record.

    Raises ConfigError if the source cannot give what `prepare.window.at` asks for.
    """
    window, source = config.prepare.window, source_of(config)
    if window.at is None or window.at == ("annotation" if source.annotated else "start"):
        return None
    if window.at == "every" and source.reads_whole_records:
        return config.prepare.duration_s if window.stride_s is None else window.stride_s
    if window.at == "annotation":
        raise ConfigError(
            f"`prepare.window.at` is annotation, but the source `{source.kind}` has no annotated beats",
            hint="set prepare.window.at=every, or prepare.source=mitbih",
        )
    raise ConfigError(
        f"`prepare.window.at` is {window.at}, but the source `{source.kind}` cuts its records itself",
        hint="omit prepare.window.at, or read the folder as prepare.source=files",
    )


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
    stride_s = window_stride_s(config)
    name = (
        f"synthetic-{source.records}-{settings.sampling_rate_hz}hz-{settings.duration_s:g}s-seed{config.seed}"
        f"{'-shuffled' if settings.shuffle_reports else ''}"
        f"{'' if stride_s is None else f'-every-{stride_s:g}s'}"
    )
    return storage.join(storage.absolute(config.run_uri), name)

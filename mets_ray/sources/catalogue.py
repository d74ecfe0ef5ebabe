"""Every source: what each needs, its manifest, and how one of its records is read."""

import typing

from mets_ray import storage
from mets_ray.config.settings import Config, PrepareConfig
from mets_ray.ecg.ecg import Ecg
from mets_ray.errors import ConfigError
from mets_ray.sources.cinc import cinc_manifest
from mets_ray.sources.manifest import Manifest, shuffle_reports
from mets_ray.sources.mitbih import mitbih_manifest
from mets_ray.sources.ptbxl import ptbxl_manifest
from mets_ray.sources.synthetic import synthetic_manifest
from mets_ray.sources.wfdb_folder import wfdb_folder_manifest


def check_source(prepare: PrepareConfig) -> None:
    """Raise ConfigError where `prepare` lacks what its source needs; other jobs never read the source."""
    faults = list(_source_faults(prepare))
    if faults:
        raise ConfigError("\n".join(fault for fault, _ in faults), hint="; ".join(hint for _, hint in faults))


def _source_faults(prepare: PrepareConfig) -> typing.Iterator[tuple[str, str]]:
    if prepare.source != "synthetic" and prepare.source_uri is None:
        yield (f"`prepare.source` is {prepare.source}, but `prepare.source_uri` is not set", "name the source's folder")
    if prepare.source == "wfdb" and prepare.manifest_uri is None:
        yield ("`prepare.source` is wfdb, but `prepare.manifest_uri` is not set", "name a CSV with `record,report`")
    if prepare.source == "ptbxl" and prepare.report_source != "report" and prepare.statements_uri is None:
        yield (
            f"`prepare.report_source` is {prepare.report_source}, but `prepare.statements_uri` is not set",
            "name PTB-XL+'s `labels` folder",
        )


def read_manifest(config: Config) -> Manifest:
    """The rows of the configured source, with each other's reports where `prepare.shuffle_reports` says so."""
    manifest = _manifest(config)
    return shuffle_reports(manifest, config.seed) if config.prepare.shuffle_reports else manifest


def _manifest(config: Config) -> Manifest:
    settings = config.prepare
    check_source(settings)
    if settings.source == "synthetic":
        return synthetic_manifest(
            config.synthetic.records,
            seed=config.seed,
            sampling_rate_hz=settings.sampling_rate_hz,
            duration_s=settings.duration_s,
        )
    assert settings.source_uri is not None
    source_uri = storage.absolute(settings.source_uri)
    if settings.source == "wfdb":
        assert settings.manifest_uri is not None
        return wfdb_folder_manifest(source_uri, storage.absolute(settings.manifest_uri))
    if settings.source == "mitbih":
        return mitbih_manifest(
            source_uri, duration_s=settings.duration_s, beats=settings.mitbih_beats, seed=config.seed
        )
    if settings.source == "cinc":
        return cinc_manifest(
            source_uri, database=settings.cinc_database, stretch=settings.cinc_stretch, duration_s=settings.duration_s
        )
    return ptbxl_manifest(
        source_uri,
        records=settings.ptbxl_records,
        report_source=settings.report_source,
        statements_uri=storage.absolute(settings.statements_uri) if settings.statements_uri else None,
    )


def read_ecg(record_uri: str) -> Ecg:
    """The ECG behind `ManifestRow.record_uri`: rendered for `synthetic:`, cut for `...#mitbih:` and `...#cut:`, else a
    whole WFDB record.

    Raises RecordError for a record that cannot be used, DatasetError for a store that does not answer.
    """
    if record_uri.startswith("synthetic:"):
        from mets_ray.sources.synthetic import render_synthetic

        return render_synthetic(record_uri)
    if "#mitbih:" in record_uri:
        from mets_ray.sources.mitbih import read_beat

        return read_beat(record_uri)
    if "#cut:" in record_uri:
        from mets_ray.sources.cinc import read_cut

        return read_cut(record_uri)
    from mets_ray.ecg.wfdb import read_wfdb

    return read_wfdb(record_uri)

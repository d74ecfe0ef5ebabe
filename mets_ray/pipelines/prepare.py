"""Convert a source into a prepared data set: one task per shard, the card last."""

import functools
from dataclasses import fields
from datetime import UTC, datetime
from typing import Any

from mets_ray import storage
from mets_ray.cluster.ray_data import item_dataset, own_errors, plain, unpack_item
from mets_ray.config.settings import Config, PrepareConfig
from mets_ray.console import counted, progress_bar, say
from mets_ray.dataset.card import CARD_NAME, SCHEMA_VERSION, DatasetCard, read_card, rows_per_shard, write_card
from mets_ray.dataset.plan import RowGroup
from mets_ray.dataset.prepared import PreparedDataset
from mets_ray.dataset.privacy import Policy, Privacy, note_of_finds, write_sample
from mets_ray.dataset.record_reader import ShardTask
from mets_ray.dataset.shard_reader import signals
from mets_ray.dataset.shard_writer import CONVERSION_VERSION, ShardSummary, write_shard
from mets_ray.ecg.ecg import LEADS
from mets_ray.ecg.preprocess import SignalConfig
from mets_ray.errors import ConfigError, DatasetError, RecordError
from mets_ray.pictures.ecg import draw_ecg
from mets_ray.sources.catalogue import dataset_uri_of, read_manifest, source_of, window_stride_s
from mets_ray.sources.manifest import Manifest, ManifestRow
from mets_ray.text.reports import clean_report

_SIGNALS_NAMED = 10
_COLUMNS = tuple(field.name for field in fields(ManifestRow))


def prepare(config: Config, dataset_uri: str, command: str) -> PreparedDataset:
    """Read, check and convert every record of the source into shards; the card is written last.

    Raises FolderInUseError if another job prepares a data set there, and DatasetError if the folder holds another data
    set, no record passes, or more than `prepare.max_rejected_fraction` of the records are rejected.
    """
    with storage.hold(dataset_uri, "prepare", timeout_s=config.lease_timeout_s) as lease:
        return _prepare(config, dataset_uri, command, lease)


def _prepare(config: Config, dataset_uri: str, command: str, lease: storage.Lease) -> PreparedDataset:
    settings = config.prepare
    signal = SignalConfig(settings.sampling_rate_hz, settings.duration_s, highpass_hz=settings.highpass_hz)
    source = source_of(config)
    privacy = Privacy.of(settings.deidentify, pseudonymise=settings.pseudonymise)
    stride_s = window_stride_s(config)
    manifest = read_manifest(config, signal)
    name = dataset_fingerprint(settings, manifest, source.root, privacy, stride_s)
    _refuse_other_dataset(dataset_uri, name)
    rows = rows_per_shard(signal) if stride_s is None else settings.window.records_per_shard
    tasks = _shard_tasks(manifest, rows, name, settings, stride_s)

    def write(batch: dict[str, Any]) -> dict[str, Any]:
        task: ShardTask = unpack_item(batch)
        summary = write_shard(
            task,
            source,
            signal=signal,
            dataset_uri=dataset_uri,
            reads_in_flight=settings.reads_in_flight,
            privacy=privacy,
        )
        return {"name": [task.name], "summary": [summary.model_dump_json()]}

    written = plain(item_dataset(tasks).map_batches(write, batch_size=None))
    done, records = {}, {task.name: len(task.rows) for task in tasks}
    with own_errors(), progress_bar(total=len(manifest.rows), unit="record", description="prepare") as bar:
        for row in written.iter_rows():
            done[row["name"]] = ShardSummary.model_validate_json(row["summary"])
            bar.update(records[row["name"]])
    card = _card(config, manifest, signal, name, [done[task.name] for task in tasks], command)
    lost = sum(done[task.name].recordings_lost for task in tasks)
    _check_rejected(card, settings, dataset_uri, lost_share=lost / len(manifest.rows))
    lease.confirm()
    write_sample(dataset_uri, [one for summary in done.values() for one in summary.identifying_sample])
    write_card(dataset_uri, card)
    return PreparedDataset(dataset_uri, card)


def find_or_make_dataset(config: Config, command: str) -> str:
    """The URI of the data set to read; if none is configured, a synthetic one is generated first."""
    dataset_uri = dataset_uri_of(config)
    if config.dataset_uri is None:
        say("no dataset_uri is set: generating SYNTHETIC ECGs; scores on them say nothing about real ones")
        show_card(prepare(config, dataset_uri, command).card)
    return dataset_uri


def find_dataset(config: Config) -> str:
    """The URI of the data set to read; without `dataset_uri` the synthetic one that `pretrain` made under `run_uri`.

    Raises ConfigError where there is none: ECGs made up now would answer nobody's question.
    """
    dataset_uri = dataset_uri_of(config)
    if config.dataset_uri is None and not storage.exists(storage.join(dataset_uri, CARD_NAME)):
        raise ConfigError("`dataset_uri` is not set", hint="give the dataset_uri that `mets-ray prepare` printed")
    return dataset_uri


def show_card(card: DatasetCard) -> None:
    """Print the number of records in, out and rejected, by reason."""
    rows = [("records in", card.records_in), ("records out", card.records_out)]
    rows += [(f"  rejected: {reason}", count) for reason, count in sorted(card.rejected.items(), key=lambda kv: -kv[1])]
    source = f"{'SYNTHETIC ' if card.synthetic else ''}{card.source}"
    say(f"\n{source}, {card.signal}, {counted(len(card.shards), 'shard')}")
    say("\n".join(f"{name:<34}{count:>9,}" for name, count in rows))
    for note in card.notes:
        say(f"note: {note}")


def dataset_fingerprint(
    settings: PrepareConfig, manifest: Manifest, root: str, privacy: Privacy, stride_s: float | None = None
) -> str:
    """Identifies the bytes that prepare will write: all columns of what is read below `root`, and how it is converted.

    The samples in the signal files are not part of it, because they are read only once; their names are.
    """
    how = settings.model_dump(mode="json", include={"sampling_rate_hz", "duration_s", "highpass_hz"})
    if settings.missing_leads != "reject":  # the setting came later: without it data sets keep their fingerprint
        how["missing_leads"] = settings.missing_leads
    if _measures(settings, manifest):  # so did this one
        how["measured_statements"] = True
    if stride_s is not None:  # else as in fingerprints from before there were windows
        # How many records share a shard is part of the bytes here, because a task reads no more than these.
        how |= {"window_stride_s": stride_s, "records_per_shard": settings.window.records_per_shard}
    facts = {
        "schema": SCHEMA_VERSION,
        "conversion": CONVERSION_VERSION,
        "manifest": manifest.sha256,
        "has_reports": manifest.has_reports,
        "how": how,
    }
    facts |= privacy.facts(manifest.rows)
    written = functools.cache(_written_report)  # a million ECGs share a few hundred thousand reports
    rows = storage.digest_of_rows(_row_facts(row, root, written(row.report)) for row in manifest.rows)
    return storage.digest_of(facts | {"rows": rows})


def _measures(settings: PrepareConfig, manifest: Manifest) -> bool:
    # What is measured on an ECG would give it away among shuffled reports.
    return settings.measured_statements and manifest.has_reports and not settings.shuffle_reports


def _row_facts(row: ManifestRow, root: str, written_report: str) -> dict[str, Any]:
    facts: dict[str, Any] = {name: getattr(row, name) for name in _COLUMNS}
    for name in ("from_file", "device", "site", "recorded_at"):
        if not facts[name]:
            del facts[name]  # as in fingerprints from before this column
    # The location of the source is not part of it: a copy in another bucket gives the same bytes.
    return facts | {"record_uri": row.record_uri.removeprefix(root), "written_report": written_report}


def _written_report(report: str) -> str:
    # Shards hold the cleaned report: cleaning that works otherwise gives other bytes.
    try:
        return clean_report(report)
    except RecordError as error:
        return error.reason


def draw_first_record(dataset: PreparedDataset) -> str:
    """Draw the data set's first record as a 12-lead ECG, next to the card. Returns the URI of the picture."""
    card = dataset.card
    group = RowGroup(card.shards[0].path, 0, card.shards[0].row_group_rows[0])
    rows = dataset.read(group, dataset.all_folds)
    title = f"{'SYNTHETIC ' if card.synthetic else ''}record {rows['record_id'][0].as_py()}"
    uri = storage.join(dataset.uri, "record.png")
    storage.write_bytes(uri, draw_ecg(signals(rows.slice(0, 1))[0], card.leads, card.sampling_rate_hz, title))
    return uri


def _shard_tasks(
    manifest: Manifest, rows: int, name: str, settings: PrepareConfig, stride_s: float | None
) -> list[ShardTask]:
    """rows: of a shard. name: the data set's fingerprint."""
    seen: set[str] = set()
    tasks = []
    for number, start in enumerate(range(0, len(manifest.rows), rows)):
        part = manifest.rows[start : start + rows]
        duplicates = []
        for position, row in enumerate(part):
            if row.record_id in seen:
                duplicates.append(position)
            if row.fault is None:
                seen.add(row.record_id)
        shard_name = f"part-{number:05d}-{name[:8]}"
        tasks.append(
            ShardTask(
                shard_name,
                tuple(part),
                frozenset(duplicates),
                manifest.has_reports,
                zero_leads=settings.missing_leads == "zero",
                measured=_measures(settings, manifest),
                stride_s=stride_s,
            )
        )
    if not tasks:
        raise DatasetError(f"the manifest of `{manifest.source}` lists no records", hint="check the CSV")
    return tasks


def _refuse_other_dataset(dataset_uri: str, name: str) -> None:
    if not storage.exists(storage.join(dataset_uri, CARD_NAME)):
        return
    if read_card(dataset_uri).fingerprint != name:
        raise DatasetError(
            f"`{dataset_uri}` holds another data set: its settings or its manifest differ, or another version of "
            "mets_ray made it",
            hint="choose another dataset_uri, or delete that folder first; jobs still read what is in it",
        )


def _card(
    config: Config, manifest: Manifest, signal: SignalConfig, name: str, summaries: list[ShardSummary], command: str
) -> DatasetCard:
    shards = tuple(summary.shard for summary in summaries if summary.shard is not None)
    return DatasetCard(
        schema_version=SCHEMA_VERSION,
        fingerprint=name,
        source=manifest.source,
        source_uri=source_of(config).root or None,
        source_sha256=manifest.sha256,
        synthetic=source_of(config).synthetic,
        sampling_rate_hz=signal.sampling_rate_hz,
        duration_s=signal.duration_s,
        leads=signal.leads,
        highpass_hz=signal.highpass_hz,
        records_in=sum(summary.records_in for summary in summaries),
        records_out=sum(sum(shard.row_group_rows) for shard in shards),
        rejected=_add([summary.rejected for summary in summaries]),
        folds=_add([summary.folds for summary in summaries]),
        shards=shards,
        notes=(
            *source_of(config).notes(),
            *manifest.notes,
            *_window_notes(manifest, signal, window_stride_s(config)),
            *_notes(summaries, config.prepare.deidentify),
        ),
        has_reports=manifest.has_reports,
        shuffled_reports=config.prepare.shuffle_reports,
        focus_s=manifest.focus_s,
        window_stride_s=window_stride_s(config),
        patient_folds=config.prepare.patient_folds,
        licence=source_of(config).licence,
        citation=source_of(config).citation,
        command=command,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _notes(summaries: list[ShardSummary], policy: Policy) -> tuple[str, ...]:
    """What was counted while the shards were written."""
    stated = []
    for fact in sorted({fact for summary in summaries for fact in summary.stated}):
        counts = _add([summary.stated.get(fact, {}) for summary in summaries])
        stated.append(
            f"{fact}: " + ", ".join(f"{value} in {counted(count, 'record')}" for value, count in counts.items())
        )
    finds = note_of_finds(_add([summary.identifying for summary in summaries]), policy)
    return (*stated, *finds, *_signal_notes(summaries))


def _window_notes(manifest: Manifest, signal: SignalConfig, stride_s: float | None) -> tuple[str, ...]:
    if stride_s is None:
        return ()
    return (
        f"each of {len(manifest.rows)} recordings is cut into windows of {signal.duration_s:g} s, one every "
        f"{stride_s:g} s: a row is a window and carries the report and labels of its recording",
    )


def _signal_notes(summaries: list[ShardSummary]) -> tuple[str, ...]:
    derived = _add([summary.derived_leads for summary in summaries])
    notes = [f"{words} in {counted(count, 'record')}" for words, count in derived.items()]
    if records := _add([summary.other_signals for summary in summaries]):
        names = sorted(records, key=lambda name: -records[name])[:_SIGNALS_NAMED]
        words = ", ".join(f"{name[:20]} in {counted(records[name], 'record')}" for name in names)
        notes.append(f"signals that are not ECG were left out: {words}{', …' if len(records) > _SIGNALS_NAMED else ''}")
    if absent := _add([summary.absent_leads for summary in summaries]):
        words = ", ".join(f"{lead} in {absent[lead]:,}" for lead in LEADS if lead in absent)
        notes.append(f"leads that were not recorded are zeros, by records: {words}")
    return tuple(notes)


def _check_rejected(card: DatasetCard, settings: PrepareConfig, dataset_uri: str, *, lost_share: float) -> None:
    """lost_share: of recordings that are cut into windows: one that cannot be read counts as one record and not as all
    of its windows."""
    rejected = sum(card.rejected.values())
    assert card.records_in == card.records_out + rejected
    reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(card.rejected.items(), key=lambda kv: -kv[1]))
    fraction = rejected / card.records_in
    if lost_share > settings.max_rejected_fraction:
        raise DatasetError(
            f"{lost_share:.0%} of the recordings were rejected as a whole ({reasons}), above "
            f"`prepare.max_rejected_fraction` {settings.max_rejected_fraction:g}",
            where=storage.join(dataset_uri, "rejected"),
            hint="fix the recordings, or raise prepare.max_rejected_fraction (finished shards are kept)",
        )
    if fraction > settings.max_rejected_fraction or card.records_out == 0:
        raise DatasetError(
            f"{rejected} of {card.records_in} records were rejected ({reasons}): a fraction of {fraction:.2f}, above "
            f"`prepare.max_rejected_fraction` {settings.max_rejected_fraction:g}",
            where=storage.join(dataset_uri, "rejected"),
            hint="fix the records, or raise prepare.max_rejected_fraction (finished shards are kept)",
        )


def _add(counts: list[dict[Any, int]]) -> dict[Any, int]:
    total: dict[Any, int] = {}
    for count in counts:
        for key, value in count.items():
            total[key] = total.get(key, 0) + value
    return dict(sorted(total.items()))

"""Preparing ECGs, compared with a plain loop on the same cores: `wfdb.rdrecord`, the same filter, `numpy.save`.

    METS_TEST_DATA=../data python benchmarks/prepare.py    # real ECGs; without it, WFDB records that this script writes
    python benchmarks/prepare.py --only record             # `record`, `manifest`, `quality_page` or `growth`

`prepare.record.*`: records per second of both, each with one process per core. Ours also checks the record, masks its
report, measures its quality and writes Parquet with hashes. `prepare.manifest`: CPU seconds of PTB-XL's table with the
reports of PTB-XL+. `prepare.quality_page`: the time of `prepare` with its quality page over that without.
`growth.prepare`: the time for each of 20,000 records over that for each of 2,000.
"""

import argparse
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import scipy.signal
import wfdb
from bench_table import Row, in_turn, ratios, report

from mets_ray.config.load import load_config
from mets_ray.dataset.prepared import PreparedDataset
from mets_ray.dataset.privacy import Privacy
from mets_ray.dataset.record_reader import ShardTask
from mets_ray.dataset.shard_writer import write_shard
from mets_ray.ecg.ecg import LEADS
from mets_ray.ecg.preprocess import SignalConfig
from mets_ray.sources.files import Files
from mets_ray.sources.manifest import ManifestRow
from mets_ray.sources.ptbxl import PtbXl
from mets_ray.sources.synthetic import render_synthetic

CORES = len(os.sched_getaffinity(0))
HIGHPASS_HZ = 0.5
RECORDS = {100: 1024, 500: 256}
GROWTH = (2_000, 20_000)


def rows(folder: Path, only: str | None = None) -> list[Row]:
    """All rows, or those of one kind. folder: for what is written."""
    kinds = {"record": _records, "manifest": _manifest, "quality_page": _quality_page, "growth": _growth}
    return [row for kind, measure in kinds.items() if only in (None, kind) for row in measure(folder)]


# --- one record


def _records(folder: Path) -> Iterator[Row]:
    for rate_hz, count in RECORDS.items():
        root, manifest = _manifest_rows(folder, rate_hz, count)
        parts = [manifest[core::CORES] for core in range(CORES)]
        with ProcessPoolExecutor(CORES) as pool:
            speeds = in_turn(
                {
                    "ours": partial(_speed, pool, partial(_ours, root, rate_hz), parts),
                    "plain": partial(_speed, pool, partial(_plain, rate_hz), parts),
                }
            )
        median = {name: float(np.median(values)) for name, values in speeds.items()}
        detail = {f"{name}_records_per_s": round(value, 1) for name, value in median.items()} | {"records": count}
        ratio = ratios(speeds["ours"], speeds["plain"])
        yield Row(f"prepare.record.{10 * rate_hz}", ratio, goal=5.0, detail=detail)


def _speed(
    pool: ProcessPoolExecutor, work: Callable[[list[ManifestRow]], None], parts: list[list[ManifestRow]]
) -> float:
    began = time.perf_counter()
    list(pool.map(work, parts))
    return sum(map(len, parts)) / (time.perf_counter() - began)


def _ours(root: str, rate_hz: int, manifest: list[ManifestRow]) -> None:
    source = Files(kind="files", uri=root)
    signal = SignalConfig(rate_hz, 10.0, highpass_hz=HIGHPASS_HZ)
    with tempfile.TemporaryDirectory() as folder:
        summary = write_shard(
            ShardTask("part-00000-benchmark", tuple(manifest), frozenset()),
            source,
            signal=signal,
            dataset_uri=folder,
            reads_in_flight=8,
            privacy=Privacy(),
        )
    assert not summary.rejected, summary.rejected


def _plain(rate_hz: int, manifest: list[ManifestRow]) -> None:
    sections = scipy.signal.butter(2, HIGHPASS_HZ, "highpass", fs=rate_hz, output="sos")
    with tempfile.TemporaryDirectory() as folder:
        for number, row in enumerate(manifest):
            signal_mv = wfdb.rdrecord(row.record_uri).p_signal.T
            filtered = scipy.signal.sosfiltfilt(sections, signal_mv, axis=1, padlen=3 * rate_hz)
            np.save(Path(folder) / f"{number}.npy", np.rint(filtered * 1000).astype(np.int16))


# --- the whole command


def _manifest(folder: Path) -> Iterator[Row]:
    source = _ptbxl()
    if source is None:
        return
    signal = SignalConfig(100, 10.0)

    def measure() -> float:
        began = time.process_time()
        found = source.manifest(signal, seed=0)
        assert found.rows
        return time.process_time() - began

    (seconds,) = in_turn({"ours": measure}).values()
    detail = {"records": len(source.manifest(signal, seed=0).rows)}
    yield Row("prepare.manifest", seconds, unit="CPU s", goal=0.3, at_most=True, detail=detail)


def _quality_page(folder: Path) -> Iterator[Row]:
    from mets_ray.pipelines.quality import write_quality

    _start_ray()
    if (source := _ptbxl()) is not None:
        words = ["prepare.source=ptbxl", f"prepare.source.uri={source.uri}", "prepare.source.report=both"]
        words += [f"prepare.source.statements_uri={source.statements_uri}"]
    else:
        words = _table_words(folder, 2_000)
    without: list[float] = []

    def measure() -> float:
        began = time.perf_counter()
        dataset = _prepared(folder, words)
        middle = time.perf_counter()
        write_quality(dataset)
        without.append(middle - began)
        return (time.perf_counter() - began) / (middle - began)

    (shares,) = in_turn({"ours": measure}).values()
    seconds = float(np.median(without))
    detail = {"prepare_s": round(seconds, 2), "page_s": round(seconds * (float(np.median(shares)) - 1), 2)}
    yield Row("prepare.quality_page", shares, goal=1.10, at_most=True, detail=detail)


def _growth(folder: Path) -> Iterator[Row]:
    _start_ray()

    def measure(records: int) -> float:
        words = _table_words(folder, records)
        began = time.perf_counter()
        _prepared(folder, words)
        return (time.perf_counter() - began) / records

    few, many = GROWTH
    times = in_turn({"few": partial(measure, few), "many": partial(measure, many)}, rounds=2)
    detail = {"ms_per_record": {str(few): 1e3 * min(times["few"]), str(many): 1e3 * min(times["many"])}}
    yield Row("growth.prepare", ratios(times["many"], times["few"]), goal=1.10, at_most=True, detail=detail)


def _prepared(folder: Path, words: list[str]) -> PreparedDataset:
    from mets_ray.pipelines.prepare import prepare

    target = folder / "prepared"
    shutil.rmtree(target, ignore_errors=True)
    common = [f"prepare.highpass_hz={HIGHPASS_HZ}", f"dataset_uri={target}", f"run_uri={folder}"]
    return prepare(load_config(None, [*words, *common]), str(target), "benchmark")


def _start_ray() -> None:
    import ray

    os.environ |= {"RAY_AUTH_MODE": "disabled"}
    if not ray.is_initialized():
        ray.init(address="local", include_dashboard=False, log_to_driver=False, logging_level="ERROR")


# --- the data


def _ptbxl(records: int = 100) -> PtbXl | None:
    """The real cut of PTB-XL, where there is one."""
    data = Path(os.environ.get("METS_TEST_DATA", "")).absolute()
    if not os.environ.get("METS_TEST_DATA") or not (data / "ptb-xl" / "ptbxl_database.csv").exists():
        return None
    labels = str(data / "ptb-xl-plus" / "labels")
    return PtbXl(kind="ptbxl", uri=str(data / "ptb-xl"), records=records, report="both", statements_uri=labels)


def _manifest_rows(folder: Path, rate_hz: int, count: int) -> tuple[str, list[ManifestRow]]:
    """The folder that the records are below, and `count` of them, repeated under other ids where there are fewer."""
    if (source := _ptbxl(rate_hz)) is not None:
        found = source.manifest(SignalConfig(rate_hz, 10.0), seed=0).rows
        found = [row for row in found if Path(f"{row.record_uri}.hea").exists()]
        root = source.root
    else:
        root = str(folder)
        names = [_write_record(folder, f"r{rate_hz}_{number}", rate_hz, number) for number in range(64)]
        found = [ManifestRow(name, name, 1, f"{root}/{name}", f"sinus rhythm {n}", (), (), 60.0, None)
                 for n, name in enumerate(names)]  # fmt: skip
    return root, [replace(found[n % len(found)], record_id=str(n)) for n in range(count)]


def _write_record(folder: Path, name: str, rate_hz: int, seed: int) -> str:
    ecg = render_synthetic(f"synthetic:?seed=0&index={seed}&sampling_rate_hz={rate_hz}&duration_s=10")
    samples = np.rint(ecg.signal_mv.T * 1000).astype(np.int64)
    wfdb.wrsamp(
        name, fs=rate_hz, units=["mV"] * len(LEADS), sig_name=list(LEADS), d_signal=samples,
        fmt=["16"] * len(LEADS), adc_gain=[1000.0] * len(LEADS), baseline=[0] * len(LEADS), write_dir=str(folder),
    )  # fmt: skip
    return name


def _table_words(folder: Path, records: int) -> list[str]:
    """A table of `records` records, all of which are one file."""
    name = _write_record(folder, "one", 100, 0)
    lines = "".join(f"{name},{n},{n},sinus rhythm with finding {n % 700}\n" for n in range(records))
    table = folder / f"{records}.csv"
    table.write_text(f"record,record_id,patient_id,report\n{lines}")
    return ["prepare.source=files", f"prepare.source.uri={folder}", f"prepare.source.manifest_uri={table}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=["record", "manifest", "quality_page", "growth"])
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        report(rows(Path(folder), arguments.only))


if __name__ == "__main__":
    main()

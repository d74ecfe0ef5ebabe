"""Searching an archive: index against comparing all vectors, time, memory and growth; and what is found on real ECGs.

    python benchmarks/archive.py                                  # 100,000 and 2,000,000 vectors, some minutes
    python benchmarks/archive.py --sizes 100000 --rounds 200
    METS_TEST_DATA=… python benchmarks/archive.py --sizes --data /data/both --bundles /data/recipe/default-0-*/*/bundle

The vectors are synthetic: unit vectors from a normal distribution with a mean and with variances that fall as those of
ECG embeddings do. Half of the queries are drawn like them, as an ECG is; the others from the other side of the mean, as
words are, which lie in a region of their own. `recall` compares the index with all vectors at k = 50. Each size is
searched in a process of its own, whose peak memory is told. `--data` and `--bundles` are those of `recipe.py`: each
bundle searches only the records of folds that it never saw (`archive_quality.py`).
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from bench_table import Row, report

from mets_ray.archive.archive import Archive, open_archive
from mets_ray.archive.facts import ArchiveFacts, IndexedDataset
from mets_ray.archive.query import Direction
from mets_ray.archive.schema import table_schema
from mets_ray.archive.writer import IndexWriter, write_fragments

DIMENSION, K = 128, 50
QUERIES = 64
CHUNK = 100_000
SMALL_MS, LARGE_MS = 50.0, 150.0
RECALL = 0.98
WHERE = "age > 60 and sex = 'female'"
WARM_UP = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="*", default=[100_000, 2_000_000])
    parser.add_argument("--rounds", type=int, default=300, help="searches that are timed, for each size and filter")
    parser.add_argument("--data", help="a prepared data set with labels and reports")
    parser.add_argument("--bundles", nargs="*", default=[], help="bundles that were trained on other folds of it")
    parser.add_argument("--search", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.search:
        print(json.dumps(_search(arguments.search, arguments.rounds)))
        return
    found = rows(arguments.sizes, arguments.rounds)
    if arguments.data:
        from archive_quality import quality_rows  # it loads torch, which searching by vectors does without

        found += quality_rows(arguments.data, arguments.bundles)
    report(found)


def rows(sizes: Sequence[int], rounds: int) -> list[Row]:
    found: list[Row] = []
    per_million: list[float] = []
    for size in sizes:
        with tempfile.TemporaryDirectory() as folder:
            built = _build(f"{folder}/archive", size)
            exact = _exact(size)
            script = [sys.executable, __file__, "--search", f"{folder}/archive", "--rounds", str(rounds)]
            done = subprocess.run(script, capture_output=True, text=True, check=True)
            searched = json.loads(done.stdout)
        name = f"archive.{size}"
        goal = SMALL_MS if size <= CHUNK else LARGE_MS
        detail = {"vectors": size, "synthetic": True, "queries": rounds, "p50_ms": searched["p50_ms"]}
        found += [
            Row(f"{name}.p95", (searched["p95_ms"],), "ms", goal=goal, at_most=True, detail=detail),
            Row(f"{name}.p95_filtered", (searched["filtered_p95_ms"],), "ms", detail={"where": WHERE}),
            Row(f"{name}.recall", (_recall(searched["hits"], exact),), "", goal=RECALL, detail={"k": K}),
            Row(
                f"{name}.memory", (searched["peak_mib"],), "MiB", detail={"before_opening_mib": searched["before_mib"]}
            ),
            Row(f"{name}.disk", (built["disk_mib"],), "MiB", detail={"vectors_mib": size * DIMENSION * 4 / 2**20}),
            Row(f"{name}.build_per_million", (built["s"] * 1e6 / size,), "s", detail=built),
        ]
        per_million.append(built["cpu_s"] / size)
    if len(per_million) > 1:
        detail = {"sizes": list(sizes), "cpu_s_per_million": [1e6 * one for one in per_million]}
        found.append(Row("archive.growth", (per_million[-1] / per_million[0],), "×", detail=detail))
    return found


def _vectors(rows: int, seed: int, *, side: float = 1.0) -> np.ndarray:
    """Unit vectors, float32 [row, dimension]. side: 1 as ECGs, -1 on the other side of their mean."""
    shape = np.random.default_rng(0)
    spread = (np.arange(1, DIMENSION + 1) ** -0.8).astype(np.float32)
    spread /= np.linalg.norm(spread)
    mean = shape.standard_normal(DIMENSION).astype(np.float32)
    mean *= 0.5 * side / np.linalg.norm(mean)
    found = np.random.default_rng(seed).standard_normal((rows, DIMENSION), dtype=np.float32) * spread + mean
    unit: np.ndarray = found / np.linalg.norm(found, axis=1, keepdims=True)
    return unit


def _queries() -> np.ndarray:
    return np.concatenate([_vectors(QUERIES // 2, 1), _vectors(QUERIES // 2, 2, side=-1.0)])


def _chunks(size: int) -> Iterator[tuple[int, np.ndarray]]:
    for first in range(0, size, CHUNK):
        yield first, _vectors(min(CHUNK, size - first), 100 + first // CHUNK)


def _build(uri: str, size: int) -> dict[str, float]:
    facts = ArchiveFacts(bundle_uri="", bundle_run="", bundle_digest="", dimension=DIMENSION, has_reports=False)
    dataset = IndexedDataset(uri="", source="synthetic", content_sha256="", synthetic=True)
    writer = IndexWriter.claim(uri, facts, "synthetic", dataset)
    write_s = write_cpu_s = 0.0
    for first, vectors in _chunks(size):
        table = _table(first, vectors)
        began, cpu = time.perf_counter(), time.process_time()
        writer.append(write_fragments(uri, table))
        write_s, write_cpu_s = write_s + time.perf_counter() - began, write_cpu_s + time.process_time() - cpu
    began, cpu = time.perf_counter(), time.process_time()
    writer.finish("synthetic")
    finish_s, finish_cpu_s = time.perf_counter() - began, time.process_time() - cpu
    disk = sum(file.stat().st_size for file in Path(uri).rglob("*") if file.is_file())
    return {
        "s": write_s + finish_s,
        "cpu_s": write_cpu_s + finish_cpu_s,
        "write_s": write_s,
        "finish_s": finish_s,
        "disk_mib": disk / 2**20,
    }


def _table(first: int, vectors: np.ndarray) -> pa.Table:
    count, schema = len(vectors), table_schema(DIMENSION, reports=False)
    numbers = np.arange(first, first + count)
    known = {
        "record_id": [f"{number:09d}" for number in numbers],
        "patient_id": [f"p{number // 2:08d}" for number in numbers],
        "source": ["synthetic"] * count,
        "age": (18 + numbers % 75).astype(np.float32),
        "sex": np.where(numbers // 75 % 2, "female", "male"),
        "dataset": ["synthetic"] * count,
        "shard": [f"shards/part-{first // CHUNK:05d}.parquet"] * count,
        "shard_row": (numbers - first).astype(np.int32),
        "embedding": pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), DIMENSION),
    }
    arrays = [pa.array(known[f.name], f.type) if f.name in known else pa.nulls(count, f.type) for f in schema]
    return pa.Table.from_arrays(arrays, schema=schema)


def _exact(size: int) -> np.ndarray:
    """Similarities of the K nearest of all vectors to each query, ascending."""
    queries = _queries()
    best = np.full((len(queries), K), -1.0, np.float32)
    for _, vectors in _chunks(size):
        both = np.concatenate([best, queries @ vectors.T], axis=1)
        best = np.partition(both, both.shape[1] - K, axis=1)[:, -K:]
    return np.sort(best, axis=1)


def _recall(hits: list[list[float]], exact: np.ndarray) -> float:
    """The share of the K nearest that were found: by similarity, so that equal ones are as good."""
    found = [(np.asarray(own) >= least - 1e-6).sum() / K for own, least in zip(hits, exact[:, 0], strict=True)]
    return float(np.mean(found))


def _search(uri: str, rounds: int) -> dict[str, object]:
    """What the child process finds and takes."""
    before = _peak_mib()
    archive, queries = open_archive(uri), _queries()
    plain, filtered = _times_ms(archive, queries, rounds, None), _times_ms(archive, queries, rounds, WHERE)
    hits = [
        [hit.similarity for hit in archive.search_directions([Direction(one)], k=K, one_per_patient=False).hits]
        for one in queries
    ]
    return {
        "p50_ms": float(np.median(plain)),
        "p95_ms": float(np.quantile(plain, 0.95)),
        "filtered_p95_ms": float(np.quantile(filtered, 0.95)),
        "hits": hits,
        "before_mib": before,
        "peak_mib": _peak_mib(),
    }


def _times_ms(archive: Archive, queries: np.ndarray, rounds: int, where: str | None) -> list[float]:
    """Of whole searches: K hits of K patients, with their columns and percentiles."""
    times = []
    for number in range(WARM_UP + rounds):
        began = time.perf_counter()
        archive.search_directions([Direction(queries[number % len(queries)])], k=K, where=where)
        times.append(1000.0 * (time.perf_counter() - began))
    return times[WARM_UP:]


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()

"""How much memory each process of a run holds at most, and how many bytes move for each ECG.

    python benchmarks/memory.py         # some three minutes on 2 cores; the last line of stdout is one JSON object

`mets-ray pretrain` on 2,400 synthetic ECGs with an encoder of width 16 and the packaged MiniLM, then `mets-ray serve`
of an untrained bundle with the default encoder under requests of 16 clients. Resident memory counts shared libraries
and the mapped object store in each process; `detail.private_mb` does not. Bytes are counted where they are read,
compressed, in an epoch's planned order; `memory.read_per_ecg` divides them by what is stored.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil
from bench_table import Row, report
from noisy import write_noisy
from peer_data import bytes_of_planned_epoch
from processes import Peaks
from random_models import write_random_bundle
from server_process import free_port, server_process

from mets_ray.console import say
from mets_ray.dataset.prepared import PreparedDataset
from mets_ray.ecg.ecg import LEADS
from mets_ray.ecg.preprocess import SignalConfig
from mets_ray.sources.synthetic import render_synthetic

HERE = Path(__file__).parent
COMMAND = [sys.executable, "-c", "from mets_ray.cli import main; main()"]
RECORDS = 2400
BATCH_SIZE = 64
READ_RECORDS = 12_000  # three blocks of the plan: with fewer, each row group is read once
FOLDS, ALL_FOLDS = list(range(1, 9)), list(range(1, 11))
SIGNAL = SignalConfig(100, 10.0)
TRAIN = ["train.epochs=2", f"train.batch_size={BATCH_SIZE}", "train.device=cpu", "encoder.width=16"]
TASK = "synthetic"
CLIENTS, LOAD_S = 16, 10.0


def main() -> None:
    report(rows())


def rows() -> list[Row]:
    """Peak resident memory by role, in MB, and how often an epoch reads what is stored."""
    with tempfile.TemporaryDirectory(prefix="memory_") as name:
        folder = Path(name)
        dataset_uri = str(folder / "data")
        write_noisy(dataset_uri, SIGNAL, records=RECORDS, templates=256, noise_uv=3)
        trained = _pretrain(folder, dataset_uri)
        served = _serve(folder)
        several_blocks = str(folder / "read")
        write_noisy(several_blocks, SIGNAL, records=READ_RECORDS, templates=64, noise_uv=3)
        read = bytes_of_planned_epoch(several_blocks, ALL_FOLDS, BATCH_SIZE)
        stored = _stored_bytes(several_blocks)
    facts = {"records": RECORDS, "batch_size": BATCH_SIZE}

    def row(role: str, peaks: Peaks, of: str) -> Row:
        detail = {"private_mb": peaks.private_of_role[of], **facts}
        return Row(f"memory.{role}", (peaks.of_role[of],), "MB", detail=detail)

    return [
        row("driver", trained, "driver"),
        row("worker", trained, "worker"),
        row("data_task", trained, "task"),
        row("lm_actor", trained, "actor"),
        row("replica", served, "replica"),
        Row(
            "memory.read_per_ecg",
            (read / stored,),
            detail={"read_bytes": read, "stored_bytes": stored, "records": READ_RECORDS, "batch_size": BATCH_SIZE},
        ),
    ]


def _pretrain(folder: Path, dataset_uri: str) -> Peaks:
    words = [*TRAIN, f"folds.train={FOLDS}", f"dataset_uri={dataset_uri}", f"run_uri={folder / 'runs'}"]
    with (folder / "pretrain.log").open("wb") as log:
        process = psutil.Popen([*COMMAND, "pretrain", *words], stdout=subprocess.DEVNULL, stderr=log)
        with Peaks(process) as peaks:
            status = process.wait()
    if status:
        raise RuntimeError(f"pretrain ended with {status}: {(folder / 'pretrain.log').read_text()[-2000:]}")
    return peaks


def _serve(folder: Path) -> Peaks:
    bundle_uri, port = write_random_bundle(folder / "bundle", TASK), free_port()
    ecg = render_synthetic("synthetic:?seed=0&index=1&sampling_rate_hz=100&duration_s=10")
    body = folder / "ecg.json"
    signal_of = {"signal": ecg.signal_mv.round(3).tolist(), "unit": "mV", "leads": LEADS, "sampling_rate_hz": 100}
    body.write_text(json.dumps({"ecg": signal_of, "prompt_set": f"descriptive:{TASK}"}))
    words = [f"bundle_uri={bundle_uri}", f"state_uri={folder / 'state'}", "text_min_replicas=0", "text_max_replicas=0"]
    words.append(f"--port={port}")
    with server_process([*COMMAND, "serve", *words], port) as process, Peaks(process) as peaks:
        url = f"http://127.0.0.1:{port}/v1/zero-shot"
        command = [sys.executable, str(HERE / "load.py"), url, str(body), "--clients", str(CLIENTS)]
        command += ["--duration-s", str(LOAD_S), "--content-type", "application/json"]
        load = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
        say(f"  serve: {load}")
    if set(load["statuses"]) != {"200"}:
        raise RuntimeError(f"some requests failed: {load['statuses']}")
    return peaks


def _stored_bytes(dataset_uri: str) -> float:
    """Bytes of the shards for each ECG."""
    card = PreparedDataset.open(dataset_uri).card
    return sum((Path(dataset_uri) / shard.path).stat().st_size for shard in card.shards) / card.records_out


if __name__ == "__main__":
    main()

"""The same work as peers do it: pretraining with the language model in every step, beside ours with stored vectors.

    python benchmarks/peers.py          # a few minutes on 2 cores; the last line of stdout is one JSON object

`research`    as research code does it, here the training that METS (PMLR v227, li24a) describes: all ECGs as one
              array in memory, a DataLoader, and the frozen language model on the reports of every batch
`open_clip`   as open_clip feeds CLIP, after WebDataset's description: tar files of ECG and report in a random order,
              a shuffle buffer, a reading process, and the language model, here frozen, on every batch
`ours`        `mets-ray pretrain`: planned shards, each distinct report through the language model once

The peers are written here from these descriptions and have no code of theirs. All train the same encoder with the same
loss, batch, optimizer, language model (the packaged MiniLM) and ECGs, on all cores; nobody validates, and nobody saves
within an epoch. Each way is a process of its own. The first step is counted from the start of the process: for ours
that includes Ray, and the language model on all reports, which a second run finds stored.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
from bench_table import Row, ratios, report

HERE = Path(__file__).parent
RECORDS = 2400
BATCH_SIZE = 64
WIDTH = 16
WAYS = ("research", "open_clip", "ours")
ROUNDS = 2  # of processes; each gives MEASURED figures of ECG/s
MEASURED = 3
FOLDS = list(range(1, 9))

Facts = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=RECORDS)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)  # in the process of one way
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.way:
        _train(arguments.way, arguments.folder)
    else:
        report(rows(arguments.records, arguments.rounds))


def rows(records: int, rounds: int) -> list[Row]:
    """What each way takes, beside ours."""
    with tempfile.TemporaryDirectory(prefix="peers_") as name:
        folder = Path(name)
        from peer_data import write_data

        facts = write_data(folder, records=records, folds=FOLDS)
        found: dict[str, list[Facts]] = {way: [] for way in WAYS}
        for number in range(rounds):
            for way in WAYS[:: 1 if number % 2 == 0 else -1]:
                found[way].append(_process(way, folder))
    facts |= {"batch_size": BATCH_SIZE, "width": WIDTH, "model": "packaged-minilm"}
    return [row for peer in WAYS[:-1] for row in _beside(peer, found, facts)]


def _beside(peer: str, found: dict[str, list[Facts]], facts: Facts) -> list[Row]:
    """Rows of ours beside one peer, with both figures as they were measured."""

    def figures(way: str, key: str) -> tuple[float, ...]:
        return tuple(value for one in found[way] for value in (one[key] if isinstance(one[key], list) else [one[key]]))

    def row(name: str, key: str, **goal: Any) -> Row:
        ours, theirs = figures("ours", key), figures(peer, key)
        detail = {"ours": ours, "theirs": theirs, **facts}
        return Row(f"peers.{peer}.{name}", ratios(ours, theirs), detail=detail, **goal)

    return [
        row("ecg_per_s", "ecg_per_s", goal=1.0),
        row("first_step", "first_step_s"),
        row("memory", "peak_mb"),
        row("bytes", "bytes_per_ecg"),
    ]


def _process(way: str, folder: Path) -> Facts:
    """What one process of a way tells, with its peak of memory and the time from its start to its first step."""
    from processes import Peaks

    shutil.rmtree(folder / "dataset" / "text_embeddings", ignore_errors=True)  # every run of ours is a first one
    began_at = time.time()
    with (folder / f"{way}.log").open("wb") as log:
        process = psutil.Popen(
            [sys.executable, str(HERE / "peers.py"), "--way", way, "--folder", str(folder)],
            stdout=subprocess.PIPE,
            stderr=log,
        )
        with Peaks(process) as peaks:
            stdout = process.communicate()[0].decode()
    if process.returncode:
        raise RuntimeError(f"{way}: {(folder / f'{way}.log').read_text(errors='replace')[-2000:]}")
    told: Facts = json.loads(stdout.splitlines()[-1])
    return told | {"peak_mb": peaks.total, "first_step_s": told.pop("first_step_at") - began_at}


def _train(way: str, folder: Path) -> None:
    if way == "ours":
        from peer_ours import train_ours

        told = train_ours(folder, epochs=1 + MEASURED, words=_words())
    else:
        from peer_loops import train_peer

        told = train_peer(way, folder, windows=MEASURED, words=_words())
    print(json.dumps(told), flush=True)


def _words() -> list[str]:
    """The settings of all ways: METS's loss on whole reports, no views."""
    from recipe import NO_VIEWS

    return [
        "text.unit=report", *NO_VIEWS, f"encoder.width={WIDTH}", f"train.batch_size={BATCH_SIZE}", "train.device=cpu",
        "train.precision=float32", "encoder.lead_mask=false",
        "encoder.architecture=resnet1d_18", "folds.validation=[]", f"folds.train={FOLDS}",
    ]  # fmt: skip


if __name__ == "__main__":
    main()

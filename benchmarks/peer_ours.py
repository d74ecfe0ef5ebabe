"""`mets-ray pretrain` as `peers.py` measures it: when the first step is done, and the ECG/s of each epoch."""

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def train_ours(folder: Path, *, epochs: int, words: list[str]) -> dict[str, Any]:
    """Run the command in this process. The first epoch, which starts processes, gives no ECG/s."""
    from mets_ray.cli import main as command
    from mets_ray.training import progress

    seen: list[float] = []
    make_bar = progress.progress_bar

    def timed_bar(**settings: Any) -> Any:
        bar = make_bar(**settings)
        update = bar.update

        def first_step_seen(steps: float = 1) -> Any:
            if steps >= 1 and not seen:
                seen.append(time.time())
            return update(steps)

        bar.update = first_step_seen
        return bar

    progress.progress_bar = timed_bar
    dataset_uri = str(folder / "dataset")
    sys.argv = ["mets-ray", "pretrain", *words, f"train.epochs={epochs}", f"dataset_uri={dataset_uri}"]
    sys.argv.append(f"run_uri={folder / 'runs'}")
    result = _result_of(command)
    from peer_data import bytes_of_planned_epoch

    from mets_ray.config.load import load_config
    from mets_ray.model.bundle import read_facts

    config = load_config(None, words)
    return {
        "first_step_at": seen[0],
        "ecg_per_s": [figures["ecg_per_s"] for figures in read_facts(result["bundle_uri"]).history[1:]],
        "bytes_per_ecg": bytes_of_planned_epoch(dataset_uri, list(config.folds.train), config.train.batch_size),
    }


def _result_of(command: Callable[[], None]) -> dict[str, Any]:
    """The JSON that a command prints on its stdout, which is this process's own again afterwards."""
    stdout = os.dup(1)
    with tempfile.TemporaryFile() as caught:
        os.dup2(caught.fileno(), 1)
        try:
            command()
        except SystemExit as ended:
            if ended.code:
                raise RuntimeError(f"the command ended with status {ended.code}") from None
        finally:
            os.dup2(stdout, 1)
        caught.seek(0)
        result: dict[str, Any] = json.loads(caught.read().splitlines()[-1])
    return result

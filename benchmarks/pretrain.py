"""Pretraining speed compared with plain PyTorch, in one run on the same machine: ratios, not absolute claims.

    python benchmarks/pretrain.py          # some 7 minutes on 2 cores; the last line of stdout is one JSON object

All ways train the same small encoder on the same synthetic ECGs with the published loss and cached text, one thread for
each process: ours with one worker and with two (Ray Train, stream of shards), `plain` in this process with everything
in memory and a torch DataLoader, and `torchrun`, the same plain loop in two processes with DistributedDataParallel and
the loss over the global batch. `recipe` is ours with the default recipe, statements and augmented views. All are in
float32 but `recipe_bf16`, which is fast where the CPU has AMX; `recipe_compiled` is `recipe` with `train.compile`.
`lm_each_step` is like `plain`, but the frozen LM runs on the reports of every batch, as published research code does.
Ways take turns; each turn trains some epochs, and each epoch but the first of a turn is one measured value.
"""

import json
import logging
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import ray
import torch
import torch.distributed as dist
from bench_table import Row, ratios, report
from recipe import NO_VIEWS
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

from mets_ray.config.load import load_config
from mets_ray.config.settings import Config
from mets_ray.dataset.folds import Selection
from mets_ray.dataset.prepared import PreparedDataset
from mets_ray.dataset.shard_reader import signals
from mets_ray.model.bundle import build_model
from mets_ray.model.optimization import build_optimizer
from mets_ray.pipelines.prepare import prepare
from mets_ray.text.language_model import FrozenTextEncoder
from mets_ray.text.reports import apply_template, text_id
from mets_ray.training.fit import fit
from mets_ray.training.global_loss import global_contrastive_loss

EPOCHS = 3  # of a turn; the first starts processes
TURNS = 3
LM_STEPS = 4
_SETTINGS = ["encoder.width=16", "train.batch_size=64", f"train.epochs={EPOCHS}", "train.device=cpu"]
_SETTINGS += ["folds.validation=[]", "train.precision=float32"]
_PUBLISHED = ["text.unit=report", *NO_VIEWS]


def rows() -> list[Row]:
    _quiet_ray()
    with tempfile.TemporaryDirectory() as folder:
        common = [*_SETTINGS, f"run_uri={folder}", f"dataset_uri={folder}/data"]
        config = load_config(None, [*common, *_PUBLISHED])
        prepare(load_config(None, [*common, "prepare.source.records=2400"]), f"{folder}/data", "benchmark")
        texts = _write_arrays(config, f"{folder}/data", Path(folder))
        torch.set_num_threads(1)
        two = load_config(None, [*common, *_PUBLISHED, "train.num_workers=2"])
        ways: dict[str, Callable[[], list[float]]] = {
            "ours": lambda: _ours(config),
            "plain": lambda: _plain(config, Path(folder)),
            "ours_2": lambda: _ours(two),
            "torchrun": lambda: _torchrun(Path(folder)),
            "recipe": lambda: _ours(load_config(None, common)),
            "recipe_bf16": lambda: _ours(load_config(None, [*common, "train.precision=bf16"])),
            "recipe_compiled": lambda: _ours(load_config(None, [*common, "train.compile=true"])),
        }
        found: dict[str, list[float]] = {name: [] for name in ways}
        for turn in range(TURNS):
            for name in list(ways)[:: 1 if turn % 2 == 0 else -1]:
                found[name] += ways[name]()
        lm_each_step = _lm_each_step(config, Path(folder), texts)
    ray.shutdown()
    absolute = {f"{name}_ecg_per_s": float(np.median(of)) for name, of in found.items()}
    return [
        Row("train.1_worker", ratios(found["ours"], found["plain"]), goal=0.97, detail=absolute),
        Row("train.2_workers", ratios(found["ours_2"], found["torchrun"]), goal=0.97, detail=absolute),
        Row("train.recipe", ratios(found["recipe"], found["ours"]), detail=absolute),
        Row("train.bf16", ratios(found["recipe_bf16"], found["recipe"]), detail=absolute),
        Row("train.compile", ratios(found["recipe_compiled"], found["recipe"]), detail=absolute),
        Row("train.lm_each_step", tuple(one / lm_each_step for one in found["ours"]), detail=absolute),
    ]


def _quiet_ray() -> None:
    os.environ |= {"RAY_AUTH_MODE": "disabled", "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5"}
    os.environ |= {"RAY_idle_worker_killing_time_threshold_ms": "60000", "TORCH_CPP_LOG_LEVEL": "ERROR"}
    # Workers at the priority of the plain processes that they are compared with.
    os.environ |= {"RAY_worker_niceness": "0"}
    ray.init(address="local", logging_level=logging.WARNING)


def _ours(config: Config) -> list[float]:
    assert config.dataset_uri is not None
    return [figures["ecg_per_s"] or 0.0 for figures in fit(config, config.dataset_uri).history[1:]]


def _write_arrays(config: Config, dataset_uri: str, folder: Path) -> list[str]:
    """The train records as arrays for the plain ways, and their texts."""
    dataset, selection = PreparedDataset.open(dataset_uri), Selection(config.folds.train)
    table = pa.concat_tables(dataset.read(group, selection) for group in dataset.row_groups(selection))
    encoder = _text_encoder(config)
    texts = [apply_template(config.text.template, report) for report in table["report"].to_pylist()]
    np.save(folder / "signals.npy", signals(table))
    np.save(folder / "features.npy", encoder(texts))
    np.save(folder / "ids.npy", np.asarray([text_id(text) for text in texts], dtype=np.int64))
    return texts


def _text_encoder(config: Config) -> FrozenTextEncoder:
    text = config.text
    return FrozenTextEncoder(text.model, pooling=text.pooling, max_length=text.max_length, batch_size=64)


def _arrays(folder: Path) -> TensorDataset:
    signal_uv, features, ids = (torch.from_numpy(np.load(folder / f"{name}.npy")) for name in _ARRAYS)
    return TensorDataset(signal_uv, features, ids, torch.arange(len(ids)))


_ARRAYS = ("signals", "features", "ids")


def _trainer(config: Config, dataset: TensorDataset) -> Callable[[Sequence[torch.Tensor], torch.Tensor], None]:
    """The plain training step, as in any research code: a batch and the features of its texts."""
    torch.manual_seed(0)
    model = build_model(config, leads=dataset.tensors[0].shape[1], text_features=dataset.tensors[1].shape[1])
    in_group = dist.is_initialized()
    wrapped = torch.nn.parallel.DistributedDataParallel(model) if in_group else model
    optimizer = build_optimizer(config.train, model)
    workers = dist.get_world_size() if in_group else 1

    def step(batch: Sequence[torch.Tensor], text_features: torch.Tensor) -> None:
        ecg, text, logit_scale, _ = wrapped(batch[0].float() / 1000, text_features)
        counts = [len(batch[2])] * workers
        loss = global_contrastive_loss(ecg, text, logit_scale, batch[2], targets="one_hot", row_counts=counts)
        loss.item()  # as everyone who shows it
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.train.gradient_clip_norm)
        optimizer.step()
        model.clamp_logit_scale()

    return step


def _plain(config: Config, folder: Path) -> list[float]:
    dataset = _arrays(folder)
    in_group = dist.is_initialized()
    workers = dist.get_world_size() if in_group else 1
    rows_here = config.train.batch_size // workers
    sampler = DistributedSampler(dataset) if in_group else None
    loader = DataLoader(dataset, batch_size=rows_here, shuffle=sampler is None, sampler=sampler, drop_last=True)
    step = _trainer(config, dataset)
    speeds = []
    for _ in range(EPOCHS):
        began = time.perf_counter()
        for batch in loader:
            step(batch, batch[1])
        speeds.append(len(loader) * config.train.batch_size / (time.perf_counter() - began))
    return speeds[1:]


def _torchrun(folder: Path) -> list[float]:
    words = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", __file__, "--folder", str(folder)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise SystemExit(done.stderr[-4000:])
    speeds: list[float] = json.loads(done.stdout.strip().splitlines()[-1])
    return speeds


def _torchrun_process(folder: Path) -> None:
    """One of the two processes that `torchrun` starts."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    speeds = _plain(load_config(None, [*_SETTINGS, *_PUBLISHED]), folder)
    if dist.get_rank() == 0:
        print(json.dumps(speeds), flush=True)
    dist.destroy_process_group()


def _lm_each_step(config: Config, folder: Path, texts: list[str]) -> float:
    dataset, encoder = _arrays(folder), _text_encoder(config)
    step = _trainer(config, dataset)
    loader = DataLoader(dataset, batch_size=config.train.batch_size, shuffle=True, drop_last=True)
    began = time.perf_counter()
    for batch, _ in zip(loader, range(LM_STEPS), strict=False):
        step(batch, torch.from_numpy(encoder([texts[row] for row in batch[3]])))
    return LM_STEPS * config.train.batch_size / (time.perf_counter() - began)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--folder"]:
        _torchrun_process(Path(sys.argv[2]))
    else:
        report(rows())

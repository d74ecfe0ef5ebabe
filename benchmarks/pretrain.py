"""Pretraining speed compared with plain PyTorch, in one run on the same machine: ratios, not absolute claims.

    python benchmarks/pretrain.py          # a few minutes on 2 cores; the last line of stdout is one JSON object

Three ways to train the same small encoder on the same synthetic shards with the published loss, one thread each:
`ours` (Ray Data stream, cached text), `plain` (everything in memory, a torch DataLoader, cached text), and
`lm_each_step` (like `plain`, but the frozen LM runs on the reports of every batch, as published research code does).
`recipe` is ours with the default recipe, statements and augmented views, instead of the published loss.
"""

import time
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from recipe import NO_VIEWS
from torch.utils.data import DataLoader, TensorDataset

from mets_ray.config.load import load_config
from mets_ray.config.settings import Config
from mets_ray.dataset.folds import Selection
from mets_ray.dataset.prepared import PreparedDataset
from mets_ray.dataset.shard_reader import signals
from mets_ray.job import run_job
from mets_ray.model.bundle import build_model
from mets_ray.model.mets import Mets
from mets_ray.model.optimization import build_optimizer
from mets_ray.pipelines.prepare import find_or_make_dataset
from mets_ray.text.language_model import FrozenTextEncoder
from mets_ray.text.reports import apply_template, text_id
from mets_ray.training.fit import fit
from mets_ray.training.global_loss import global_contrastive_loss

SETTINGS = ["prepare.source.records=2400", "encoder.width=16", "train.batch_size=64", "train.epochs=4"]
SETTINGS += ["train.device=cpu"]
PUBLISHED = ["text.unit=report", *NO_VIEWS]
LM_STEPS = 4
ROUNDS = 3


def main(config: Config, command: str) -> dict[str, Any]:
    recipe = load_config(None, [*SETTINGS, f"run_uri={config.run_uri}"])
    config = load_config(None, [*SETTINGS, *PUBLISHED, f"run_uri={config.run_uri}"])
    dataset_uri = find_or_make_dataset(config, command)
    speeds: dict[str, list[float]] = {"published": [], "recipe": []}
    waits = []
    for number in range(ROUNDS):  # alternating, because a machine's speed drifts by more than the difference
        for name in sorted(speeds, reverse=number % 2 == 1):
            history = fit(recipe if name == "recipe" else config, dataset_uri).history[1:]  # epoch 1 starts processes
            speeds[name].append(_median(history, "ecg_per_s"))
            if name == "published":
                waits.append(_median(history, "data_wait_share"))
    ours, with_recipe = (float(np.median(of)) for of in speeds.values())
    torch.set_num_threads(1)
    signal_uv, texts = _in_memory(dataset_uri, Selection(config.folds.train))
    plain, lm_each_step = _plain(config, signal_uv, texts)
    return {
        "ecg_per_s": ours,
        "ecg_per_s_recipe": with_recipe,
        "ecg_per_s_plain": plain,
        "ecg_per_s_lm_each_step": lm_each_step,
        "throughput_ratio_plain": ours / plain,
        "throughput_ratio_lm_each_step": ours / lm_each_step,
        "throughput_ratio_recipe": float(np.median(np.divide(speeds["recipe"], speeds["published"]))),
        "data_wait_share": float(np.median(waits)),
    }


def _median(history: tuple[dict[str, float | None], ...], name: str) -> float:
    return float(np.median([figures[name] or 0.0 for figures in history]))


def _in_memory(dataset_uri: str, selection: Selection) -> tuple[np.ndarray, list[str]]:
    dataset = PreparedDataset.open(dataset_uri)
    table = pa.concat_tables(dataset.read(group, selection) for group in dataset.row_groups(selection))
    return signals(table), table["report"].to_pylist()


def _plain(config: Config, signal_uv: np.ndarray, reports: list[str]) -> tuple[float, float]:
    encoder = FrozenTextEncoder(
        config.text.model, pooling=config.text.pooling, max_length=config.text.max_length, batch_size=64
    )
    texts = [apply_template(config.text.template, report) for report in reports]
    features = torch.from_numpy(encoder(texts))
    ids = torch.tensor([text_id(text) for text in texts])
    dataset = TensorDataset(torch.from_numpy(signal_uv), features, ids, torch.arange(len(texts)))
    loader = DataLoader(dataset, batch_size=config.train.batch_size, shuffle=True, drop_last=True)
    model = build_model(config, leads=signal_uv.shape[1], text_features=features.shape[1])
    optimizer = build_optimizer(config.train, model)

    def step(batch: list[torch.Tensor], text_features: torch.Tensor) -> None:
        _step(config, model, optimizer, batch[0], text_features, batch[2])

    speeds = []
    for _ in range(3):
        began = time.perf_counter()
        for batch in loader:
            step(batch, batch[1])
        speeds.append(len(loader) * config.train.batch_size / (time.perf_counter() - began))
    began = time.perf_counter()
    for batch, _ in zip(loader, range(LM_STEPS), strict=False):
        step(batch, torch.from_numpy(encoder([texts[row] for row in batch[3]])))
    return float(np.median(speeds)), LM_STEPS * config.train.batch_size / (time.perf_counter() - began)


def _step(
    config: Config,
    model: Mets,
    optimizer: torch.optim.Optimizer,
    signal_uv: torch.Tensor,
    text_features: torch.Tensor,
    text_ids: torch.Tensor,
) -> None:
    ecg, text, logit_scale, _ = model(signal_uv.float() / 1000, text_features)
    loss = global_contrastive_loss(ecg, text, logit_scale, text_ids, targets="one_hot", row_counts=[len(text_ids)])
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), config.train.gradient_clip_norm)
    optimizer.step()
    model.clamp_logit_scale()


if __name__ == "__main__":
    run_job("bench-pretrain", __doc__, main)

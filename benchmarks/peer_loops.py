"""Two ways of others to pretrain, written from their descriptions; see `peers.py`."""

import io
import json
import random
import tarfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from random_models import packaged_lm
from torch.utils.data import DataLoader, Dataset, IterableDataset, get_worker_info
from transformers import AutoModel, AutoTokenizer

from mets_ray.config.load import load_config
from mets_ray.config.settings import Config
from mets_ray.model.bundle import build_model
from mets_ray.model.optimization import build_optimizer

WARM_UP, WINDOW = 2, 4  # steps
SHUFFLE_BUFFER = 1000  # as in WebDataset's examples

Pair = tuple[np.ndarray, str]


class _InMemory(Dataset[Pair]):
    """All ECGs as one array."""

    def __init__(self, folder: Path) -> None:
        self._signal_uv = np.load(folder / "array.npy")
        self._reports: list[str] = json.loads((folder / "reports.json").read_text())
        self.bytes_read = self._signal_uv.nbytes + sum(map(len, self._reports))

    def __len__(self) -> int:
        return len(self._reports)

    def __getitem__(self, row: int) -> Pair:
        return self._signal_uv[row], self._reports[row]


class _Tars(IterableDataset[Pair]):
    """Tar files in a random order, without end; pairs leave a buffer at random."""

    def __init__(self, folder: Path) -> None:
        self._paths = sorted((folder / "tars").glob("*.tar"))
        self.bytes_read = sum(path.stat().st_size for path in self._paths)

    def __iter__(self) -> Iterator[Pair]:
        worker = get_worker_info()
        draw = random.Random(0 if worker is None else worker.id)
        buffer: list[Pair] = []
        for pair in self._pairs(draw):
            if len(buffer) < SHUFFLE_BUFFER:
                buffer.append(pair)
                continue
            place = draw.randrange(SHUFFLE_BUFFER)
            pair, buffer[place] = buffer[place], pair
            yield pair

    def _pairs(self, draw: random.Random) -> Iterator[Pair]:
        while True:
            for path in draw.sample(self._paths, len(self._paths)):
                with tarfile.open(path, "r|") as tar:
                    contents = (tar.extractfile(member) for member in tar)
                    parts = (content.read() for content in contents if content is not None)
                    for signal, text in zip(parts, parts, strict=True):
                        yield np.load(io.BytesIO(signal)), text.decode()


def train_peer(way: str, folder: Path, *, windows: int, words: list[str]) -> dict[str, Any]:
    """Train for some steps. Returns when the first step was done, the ECG/s of each window of steps, and bytes/ECG."""
    config = load_config(None, words)
    source = _InMemory(folder) if way == "research" else _Tars(folder)
    records = len(json.loads((folder / "reports.json").read_text()))
    options: dict[str, Any] = {"shuffle": True} if way == "research" else {"num_workers": 1}
    loader = DataLoader(source, batch_size=config.train.batch_size, drop_last=True, **options)
    step = _Step(config)
    first_step_at, speeds = 0.0, []
    batches = _without_end(loader)
    for _ in range(WARM_UP):
        step(*next(batches))
        first_step_at = first_step_at or time.time()
    for _ in range(windows):
        began = time.perf_counter()
        for _ in range(WINDOW):
            step(*next(batches))
        speeds.append(WINDOW * config.train.batch_size / (time.perf_counter() - began))
    return {"first_step_at": first_step_at, "ecg_per_s": speeds, "bytes_per_ecg": source.bytes_read / records}


def _without_end(loader: Iterable[Any]) -> Iterator[Any]:
    while True:
        yield from loader


class _Step:
    """One training step: the language model on the reports, the encoder on the ECGs, the loss of both directions."""

    def __init__(self, config: Config) -> None:
        folder = packaged_lm()
        assert folder is not None, "the language model of the comparison is not installed: the extra `quickstart`"
        self._tokenizer = AutoTokenizer.from_pretrained(folder)
        self._lm = AutoModel.from_pretrained(folder).eval().requires_grad_(False)
        self._config = config
        self._model = build_model(config, leads=12, text_features=self._lm.config.hidden_size).train()
        self._optimizer = build_optimizer(config.train, self._model)

    def __call__(self, signal_uv: torch.Tensor, reports: list[str]) -> None:
        texts = [self._config.text.template.replace("{}", one) for one in reports]
        ecg, text, scale, _ = self._model(signal_uv.float() / 1000, self._features(texts))
        logits, targets = scale * ecg @ text.T, torch.arange(len(ecg))
        loss = (F.cross_entropy(logits, targets) + F.cross_entropy(logits.T, targets)) / 2
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self._model.parameters(), self._config.train.gradient_clip_norm)
        self._optimizer.step()
        self._model.clamp_logit_scale()

    @torch.no_grad()
    def _features(self, texts: list[str]) -> torch.Tensor:
        tokens = self._tokenizer(
            texts, padding=True, truncation=True, max_length=self._config.text.max_length, return_tensors="pt"
        )
        hidden = self._lm(**tokens).last_hidden_state
        kept = tokens["attention_mask"].unsqueeze(-1).to(hidden.dtype)
        features: torch.Tensor = (hidden * kept).sum(1) / kept.sum(1)
        return features

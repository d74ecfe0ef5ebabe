"""The same ECG encoder trained on labels alone: the row that tells how much of a task zero-shot leaves on the table."""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Float32, Int16
from torch import Tensor, nn

from mets_ray.config.settings import AugmentConfig
from mets_ray.errors import MetsError
from mets_ray.metrics.auroc import macro_auroc
from mets_ray.metrics.linear_probe import with_both_kinds
from mets_ray.model.augment import BatchPlace, Views, augmented, draw_views
from mets_ray.model.ecg_encoder import EcgEncoder, Norm
from mets_ray.model.mets import signal_tensor

_SCORED_AT_ONCE = 256


class SupervisedEcg(nn.Module):
    """`EcgEncoder` and a linear head: ECGs in millivolts to one logit per class. leads, width, norm: see `EcgEncoder`.

    classes: how many; a record may have several.
    """

    def __init__(self, *, classes: int, leads: int = 12, width: int = 64, norm: Norm = "batch") -> None:
        super().__init__()
        self.leads = leads
        self.encoder = EcgEncoder(leads=leads, width=width, norm=norm)
        self.head = nn.Linear(self.encoder.num_features, classes)

    def forward(self, signal_mv: Float[Tensor, "batch lead sample"]) -> Float[Tensor, "batch class"]:
        logits: Tensor = self.head(self.encoder(signal_mv))
        return logits


@dataclass(frozen=True)
class EpochFigures:
    """One epoch, counted from 1: mean training loss of its records (nats per class), macro AUROC of validation."""

    epoch: int
    train_loss: float
    validation_macro_auroc: float


@dataclass(frozen=True)
class SupervisedResult:
    """The model of the best epoch, in eval mode on the training device, and how it came about.

    untrained_classes: columns without a positive or without a negative train record. The figures of `best` were chosen
    upon, so they are no result.
    """

    model: SupervisedEcg
    best: EpochFigures
    epochs: tuple[EpochFigures, ...]
    untrained_classes: tuple[int, ...]

    def scores(
        self, signal_uv: Int16[np.ndarray, "record lead sample"], *, batch_size: int = _SCORED_AT_ONCE
    ) -> Float32[np.ndarray, "record class"]:
        """Logits of each class, `batch_size` ECGs at a time; they rank records within a class, not classes.

        An untrained class scores 0 for every record, AUROC 0.5, as in `LinearProbe.scores`: what its logits say comes
        from the other classes. Raises MetsError for signals that are not int16 or of other leads.
        """
        return _scores(self.model, signal_uv, self.untrained_classes, batch_size)


def train_supervised(
    signal_uv: Int16[np.ndarray, "train lead sample"],
    truth: Bool[np.ndarray, "train class"],
    validation_signal_uv: Int16[np.ndarray, "validation lead sample"],
    validation_truth: Bool[np.ndarray, "validation class"],
    *,
    width: int = 64,
    norm: Norm = "batch",
    epochs: int = 50,
    batch_size: int = 32,
    learning_rate: float = 1e-3,
    weight_decay: float = 1e-3,
    optimizer: Literal["adam", "adamw"] = "adam",
    augment: AugmentConfig | None = None,
    seed: int,
    device: str | torch.device = "cpu",
    on_epoch: Callable[[EpochFigures], None] | None = None,
) -> SupervisedResult:
    """Train from random weights by binary cross-entropy over classes; keep the epoch of the highest validation AUROC.

    signal_uv: int16 µV, in memory or a memory map; one batch at a time becomes mV, on the device. Records without any
    class are for the caller to leave out (`label_matrix`). width, norm: see `EcgEncoder`. weight_decay: in the gradient
    of adam, decoupled in adamw, on all parameters. augment: views as in pretraining (`augment.draw_views`), drawn anew
    in each step. on_epoch is called after each epoch.

    The defaults are METS's (PMLR v227, li24a: Adam, rate and decay 1e-3 held constant, batch 32, 50 epochs "for
    pre-training and downstream tasks"). The paper names neither loss nor choice of epoch: the loss is that of the
    PTB-XL benchmark (Strodthoff et al. 2021), whose resnet1d_wang has a macro AUROC of .930 on the superclasses.

    The order of records and the first weights follow from `seed`; a CPU gives the same bits again with the same number
    of threads, a GPU need not. torch's own generator is left as it was.

    Raises MetsError for signals that are not int16, lengths that differ, no records, no class with both positives and
    negatives in validation, numbers below 1, and a loss that is not finite, with its epoch and step.
    """
    if epochs < 1 or batch_size < 1:
        raise MetsError(f"`epochs` is {epochs} and `batch_size` {batch_size}; each must be at least 1")
    leads, classes = signal_uv.shape[1], truth.shape[1]
    _require_like("train", signal_uv, truth, leads)
    _require_like("validation", validation_signal_uv, validation_truth, leads)
    if not with_both_kinds(validation_truth).any():
        raise MetsError(
            f"no class has both positives and negatives among {len(validation_truth)} validation records",
            hint="choose the epoch on more validation records",
        )
    untrained = tuple(np.flatnonzero(~with_both_kinds(truth)).tolist())
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        model = SupervisedEcg(classes=classes, leads=leads, width=width, norm=norm)
    model.to(device)
    kind = torch.optim.AdamW if optimizer == "adamw" else torch.optim.Adam
    updates = kind(model.parameters(), lr=learning_rate, weight_decay=weight_decay)
    order = np.random.default_rng(seed)

    history: list[EpochFigures] = []
    best, best_state = EpochFigures(0, math.nan, -math.inf), model.state_dict()

    def views_of(rows: int, epoch: int, step: int) -> Views | None:
        if augment is None:
            return None
        place = BatchPlace(seed, epoch, step, rows)
        return draw_views(augment, place, range(rows), leads=leads, samples=signal_uv.shape[2])

    for epoch in range(1, epochs + 1):
        permuted = order.permutation(len(truth))
        loss = _train_epoch(model, updates, signal_uv, truth, permuted, batch_size, epoch, views_of)
        scores = _scores(model, validation_signal_uv, untrained, _SCORED_AT_ONCE)
        figures = EpochFigures(epoch, loss, macro_auroc(scores, validation_truth)[0])
        history.append(figures)
        if figures.validation_macro_auroc > best.validation_macro_auroc:
            best, best_state = figures, copy.deepcopy(model.state_dict())
        if on_epoch is not None:
            on_epoch(figures)
    model.load_state_dict(best_state)
    return SupervisedResult(model.eval(), best, tuple(history), untrained)


def _train_epoch(
    model: SupervisedEcg,
    updates: torch.optim.Optimizer,
    signal_uv: np.ndarray,
    truth: np.ndarray,
    order: np.ndarray,
    batch_size: int,
    epoch: int,
    views_of: Callable[[int, int, int], Views | None],
) -> float:
    """Mean loss over the records of one epoch."""
    model.train()
    total = 0.0
    # Parts of nearly equal size: a last batch of one or two records would give BatchNorm statistics of nothing.
    batches = np.array_split(order, math.ceil(len(order) / batch_size))
    for step, rows in enumerate(batches, start=1):
        target = torch.from_numpy(truth[rows]).to(model.head.weight)
        signal_mv = augmented(_millivolts(signal_uv[rows], model), views_of(len(rows), epoch, step))
        loss = F.binary_cross_entropy_with_logits(model(signal_mv), target)
        value = loss.item()
        if not math.isfinite(value):
            raise MetsError(
                f"the training loss is {value} at step {step} of {len(batches)} of epoch {epoch}",
                hint="lower the learning rate",
            )
        updates.zero_grad(set_to_none=True)
        loss.backward()
        updates.step()
        total += value * len(rows)
    return total / len(order)


@torch.no_grad()
def _scores(
    model: SupervisedEcg, signal_uv: np.ndarray, untrained: tuple[int, ...], batch_size: int
) -> Float32[np.ndarray, "record class"]:
    _require_signals("ECGs", signal_uv, model.leads)
    model.eval()
    scores = np.zeros((len(signal_uv), model.head.out_features), dtype=np.float32)
    for start in range(0, len(signal_uv), batch_size):
        rows = slice(start, start + batch_size)
        scores[rows] = model(_millivolts(signal_uv[rows], model)).cpu().numpy()
    scores[:, list(untrained)] = 0.0
    return scores


def _millivolts(signal_uv: np.ndarray, model: SupervisedEcg) -> Float[Tensor, "row lead sample"]:
    """`tasks.microvolts_to_millivolts` for a model without projections: int16 travels, the device converts."""
    weight = model.head.weight
    return signal_tensor(signal_uv, pinned=False).to(weight.device).to(weight.dtype) / 1000.0


def _require_like(name: str, signal_uv: np.ndarray, truth: np.ndarray, leads: int) -> None:
    if len(signal_uv) != len(truth) or len(truth) == 0:
        raise MetsError(
            f"{len(signal_uv)} {name} ECGs for {len(truth)} rows of {name} truth; both need the same, not 0"
        )
    _require_signals(f"{name} ECGs", signal_uv, leads)


def _require_signals(name: str, signal_uv: np.ndarray, leads: int) -> None:
    if signal_uv.dtype != np.int16:
        raise MetsError(f"{name} are {signal_uv.dtype}, not int16 microvolts", hint="pass `signal_uv` of the shards")
    if signal_uv.shape[1] != leads:
        raise MetsError(f"{name} have {signal_uv.shape[1]} leads, and the model takes {leads}")

"""The same ECG encoder trained on labels alone: the baseline for what zero-shot loses by not using labels."""

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, Unpack

import numpy as np
import pyarrow as pa
import ray
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Float32, Int16
from torch import Tensor, nn

from mets_ray.config.settings import AugmentConfig, Config, EncoderConfig, TrainConfig
from mets_ray.dataset.folds import Selection
from mets_ray.dataset.plan import RowGroup
from mets_ray.dataset.prepared import PreparedDataset
from mets_ray.dataset.shard_reader import signals
from mets_ray.ecg.ecg import LEADS
from mets_ray.errors import MetsError
from mets_ray.metrics.auroc import macro_auroc
from mets_ray.metrics.linear_probe import label_subset, with_both_kinds
from mets_ray.model.augment import BatchPlace, Views, augmented, draw_views
from mets_ray.model.ecg_encoder import EcgEncoder, EncoderShape, encoder_shape
from mets_ray.model.mets import microvolts_to_millivolts
from mets_ray.model.optimization import build_optimizer, set_learning_rate
from mets_ray.tasks.label_sets import LabelSet, label_matrix

_SCORED_AT_ONCE = 256


METS_RECIPE = TrainConfig(
    epochs=50, batch_size=32, optimizer="adam", learning_rate=1e-3, weight_decay=1e-3, schedule="constant",
    warmup_fraction=0.0,
)  # fmt: skip
"""The training recipe of METS; see `train_supervised`."""


@dataclass(frozen=True)
class LabelledEcgs:
    """int16 µV, in memory or memory-mapped, and each record's classes. Each batch is converted to mV on the device.

    The caller drops records without any class (`label_matrix`).
    """

    signal_uv: Int16[np.ndarray, "record lead sample"]  # leads in the order of `LEADS`
    truth: Bool[np.ndarray, "record class"]


class SupervisedEcg(nn.Module):
    """`EcgEncoder` and a linear head: ECGs in millivolts to one logit per class.

    classes: number of classes; a record may have several. encoder: see `EcgEncoder`.
    """

    def __init__(
        self,
        *,
        classes: int,
        **encoder: Unpack[EncoderShape],
    ) -> None:
        super().__init__()
        self.leads = encoder.get("leads", len(LEADS))
        self.encoder = EcgEncoder(**encoder)
        self.head = nn.Linear(self.encoder.num_features, classes)

    def forward(self, signal_mv: Float[Tensor, "batch lead sample"]) -> Float[Tensor, "batch class"]:
        logits: Tensor = self.head(self.encoder(signal_mv))
        return logits


@dataclass(frozen=True)
class EpochFigures:
    """One epoch, counted from 1: mean training loss over its records (nats per class), validation macro AUROC."""

    epoch: int
    train_loss: float
    validation_macro_auroc: float


@dataclass(frozen=True)
class SupervisedResult:
    """The model of the best epoch, in eval mode on the training device, and its training history.

    untrained_classes: columns without a positive or without a negative train record. Do not report the figures of
    `best` as a result: the epoch was selected on them.
    """

    model: SupervisedEcg
    best: EpochFigures
    epochs: tuple[EpochFigures, ...]
    untrained_classes: tuple[int, ...]

    def scores(
        self, signal_uv: Int16[np.ndarray, "record lead sample"], *, batch_size: int = _SCORED_AT_ONCE
    ) -> Float32[np.ndarray, "record class"]:
        """Logits of each class, computed `batch_size` ECGs at a time; they rank records within a class, not classes.

        An untrained class scores 0 for every record (AUROC 0.5), as in `LinearProbe.scores`: its logits would only
        reflect the other classes. Raises MetsError for signals that are not int16 or have another number of leads.
        """
        return _scores(self.model, signal_uv, self.untrained_classes, batch_size)


def train_supervised(
    train: LabelledEcgs,
    validation: LabelledEcgs,
    *,
    encoder: EncoderConfig,
    settings: TrainConfig = METS_RECIPE,
    augment: AugmentConfig | None = None,
    seed: int,
    device: str = "cpu",
) -> SupervisedResult:
    """Train from random weights with binary cross-entropy over classes; keep the epoch with the best validation AUROC.

    encoder: norm `sync` means `batch`, because a single process trains. settings:
    epochs, batch_size, optimizer, learning_rate, weight_decay, schedule and warmup_fraction are used. augment: views as
    in pretraining (`augment.draw_views`), sampled anew in each step.

    METS_RECIPE is that of METS (PMLR v227, li24a: Adam, constant learning rate and weight decay of 1e-3, batch size
    32, 50 epochs "for pre-training and downstream tasks"). The paper specifies neither the loss nor how the epoch is
    selected. The loss is that of the PTB-XL benchmark (Strodthoff et al. 2021), where resnet1d_wang reaches a macro
    AUROC of .930 on the superclasses.

    `seed` determines the order of records and the initial weights. A CPU reproduces the result bit for bit with the
    same number of threads; a GPU may not. torch's global generator is left unchanged.

    Raises MetsError for signals that are not int16, lengths that differ, no records, no class with both positives and
    negatives in validation, and a non-finite loss (naming the epoch and step).
    """
    leads, classes = train.signal_uv.shape[1], train.truth.shape[1]
    _require_like("train", train, leads)
    _require_like("validation", validation, leads)
    if not with_both_kinds(validation.truth).any():
        raise MetsError(
            f"no class has both positives and negatives among {len(validation.truth)} validation records",
            hint="use more validation records to select the epoch",
        )
    untrained = tuple(np.flatnonzero(~with_both_kinds(train.truth)).tolist())
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        shape = encoder_shape(encoder, leads)
        if shape["norm"] == "sync":
            shape["norm"] = "batch"
        model = SupervisedEcg(classes=classes, **shape)
    training = _Training(model.to(device), train, settings, augment, seed)

    history: list[EpochFigures] = []
    best, best_state = EpochFigures(0, math.nan, -math.inf), model.state_dict()
    for epoch in range(1, settings.epochs + 1):
        loss = training.epoch(epoch)
        scores = _scores(model, validation.signal_uv, untrained, _SCORED_AT_ONCE)
        figures = EpochFigures(epoch, loss, macro_auroc(scores, validation.truth)[0])
        history.append(figures)
        if figures.validation_macro_auroc > best.validation_macro_auroc:
            best, best_state = figures, copy.deepcopy(model.state_dict())
    model.load_state_dict(best_state)
    return SupervisedResult(model.eval(), best, tuple(history), untrained)


class SupervisedScores(NamedTuple):
    """Scores [record, class] of the test records, and the numbers of ECGs and patients used for training."""

    task: str
    share: float
    record_ids: list[str]
    scores: Float32[np.ndarray, "record class"]
    ecgs: int
    patients: int
    untrained_classes: tuple[int, ...]
    best_epoch: int


def learn_and_score(
    groups: dict[str, tuple[list[RowGroup], Selection]],
    dataset: PreparedDataset,
    label_sets: dict[str, LabelSet],
    encoder: EncoderConfig,
    config: Config,
) -> Iterator[SupervisedScores]:
    """For each task and each of `evaluate.label_shares`, train on that share of the labels and score the test records.

    Runs as one Ray task: signals stay out of the driver, and each part is read once. groups: row groups and selection
    for `folds.train`, `folds.validation` and `test`. Raises MetsError as `train_supervised`.
    """
    torch.set_num_threads(int(ray.get_runtime_context().get_assigned_resources().get("CPU", 1)) or 1)
    train, validation, test = (
        pa.concat_tables(dataset.read(group, selection) for group in of_part) for of_part, selection in groups.values()
    )
    for task, label_set in label_sets.items():
        learnt, truth = _labelled(train, label_set)
        patients = np.asarray(learnt["patient_id"].to_pylist())
        validated, validation_truth = _labelled(validation, label_set)
        for share in config.evaluate.label_shares:
            rows = label_subset(truth, patients, share, config.seed)
            result = train_supervised(
                LabelledEcgs(signals(learnt.take(pa.array(rows))), truth[rows]),
                LabelledEcgs(signals(validated), validation_truth),
                encoder=encoder,
                settings=METS_RECIPE.model_copy(update={"epochs": config.evaluate.supervised_epochs}),
                augment=config.augment,
                seed=config.seed,
                device="cuda" if config.evaluate.num_gpus_per_actor else "cpu",
            )
            yield SupervisedScores(
                task,
                share,
                test["record_id"].to_pylist(),
                result.scores(signals(test)),
                len(rows),
                len(set(patients[rows].tolist())),
                result.untrained_classes,
                result.best.epoch,
            )


def _labelled(records: pa.Table, label_set: LabelSet) -> tuple[pa.Table, Bool[np.ndarray, "record class"]]:
    """The records with a class of the task, and their classes."""
    truth, kept = label_matrix(label_set, records["labels"].to_pylist())
    return records.filter(pa.array(kept)), truth[kept]


class _Training:
    """Training epochs of one model; the order of records in each depends on `seed` and on the epochs before it."""

    def __init__(
        self, model: SupervisedEcg, ecgs: LabelledEcgs, settings: TrainConfig, augment: AugmentConfig | None, seed: int
    ) -> None:
        self._model, self._ecgs, self._settings = model, ecgs, settings
        self._augment, self._seed = augment, seed
        self._optimizer = build_optimizer(settings, model)
        self._order = np.random.default_rng(seed)

    def epoch(self, epoch: int) -> float:
        """Train for one epoch, counted from 1; returns the mean loss over its records."""
        self._model.train()
        total, records = 0.0, len(self._ecgs.truth)
        # Batches of nearly equal size: a last batch of one or two records would give useless BatchNorm statistics.
        steps = math.ceil(records / self._settings.batch_size)
        for step, rows in enumerate(np.array_split(self._order.permutation(records), steps), start=1):
            done = (epoch - 1) * steps + step - 1
            set_learning_rate(self._optimizer, self._settings, done / (self._settings.epochs * steps))
            loss = self._loss(rows, epoch, step)
            value = loss.item()
            if not math.isfinite(value):
                raise MetsError(
                    f"the training loss is {value} at step {step} of {steps} of epoch {epoch}",
                    hint="lower the learning rate",
                )
            self._optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self._optimizer.step()
            total += value * len(rows)
        return total / records

    def _loss(self, rows: np.ndarray, epoch: int, step: int) -> Float[Tensor, ""]:
        signal_mv = microvolts_to_millivolts(self._ecgs.signal_uv[rows], self._model)
        target = torch.from_numpy(self._ecgs.truth[rows]).to(signal_mv)
        views = self._views(signal_mv.shape, epoch, step)
        return F.binary_cross_entropy_with_logits(self._model(augmented(signal_mv, views)), target)

    def _views(self, shape: tuple[int, ...], epoch: int, step: int) -> Views | None:
        if self._augment is None:
            return None
        rows, leads, samples = shape
        place = BatchPlace(self._seed, epoch, step, rows)
        return draw_views(self._augment, place, range(rows), leads=LEADS[:leads], samples=samples)


@torch.no_grad()
def _scores(
    model: SupervisedEcg, signal_uv: np.ndarray, untrained: tuple[int, ...], batch_size: int
) -> Float32[np.ndarray, "record class"]:
    _require_signals("ECGs", signal_uv, model.leads)
    model.eval()
    scores = np.zeros((len(signal_uv), model.head.out_features), dtype=np.float32)
    for start in range(0, len(signal_uv), batch_size):
        rows = slice(start, start + batch_size)
        scores[rows] = model(microvolts_to_millivolts(signal_uv[rows], model)).cpu().numpy()
    scores[:, list(untrained)] = 0.0
    return scores


def _require_like(name: str, ecgs: LabelledEcgs, leads: int) -> None:
    if len(ecgs.signal_uv) != len(ecgs.truth) or len(ecgs.truth) == 0:
        raise MetsError(
            f"{len(ecgs.signal_uv)} {name} ECGs for {len(ecgs.truth)} rows of {name} truth; "
            "the counts must be equal and not 0"
        )
    _require_signals(f"{name} ECGs", ecgs.signal_uv, leads)


def _require_signals(name: str, signal_uv: np.ndarray, leads: int) -> None:
    if signal_uv.dtype != np.int16:
        raise MetsError(
            f"{name} are {signal_uv.dtype}, not int16 microvolts", hint="pass `signal_uv` as stored in the shards"
        )
    if signal_uv.shape[1] != leads:
        raise MetsError(f"{name} have {signal_uv.shape[1]} leads, but the model takes {leads}")

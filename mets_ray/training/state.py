"""The training state: new, from a bundle's weights or from a checkpoint, and saved to a checkpoint.

A checkpoint is a bundle with an additional `trainer_state.pt`: optimizer, scaler and the cursor (epoch, step). The
learning rate depends on the samples seen and the order on (seed, epoch), so neither needs state.
"""

import math
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import ray.train
import torch
from ray.train import Checkpoint, CheckpointUploadMode
from ray.train.torch import prepare_model
from torch import nn

from mets_ray.errors import CheckpointError
from mets_ray.model.bundle import (
    Bundle,
    BundleFacts,
    build_model,
    load_bundle,
    read_bundle,
    read_trainer_state,
    write_bundle,
)
from mets_ray.model.lead_quality import LeadSetQuality
from mets_ray.model.mets import Mets
from mets_ray.model.optimization import build_optimizer, choose_precision, require_compiler
from mets_ray.tasks.prompt_sets import prompt_texts
from mets_ray.text.embeddings import EmbeddingTable
from mets_ray.text.reports import text_id
from mets_ray.training.job import TrainJob
from mets_ray.training.texts import Texts

Figures = dict[str, float | None]

# Below every score of a validated epoch, so that a mid-epoch checkpoint is never the best one.
_NOT_VALIDATED = -1.0


@dataclass
class Running:
    """Totals of the current epoch; part of the checkpoint, so that a resumed epoch ends with complete figures."""

    losses: float = 0.0
    seconds: float = 0.0
    waited_s: float = 0.0
    embedded: float = 0.0


@dataclass
class State:
    """The training state. The cursor is the next step: `step` of `epoch`."""

    model: Mets
    wrapped: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    device: torch.device
    epoch: int = 0
    step: int = 0
    running: Running = field(default_factory=Running)
    history: tuple[Figures, ...] = ()
    lead_sets: dict[str, LeadSetQuality] = field(default_factory=dict)  # of the weights at the end of the last epoch


def start_state(job: TrainJob, texts: Texts, device: torch.device) -> State:
    """Initialised from the seed, from a bundle's weights, or from the last checkpoint of this run.

    Raises CheckpointError if the weights, the data set or the LM do not match this run.
    """
    config = job.config
    torch.manual_seed(config.seed)
    precision = choose_precision(config.train, device)
    checkpoint = ray.train.get_checkpoint()
    if config.train.init_from and checkpoint is None:
        model = load_bundle(config.train.init_from).model.train()
        _same_shape(model, job, texts.features)
    else:
        model = build_model(config, leads=len(job.dataset.card.leads), text_features=texts.features)
    model.to(device=device, dtype=torch.float64 if precision == "float64" else torch.float32)
    texts.give_anchors(model)
    if job.layer_decay is not None:
        model.text_projection.requires_grad_(False)  # the classes stay where they are, and the ECGs move
    model.ecg_encoder.activation_checkpointing = config.encoder.activation_checkpointing  # not the setting of init_from
    if config.train.compile:
        require_compiler()
        model.ecg_encoder.compile()  # in place: the state dict keeps its keys
    # DDP rebuilds its buckets after the first step, so a resumed run would sum in another order; this prevents it.
    wrapped = prepare_model(model, move_to_device=False, parallel_strategy_kwargs={"find_unused_parameters": True})
    state = State(
        model=model,
        wrapped=wrapped,
        optimizer=build_optimizer(config.train, model, 1.0 if job.layer_decay is None else job.layer_decay),
        scaler=torch.amp.GradScaler(device.type, enabled=precision == "fp16"),
        device=device,
    )
    if checkpoint is not None:
        with checkpoint.as_directory() as folder:
            bundle, saved = read_bundle(Path(folder), checkpoint.path), read_trainer_state(Path(folder))
        _same_data(bundle.facts, job, texts.fingerprint)
        model.load_state_dict(bundle.model.state_dict())
        state.optimizer.load_state_dict(saved["optimizer"])
        state.scaler.load_state_dict(saved["scaler"])
        state.epoch, state.step = saved["epoch"], saved["step"]
        state.running, state.history = Running(**saved["running"]), bundle.facts.history
    return state


def report_checkpoint(job: TrainJob, texts: Texts, state: State) -> None:
    """Every worker reports (it is a barrier); rank 0 adds the checkpoint, which is uploaded during the next steps.

    A checkpoint counts once Ray's controller has registered the whole upload: a run never resumes from a partial one.
    """
    figures = state.history[-1] if state.history and state.step == 0 else {}
    metrics = {key: value for key, value in figures.items() if value is not None}
    metrics["selection_score"] = selection_score(figures, job.config.train.choose) if figures else _NOT_VALIDATED
    checkpoint = None
    if ray.train.get_context().get_world_rank() == 0:
        folder = Path(tempfile.mkdtemp(prefix="mets_ray_checkpoint_"))
        trainer_state = {
            "optimizer": state.optimizer.state_dict(),
            "scaler": state.scaler.state_dict(),
            "epoch": state.epoch,
            "step": state.step,
            "running": vars(state.running),
            "seed": job.config.seed,
        }
        write_bundle(folder, _bundle(job, texts, state, figures), trainer_state)
        checkpoint = Checkpoint.from_directory(str(folder))
    ray.train.report(
        metrics,
        checkpoint=checkpoint,
        checkpoint_dir_name=f"checkpoint-{state.epoch:05d}-{state.step:07d}",
        checkpoint_upload_mode=CheckpointUploadMode.ASYNC,
        delete_local_checkpoint_after_upload=True,
    )


def selection_score(figures: Figures, choose: Literal["last", "best"]) -> float:
    """The score that selects a checkpoint; the highest wins.

    With `last` it is the number of the epoch. With `best` it is the validation AUROC; without labels, the mean
    recall@10 of both ways; without validation, the number of the epoch.
    """
    if choose == "last":
        return figures["epoch"] or 0.0
    auroc = figures.get("validation_macro_auroc")
    if auroc is not None:
        return auroc
    recalls = [figures.get(f"{way}_recall_at_10") for way in ("ecg_to_text", "text_to_ecg")]
    known = [recall for recall in recalls if recall is not None]
    return sum(known) / len(known) if known else figures["epoch"] or 0.0


def parameter_norm(model: nn.Module) -> float:
    """Euclidean norm of all parameters together."""
    return math.sqrt(sum(float(value.detach().double().square().sum()) for value in model.parameters()))


def _bundle(job: TrainJob, texts: Texts, state: State, figures: Figures) -> Bundle:
    config, card = job.config, job.dataset.card
    prompts = prompt_texts(job.prompt_sets.values(), job.questions.tasks)
    ids = np.asarray(sorted(text_id(prompt) for prompt in prompts), dtype=np.int64)
    facts = BundleFacts(
        run=job.run,
        sampling_rate_hz=card.sampling_rate_hz,
        duration_s=card.duration_s,
        leads=card.leads,
        highpass_hz=card.highpass_hz,
        text_model=config.text.model,
        text_revision=texts.revision,
        text_pooling=config.text.pooling,
        text_max_length=config.text.max_length,
        text_fingerprint=texts.fingerprint,
        text_features=texts.features,
        dataset_source=card.source,
        dataset_sha256=card.content_sha256,
        dataset_source_sha256=card.source_sha256,
        patient_folds=card.patient_folds,
        synthetic=card.synthetic,
        shuffled_reports=card.shuffled_reports,
        train_folds=config.folds.train,
        validation=config.folds.validation,
        earlier_folds=job.earlier_folds,
        prompt_sets=job.prompt_sets,
        metrics=figures,
        history=state.history,
        lead_sets=state.lead_sets if state.step == 0 else {},
    )
    prompt_features = EmbeddingTable.build(ids, texts.table.lookup(ids))
    return Bundle(state.model, config, facts, prompt_features, statements=texts.named)


def _same_shape(model: Mets, job: TrainJob, text_features: int) -> None:
    leads = len(job.dataset.card.leads)
    expected = build_model(job.config, leads=leads, text_features=text_features).state_dict()
    found = model.state_dict()

    def shape(key: str, state: Mapping[str, torch.Tensor]) -> tuple[int, ...] | str:
        return tuple(state[key].shape) if key in state else "absent"

    for key in expected | found:
        is_there, is_needed = shape(key, found), shape(key, expected)
        if is_there != is_needed:
            raise CheckpointError(
                f"`{key}` is {is_there} in `train.init_from`, and {is_needed} in the model of this run",
                hint="use the encoder settings and the LM that the bundle was trained with",
            )


def _same_data(facts: BundleFacts, job: TrainJob, text_fingerprint: str) -> None:
    for what, before, now in (
        ("data set", facts.dataset_sha256, job.dataset.card.content_sha256),
        ("language model", facts.text_fingerprint, text_fingerprint),
    ):
        if before != now:
            raise CheckpointError(
                f"the {what} of this run had fingerprint {before[:16]}, now it has {now[:16]}",
                hint="start a new run with train.init_from",
            )

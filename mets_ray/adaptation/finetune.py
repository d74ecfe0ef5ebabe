"""Fine-tuning on Ray Train: the trainer of pretraining, with the classes of a task in place of reports.

The class vectors stay where zero-shot has them, and the encoder and its projection move; so it begins at zero-shot.
"""

import math
import tempfile
import uuid
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import ray
from jaxtyping import Float32

from mets_ray import storage
from mets_ray.adaptation.examples import Examples
from mets_ray.adaptation.labels import Labels, keep_labels
from mets_ray.adaptation.learn import Fitted, single
from mets_ray.config.settings import Config
from mets_ray.console import say
from mets_ray.dataset.folds import Selection
from mets_ray.dataset.prepared import PreparedDataset
from mets_ray.errors import ConfigError
from mets_ray.model.bundle import Bundle, read_bundle
from mets_ray.model.predictor import Predictor
from mets_ray.tasks.prompt_sets import prompt_texts
from mets_ray.tasks.questions import Questions
from mets_ray.text.embeddings import EmbeddingTable
from mets_ray.text.reports import text_id
from mets_ray.training.checks import group_shares
from mets_ray.training.job import TrainJob
from mets_ray.training.label_texts import LabelTexts
from mets_ray.training.launch import launch
from mets_ray.training.messages import start_messages
from mets_ray.training.run_folder import chosen_checkpoint, open_run_folder

_OWN = ("ecg_encoder.", "ecg_projection.")


class Start(NamedTuple):
    """Where fine-tuning begins: a bundle, and the unit vectors of the classes' words."""

    bundle_uri: str
    predictor: Predictor
    class_vectors: Float32[np.ndarray, "class dimension"]


def finetune(
    config: Config,
    dataset: PreparedDataset,
    folds: dict[str, Selection],
    labels: Labels,
    train: Examples,
    start: Start,
) -> tuple[Fitted, str]:
    """Train a copy of the encoder of `start` on the drawn labels. Returns it and the folder of its run.

    The epoch with the best AUROC on `folds.validation` is kept. A run that was killed goes on from its last checkpoint
    (`train.resume`). Raises ConfigError for fewer ECGs than a batch has lanes, and where records have several windows,
    CheckpointError for a run with other settings or labels; otherwise as `training.launch.launch`.
    """
    if len(train.records.record_ids) != train.records.rows:
        raise ConfigError(
            "fine-tuning uses one window per record, and this data set has several",
            hint="set adapt.method=text, or prepare with one window per record",
        )
    patients = frozenset(train.records.patients[train.rows].tolist())
    selected = replace(folds["folds.train"], patients=patients)
    config = _training_config(config, start, dataset, selected)
    run_uri = open_run_folder(config, "adapt", kept=("adapt",))
    with storage.hold(run_uri, "adapt", timeout_s=config.lease_timeout_s) as lease:
        of_record = zip(train.rows, train.truth.tolist(), strict=True)
        keep_labels(run_uri, labels, {train.records.record_ids[row]: truth for row, truth in of_record})
        assert labels.prompt_set is not None
        questions = Questions(labels.prompt_set, {labels.task: labels.label_set})
        job = TrainJob(
            config=config,
            run_uri=run_uri,
            attempt=uuid.uuid4().hex[:8],
            dataset=dataset,
            train=selected,
            validation=folds["folds.validation"],
            train_groups=tuple(dataset.row_groups(selected)),
            validation_groups=tuple(dataset.row_groups(folds["folds.validation"])),
            questions=questions,
            prompt_sets={labels.prompt_set.name: labels.prompt_set},
            earlier_folds=(),
            shares=group_shares(config),
            messages=start_messages(),
            layer_decay=config.adapt.layer_decay,
        )
        job.messages.give_texts.remote([ray.put(_texts(labels, train, start))])
        say(
            f"fine-tuning: {len(train.rows)} labelled ECGs, {config.train.epochs} epochs of {job.plan(0).steps} steps "
            f"of {config.train.batch_size}: {run_uri}{' (resumed)' if config.train.resume else ''}"
        )
        result, _ = launch(job, lease, meanwhile=lambda: None)
        lease.confirm()
    chosen_uri, _ = chosen_checkpoint(run_uri, result)
    return _fitted(_read(chosen_uri), start.class_vectors), run_uri


def _fitted(tuned: Bundle, class_vectors: np.ndarray) -> Fitted:
    state, auroc = tuned.model.state_dict(), tuned.facts.metrics.get("validation_macro_auroc")
    classes = len(class_vectors)
    return Fitted(
        columns=tuple(range(classes)),
        input="embedding",
        weight=single(float(tuned.model.logit_scale.detach()) * class_vectors.astype(np.float64)),
        bias=np.full(classes, float(tuned.model.logit_bias.detach()), np.float32),
        own_model={name: value for name, value in state.items() if name.startswith(_OWN)},
        validation_macro_auroc=math.nan if auroc is None else auroc,
    )


def _training_config(config: Config, start: Start, dataset: PreparedDataset, selected: Selection) -> Config:
    """The settings of the trainer: of the bundle what its weights depend on, of `adapt` and `train` the rest."""
    rows = sum(group.rows for group in dataset.row_groups(selected))
    lanes = config.train.lanes
    if rows < lanes:
        raise ConfigError(
            f"fine-tuning has {rows} ECGs of labelled patients, fewer than a batch has lanes (`train.lanes`, {lanes})",
            hint="set adapt.method=text, which learns from any number, or name more labels",
        )
    train = config.train.model_copy(
        update={
            "batch_size": min(config.train.batch_size, rows // lanes * lanes),
            "epochs": config.adapt.epochs,
            "learning_rate": config.adapt.learning_rate,
            "init_from": start.bundle_uri,
            "choose": "best",
        }
    )
    bundle = start.predictor.bundle
    own = {name: getattr(bundle.config, name) for name in ("encoder", "augment", "loss")}
    # Its texts are classes, which nothing needs to embed while it trains.
    text = bundle.config.text.model_copy(update={"mode": "cached"})
    return config.model_copy(update={**own, "text": text, "train": train})


def _texts(labels: Labels, train: Examples, start: Start) -> LabelTexts:
    predictor = start.predictor
    assert labels.prompt_set is not None
    words = prompt_texts([labels.prompt_set], [labels.task])
    ids = np.asarray([text_id(word) for word in words], dtype=np.int64)
    model = predictor.bundle.model
    anchors, sides, directions = model.anchors, model.anchor_sides, model.anchor_directions
    return LabelTexts(
        EmbeddingTable.build(ids, predictor.features(words)),
        predictor.facts.text_fingerprint,
        anchors=None if anchors is None else anchors.half().cpu().numpy(),
        anchor_sides=None if sides is None else sides.cpu().numpy(),
        anchor_directions=None if directions is None else directions.float().cpu().numpy(),
        revision=predictor.facts.text_revision,
        class_vectors=start.class_vectors,
        truth={train.records.record_ids[row]: truth for row, truth in zip(train.rows, train.truth, strict=True)},
        codes=labels.of_record,
    )


def _read(uri: str) -> Bundle:
    with tempfile.TemporaryDirectory() as folder:
        storage.download_folder(uri, folder)
        return read_bundle(Path(folder), uri)

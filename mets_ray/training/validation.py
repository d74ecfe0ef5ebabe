"""Retrieval and zero-shot figures on the validation records, computed between epochs."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float

from mets_ray.dataset.plan import share
from mets_ray.ecg.ecg import LEADS
from mets_ray.ecg.lead_sets import LEAD_SETS, fewer_leads, lead_mask
from mets_ray.metrics.similarities import TaskSimilarities
from mets_ray.model.lead_quality import LeadSetQuality
from mets_ray.model.mets import Mets, microvolts_to_millivolts
from mets_ray.model.zero_shot import task_scores
from mets_ray.pipelines.stream import record_batches
from mets_ray.tasks.questions import Questions
from mets_ray.text.embeddings import EmbeddingTable
from mets_ray.text.reports import apply_template, text_id
from mets_ray.training.collectives import broadcast_buffers, broadcast_object, gather_objects, num_workers, worker_rank
from mets_ray.training.job import TrainJob
from mets_ray.training.state import Figures
from mets_ray.training.texts import Texts

_BATCH = 256
_RESAMPLES = 1000  # of patients, for the interval of each set of leads


class _Records(NamedTuple):
    """Validation records: `ecg` are their embeddings with all leads, `fewer` those with each set of fewer."""

    ecg: np.ndarray
    fewer: dict[str, np.ndarray]
    text_ids: np.ndarray
    labels: list[list[str]]
    record_ids: tuple[str, ...]
    patients: np.ndarray


def validate(
    job: TrainJob, model: Mets, texts: Texts, still_alive: Callable[[], None], epoch: int
) -> tuple[Figures, dict[str, LeadSetQuality]]:
    """The figures of `epoch`, and the quality by set of leads; each worker embeds its share of the records.

    Both are computed on rank 0 and broadcast. The quality is measured where the epoch may become the bundle and
    training drops leads; otherwise it is empty.
    still_alive: called after each batch.
    """
    # Each worker's BatchNorm has seen different rows; rank 0's statistics are the ones that the checkpoint will hold.
    broadcast_buffers(model)
    model.eval()
    mine = _embed(job, model, _fewer_leads(job, epoch), still_alive)
    parts = [part for part in gather_objects(mine) if part is not None]
    found: tuple[Figures, dict[str, LeadSetQuality]] = ({"validation_macro_auroc": None}, {})
    if parts and worker_rank() == 0:
        records = _joined(parts)
        found = found[0] | _figures(job, model, texts, records), _lead_sets(job, model, texts, records)
    known_to_all: tuple[Figures, dict[str, LeadSetQuality]] = broadcast_object(found)
    return known_to_all


def _fewer_leads(job: TrainJob, epoch: int) -> dict[str, tuple[str, ...]]:
    """The sets of fewer leads to measure after `epoch`."""
    leads = job.dataset.card.leads
    if job.layer_decay is not None:
        return {}
    if job.config.augment.lead_dropout == 0 or not job.may_become_bundle(epoch):
        return {}
    return fewer_leads(leads) if set(leads) == set(LEADS) else {}


@torch.no_grad()
def _embed(
    job: TrainJob, model: Mets, fewer: dict[str, tuple[str, ...]], still_alive: Callable[[], None]
) -> _Records | None:
    groups = share(job.validation_groups, num_workers(), worker_rank())
    masks = {name: torch.from_numpy(lead_mask(members, job.dataset.card.leads)) for name, members in fewer.items()}
    parts = []
    for batch in record_batches(
        groups, dataset=job.dataset, selection=job.validation, batch_size=_BATCH, shares=job.shares
    ):
        signal_mv = microvolts_to_millivolts(batch["signal_uv"], model)
        of_sets = {
            name: model.embed_ecg(signal_mv * mask.to(signal_mv)[:, None]).float().cpu().numpy()
            for name, mask in masks.items()
        }
        texts = [apply_template(job.config.text.template, report) for report in batch["report"]]
        parts.append(
            _Records(
                model.embed_ecg(signal_mv).float().cpu().numpy(),
                of_sets,
                np.asarray([text_id(text) for text in texts], dtype=np.int64),
                [list(codes) for codes in batch["labels"]],
                tuple(map(str, batch["record_id"])),
                np.asarray(list(map(str, batch["patient_id"]))),
            )
        )
        still_alive()
    return _joined(parts) if parts else None


def _joined(parts: list[_Records]) -> _Records:
    return _Records(
        np.concatenate([part.ecg for part in parts]),
        {name: np.concatenate([part.fewer[name] for part in parts]) for name in parts[0].fewer},
        np.concatenate([part.text_ids for part in parts]),
        [labels for part in parts for labels in part.labels],
        tuple(name for part in parts for name in part.record_ids),
        np.concatenate([part.patients for part in parts]),
    )


@torch.no_grad()
def _figures(job: TrainJob, model: Mets, texts: Texts, records: _Records) -> Figures:
    # Imported here: they import scikit-learn, which only this worker needs.
    from mets_ray.metrics.intervals import number_json
    from mets_ray.metrics.retrieval import retrieval_recall

    figures: Figures = {}
    if job.layer_decay is None:
        ids = records.text_ids
        recall = retrieval_recall(records.ecg, texts.report_embeddings(model, ids), ids)
        figures |= {f"{way}_recall_at_{k}": value for way, by_k in recall.items() for k, value in by_k.items()}
    labels = texts.labels_of(records.record_ids, records.labels)
    by_task = task_macro_auroc(model, job.questions, texts.table, ecg_embeddings=records.ecg, labels=labels)
    scored = [value for value in by_task.values() if not math.isnan(value)]
    figures |= {f"validation_{task}": number_json(value) for task, value in by_task.items()}
    figures["validation_macro_auroc"] = sum(scored) / len(scored) if scored else None
    return figures


def _lead_sets(job: TrainJob, model: Mets, texts: Texts, records: _Records) -> dict[str, LeadSetQuality]:
    if not records.fewer:
        return {}
    # Imported here, as in `_figures`.
    from mets_ray.metrics.intervals import number_json
    from mets_ray.metrics.lead_set_scores import score_lead_sets

    embeddings = {name: records.fewer.get(name, records.ecg) for name in LEAD_SETS}
    scored = score_lead_sets(
        {name: _similarities(job, model, texts, records, of_set) for name, of_set in embeddings.items()},
        LEAD_SETS,
        samples=_RESAMPLES,
        seed=job.config.seed,
        drawn_from=records.patients,
    )
    return {
        score.name: LeadSetQuality(
            leads=score.leads,
            macro_auroc=number_json(score.macro.value),
            low=number_json(score.macro.low),
            high=number_json(score.macro.high),
            tasks={task: number_json(interval.value) for task, interval in score.tasks.items()},
            records=score.records,
        )
        for score in scored
    }


def _similarities(
    job: TrainJob, model: Mets, texts: Texts, records: _Records, embeddings: np.ndarray
) -> dict[str, TaskSimilarities]:
    found = {}
    for task, label_set in job.questions.tasks.items():
        similarity, truth, kept = task_scores(
            model, job.questions.prompts, label_set, texts.table, embeddings, records.labels
        )
        if len(truth):
            names = tuple(name for name, keep in zip(records.record_ids, kept, strict=True) if keep)
            classes = tuple(label_set.classes)
            found[task] = TaskSimilarities(task, classes, names, records.patients[kept], similarity, truth)
    return found


def task_macro_auroc(
    model: Mets,
    questions: Questions,
    table: EmbeddingTable,
    *,
    ecg_embeddings: Float[np.ndarray, "record dimension"],
    labels: list[list[str]],
) -> dict[str, float]:
    """Zero-shot macro AUROC by task, nan if no class of a task can be scored."""
    # Imported here, as in `_figures`: scikit-learn takes over a second to import, and only one worker needs it.
    from mets_ray.metrics.auroc import macro_auroc

    return {
        task: macro_auroc(*task_scores(model, questions.prompts, label_set, table, ecg_embeddings, labels)[:2])[0]
        for task, label_set in questions.tasks.items()
    }

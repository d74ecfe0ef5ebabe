"""Retrieval and zero-shot figures on the validation records, computed between epochs."""

import math
from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float

from mets_ray.dataset.plan import share
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


def validate(job: TrainJob, model: Mets, texts: Texts, still_alive: Callable[[], None]) -> Figures:
    """The figures, computed on rank 0 and broadcast to all workers; each worker embeds its share of the records.

    still_alive: called after each batch.
    """
    groups = share(job.validation_groups, num_workers(), worker_rank())
    # Each worker's BatchNorm has seen different rows; rank 0's statistics are the ones that the checkpoint will hold.
    broadcast_buffers(model)
    model.eval()
    ecg: list[np.ndarray] = []
    ids: list[int] = []
    labels: list[list[str]] = []
    for batch in record_batches(
        groups, dataset=job.dataset, selection=job.validation, batch_size=_BATCH, shares=job.shares
    ):
        with torch.no_grad():
            ecg.append(model.embed_ecg(microvolts_to_millivolts(batch["signal_uv"], model)).float().cpu().numpy())
        ids.extend(text_id(apply_template(job.config.text.template, report)) for report in batch["report"])
        labels.extend(list(codes) for codes in batch["labels"])
        still_alive()
    mine = (np.concatenate(ecg) if ecg else None, ids, labels)
    figures: Figures = {"validation_macro_auroc": None}
    parts = [part for part in gather_objects(mine) if part[0] is not None]
    if parts and worker_rank() == 0:
        figures |= _figures(
            job,
            model,
            texts,
            np.concatenate([part[0] for part in parts]),
            np.asarray([one for part in parts for one in part[1]], dtype=np.int64),
            [one for part in parts for one in part[2]],
        )
    known_to_all: Figures = broadcast_object(figures)
    return known_to_all


@torch.no_grad()
def _figures(
    job: TrainJob,
    model: Mets,
    texts: Texts,
    ecg: np.ndarray,
    ids: np.ndarray,
    labels: list[list[str]],
) -> Figures:
    # Imported here: they import scikit-learn, which only this worker needs.
    from mets_ray.metrics.intervals import number_json
    from mets_ray.metrics.retrieval import retrieval_recall

    recall = retrieval_recall(ecg, texts.report_embeddings(model, ids), ids)
    figures: Figures = {f"{way}_recall_at_{k}": value for way, by_k in recall.items() for k, value in by_k.items()}
    by_task = task_macro_auroc(model, job.questions, texts.table, ecg_embeddings=ecg, labels=labels)
    scored = [value for value in by_task.values() if not math.isnan(value)]
    figures |= {f"validation_{task}": number_json(value) for task, value in by_task.items()}
    figures["validation_macro_auroc"] = sum(scored) / len(scored) if scored else None
    return figures


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

"""Retrieval and zero-shot figures of the validation records, between two epochs."""

import math
from collections.abc import Callable

import numpy as np
import torch

from mets_ray.collectives import broadcast_buffers, broadcast_object, gather_objects, num_workers, worker_rank
from mets_ray.data import record_batches
from mets_ray.model import Mets
from mets_ray.plan import share
from mets_ray.report import apply_template, text_id
from mets_ray.statements import ReportStatements
from mets_ray.tasks import microvolts_to_millivolts, report_embeddings, task_macro_auroc
from mets_ray.text_store import EmbeddingTable
from mets_ray.train_state import Figures, TrainJob

_BATCH = 256


def validate(
    job: TrainJob,
    model: Mets,
    table: EmbeddingTable,
    statements: ReportStatements | None,
    still_alive: Callable[[], None],
) -> Figures:
    """The figures, computed on rank 0 and known to all workers; each embeds its share of the records.

    still_alive: called after each batch.
    """
    groups = share(job.validation_groups, num_workers(), worker_rank())
    # Each worker's BatchNorm has seen other rows; rank 0's statistics are the ones that the checkpoint will hold.
    broadcast_buffers(model)
    model.eval()
    ecg: list[np.ndarray] = []
    ids: list[int] = []
    labels: list[list[str]] = []
    for batch in record_batches(
        groups, dataset_uri=job.dataset_uri, selection=job.validation, batch_size=_BATCH, shares=job.shares
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
            table,
            statements,
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
    table: EmbeddingTable,
    statements: ReportStatements | None,
    ecg: np.ndarray,
    ids: np.ndarray,
    labels: list[list[str]],
) -> Figures:
    # They bring scikit-learn, which only this worker needs.
    from mets_ray.metrics import retrieval_recall
    from mets_ray.tables import number_json

    recall = retrieval_recall(ecg, report_embeddings(model, table, statements, ids), ids)
    figures: Figures = {f"{way}_recall_at_{k}": value for way, by_k in recall.items() for k, value in by_k.items()}
    prompt_set = job.prompt_sets[job.config.train.validation_prompt_set]
    by_task = task_macro_auroc(model, prompt_set, job.tasks, table, ecg_embeddings=ecg, labels=labels)
    scored = [value for value in by_task.values() if not math.isnan(value)]
    figures |= {f"validation_{task}": number_json(value) for task, value in by_task.items()}
    figures["validation_macro_auroc"] = sum(scored) / len(scored) if scored else None
    return figures

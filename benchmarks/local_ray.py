"""A Ray of this process alone, and training epochs in this process: Ray Data's stream, without Ray Train's workers."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import ray
from random_models import FEATURES

from mets_ray.cluster.shares import TrainShares
from mets_ray.config.settings import Config
from mets_ray.dataset.folds import Selection
from mets_ray.dataset.prepared import PreparedDataset
from mets_ray.tasks.prompt_sets import load_prompt_set
from mets_ray.tasks.questions import Questions, dataset_tasks
from mets_ray.text.embeddings import EmbeddingTable
from mets_ray.text.reports import apply_template, text_id
from mets_ray.training.job import TrainJob
from mets_ray.training.messages import start_messages
from mets_ray.training.texts import Texts

_SETTINGS = {
    "RAY_AUTH_MODE": "disabled",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_idle_worker_killing_time_threshold_ms": "60000",
    # Ray Train asks the dashboard, which is not started, whether its controller lives; without an answer it goes on.
    "RAY_API_SERVER_ADDRESS": "http://127.0.0.1:9",
    "TORCH_CPP_LOG_LEVEL": "ERROR",
}


@contextmanager
def local_ray(**options: Any) -> Iterator[None]:
    """Ray on this machine with the settings of the jobs. options: more arguments of `ray.init`."""
    os.environ |= {key: value for key, value in _SETTINGS.items() if key not in os.environ}
    options = {"num_cpus": max(2, len(os.sched_getaffinity(0)))} | options
    ray.init(address="local", include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR, **options)
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    try:
        yield
    finally:
        ray.shutdown()


def random_texts(dataset: PreparedDataset, template: str) -> Texts:
    """A random vector for each report of a data set: losses mean nothing, and cost what they always cost."""
    reports = {report for of_shard in dataset.distinct_reports(dataset.all_folds) for report in of_shard}
    ids = np.asarray(sorted(text_id(apply_template(template, report)) for report in reports), dtype=np.int64)
    vectors = np.random.default_rng(0).standard_normal((len(ids), FEATURES)).astype(np.float16)
    return Texts(EmbeddingTable.build(ids, vectors), fingerprint="random")


def local_job(config: Config, dataset: PreparedDataset, shares: TrainShares) -> TrainJob:
    """A job for `open_epoch` and `train_epoch` in this process, on all records; it has no run folder."""
    selection: Selection = dataset.all_folds
    prompt_set = load_prompt_set("descriptive")
    return TrainJob(
        config=config,
        run_uri="",
        attempt="",
        dataset=dataset,
        train=selection,
        validation=Selection(()),
        train_groups=tuple(dataset.row_groups(selection)),
        validation_groups=(),
        questions=Questions(prompt_set, dataset_tasks("synthetic")),
        prompt_sets={"descriptive": prompt_set},
        earlier_folds=(),
        shares=shares,
        messages=start_messages(),
    )

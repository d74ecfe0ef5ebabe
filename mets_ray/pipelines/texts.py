"""The texts of a prepared data set, and their vectors from the store, the bundle or the LM actors."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import ray

from mets_ray.cluster.ray_data import own_errors, plain
from mets_ray.config.settings import Config
from mets_ray.dataset.folds import Selection
from mets_ray.dataset.prepared import PreparedDataset
from mets_ray.model.bundle import Bundle, check_text_model
from mets_ray.model.predictor import Predictor
from mets_ray.pipelines.lm_actors import embed_texts, store_uri
from mets_ray.text.embeddings import EmbeddingTable
from mets_ray.text.reports import apply_template, text_id


def report_texts(dataset: PreparedDataset, template: str, selection: Selection) -> list[str]:
    """All distinct training texts of the selected records: their reports, formatted with the template."""

    def read(batch: dict[str, Any]) -> dict[str, Any]:
        (path,) = batch["path"]
        return {"report": dataset.distinct_reports(path, selection)}

    reports = {str(row["report"]) for row in _from_shards(dataset, read)}
    return sorted(apply_template(template, report) for report in reports)


def report_statements(dataset: PreparedDataset, template: str, selection: Selection) -> dict[str, tuple[str, ...]]:
    """The statements of each distinct training text of the selected records; a report without any counts as one."""

    def read(batch: dict[str, Any]) -> dict[str, Any]:
        (path,) = batch["path"]
        found = dataset.distinct_statements(path, selection)
        return {"report": list(found), "statements": [json.dumps(parts or [report]) for report, parts in found.items()]}

    rows = sorted((str(row["report"]), str(row["statements"])) for row in _from_shards(dataset, read))
    return {apply_template(template, report): tuple(json.loads(parts)) for report, parts in reversed(rows)}


def _from_shards(
    dataset: PreparedDataset, read: Callable[[dict[str, Any]], dict[str, Any]]
) -> Iterator[dict[str, Any]]:
    """The rows that `read` returns for each shard's path, with one task per shard."""
    paths = [{"path": shard.path} for shard in dataset.card.shards]
    rows = ray.data.from_items(paths, override_num_blocks=len(paths)).map_batches(read, batch_size=None)
    with own_errors():
        yield from plain(rows).iter_rows()


def learn_prompts(config: Config, predictor: Predictor, prompts: Sequence[str], dataset: PreparedDataset) -> None:
    """Add the features of prompts that `predictor` does not have yet, from the store or the bundle's LM.

    Raises CheckpointError if the LM found here is not the bundle's.
    """
    if missing := predictor.missing_texts(prompts):
        table = _by_the_lm_of(predictor.bundle, config, dataset, reports=[], prompts=missing)
        ids = np.asarray([text_id(prompt) for prompt in missing], dtype=np.int64)
        predictor.keep_features(missing, table.lookup(ids))


def report_table(config: Config, bundle: Bundle, reports: Iterable[str], dataset: PreparedDataset) -> EmbeddingTable:
    """Vectors of reports that are already in their template, from the store or the bundle's LM.

    Raises CheckpointError if the LM found here is not the bundle's.
    """
    return _by_the_lm_of(bundle, config, dataset, reports=sorted(set(reports)), prompts=[])


def _by_the_lm_of(
    bundle: Bundle, config: Config, dataset: PreparedDataset, *, reports: list[str], prompts: list[str]
) -> EmbeddingTable:
    facts = bundle.facts
    settings = config.text.model_copy(
        update={
            "model": facts.text_model,
            "revision": facts.text_revision,
            "pooling": facts.text_pooling,
            "max_length": facts.text_max_length,
        }
    )
    embedded = embed_texts(settings, store_uri(config, dataset), reports=reports, prompts=prompts)
    check_text_model(facts, embedded.fingerprint)
    return embedded.table

"""The frozen LM on actors of its own: each distinct text once (`cached`), or inside the stream (`streaming`).

The same class, `text_store.TextEmbedder`, runs in both. A training worker never holds the LM.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import ray
from ray.data import ActorPoolStrategy, Dataset

from mets_ray import storage
from mets_ray.checkpoint import Bundle
from mets_ray.cluster import own_errors, plain, reachable_nodes
from mets_ray.config import Config, TextConfig
from mets_ray.console import progress_bar
from mets_ray.encoders import text_model_fingerprint
from mets_ray.errors import CheckpointError, DatasetError
from mets_ray.folds import Selection
from mets_ray.report import PromptSet, apply_template, text_id
from mets_ray.resources import check_actor_fits
from mets_ray.schema import DatasetCard
from mets_ray.shard_reader import distinct_reports, distinct_statements
from mets_ray.tasks import prompt_texts
from mets_ray.text_store import EmbeddingTable, TextEmbedder, part_folder, read_store, write_part

_TEXTS_PER_PART = 1024


@dataclass(frozen=True)
class EmbeddedTexts:
    """What the LM knows about a data set, and how much work that was this time."""

    table: EmbeddingTable
    fingerprint: str
    reports_embedded: int
    prompts_embedded: int


def store_uri(config: Config, dataset_uri: str) -> str:
    return (
        storage.absolute(config.text.store_uri)
        if config.text.store_uri
        else storage.join(dataset_uri, "text_embeddings")
    )


def report_texts(dataset_uri: str, card: DatasetCard, template: str, selection: Selection) -> list[str]:
    """All distinct training texts of the selected records: their reports in the template."""

    def read(batch: dict[str, Any]) -> dict[str, Any]:
        (path,) = batch["path"]
        return {"report": distinct_reports(path, dataset_uri=dataset_uri, selection=selection)}

    reports = {str(row["report"]) for row in _from_shards(card, read)}
    return sorted(apply_template(template, report) for report in reports)


def report_statements(
    dataset_uri: str, card: DatasetCard, template: str, selection: Selection
) -> dict[str, tuple[str, ...]]:
    """The statements of each distinct training text of the selected records; a report without any is one itself."""

    def read(batch: dict[str, Any]) -> dict[str, Any]:
        (path,) = batch["path"]
        found = distinct_statements(path, dataset_uri=dataset_uri, selection=selection)
        return {"report": list(found), "statements": [json.dumps(parts or [report]) for report, parts in found.items()]}

    rows = sorted((str(row["report"]), str(row["statements"])) for row in _from_shards(card, read))
    return {apply_template(template, report): tuple(json.loads(parts)) for report, parts in reversed(rows)}


def _from_shards(card: DatasetCard, read: Callable[[dict[str, Any]], dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Rows that `read` makes of each shard's path, one task for each shard."""
    paths = [{"path": shard.path} for shard in card.shards]
    dataset = ray.data.from_items(paths, override_num_blocks=len(paths)).map_batches(read, batch_size=None)
    with own_errors():
        yield from plain(dataset).iter_rows()


def embed_texts(text: TextConfig, store: str, *, reports: list[str], prompts: list[str]) -> EmbeddedTexts:
    """Vectors of all `reports` and `prompts`: from the store, and for what it lacks from a pool of LM actors.

    The pool is gone when this returns, so its CPUs and GPUs are free for the training workers.
    Raises ConfigError where an LM actor cannot fit or the model cannot be loaded, DatasetError for a full collision.
    """
    check_actor_fits(
        reachable_nodes(),
        key="text",
        cpus=text.num_cpus_per_actor,
        gpus=text.num_gpus_per_actor,
        resources=text.resources,
    )
    fingerprint = _fingerprint(text)
    table = read_store(store, fingerprint)
    new_reports = table.missing(reports)
    known = set(new_reports)
    new_prompts = [prompt for prompt in table.missing(prompts) if prompt not in known]
    missing = [
        {"text": item, "text_id": text_id(item), "is_prompt": is_prompt}
        for items, is_prompt in ((new_reports, False), (new_prompts, True))
        for item in items
    ]
    if len({item["text_id"] for item in missing}) != len(missing):
        raise DatasetError("two different texts have the same 64-bit id", hint="report this: it is a 1 in 10^6 event")
    if not missing:
        return EmbeddedTexts(table, fingerprint, 0, 0)

    folder = part_folder(store, fingerprint)
    blocks = max(1, min(len(missing) // text.batch_size, 8 * text.max_actors))
    dataset = ray.data.from_items(missing, override_num_blocks=blocks)
    embedded = plain(embed_stage(dataset, text, batch_size=8 * text.batch_size))
    counts = []
    # Parts are written from here: a task that writes would wait for ever for a CPU that the LM actors hold.
    with own_errors(), progress_bar(total=len(missing), unit="text", description="frozen LM") as bar:
        for batch in embedded.iter_batches(batch_size=_TEXTS_PER_PART, batch_format="numpy"):
            counts.append(write_part(batch, folder_uri=folder))
            bar.update(len(batch["text"]))
    return EmbeddedTexts(
        table=read_store(store, fingerprint),
        fingerprint=fingerprint,
        reports_embedded=sum(count[0] for count in counts),
        prompts_embedded=sum(count[1] for count in counts),
    )


def prompt_table(
    config: Config, bundle: Bundle, prompt_set: PromptSet, tasks: Iterable[str], dataset_uri: str
) -> EmbeddingTable:
    """Vectors of the prompts: from the bundle, or from the same LM where the bundle does not know them.

    Raises CheckpointError where the LM found here is another one than the bundle's.
    """
    prompts = prompt_texts([prompt_set], tasks)
    if not bundle.prompts.missing(prompts):
        return bundle.prompts
    return _by_the_lm_of(bundle, config, dataset_uri, reports=[], prompts=prompts)


def report_table(config: Config, bundle: Bundle, reports: Iterable[str], dataset_uri: str) -> EmbeddingTable:
    """Vectors of reports in their template, from the store or the bundle's LM.

    Raises CheckpointError where the LM found here is another one than the bundle's.
    """
    return _by_the_lm_of(bundle, config, dataset_uri, reports=sorted(set(reports)), prompts=[])


def _by_the_lm_of(
    bundle: Bundle, config: Config, dataset_uri: str, *, reports: list[str], prompts: list[str]
) -> EmbeddingTable:
    facts = bundle.facts
    settings = config.text.model_copy(
        update={"model": facts.text_model, "pooling": facts.text_pooling, "max_length": facts.text_max_length}
    )
    embedded = embed_texts(settings, store_uri(config, dataset_uri), reports=reports, prompts=prompts)
    if embedded.fingerprint != facts.text_fingerprint:
        raise CheckpointError(
            f"the LM `{facts.text_model}` found here has fingerprint {embedded.fingerprint[:16]}, not "
            f"{facts.text_fingerprint[:16]}, with which the bundle was trained",
            hint="give the workers the same LM weights, or use a prompt set that the bundle holds",
        )
    return embedded.table


def embed_stage(dataset: Dataset, text: TextConfig, *, batch_size: int) -> Dataset:
    """Adds `embedding` and `embedded` to rows that have a `text`, on the LM's own actors."""
    return dataset.map_batches(
        TextEmbedder,
        fn_constructor_kwargs={
            "model": text.model,
            "pooling": text.pooling,
            "max_length": text.max_length,
            "batch_size": text.batch_size,
            "device": "cuda" if text.num_gpus_per_actor else "cpu",
        },
        batch_size=batch_size,
        compute=ActorPoolStrategy(min_size=text.min_actors, max_size=text.max_actors),
        num_cpus=text.num_cpus_per_actor,
        num_gpus=text.num_gpus_per_actor or None,
        resources=text.resources or None,
    )


def _fingerprint(text: TextConfig) -> str:
    # On a node that may hold the LM: the driver's node need not have its files.
    task = ray.remote(text_model_fingerprint).options(
        num_cpus=text.num_cpus_per_actor, num_gpus=text.num_gpus_per_actor, resources=text.resources
    )
    with own_errors():
        return str(ray.get(task.remote(text.model, text.pooling, text.max_length)))

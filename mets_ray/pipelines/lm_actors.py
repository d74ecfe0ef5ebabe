"""The frozen LM on actors of its own: each distinct text once (`cached`), or inside the stream (`streaming`).

The same class, `text_store.TextEmbedder`, runs in both. A training worker never holds the LM.
"""

from dataclasses import dataclass

import numpy as np
import ray
from ray.data import ActorPoolStrategy, Dataset

from mets_ray import storage
from mets_ray.cluster.nodes import reachable_nodes
from mets_ray.cluster.ray_data import own_errors, plain
from mets_ray.cluster.shares import check_actor_fits
from mets_ray.config.settings import Config, TextConfig
from mets_ray.console import progress_bar
from mets_ray.dataset.prepared import PreparedDataset
from mets_ray.errors import DatasetError
from mets_ray.text.embeddings import EmbeddingTable, part_folder, read_store, write_part
from mets_ray.text.language_model import FrozenTextEncoder, Pooling, text_model_fingerprint
from mets_ray.text.reports import text_id

_TEXTS_PER_PART = 1024


@dataclass(frozen=True)
class EmbeddedTexts:
    """What the LM knows about a data set, and how much work that was this time."""

    table: EmbeddingTable
    fingerprint: str
    reports_embedded: int
    prompts_embedded: int


def store_uri(config: Config, dataset: PreparedDataset) -> str:
    """Where the vectors of a data set's texts are kept: `text.store_uri`, or a folder of the data set."""
    return (
        storage.absolute(config.text.store_uri)
        if config.text.store_uri
        else storage.join(dataset.uri, "text_embeddings")
    )


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


class TextEmbedder:
    """The class that an LM actor runs, in the cached and in the streaming mode: adds `embedding` to a batch.

    `embedded` is 1 for each row whose text went through the LM here, so counts come from the actors themselves.
    """

    def __init__(self, *, model: str, pooling: Pooling, max_length: int, batch_size: int, device: str) -> None:
        self._settings = {"pooling": pooling, "max_length": max_length, "batch_size": batch_size, "device": device}
        self._model = model
        self._encoder: FrozenTextEncoder | None = None

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        texts = [str(text) for text in batch["text"]]
        first = np.zeros(len(texts), dtype=np.int8)
        first[np.unique(np.asarray(texts, dtype=object), return_index=True)[1]] = 1
        if self._encoder is None:  # not in __init__: Ray hides the error of an actor that cannot start
            self._encoder = FrozenTextEncoder(self._model, **self._settings)  # type: ignore[arg-type]
        before = self._encoder.texts_embedded
        embedding = self._encoder(texts)
        if self._encoder.texts_embedded - before != int(first.sum()):
            raise AssertionError("the encoder embedded another number of texts than the batch has distinct ones")
        return batch | {"embedding": embedding, "embedded": first}

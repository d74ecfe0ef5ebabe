"""The frozen LM on dedicated actors: each distinct text once (`cached`), or inside the stream (`streaming`).

Both modes run the same class, `TextEmbedder`. A training worker never holds the LM.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

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
from mets_ray.text.model_files import hub_commit, resolve_text_model, text_model_fingerprint
from mets_ray.text.reports import text_id

if TYPE_CHECKING:
    from mets_ray.text.language_model import FrozenTextEncoder

_TEXTS_PER_PART = 1024
_BATCHES_AT_ONCE = 8  # that an actor takes in one call


@dataclass(frozen=True)
class EmbeddedTexts:
    """The LM's vectors for a data set, and how many texts had to be embedded this time.

    revision: the commit of an LM that came from the hub.
    """

    table: EmbeddingTable
    fingerprint: str
    reports_embedded: int
    prompts_embedded: int
    revision: str | None = None


def store_uri(config: Config, dataset: PreparedDataset) -> str:
    """Where the text vectors of a data set are stored: `text.store_uri`, or a folder in the data set."""
    return (
        storage.absolute(config.text.store_uri)
        if config.text.store_uri
        else storage.join(dataset.uri, "text_embeddings")
    )


@dataclass(frozen=True)
class StoredTexts:
    """What the store holds of some texts: `table`, and `missing` of them, as rows. `text` has the LM's commit."""

    text: TextConfig
    store: str
    fingerprint: str
    table: EmbeddingTable
    missing: list[dict[str, Any]]


def embed_texts(text: TextConfig, store: str, *, reports: list[str], prompts: list[str]) -> EmbeddedTexts:
    """Vectors of all `reports` and `prompts`, from the store; a pool of LM actors embeds those that are missing there.

    The pool is gone when this returns, so its CPUs and GPUs are free for the training workers.
    Raises ConfigError if an LM actor cannot fit or the model cannot be loaded, DatasetError if two text ids collide.
    """
    return embed_missing(look_up_texts(text, store, ask_identity(text), reports=reports, prompts=prompts))


def ask_identity(text: TextConfig) -> Any:
    """Begin to find out which LM `text` names. Returns a reference for `look_up_texts`.

    Raises ConfigError if an LM actor cannot fit.
    """
    check_actor_fits(
        reachable_nodes(),
        key="text",
        cpus=text.num_cpus_per_actor,
        gpus=text.num_gpus_per_actor,
        resources=text.resources,
    )
    # Runs on a node that can hold the LM: the driver's node may not have the model files.
    task = ray.remote(_identity_here).options(
        num_cpus=text.num_cpus_per_actor, num_gpus=text.num_gpus_per_actor, resources=text.resources
    )
    return task.remote(text)


def look_up_texts(
    text: TextConfig, store: str, identity: Any, *, reports: list[str], prompts: list[str]
) -> StoredTexts:
    """What the store holds of `reports` and `prompts`. identity: from `ask_identity`. Raises as `embed_texts`."""
    with own_errors():
        fingerprint, revision = ray.get(identity)
    text = text.model_copy(update={"revision": revision})  # the hub may get a newer one before the actors look
    table = read_store(store, fingerprint)
    return StoredTexts(text, store, fingerprint, table, _missing(table, reports, prompts))


def embed_missing(stored: StoredTexts) -> EmbeddedTexts:
    """Embed what is missing. Of several jobs that share a store, one embeds at a time: others find its vectors there.

    Raises as `embed_texts`.
    """
    table, counts = stored.table, []
    if stored.missing:
        folder = part_folder(stored.store, stored.fingerprint)
        with storage.hold(folder, "text embedding", wait=True):
            known = set(read_store(stored.store, stored.fingerprint).ids.tolist())
            missing = [item for item in stored.missing if item["text_id"] not in known]
            counts = _embed(stored.text, missing, folder) if missing else []
        table = read_store(stored.store, stored.fingerprint)
    return EmbeddedTexts(
        table=table,
        fingerprint=stored.fingerprint,
        reports_embedded=sum(count[0] for count in counts),
        prompts_embedded=sum(count[1] for count in counts),
        revision=stored.text.revision,
    )


def _missing(table: EmbeddingTable, reports: list[str], prompts: list[str]) -> list[dict[str, Any]]:
    """The texts without a vector, as rows."""
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
    return missing


def _embed(text: TextConfig, missing: list[dict[str, Any]], folder: str) -> list[tuple[int, int]]:
    """Embed texts and store them part by part. Returns the numbers of reports and of prompts in each part."""
    embedded = plain(embed_stage(by_length(missing, text), text, batch_size=_BATCHES_AT_ONCE * text.batch_size))
    counts = []
    # The driver writes the parts: a write task could wait forever for a CPU that the LM actors hold.
    with own_errors(), progress_bar(total=len(missing), unit="text", description="frozen LM") as bar:
        for batch in embedded.iter_batches(batch_size=_TEXTS_PER_PART, batch_format="numpy"):
            counts.append(write_part(batch, folder_uri=folder))
            bar.update(len(batch["text"]))
    return counts


def by_length(rows: Sequence[dict[str, Any]], text: TextConfig) -> Dataset:
    """Rows with a `text`, the longest first: neighbours of similar length need little padding."""
    longest_first = sorted(rows, key=lambda row: (-len(row["text"]), row["text"]))
    # As many as an actor has at once, but for few texts, which all actors share.
    at_once = min(_BATCHES_AT_ONCE * text.batch_size, -(-len(rows) // text.max_actors))
    return ray.data.from_items(longest_first, override_num_blocks=max(1, len(rows) // max(1, at_once)))


def embed_stage(dataset: Dataset, text: TextConfig, *, batch_size: int) -> Dataset:
    """Adds `embedding` and `embedded` to rows with a `text`, on dedicated LM actors."""
    return dataset.map_batches(
        TextEmbedder,
        fn_constructor_kwargs={
            "model": text.model,
            "pooling": text.pooling,
            "max_length": text.max_length,
            "batch_size": text.batch_size,
            "device": "cuda" if text.num_gpus_per_actor else "cpu",
            "revision": text.revision,
        },
        batch_size=batch_size,
        compute=ActorPoolStrategy(min_size=text.min_actors, max_size=text.max_actors),
        num_cpus=text.num_cpus_per_actor,
        num_gpus=text.num_gpus_per_actor or None,
        resources=text.resources or None,
    )


def _identity_here(text: TextConfig) -> tuple[str, str | None]:
    folder = resolve_text_model(text.model, text.revision)
    return text_model_fingerprint(folder, text.pooling, text.max_length), hub_commit(text.model, folder)


class TextEmbedder:
    """Runs on an LM actor, in cached and in streaming mode: adds `embedding` to a batch.

    `embedded` is 1 for each row that sent its text through the LM, so the counts come from the actors themselves.
    """

    def __init__(self, *, model: str, **settings: Any) -> None:
        """model, settings: arguments of `FrozenTextEncoder`."""
        self._model, self._settings = model, settings
        self._encoder: FrozenTextEncoder | None = None

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        texts = [str(text) for text in batch["text"]]
        first = np.zeros(len(texts), dtype=np.int8)
        first[np.unique(np.asarray(texts, dtype=object), return_index=True)[1]] = 1
        if self._encoder is None:  # not in __init__: Ray hides errors raised while an actor starts
            # Imported here: it imports torch, which whoever only asks for the LM's identity need not wait for.
            from mets_ray.text.language_model import FrozenTextEncoder

            self._encoder = FrozenTextEncoder(self._model, **self._settings)
        before = self._encoder.texts_embedded
        embedding = self._encoder(texts)
        if self._encoder.texts_embedded - before != int(first.sum()):
            raise AssertionError("the encoder did not embed each distinct text of the batch exactly once")
        return batch | {"embedding": embedding, "embedded": first}

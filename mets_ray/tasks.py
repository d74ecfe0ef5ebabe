"""What a data set is scored on: its tasks, the class vectors of a prompt set, and scores of embeddings."""

from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Float, Int16, Int64
from torch import Tensor

from mets_ray import prompt_files, storage
from mets_ray.checkpoint import BundleFacts, load_bundle, untrained_model
from mets_ray.errors import CheckpointError, ConfigError
from mets_ray.model import Mets
from mets_ray.report import LabelSet, PromptSet, label_matrix, load_label_sets, load_prompt_set, text_id
from mets_ray.schema import DatasetCard
from mets_ray.shard_reader import signals
from mets_ray.statements import ReportStatements
from mets_ray.text_store import EmbeddingTable
from mets_ray.zero_shot import class_embeddings, similarities

PACKAGED_PROMPT_SETS = ("mets", "descriptive")
LABELLED_SOURCES = ("ptbxl", "synthetic", "mitbih", "cpsc2018", "csn")


def dataset_tasks(source: str) -> dict[str, LabelSet]:
    """Label sets of a source, by task; none for a source whose labels no packaged set knows (any WFDB folder)."""
    return load_label_sets(source) if source in LABELLED_SOURCES else {}


def choose_tasks(source: str, names: tuple[str, ...] | None, prompt_set: PromptSet) -> dict[str, LabelSet]:
    """The named tasks, or all of the source's.

    A source without packaged label sets has the tasks of the prompt set, each class counting for the label of its own
    name. Raises ConfigError where a name is not one of them.
    """
    known = dataset_tasks(source) or {
        task: LabelSet(task, {name: (name,) for name in classes}) for task, classes in prompt_set.tasks.items()
    }
    unknown = [name for name in names or () if name not in known]
    if unknown:
        raise ConfigError(
            f"`evaluate.tasks` names `{unknown[0]}`, which the source `{source}` has no labels for",
            hint=f"choose from {', '.join(known)}",
        )
    return known if names is None else {name: known[name] for name in names}


def unknown_labels(tasks: dict[str, LabelSet], labels: Iterable[Iterable[str]]) -> list[str]:
    """Labels of records that no class of any task counts, sorted."""
    known = {code for label_set in tasks.values() for codes in label_set.classes.values() for code in codes}
    return sorted({label for of_record in labels for label in of_record} - known)


def read_prompt_set(name_or_uri: str) -> PromptSet:
    """A packaged prompt set by name, or a YAML, JSON or CSV file at a URI (`prompt_files.parse_prompt_file`)."""
    if name_or_uri.lower().endswith(prompt_files.SUFFIXES):
        uri = storage.absolute(name_or_uri)
        return prompt_files.parse_prompt_file(storage.read_bytes(uri), uri)
    return load_prompt_set(name_or_uri)


def prompt_texts(prompt_sets: Iterable[PromptSet], tasks: Iterable[str]) -> list[str]:
    """All prompts of some tasks, each once, in a fixed order."""
    tasks = list(tasks)
    return sorted(
        {
            prompt
            for prompt_set in prompt_sets
            for task in tasks
            for prompts in prompt_set.tasks.get(task, {}).values()
            for prompt in prompts
        }
    )


def check_prompts(prompt_set: PromptSet, tasks: dict[str, LabelSet]) -> None:
    """Raise ConfigError where the prompt set has no words for a task or for one of its classes."""
    for task, label_set in tasks.items():
        missing = [name for name in label_set.classes if name not in prompt_set.tasks.get(task, {})]
        if missing:
            raise ConfigError(
                f"prompt set `{prompt_set.name}` version {prompt_set.version} has no prompt for `{missing[0]}` of "
                f"`{task}`",
                hint="add the class to the prompt set, or leave the task out of evaluate.tasks",
            )


def check_signal(card: DatasetCard, facts: BundleFacts) -> None:
    """Raise CheckpointError where the data set's ECGs are not of the rate, length, leads and filter of the bundle."""
    if card.signal != facts.signal:
        raise CheckpointError(
            f"the bundle is for {facts.signal} and the data set holds {card.signal}",
            hint="prepare the data set with the bundle's sampling_rate_hz, duration_s and highpass_hz",
        )


@torch.no_grad()
def class_vectors(
    model: Mets, prompt_set: PromptSet, label_set: LabelSet, table: EmbeddingTable
) -> Float[Tensor, "class dimension"]:
    """One unit vector per class of `label_set`, in its order: wordings averaged after projection and L2.

    Raises ConfigError as `check_prompts`.
    """
    return class_embeddings(_wording_vectors(model, prompt_set, label_set, table))


@torch.no_grad()
def wording_similarities(
    model: Mets,
    prompt_set: PromptSet,
    label_set: LabelSet,
    table: EmbeddingTable,
    ecg_embeddings: Float[np.ndarray, "record dimension"],
) -> list[np.ndarray]:
    """For each class of `label_set`, in its order, cosines float64 [record, wording] with each of its prompts alone.

    `class_vectors` averages the prompts instead. Raises ConfigError as `check_prompts`.
    """
    vectors = _wording_vectors(model, prompt_set, label_set, table)
    embeddings = torch.from_numpy(ecg_embeddings).to(vectors[0])
    return [similarities(embeddings, of_class).double().cpu().numpy() for of_class in vectors]


@torch.no_grad()
def report_embeddings(
    model: Mets, table: EmbeddingTable, statements: ReportStatements | None, text_ids: Int64[np.ndarray, "record"]
) -> Float[np.ndarray, "record dimension"]:
    """Unit vectors of whole reports: of the report's text, or the mean of its statements' where these were trained on.

    text_ids: of each report in its template. Raises DatasetError for a text that is not in the table.
    """
    distinct, of_record = np.unique(text_ids, return_inverse=True)
    weight = model.text_projection.weight

    def embed(ids: np.ndarray) -> Tensor:
        return model.embed_text(torch.from_numpy(table.lookup(ids)).to(weight.device, weight.dtype))

    if statements is None:
        vectors = embed(distinct)
    else:
        columns = statements.columns(distinct)
        of_report = torch.from_numpy(statements.positives(distinct, columns)).to(weight.device, weight.dtype)
        vectors = torch.nn.functional.normalize(of_report @ embed(columns), dim=-1)
    found: np.ndarray = vectors.float().cpu().numpy()[of_record]
    return found


def _wording_vectors(
    model: Mets, prompt_set: PromptSet, label_set: LabelSet, table: EmbeddingTable
) -> list[Float[Tensor, "_ dimension"]]:
    """For each class the unit vectors of its prompts, [wording, dimension]."""
    check_prompts(prompt_set, {label_set.task: label_set})
    classes = prompt_set.tasks[label_set.task]
    weight = model.text_projection.weight
    # All in one call: each would project the anchors again.
    ids = np.asarray([text_id(prompt) for name in label_set.classes for prompt in classes[name]], dtype=np.int64)
    vectors = model.embed_prompt(torch.from_numpy(table.lookup(ids)).to(weight.device, weight.dtype))
    return list(vectors.split([len(classes[name]) for name in label_set.classes]))


def task_macro_auroc(
    model: Mets,
    prompt_set: PromptSet,
    tasks: dict[str, LabelSet],
    table: EmbeddingTable,
    *,
    ecg_embeddings: Float[np.ndarray, "record dimension"],
    labels: list[list[str]],
) -> dict[str, float]:
    """Zero-shot macro AUROC by task, nan where no class of a task can be scored."""
    # Here: scikit-learn takes more than a second to import, and actors that only embed would wait for it.
    from mets_ray.metrics import macro_auroc

    return {
        task: macro_auroc(*task_scores(model, prompt_set, label_set, table, ecg_embeddings, labels)[:2])[0]
        for task, label_set in tasks.items()
    }


def task_scores(
    model: Mets,
    prompt_set: PromptSet,
    label_set: LabelSet,
    table: EmbeddingTable,
    ecg_embeddings: np.ndarray,
    labels: list[list[str]],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(cosine similarities float64 [kept, class], truth bool [kept, class], which records are kept [record])."""
    truth, kept = label_matrix(label_set, labels)
    vectors = class_vectors(model, prompt_set, label_set, table)
    embeddings = torch.from_numpy(ecg_embeddings[kept]).to(vectors)
    return similarities(embeddings, vectors).double().cpu().numpy(), truth[kept], kept


class EcgEmbedder:
    """What a scoring actor runs: loads a bundle once, then turns `signal_uv` into `ecg_embedding` and `ecg_features`.

    Both are float32. `untrained_seed`: random weights in place of the bundle's, the baseline of no training at all.
    `focus`: `DatasetCard.focus`.
    """

    def __init__(
        self, bundle_uri: str, device: str, untrained_seed: int | None = None, focus: float | None = None
    ) -> None:
        self._device = torch.device(device)
        self._focus = focus
        bundle = load_bundle(bundle_uri)
        model = bundle.model if untrained_seed is None else untrained_model(bundle, untrained_seed)
        self._model = model.to(self._device)

    @torch.no_grad()
    def __call__(self, rows: pa.Table) -> pa.Table:
        signal_mv = microvolts_to_millivolts(signals(rows), self._model)
        features = self._model.ecg_encoder(signal_mv, self._focus)
        rows = rows.drop_columns(["signal_uv"])
        for name, vectors in (("ecg_embedding", self._model.project_ecg(features)), ("ecg_features", features)):
            values = vectors.float().cpu().numpy()
            rows = rows.append_column(
                name, pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[1])
            )
        return rows


def signal_tensor(signal_uv: np.ndarray, *, pinned: bool) -> Int16[Tensor, "row lead sample"]:
    """int16 µV of shards as a tensor; pinned memory travels to a GPU while it computes."""
    signal = torch.from_numpy(np.require(signal_uv, requirements=["C", "W"]))
    return signal.pin_memory() if pinned else signal


def microvolts_to_millivolts(signal_uv: np.ndarray | Tensor, model: Mets) -> Float[Tensor, "row lead sample"]:
    """int16 µV of shards → mV in the model's precision; int16 travels to the device, half the bytes of float32."""
    weight = model.text_projection.weight
    signal = signal_uv if isinstance(signal_uv, Tensor) else signal_tensor(signal_uv, pinned=False)
    return signal.to(weight.device, non_blocking=True).to(weight.dtype) / 1000.0

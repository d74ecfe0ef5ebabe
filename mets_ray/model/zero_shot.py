"""Class and report embeddings, and similarities and scores of ECGs against them."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Float16, Int64
from torch import Tensor

from mets_ray.model.mets import Mets
from mets_ray.tasks.label_sets import LabelSet, label_matrix
from mets_ray.tasks.prompt_sets import PromptSet
from mets_ray.tasks.questions import check_prompts
from mets_ray.text.embeddings import EmbeddingTable
from mets_ray.text.reports import text_id
from mets_ray.text.sides import sides_of
from mets_ray.text.statements import ReportStatements


@torch.no_grad()
def class_vectors(
    model: Mets, prompt_set: PromptSet, label_set: LabelSet, table: EmbeddingTable
) -> Float[Tensor, "class dimension"]:
    """One unit vector per class of `label_set`, in its order: wordings averaged after projection and normalisation.

    Raises ConfigError as `check_prompts`.
    """
    check_prompts(prompt_set, {label_set.task: label_set})
    classes = prompt_set.tasks[label_set.task]
    by_class = [classes[name] for name in label_set.classes]
    ids = np.asarray([text_id(prompt) for wordings in by_class for prompt in wordings], dtype=np.int64)
    return class_embeddings(wording_vectors(model, table.lookup(ids), by_class))


@torch.no_grad()
def report_embeddings(
    model: Mets, table: EmbeddingTable, statements: ReportStatements | None, text_ids: Int64[np.ndarray, "record"]
) -> Float[np.ndarray, "record dimension"]:
    """Unit vectors of whole reports: from the report text, or the mean over statements if trained on statements.

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


@torch.no_grad()
def wording_vectors(
    model: Mets, features: Float16[np.ndarray, "text feature"], classes: Sequence[Sequence[str]]
) -> list[Float[Tensor, "_ dimension"]]:
    """Unit vectors of the wordings of each class, [wording, dimension] on the model's device.

    features: frozen LM features of all wordings, class by class. classes: the wordings themselves.
    """
    weight = model.text_projection.weight
    sides = sides_of([wording for wordings in classes for wording in wordings])
    # All in one call, because each call projects the anchors.
    vectors = model.embed_prompt(torch.from_numpy(features).to(weight.device, weight.dtype), sides)
    return list(vectors.split([len(wordings) for wordings in classes]))


def wording_similarities(
    vectors: list[Float[Tensor, "_ dimension"]], ecg_embeddings: Float[np.ndarray, "record dimension"]
) -> list[np.ndarray]:
    """For each class the cosines with each wording alone, float64 [record, wording]; see `wording_vectors`."""
    embeddings = torch.from_numpy(ecg_embeddings).to(vectors[0])
    return [similarities(embeddings, of_class).double().cpu().numpy() for of_class in vectors]


def task_scores(
    model: Mets,
    prompt_set: PromptSet,
    label_set: LabelSet,
    table: EmbeddingTable,
    ecg_embeddings: np.ndarray,
    labels: list[list[str]],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`labelled_similarities` for a model that is not in a bundle yet, with class vectors computed from `table`.

    Raises ConfigError as `check_prompts`.
    """
    return labelled_similarities(class_vectors(model, prompt_set, label_set, table), label_set, ecg_embeddings, labels)


def labelled_similarities(
    vectors: Float[Tensor, "class dimension"], label_set: LabelSet, ecg_embeddings: np.ndarray, labels: list[list[str]]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(cosine similarities float64 [kept, class], truth bool [kept, class], which records are kept bool [record]).

    vectors: of the classes of `label_set`, in its order. ecg_embeddings: float32 [record, dimension]. labels: of each
    record; records without a class of this task are dropped.
    """
    truth, kept = label_matrix(label_set, labels)
    embeddings = torch.from_numpy(ecg_embeddings[kept]).to(vectors)
    return similarities(embeddings, vectors).double().cpu().numpy(), truth[kept], kept


def class_embeddings(prompt_embeddings: list[Float[Tensor, "_ dimension"]]) -> Float[Tensor, "class dimension"]:
    """One L2-normalised embedding per class.

    prompt_embeddings: for each class the embeddings of its prompts, `[prompt, dimension]`, after projection and L2
    normalisation. They are averaged and normalised again (CLIP, Radford et al. 2021, section 3.1.4).
    """
    return F.normalize(torch.stack([prompts.mean(dim=0) for prompts in prompt_embeddings]), dim=-1)


def similarities(
    ecg_embedding: Float[Tensor, "ecg dimension"], class_embedding: Float[Tensor, "class dimension"]
) -> Float[Tensor, "ecg class"]:
    """Cosines in [-1, 1]; both sides are L2-normalised."""
    return ecg_embedding @ class_embedding.T


def scores(
    similarity: Float[Tensor, "ecg class"], logit_scale: float | Float[Tensor, ""]
) -> Float[Tensor, "ecg class"]:
    """Softmax of the logits over the given classes: each row sums to 1. Not calibrated, so not probabilities."""
    return (logit_scale * similarity).softmax(dim=-1)

"""What a data set is scored on: its tasks, the class vectors of a prompt set, and scores of embeddings."""

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from mets_ray.model.mets import Mets
from mets_ray.tasks.choose import check_prompts
from mets_ray.tasks.label_sets import LabelSet, label_matrix
from mets_ray.tasks.prompt_sets import PromptSet
from mets_ray.text.embeddings import EmbeddingTable
from mets_ray.text.reports import text_id
from mets_ray.text.statements import ReportStatements


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


def class_embeddings(prompt_embeddings: list[Float[Tensor, "_ dimension"]]) -> Float[Tensor, "class dimension"]:
    """One L2-normalised embedding per class.

    prompt_embeddings: for each class its prompts' embeddings, `[prompt, dimension]`, after projection and L2
    normalisation. Several wordings are averaged there and normalised again (CLIP, Radford et al. 2021, section 3.1.4).
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
    """Softmax of the logits over the classes asked for: each row sums to 1. Not calibrated, so not probabilities."""
    return (logit_scale * similarity).softmax(dim=-1)

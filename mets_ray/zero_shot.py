"""Deciding between classes that were never trained: class embeddings from prompts, then cosines."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


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

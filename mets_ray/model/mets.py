"""METS: an ECG encoder and two projections into a shared space; the language model is not part of it."""

import math
from typing import Unpack

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int8, Int16
from torch import Tensor, nn

from mets_ray.model.ecg_encoder import EcgEncoder, EncoderShape

INITIAL_LOGIT_SCALE = 1 / 0.07  # METS: temperature 0.07
HIGHEST_LOGIT_SCALE = 100.0  # CLIP (Radford et al. 2021), section 2.5

# SigLIP (Zhai et al. 2023), section 3, uses 10 and -10, for thousands of texts of which one matches. Here several per
# cent of the statements in a batch match an ECG, and starting near their log odds saves the first epochs.
INITIAL_SIGMOID_SCALE, INITIAL_SIGMOID_BIAS = 10.0, -3.0

# Weights anchors by how far their similarity to the prompt is above the mean; see docs/findings.md.
_ANCHOR_SHARPNESS = 3.0

# How much more the anchors' directions count in a prompt than its own words.
_DIRECTION_SHARE = 2.0


class Mets(nn.Module):
    """The trained part of METS (PMLR v227, li24a): ECG encoder, a linear projection on each side, the logit scale.

    text_features: length of the frozen LM's feature vectors. dimension: length of the shared embedding.
    encoder: see `EcgEncoder`. sigmoid: for `loss.statement_losses`, which also has a logit bias;
    otherwise `logit_bias` is 0 and not trained.

    `anchors`: LM features of training statements, or None; see `embed_prompt`. `anchor_directions`: which way the ECGs
    with each of them lie (`statement_directions`), or None where that was not measured. `anchor_sides`: the side that
    each is about (`mets_ray.text.sides`), or None in bundles that are older than these.
    """

    # Not buffers: DistributedDataParallel would broadcast them.
    anchors: Float[Tensor, "anchor text_feature"] | None = None
    anchor_directions: Float[Tensor, "anchor dimension"] | None = None
    anchor_sides: Int8[Tensor, "anchor"] | None = None

    def __init__(
        self,
        *,
        text_features: int,
        dimension: int = 128,
        sigmoid: bool = False,
        **encoder: Unpack[EncoderShape],
    ) -> None:
        super().__init__()
        self.ecg_encoder = EcgEncoder(**encoder)
        self.ecg_projection = nn.Linear(self.ecg_encoder.num_features, dimension)
        self.text_projection = nn.Linear(text_features, dimension)
        scale = INITIAL_SIGMOID_SCALE if sigmoid else INITIAL_LOGIT_SCALE
        self.log_logit_scale = nn.Parameter(torch.tensor(math.log(scale)))
        # A parameter only where it is trained, so that the state dicts (and bundles) of the other kind stay unchanged.
        bias = torch.tensor(INITIAL_SIGMOID_BIAS if sigmoid else 0.0)
        self.logit_bias: Tensor
        if sigmoid:
            self.logit_bias = nn.Parameter(bias)
        else:
            self.register_buffer("logit_bias", bias, persistent=False)

    @property
    def logit_scale(self) -> Float[Tensor, ""]:
        """Multiplier of the cosine similarity, 1/temperature."""
        return self.log_logit_scale.exp()

    @torch.no_grad()
    def clamp_logit_scale(self) -> None:
        """Clamp the logit scale to [1, 100]; call it after each optimizer step, as open_clip does."""
        self.log_logit_scale.clamp_(0.0, math.log(HIGHEST_LOGIT_SCALE))

    def embed_ecg(
        self, signal_mv: Float[Tensor, "batch lead sample"], focus: float | None = None
    ) -> Float[Tensor, "batch dimension"]:
        """L2-normalised embeddings of ECGs in millivolts. focus: see `EcgEncoder.forward`."""
        return self.project_ecg(self.ecg_encoder(signal_mv, focus))

    def project_ecg(self, features: Float[Tensor, "batch feature"]) -> Float[Tensor, "batch dimension"]:
        """L2-normalised embeddings of the ECG encoder's features."""
        return _unit_rows(self.ecg_projection(features))

    def embed_text(self, text_features: Float[Tensor, "batch text_feature"]) -> Float[Tensor, "batch dimension"]:
        """L2-normalised embeddings of the frozen LM's features, which may be float16."""
        return _unit_rows(self.text_projection(text_features.to(self.text_projection.weight.dtype)))

    def embed_prompt(
        self, text_features: Float[Tensor, "batch text_feature"], sides: Int8[np.ndarray, "batch"]
    ) -> Float[Tensor, "batch dimension"]:
        """L2-normalised embeddings of prompts: a mix of the prompt's own embedding and its nearest anchors.

        The text projection is trained on report statements only. For other wordings, similarity in the frozen LM is
        the only guide. So a part of a prompt's embedding is a weighted mean over the anchors, with weights from a
        softmax over its standardised cosines: of their directions, which count twice as much as the prompt's own
        embedding, or, where those were not measured, of their embeddings, which count as much. Without anchors, or with
        one, this is the same as `embed_text`.

        sides: of each prompt (`mets_ray.text.sides`). Anchors of the opposite side do not count, unless all are of it.
        """
        own = self.embed_text(text_features)
        if self.anchors is None or len(self.anchors) < 2:  # of one alone, cosines have no spread
            return own
        anchors = self.anchors.to(own.device, own.dtype)
        cosines = F.normalize(text_features.to(own), dim=-1) @ F.normalize(anchors, dim=-1).T
        standardised = (cosines - cosines.mean(dim=-1, keepdim=True)) / cosines.std(dim=-1, keepdim=True)
        if self.anchor_sides is not None:
            of_prompts, of_anchors = torch.from_numpy(sides).to(own.device), self.anchor_sides.to(own.device)
            opposite = of_prompts[:, None] * of_anchors < 0
            standardised = standardised.masked_fill(opposite & ~opposite.all(dim=-1, keepdim=True), -math.inf)
        weights = (_ANCHOR_SHARPNESS * standardised).softmax(dim=-1)
        if self.anchor_directions is None:
            return _unit_rows(own + _unit_rows(weights @ self.embed_text(anchors)))
        directions = self.anchor_directions.to(own.device, own.dtype)
        return _unit_rows(own + _DIRECTION_SHARE * _unit_rows(weights @ directions))

    def forward(
        self,
        signal_mv: Float[Tensor, "batch lead sample"],
        text_features: Float[Tensor, "text text_feature"],
    ) -> tuple[Float[Tensor, "batch dimension"], Float[Tensor, "text dimension"], Float[Tensor, ""], Float[Tensor, ""]]:
        """Both embeddings, logit scale and bias in one call, so that DistributedDataParallel sees every parameter."""
        # A copy, because DistributedDataParallel does not allow a parameter itself as an output.
        return self.embed_ecg(signal_mv), self.embed_text(text_features), self.logit_scale, self.logit_bias.clone()


def _unit_rows(projected: Float[Tensor, "batch dimension"]) -> Float[Tensor, "batch dimension"]:
    # Autocast computes the projection in half precision; cosines scaled by 100 need more than its 8 or 11 bits.
    if projected.dtype in (torch.bfloat16, torch.float16):
        projected = projected.float()
    return F.normalize(projected, dim=-1)


def signal_tensor(signal_uv: np.ndarray, *, pinned: bool) -> Int16[Tensor, "row lead sample"]:
    """int16 µV of shards as a tensor; pinned memory is copied to a GPU while it computes."""
    signal = torch.from_numpy(np.require(signal_uv, requirements=["C", "W"]))
    return signal.pin_memory() if pinned else signal


def microvolts_to_millivolts(signal_uv: np.ndarray | Tensor, model: nn.Module) -> Float[Tensor, "row lead sample"]:
    """int16 µV of shards → mV in the model's precision; the transfer is in int16, half the bytes of float32."""
    weight = next(model.parameters())
    signal = signal_uv if isinstance(signal_uv, Tensor) else signal_tensor(signal_uv, pinned=False)
    return signal.to(weight.device, non_blocking=True).to(weight.dtype) / 1000.0

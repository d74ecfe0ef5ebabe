"""The frozen language model: texts in, features out."""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float16, Int
from torch import Tensor

from mets_ray.errors import ConfigError, first_line
from mets_ray.text.model_files import Pooling, resolve_text_model, text_model_fingerprint


class FrozenTextEncoder:
    """A frozen language model of Hugging Face's transformers: texts to features, `[text, feature]` float16.

    model, revision: see `resolve_text_model`. pooling: "mean" over the real tokens, special ones included, or "cls",
    the first token. max_length: tokens; longer texts are cut. batch_size: texts per forward pass.

    `num_features` is the length of a feature vector, `texts_embedded` counts the texts that went through the LM, and
    `fingerprint` equals `text_model_fingerprint(model, pooling, max_length)`.

    Raises ConfigError where the model cannot be found or lacks weights or a vocabulary, is not an encoder, or takes
    fewer than `max_length` tokens.
    """

    def __init__(
        self,
        model: str,
        *,
        pooling: Pooling,
        max_length: int,
        device: str = "cpu",
        batch_size: int = 64,
        revision: str | None = None,
    ) -> None:
        # Imported here: workers that only encode ECGs need no transformers.
        from transformers import AutoModel, AutoTokenizer

        folder = resolve_text_model(model, revision)
        self.pooling = pooling
        self.max_length = max_length
        self.device = device
        self.batch_size = batch_size
        self.texts_embedded = 0
        self.fingerprint = text_model_fingerprint(folder, pooling, max_length)
        local: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(folder, **local)
            lm, loading = AutoModel.from_pretrained(
                folder, **local, dtype=torch.float32, weights_only=True, output_loading_info=True
            )
        except Exception as error:  # transformers raises whatever its many readers raise
            raise ConfigError(
                f"`text.model` is {model!r}, which transformers cannot load: {first_line(error)}",
                where=folder,
                hint="name a Hugging Face encoder whose files are complete",
            ) from error
        # transformers fills missing weights with random numbers and only logs it. The pooler's are never used here.
        missing = sorted(name for name in loading["missing_keys"] if not name.startswith("pooler."))
        if missing:
            raise ConfigError(
                f"`text.model` is {model!r}, whose checkpoint lacks {len(missing)} of its weights: `{missing[0]}`"
                + (", ..." if len(missing) > 1 else ""),
                where=folder,
                hint="name a checkpoint of the encoder itself; random weights would pass unnoticed",
            )
        if lm.config.is_encoder_decoder or self._tokenizer.pad_token is None:
            raise ConfigError(
                f"`text.model` is {model!r}, a {lm.config.model_type} model: not an encoder with a padding token",
                where=folder,
                hint="name an encoder such as emilyalsentzer/Bio_ClinicalBERT",
            )
        longest = min(self._tokenizer.model_max_length, getattr(lm.config, "max_position_embeddings", max_length))
        if max_length > longest:
            raise ConfigError(
                f"`text.max_length` is {max_length} tokens, and {model!r} takes {longest} at most",
                hint=f"set text.max_length to {longest} or less",
            )
        self._tokenizer.padding_side = "right"
        self._lm = lm.eval().requires_grad_(False).to(device)
        self.num_features: int = lm.config.hidden_size

    def embed(self, texts: list[str]) -> Float16[np.ndarray, "text feature"]:
        """Features of each text, in the order given. Equal texts go through the LM once.

        Padding changes features by float32 rounding, which can show as one unit in the last place of float16.
        """
        distinct = list(dict.fromkeys(texts))
        features = np.empty((len(distinct), self.num_features), dtype=np.float16)
        tokens = self._tokenizer(distinct, truncation=True, max_length=self.max_length)["input_ids"] if distinct else []
        # Texts of similar length need little padding. The longest go first: if memory runs out, it does so at once.
        order = sorted(range(len(distinct)), key=lambda index: -len(tokens[index]))
        for start in range(0, len(order), self.batch_size):
            chosen = order[start : start + self.batch_size]
            features[chosen] = self._features([distinct[index] for index in chosen])
        self.texts_embedded += len(distinct)
        row = {text: index for index, text in enumerate(distinct)}
        return features[[row[text] for text in texts]]

    def __call__(self, texts: list[str]) -> Float16[np.ndarray, "text feature"]:
        """The same as `embed`."""
        return self.embed(texts)

    @torch.inference_mode()
    def _features(self, texts: list[str]) -> Float16[np.ndarray, "text feature"]:
        batch = self._tokenizer(
            texts, truncation=True, max_length=self.max_length, padding=True, return_tensors="pt"
        ).to(self.device)
        hidden = self._lm(**batch).last_hidden_state
        pooled = hidden[:, 0] if self.pooling == "cls" else _masked_mean(hidden, batch["attention_mask"])
        array: np.ndarray = pooled.to(torch.float16).cpu().numpy()
        return array


def _masked_mean(
    hidden: Float[Tensor, "text token feature"], attention_mask: Int[Tensor, "text token"]
) -> Float[Tensor, "text feature"]:
    weight = attention_mask.to(hidden.dtype)
    return torch.einsum("btf,bt->bf", hidden, weight) / weight.sum(dim=1, keepdim=True)

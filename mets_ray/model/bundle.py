"""The checkpoint bundle: everything needed to score an ECG, in one folder with checksums.

model.safetensors            weights of the ECG encoder, both projections and the logit scale
prompt_features.safetensors  frozen LM features of the prompt sets, so that their classes need no LM
config.yaml                  the resolved configuration of the run
trainer_state.pt             optimizer, schedule and cursor: for resuming only, not in a published bundle
bundle.json                  facts, and the sha256 of the other files; written last
"""

import hashlib
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors.numpy import load_file as load_arrays
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import load_file, save_file

from mets_ray import storage
from mets_ray.config.load import dump_config
from mets_ray.config.older import from_older
from mets_ray.config.settings import Config
from mets_ray.ecg.preprocess import SignalConfig
from mets_ray.errors import CheckpointError
from mets_ray.model.mets import Mets
from mets_ray.tasks.prompt_sets import PromptSet
from mets_ray.text.embeddings import EmbeddingTable

BUNDLE_SCHEMA_VERSION = 1
MANIFEST_NAME = "bundle.json"
TRAINER_STATE_NAME = "trainer_state.pt"
_MODEL, _PROMPTS, _CONFIG = "model.safetensors", "prompt_features.safetensors", "config.yaml"
_ANCHORS = "anchor_features.safetensors"


class BundleFacts(BaseModel):
    """`bundle.json`: what the weights are, where they come from, and what they can be used with."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    schema_version: int = BUNDLE_SCHEMA_VERSION
    run: str
    sampling_rate_hz: int
    duration_s: float
    leads: tuple[str, ...]
    highpass_hz: float | None = None  # bundles older than the setting were trained without a filter
    text_model: str
    text_revision: str | None = None  # the commit of a hub model; not known before version 0.2
    text_pooling: str
    text_max_length: int
    text_fingerprint: str
    text_features: int
    dataset_source: str
    dataset_sha256: str
    dataset_source_sha256: str = ""  # of the files that the data set was prepared from; not known before version 0.2
    synthetic: bool
    shuffled_reports: bool = False
    train_folds: tuple[int, ...]
    validation: tuple[int, ...] | str
    earlier_folds: tuple[int, ...] = ()  # of the same source, used to train the bundle given by `train.init_from`
    prompt_sets: dict[str, PromptSet]
    metrics: dict[str, float | None]
    history: tuple[dict[str, float | None], ...]
    files: dict[str, str] = {}

    @property
    def seen_folds(self) -> tuple[int, ...]:
        """Folds used for training or checkpoint selection, here or before; `hash:` selects patients of train folds."""
        listed = () if isinstance(self.validation, str) else self.validation
        return tuple(sorted({*self.train_folds, *listed, *self.earlier_folds}))

    @property
    def signal(self) -> SignalConfig:
        return SignalConfig(self.sampling_rate_hz, self.duration_s, self.leads, self.highpass_hz)


@dataclass(frozen=True)
class Bundle:
    """A loaded bundle; `prompts` holds the LM features of every prompt in `facts.prompt_sets`."""

    model: Mets
    config: Config
    facts: BundleFacts
    prompts: EmbeddingTable


def build_model(config: Config, *, leads: int, text_features: int) -> Mets:
    """The untrained model that a configuration describes."""
    return Mets(
        leads=leads,
        width=config.encoder.width,
        norm=config.encoder.norm,
        text_features=text_features,
        dimension=config.encoder.embedding_dimension,
        activation_checkpointing=config.encoder.activation_checkpointing,
        sigmoid=config.text.unit == "statement",
    )


def untrained_model(bundle: Bundle, seed: int) -> Mets:
    """The bundle's architecture with random weights, as before the first training step."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build_model(bundle.config, leads=len(bundle.facts.leads), text_features=bundle.facts.text_features)
    model.anchors = bundle.model.anchors
    return model.eval()


def write_bundle(folder: Path, bundle: Bundle, trainer_state: dict[str, Any] | None = None) -> None:
    """Write all files of a bundle to a local folder, `bundle.json` last."""
    state = {key: value.detach().cpu().contiguous() for key, value in bundle.model.state_dict().items()}
    save_file(state, folder / _MODEL)
    save_arrays({"text_id": bundle.prompts.ids, "features": bundle.prompts.vectors}, folder / _PROMPTS)
    (folder / _CONFIG).write_text(dump_config(bundle.config), encoding="utf-8")
    files = {name: _sha256(folder / name) for name in (_MODEL, _PROMPTS, _CONFIG)}
    if bundle.model.anchors is not None:
        save_arrays({"features": bundle.model.anchors.half().cpu().numpy()}, folder / _ANCHORS)
        files[_ANCHORS] = _sha256(folder / _ANCHORS)
    if trainer_state is not None:
        torch.save(trainer_state, folder / TRAINER_STATE_NAME)
        files[TRAINER_STATE_NAME] = _sha256(folder / TRAINER_STATE_NAME)
    facts = bundle.facts.model_copy(update={"files": files})
    (folder / MANIFEST_NAME).write_text(facts.model_dump_json(indent=1), encoding="utf-8")


def read_bundle(folder: Path) -> Bundle:
    """Load a bundle from a local folder onto the CPU, in eval mode.

    Raises CheckpointError if the manifest has another schema, or a file is missing or has another hash.
    """
    facts = _parse_facts((folder / MANIFEST_NAME).read_bytes(), str(folder))
    for name, expected in facts.files.items():
        path = folder / name
        if name == TRAINER_STATE_NAME and not path.exists():
            continue
        if not path.exists() or _sha256(path) != expected:
            raise CheckpointError(
                f"`{name}` is not the file that `{MANIFEST_NAME}` describes (missing, or another sha256)",
                where=str(folder),
                hint="copy the whole bundle again",
            )
    config = _parse_config((folder / _CONFIG).read_text(encoding="utf-8"), str(folder))
    model = build_model(config, leads=len(facts.leads), text_features=facts.text_features)
    state = load_file(folder / _MODEL)
    model.to(dtype=next(value.dtype for value in state.values() if value.is_floating_point()))
    model.load_state_dict(state)
    if _ANCHORS in facts.files:
        model.anchors = torch.from_numpy(load_arrays(folder / _ANCHORS)["features"])
    model.eval()
    arrays = load_arrays(folder / _PROMPTS)
    return Bundle(model, config, facts, EmbeddingTable(arrays["text_id"], arrays["features"].astype(np.float16)))


def read_trainer_state(folder: Path) -> dict[str, Any]:
    """Optimizer, schedule and cursor of a checkpoint; loads tensors and plain values only, never pickled code."""
    state: dict[str, Any] = torch.load(folder / TRAINER_STATE_NAME, map_location="cpu", weights_only=True)
    return state


def load_bundle(bundle_uri: str) -> Bundle:
    """Fetch a bundle from any storage and load it.

    Raises CheckpointError if `bundle_uri` holds no complete bundle of this schema.
    """
    if not storage.exists(storage.join(bundle_uri, MANIFEST_NAME)):
        raise CheckpointError(
            f"`{bundle_uri}` holds no {MANIFEST_NAME}, so it is not a complete bundle",
            hint="give the bundle_uri that pretrain printed",
        )
    with tempfile.TemporaryDirectory() as folder:
        storage.download_folder(bundle_uri, folder)
        return read_bundle(Path(folder))


def newest_bundle(uri: str) -> str:
    """`uri` itself if it is a bundle, otherwise the newest `<run>/bundle` below it, by the time in the run's name.

    Raises CheckpointError if there is none.
    """
    if storage.exists(storage.join(uri, MANIFEST_NAME)):
        return uri
    suffix = f"/bundle/{MANIFEST_NAME}"
    bundles = [found.removesuffix(f"/{MANIFEST_NAME}") for found in storage.list_files(uri, suffix=suffix)]
    if not bundles:
        raise CheckpointError(
            f"`{uri}` is not a bundle and contains none",
            hint="run `make quickstart`, or give the bundle_uri of a pretrain run",
        )
    return max(bundles, key=lambda bundle: bundle.split("/")[-2])


def read_facts(bundle_uri: str) -> BundleFacts:
    """The facts of a bundle or checkpoint, without its weights."""
    return _parse_facts(storage.read_bytes(storage.join(bundle_uri, MANIFEST_NAME)), bundle_uri)


def publish_bundle(checkpoint_uri: str, bundle_uri: str) -> None:
    """Publish a checkpoint as a bundle: copied without the trainer state, the manifest last."""
    with tempfile.TemporaryDirectory() as folder:
        storage.download_folder(checkpoint_uri, folder)
        (Path(folder) / TRAINER_STATE_NAME).unlink(missing_ok=True)
        manifest = Path(folder) / MANIFEST_NAME
        facts = _parse_facts(manifest.read_bytes(), checkpoint_uri)
        files = {name: value for name, value in facts.files.items() if name != TRAINER_STATE_NAME}
        manifest.write_text(facts.model_copy(update={"files": files}).model_dump_json(indent=1), encoding="utf-8")
        storage.publish_folder(folder, bundle_uri, MANIFEST_NAME)


def _parse_config(text: str, where: str) -> Config:
    try:
        return Config.model_validate(from_older(yaml.safe_load(text)))
    except ValidationError as error:
        keys = ", ".join(f"`{'.'.join(map(str, fault['loc']))}`" for fault in error.errors()[:5])
        raise CheckpointError(
            f"`{_CONFIG}` does not match this version's settings: {keys}",
            where=where,
            hint="read the bundle with the version of mets_ray that wrote it",
        ) from error


def _parse_facts(data: bytes, where: str) -> BundleFacts:
    version = json.loads(data).get("schema_version")
    if version != BUNDLE_SCHEMA_VERSION:
        raise CheckpointError(
            f"the bundle has schema version {version}, this mets_ray reads {BUNDLE_SCHEMA_VERSION}",
            where=where,
            hint="pretrain again, or install the version of mets_ray that wrote it",
        )
    try:
        return BundleFacts.model_validate_json(data)
    except ValidationError as error:
        raise CheckpointError(
            f"`{MANIFEST_NAME}` has {error.error_count()} errors, first: {error.errors()[0]['loc']}", where=where
        ) from error


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def check_signal(signal: SignalConfig, facts: BundleFacts) -> None:
    """Raise CheckpointError if sampling rate, duration, leads or filter of the data set differ from the bundle's."""
    if signal != facts.signal:
        raise CheckpointError(
            f"the bundle is for {facts.signal} and the data set holds {signal}",
            hint="prepare the data set with the bundle's sampling_rate_hz, duration_s and highpass_hz",
        )


def check_text_model(facts: BundleFacts, fingerprint: str) -> None:
    """Raise CheckpointError if `fingerprint` is not that of the LM that the bundle was trained with."""
    if fingerprint != facts.text_fingerprint:
        raise CheckpointError(
            f"the language model found here has the fingerprint {fingerprint[:16]}, the bundle was trained with "
            f"{facts.text_fingerprint[:16]} (`{facts.text_model}`)",
            hint="provide the LM weights that pretraining used (serving: text_model), or use stored prompt sets",
        )

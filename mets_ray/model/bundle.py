"""The checkpoint bundle: everything needed to score an ECG, in one folder with checksums.

model.safetensors            weights of the ECG encoder, both projections and the logit scale
prompt_features.safetensors  frozen LM features of the prompt sets, so that their classes need no LM
anchor_features.safetensors  frozen LM features of training statements, where it was trained on statements, and the
                             side that each is about; older bundles lack the sides
anchor_directions.safetensors  which way the training ECGs with each of them lie; older bundles have none
anchor_statements.json       the text of those that many patients share, for explanations; may be missing
config.yaml                  the resolved configuration of the run
trainer_state.pt             optimizer, schedule and cursor: for resuming only, not in a published bundle
head_<name>.safetensors      what adapt learnt from labels (`heads`); only in bundles that it wrote
calibration/*.json           what evaluate fitted for this bundle; not one of its files, and not in its digest
reference/inputs.json        what its inputs looked like, for `score` and serving to compare with; the same holds
bundle.json                  facts, the sha256 of the other files, and the digest of all that; written last

With the environment variable METS_RAY_BUNDLE_KEY, bundles are signed when they are published (HMAC-SHA256 of the
digest), and only bundles signed with that key are loaded. The digest finds damage; the signature finds forgery.
"""

import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import yaml
from jaxtyping import Float, Int8
from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError
from safetensors.numpy import load_file as load_arrays
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import load_file, save_file
from torch import Tensor

from mets_ray import bundles, storage
from mets_ray.bundles import MANIFEST_NAME
from mets_ray.config.load import dump_config
from mets_ray.config.older import from_older
from mets_ray.config.settings import Config
from mets_ray.config.source import RENAMED, SOURCES, SourceSettings
from mets_ray.ecg.preprocess import SignalConfig
from mets_ray.errors import CheckpointError, MetsError
from mets_ray.model.anchor_statements import AnchorStatements
from mets_ray.model.calibrations import (
    FOLDER_NAME,
    NO_CALIBRATIONS,
    Calibrations,
    read_calibrations,
    require_calibrations,
)
from mets_ray.model.ecg_encoder import encoder_shape
from mets_ray.model.heads import NO_HEADS, Head, head_file, is_head_file, read_head, read_heads, write_head
from mets_ray.model.input_references import ReferenceFile, find_reference, reference_uri, require_reference
from mets_ray.model.lead_quality import LeadSetQuality
from mets_ray.model.mets import Mets
from mets_ray.tasks.prompt_sets import PromptSet
from mets_ray.text.embeddings import EmbeddingTable

BUNDLE_SCHEMA_VERSION = 2  # 1, written before version 0.2: no digest
READ_VERSIONS = (1, BUNDLE_SCHEMA_VERSION)
TRAINER_STATE_NAME = "trainer_state.pt"
_MODEL, _PROMPTS, _CONFIG = "model.safetensors", "prompt_features.safetensors", "config.yaml"
_ANCHORS, _DIRECTIONS = "anchor_features.safetensors", "anchor_directions.safetensors"
_STATEMENTS = "anchor_statements.json"
_REQUIRED = (_MODEL, _PROMPTS, _CONFIG)
_OPTIONAL = (_ANCHORS, _DIRECTIONS, _STATEMENTS)
_KNOWN = (*_REQUIRED, *_OPTIONAL, TRAINER_STATE_NAME)
_KEY_VARIABLE = "METS_RAY_BUNDLE_KEY"

_log = logging.getLogger(__name__)


def _run_name(name: str) -> str:
    # Results are kept in folders that carry a run's name.
    if fault := storage.path_fault(name) or ("it has a slash" if "/" in name else ""):
        raise ValueError(f"{name!r} is not the name of a run: {fault}")
    return name


def _named_plainly(prompt_sets: dict[str, PromptSet]) -> dict[str, PromptSet]:
    for prompt_set in prompt_sets.values():
        for name in (prompt_set.name, *prompt_set.tasks):
            if fault := storage.name_fault(name):  # files are called so
                raise ValueError(f"a prompt set or a task of it is called {name[:80]!r}: {fault}")
    return prompt_sets


class BundleFacts(BaseModel):
    """`bundle.json`: what the weights are, where they come from, and what they can be used with."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    schema_version: int = BUNDLE_SCHEMA_VERSION
    run: Annotated[str, AfterValidator(_run_name)]
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
    patient_folds: int | None = None  # as in the data set's card
    synthetic: bool
    shuffled_reports: bool = False
    train_folds: tuple[int, ...]
    validation: tuple[int, ...] | str
    earlier_folds: tuple[int, ...] = ()  # of the same source, used to train the bundle given by `train.init_from`
    prompt_sets: Annotated[dict[str, PromptSet], AfterValidator(_named_plainly)]
    metrics: dict[str, float | None]
    history: tuple[dict[str, float | None], ...]
    lead_sets: dict[str, LeadSetQuality] = {}  # by name of `ecg.lead_sets.LEAD_SETS`; empty where none was measured
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
    """A bundle; `prompts` holds the LM features of every prompt in `facts.prompt_sets`.

    `digest` is that of the manifest it was read from, and so stands for all its files; "" for one that was not read.
    `calibrations`: those in its folder, which are not part of it. `statements`: the texts of some of the model's
    anchors; None where none are written down. `reference`: of its inputs, also in its folder; None where there is none,
    and `reference_fault` says why. `heads`: by name.
    """

    model: Mets
    config: Config
    facts: BundleFacts
    prompts: EmbeddingTable
    digest: str = ""
    calibrations: Calibrations = NO_CALIBRATIONS
    statements: AnchorStatements | None = None
    reference: ReferenceFile | None = None
    reference_fault: str = "the bundle was not read from a folder"
    heads: Mapping[str, Head] = field(default_factory=lambda: NO_HEADS)

    @property
    def takes_fewer_leads(self) -> bool:
        """Whether it was trained to do without leads, so that ECGs with some of its leads may be scored."""
        return self.config.augment.lead_dropout > 0


def build_model(config: Config, *, leads: int, text_features: int) -> Mets:
    """The untrained model that a configuration describes."""
    model = Mets(
        text_features=text_features,
        dimension=config.encoder.embedding_dimension,
        sigmoid=config.text.unit == "statement",
        **encoder_shape(config.encoder, leads),
    )
    model.ecg_encoder.activation_checkpointing = config.encoder.activation_checkpointing
    return model


def untrained_model(bundle: Bundle, seed: int) -> Mets:
    """The bundle's architecture with random weights, as before the first training step."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build_model(bundle.config, leads=len(bundle.facts.leads), text_features=bundle.facts.text_features)
    model.anchors, model.anchor_sides = bundle.model.anchors, bundle.model.anchor_sides
    return model.eval()


def write_bundle(folder: Path, bundle: Bundle, trainer_state: dict[str, Any] | None = None) -> None:
    """Write all files of a bundle to a local folder, `bundle.json` last."""
    state = {key: value.detach().cpu().contiguous() for key, value in bundle.model.state_dict().items()}
    save_file(state, folder / _MODEL)
    save_arrays({"text_id": bundle.prompts.ids, "features": bundle.prompts.vectors}, folder / _PROMPTS)
    (folder / _CONFIG).write_text(dump_config(bundle.config), encoding="utf-8")
    files = {name: _sha256(folder / name) for name in (_MODEL, _PROMPTS, _CONFIG)}
    if bundle.model.anchors is not None:
        anchors = {"features": bundle.model.anchors.half().cpu().numpy()}
        if bundle.model.anchor_sides is not None:
            anchors["sides"] = bundle.model.anchor_sides.cpu().numpy()
        save_arrays(anchors, folder / _ANCHORS)
        files[_ANCHORS] = _sha256(folder / _ANCHORS)
    if bundle.model.anchor_directions is not None:
        save_arrays({"directions": bundle.model.anchor_directions.float().cpu().numpy()}, folder / _DIRECTIONS)
        files[_DIRECTIONS] = _sha256(folder / _DIRECTIONS)
    if bundle.statements is not None:
        (folder / _STATEMENTS).write_text(bundle.statements.model_dump_json(), encoding="utf-8")
        files[_STATEMENTS] = _sha256(folder / _STATEMENTS)
    for head in bundle.heads.values():
        name = write_head(folder, head)
        files[name] = _sha256(folder / name)
    if trainer_state is not None:
        torch.save(trainer_state, folder / TRAINER_STATE_NAME)
        files[TRAINER_STATE_NAME] = _sha256(folder / TRAINER_STATE_NAME)
    facts = bundle.facts.model_copy(update={"files": files})
    (folder / MANIFEST_NAME).write_bytes(storage.seal(facts.model_dump_json()))


def read_bundle(folder: Path, where: str = "") -> Bundle:
    """Load a bundle from a local folder onto the CPU, in eval mode.

    where: names the bundle in errors; default: the folder.
    Raises CheckpointError if the manifest has another schema or another content than was written, or a file is missing,
    has another hash or does not fit. A manifest of schema version 1 has no digest, so only its form and the hashes of
    the other files are checked; a warning says so.
    """
    where = where or str(folder)
    with _faults_of(MANIFEST_NAME, where):
        manifest = (folder / MANIFEST_NAME).read_bytes()
    sealed = _unsealed(manifest, where)
    facts = _facts(sealed, where)
    _check_files(folder, facts, where)
    if not sealed.stated:
        _log.warning(
            "bundle `%s` is of schema version 1: its facts and prompts have no digest and cannot be checked", facts.run
        )
    with _faults_of(_CONFIG, where):
        config = _parse_config((folder / _CONFIG).read_text(encoding="utf-8"), where)
    with _faults_of(_MODEL, where):
        model = build_model(config, leads=len(facts.leads), text_features=facts.text_features)
        state = load_file(folder / _MODEL)
        model.to(dtype=next(value.dtype for value in state.values() if value.is_floating_point()))
        model.load_state_dict(state)
    if _ANCHORS in facts.files:
        with _faults_of(_ANCHORS, where):
            anchors = load_arrays(folder / _ANCHORS)
            model.anchors = torch.from_numpy(anchors["features"])
            if "sides" in anchors:
                model.anchor_sides = _fitting_sides(anchors["sides"], model.anchors)
    if _DIRECTIONS in facts.files:
        with _faults_of(_DIRECTIONS, where):
            model.anchor_directions = _fitting_directions(load_arrays(folder / _DIRECTIONS)["directions"], model)
    model.eval()
    statements = None
    if _STATEMENTS in facts.files:
        with _faults_of(_STATEMENTS, where):
            statements = AnchorStatements.model_validate_json((folder / _STATEMENTS).read_bytes())
            statements.check_anchors(0 if model.anchors is None else len(model.anchors))
    with _faults_of(_PROMPTS, where):
        arrays = load_arrays(folder / _PROMPTS)
        prompts = EmbeddingTable(arrays["text_id"], arrays["features"].astype(np.float16))
    calibrations = read_calibrations(str(folder / FOLDER_NAME), sealed.digest, signing_key())
    reference, fault = find_reference(reference_uri(str(folder)), sealed.digest, signing_key())
    heads = read_heads(folder, facts.files, _MODEL, where)
    return Bundle(
        model,
        config,
        facts,
        prompts,
        digest=sealed.digest,
        calibrations=calibrations,
        statements=statements,
        reference=reference,
        reference_fault=fault,
        heads=heads,
    )


def _fitting_sides(sides: np.ndarray, anchors: Tensor) -> Int8[Tensor, "anchor"]:
    """As a tensor. Raises ValueError where there is not one for each anchor."""
    if sides.shape != (len(anchors),) or sides.dtype != np.int8:
        raise ValueError(f"sides of shape {sides.shape} in {sides.dtype}, expected {(len(anchors),)} in int8")
    return torch.from_numpy(sides)


def _fitting_directions(directions: np.ndarray, model: Mets) -> Float[Tensor, "anchor dimension"]:
    """As a tensor. Raises ValueError where there is not one of the model's dimension for each anchor."""
    expected = (0 if model.anchors is None else len(model.anchors), model.text_projection.out_features)
    if directions.shape != expected:
        raise ValueError(f"directions of shape {directions.shape}, expected {expected}")
    return torch.from_numpy(directions)


def read_trainer_state(folder: Path) -> dict[str, Any]:
    """Optimizer, schedule and cursor of a checkpoint; loads tensors and plain values only, never pickled code.

    Raises CheckpointError if the file is missing or holds anything else.
    """
    with _faults_of(TRAINER_STATE_NAME, str(folder)):
        state: dict[str, Any] = torch.load(folder / TRAINER_STATE_NAME, map_location="cpu", weights_only=True)
    return state


def _check_files(folder: Path, facts: BundleFacts, where: str) -> None:
    """Raise CheckpointError where the files in `folder` are not those of the manifest, all of them and no other."""
    for name in facts.files:
        if name not in _KNOWN and not is_head_file(name):
            raise CheckpointError(
                f"`{MANIFEST_NAME}` names the file {name!r}, and a bundle has {', '.join(_KNOWN)} and heads",
                where=where,
                hint="read the bundle with the version of mets_ray that wrote it",
            )
    for path in sorted(folder.glob(head_file("*"))):
        if path.name not in facts.files:
            of = read_head(path, where).facts
            raise CheckpointError(
                f"`{path.name}` is a head of another bundle: it was trained on `{of.parent_run}` with digest "
                f"{of.parent_digest[:8]}, and `{MANIFEST_NAME}` does not name it",
                where=where,
                hint="run `mets-ray adapt` on this bundle: it writes a bundle with a head of its own",
            )
    for name in dict.fromkeys((*_KNOWN, *facts.files)):
        expected, path = facts.files.get(name), folder / name
        if not path.exists() and (name == TRAINER_STATE_NAME or (name in _OPTIONAL and expected is None)):
            continue
        if expected is None or not path.is_file() or _sha256(path) != expected:
            raise CheckpointError(
                f"`{name}` is not the file that `{MANIFEST_NAME}` describes (missing, or another sha256)",
                where=where,
                hint="copy the whole bundle again",
            )


@contextmanager
def _faults_of(name: str, where: str) -> Iterator[None]:
    """Turn whatever a library raises for a damaged or unfitting file into a CheckpointError that names it."""
    try:
        yield
    except MetsError:
        raise
    except Exception as error:
        raise _damaged(name, where, f"{type(error).__name__}: {str(error)[:300]}") from error


def _damaged(name: str, where: str, why: str) -> CheckpointError:
    return CheckpointError(
        f"`{name}` cannot be read: {why}",
        where=where,
        hint="copy the whole bundle again, or go on from an older checkpoint",
    )


def load_bundle(bundle_uri: str) -> Bundle:
    """Fetch a bundle from any storage and load it.

    bundle_uri: as `bundles.locate`: a URI, the name of a packaged bundle, or `hf://user/name@COMMIT`.
    Raises CheckpointError if it is no complete bundle of this schema, METS_RAY_BUNDLE_KEY is set and the bundle is not
    signed with it, or the hub gives nothing.
    """
    with tempfile.TemporaryDirectory() as folder:
        return fetch_bundle(bundle_uri, Path(folder))


def fetch_bundle(bundle_uri: str, folder: Path) -> Bundle:
    """`load_bundle` that leaves all files of the bundle, and what lies beside them, in a local folder."""
    place = _require_bundle(bundle_uri)
    storage.download_folder(place, folder)
    with _faults_of(MANIFEST_NAME, bundle_uri):  # it is gone while the bundle is published again
        manifest = (folder / MANIFEST_NAME).read_bytes()
    _check_signature(_unsealed(manifest, bundle_uri), bundle_uri)
    return read_bundle(folder, bundle_uri)


def with_calibrations(bundle: Bundle, calibration_uri: str | None) -> Bundle:
    """The bundle with the calibrations that a setting names in place of those in its folder; as it is for None.

    Raises CheckpointError as `require_calibrations`.
    """
    if calibration_uri is None:
        return bundle
    return replace(bundle, calibrations=require_calibrations(calibration_uri, bundle.digest, signing_key()))


def with_reference(bundle: Bundle, uri: str | None) -> Bundle:
    """The bundle with the reference of inputs that a setting names, in place of its folder's; as it is for None.

    Raises CheckpointError as `require_reference`.
    """
    if uri is None:
        return bundle
    return replace(bundle, reference=require_reference(uri, bundle.digest, signing_key()), reference_fault="")


def newest_bundle(uri: str) -> str:
    """`uri` itself if it is a bundle, otherwise the newest `<run>/bundle` below it, by the time in the run's name.

    uri: as for `load_bundle`, or a folder of runs. Raises CheckpointError if there is none.
    """
    place = bundles.locate(uri)
    if storage.exists(storage.join(place, MANIFEST_NAME)):
        return uri
    suffix = f"/bundle/{MANIFEST_NAME}"
    below = [found.removesuffix(f"/{MANIFEST_NAME}") for found in storage.list_files(place, suffix=suffix)]
    if not below:
        raise CheckpointError(
            f"`{uri}` is not a bundle and contains none",
            hint="run `make quickstart`, or give the bundle_uri of a pretrain run; " + bundles.what_is_packaged(),
        )
    return max(below, key=lambda bundle: bundle.split("/")[-2])


def read_facts(bundle_uri: str) -> BundleFacts:
    """The facts of a bundle or checkpoint, without its weights."""
    place = _require_bundle(bundle_uri)
    return _facts(_unsealed(storage.read_bytes(storage.join(place, MANIFEST_NAME)), bundle_uri), bundle_uri)


def _require_bundle(bundle_uri: str) -> str:
    """Where the bundle lies. Raises CheckpointError as `bundles.locate`, and where there is no bundle."""
    place = bundles.locate(bundle_uri)
    if not storage.exists(storage.join(place, MANIFEST_NAME)):
        raise CheckpointError(
            f"`{bundle_uri}` holds no {MANIFEST_NAME}, so it is not a complete bundle",
            hint="give the bundle_uri that pretrain printed; " + bundles.what_is_packaged(),
        )
    return place


def publish_bundle(checkpoint_uri: str, bundle_uri: str) -> None:
    """Publish a checkpoint as a bundle: copied without the trainer state, the manifest last, signed if there is a key.

    Raises CheckpointError as `read_bundle` for files that are not the manifest's.
    """
    with tempfile.TemporaryDirectory() as folder:
        storage.download_folder(checkpoint_uri, folder)
        (Path(folder) / TRAINER_STATE_NAME).unlink(missing_ok=True)
        manifest = Path(folder) / MANIFEST_NAME
        facts = _facts(_unsealed(manifest.read_bytes(), checkpoint_uri), checkpoint_uri)
        _check_files(Path(folder), facts, checkpoint_uri)
        files = {name: value for name, value in facts.files.items() if name != TRAINER_STATE_NAME}
        published = facts.model_copy(update={"files": files, "schema_version": BUNDLE_SCHEMA_VERSION})
        manifest.write_bytes(storage.seal(published.model_dump_json(), signing_key()))
        storage.publish_folder(folder, bundle_uri, MANIFEST_NAME)


def _without_own_source(tree: Any) -> Any:
    """The settings, where a source of somebody's own is only named: no module that a bundle names is imported."""
    prepare = tree.get("prepare") if isinstance(tree, dict) else None
    source = prepare.get("source") if isinstance(prepare, dict) else None
    kind = source.get("kind") if isinstance(source, dict) else source
    if prepare is None or not isinstance(kind, str) or kind in SOURCES or kind in RENAMED:
        return tree
    return tree | {"prepare": prepare | {"source": SourceSettings(kind=kind)}}


def signing_key() -> str:
    """The key that bundles and their calibrations are signed with; "" where there is none."""
    return os.environ.get(_KEY_VARIABLE, "")


def _parse_config(text: str, where: str) -> Config:
    tree = from_older(yaml.safe_load(text))
    try:
        return Config.model_validate(_without_own_source(tree))
    except ValidationError as error:
        keys = ", ".join(f"`{'.'.join(map(str, fault['loc']))}`" for fault in error.errors()[:5])
        raise CheckpointError(
            f"`{_CONFIG}` does not match this version's settings: {keys}",
            where=where,
            hint="read the bundle with the version of mets_ray that wrote it",
        ) from error


def _unsealed(data: bytes, where: str) -> storage.Sealed:
    try:
        return storage.unseal(data)
    except ValueError as error:
        raise _damaged(MANIFEST_NAME, where, str(error)) from error


def _check_signature(sealed: storage.Sealed, where: str) -> None:
    """Raise CheckpointError if there is a key in the environment and the manifest is not signed with it."""
    key = signing_key()
    if key and not sealed.is_signed_with(key):
        raise CheckpointError(
            f"`{MANIFEST_NAME}` is not signed with the key in {_KEY_VARIABLE}",
            where=where,
            hint=f"use a bundle that was published with this key, or unset {_KEY_VARIABLE}",
        )


def _facts(sealed: storage.Sealed, where: str) -> BundleFacts:
    version = sealed.facts.get("schema_version")
    if version not in READ_VERSIONS:
        raise CheckpointError(
            f"the bundle has schema version {version}, this mets_ray reads {BUNDLE_SCHEMA_VERSION}",
            where=where,
            hint="pretrain again, or install the version of mets_ray that wrote it",
        )
    try:
        sealed.check(optional=version == 1)
        return BundleFacts.model_validate_json(json.dumps(sealed.facts))
    except ValidationError as error:
        first = error.errors()[0]
        raise CheckpointError(
            f"`{MANIFEST_NAME}` has {error.error_count()} errors, first: {first['loc']}: {first['msg']}",
            where=where,
            hint="copy the whole bundle again",
        ) from error
    except ValueError as error:
        raise _damaged(MANIFEST_NAME, where, str(error)) from error


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

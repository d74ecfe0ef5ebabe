"""The exported folder: the bundle's own files, a model card, config.json, and the ECG side as ONNX with its classes."""

import hashlib
import json
import shutil
import tempfile
from dataclasses import dataclass, field, replace
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mets_ray import bundles, storage
from mets_ray.bundles import MANIFEST_NAME
from mets_ray.bundles.examples import EXAMPLES_FOLDER, read_examples
from mets_ray.errors import ConfigError
from mets_ray.exchange.card import Told, model_card, read_figures, trained_on
from mets_ray.exchange.classes import class_file, class_files
from mets_ray.exchange.hub import push, require_token
from mets_ray.exchange.portable import local_places, portable
from mets_ray.exchange.settings import ExportConfig
from mets_ray.model.beside import carry_over
from mets_ray.model.bundle import (
    TRAINER_STATE_NAME,
    Bundle,
    fetch_bundle,
    load_bundle,
    newest_bundle,
    publish_bundle,
    write_bundle,
)
from mets_ray.model.calibrations import FOLDER_NAME as CALIBRATION_FOLDER
from mets_ray.model.input_references import FOLDER_NAME as REFERENCE_FOLDER
from mets_ray.model.predictor import Predictor

CONFIG_NAME, CARD_NAME, ONNX_NAME, SCRIPT_NAME = "config.json", "README.md", "ecg_encoder.onnx", "zero_shot.py"


@dataclass(frozen=True)
class Exported:
    """What was written. `hub_uri` is None where nothing was pushed; `local_paths`: settings in config.yaml that name
    paths of the machine that trained the bundle."""

    output_uri: str
    model_version: str
    bytes_written: int
    hub_uri: str | None
    local_paths: tuple[str, ...]


@dataclass
class _Folder:
    """A folder that is being written, with the hash of each file that `config.json` answers for."""

    path: Path
    sha256: dict[str, str] = field(default_factory=dict)

    def write(self, name: str, content: bytes) -> None:
        target = self.path / name
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(content)
        self.sha256[name] = hashlib.sha256(content).hexdigest()


def export(config: ExportConfig) -> Exported:
    """Write a bundle as a folder for others to `config.output_uri`, and push it if that is asked for.

    Raises CheckpointError for a bundle that cannot be loaded and a hub that refuses, ConfigError for settings that
    cannot work, DatasetError where nothing can be written.
    """
    token = require_token() if config.push_to_hub else ""
    _require_onnx(config)
    output_uri = storage.absolute(config.output_uri)
    _check_output(output_uri)
    told = Told(
        figures=read_figures(config.figures_uri) if config.figures_uri else (),
        notes=_read_notes(config.notes_uri) if config.notes_uri else "",
    )
    bundle_uri, hub_uri = newest_bundle(bundles.absolute(config.bundle_uri)), None
    with tempfile.TemporaryDirectory() as temporary:
        whole, folder = Path(temporary) / "whole", Path(temporary) / "export"
        bundle = fetch_bundle(bundle_uri, whole)
        _copy_own_files(whole, folder, bundle, config.name)
        predictor = Predictor(load_bundle(str(folder)), encoder_runtime="torch")
        paths = tuple(local_places(predictor.bundle.config))
        if paths and config.push_to_hub:
            raise ConfigError(
                f"the bundle's config.yaml names paths of the machine that trained it: {', '.join(paths)}",
                hint="set name=… to export the same model as a bundle without them",
            )
        files = _Folder(folder)
        told = _write_model(files, predictor, told) if config.onnx else told
        # A card may be edited: it has no hash.
        (folder / CARD_NAME).write_text(model_card(predictor, trained_on(bundle), told), encoding="utf-8")
        facts = json.dumps(_facts(predictor, files.sha256, told), indent=1)
        (folder / CONFIG_NAME).write_text(facts, encoding="utf-8")
        storage.publish_folder(folder, output_uri, MANIFEST_NAME)
        if config.push_to_hub:
            hub_uri = push(folder, config.push_to_hub, private=config.private, token=token)
        written = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return Exported(output_uri, predictor.model_version, written, hub_uri, paths)


def _copy_own_files(whole: Path, folder: Path, bundle: Bundle, name: str | None) -> None:
    """Write the bundle's own files to `folder`, or those of the same model as a bundle called `name`, with what was
    measured beside the bundle and its real ECGs. whole: a copy of all of its files."""
    if name is not None:
        own = whole.with_name("own")
        own.mkdir()
        write_bundle(own, portable(bundle, name))
        publish_bundle(str(own), str(folder))  # signs it if there is a key
        carry_over(bundle, folder)
    elif TRAINER_STATE_NAME in bundle.facts.files:
        publish_bundle(str(whole), str(folder))
        carry_over(bundle, folder)
    else:
        folder.mkdir()
        for file in (*bundle.facts.files, MANIFEST_NAME):
            shutil.copyfile(whole / file, folder / file)
        for beside in (CALIBRATION_FOLDER, REFERENCE_FOLDER):
            if (whole / beside).is_dir():
                shutil.copytree(whole / beside, folder / beside)
    if read_examples(str(whole))[1] is not None:
        shutil.copytree(whole / EXAMPLES_FOLDER, folder / EXAMPLES_FOLDER)


def _write_model(files: _Folder, predictor: Predictor, told: Told) -> Told:
    """ONNX, class vectors and the script that needs nothing else; what the card tells of them."""
    from mets_ray.model.onnx_graph import embedding_model

    files.write(ONNX_NAME, embedding_model(predictor.bundle.model.float(), predictor.signal.num_samples))
    example = ("", "")
    for prompt_set, content in class_files(predictor):
        files.write(class_file(prompt_set), json.dumps(content).encode())
        example = (prompt_set.name, next(iter(content["tasks"])))
    script = resources.files("mets_ray").joinpath(f"exchange/{SCRIPT_NAME}").read_bytes()
    files.write(SCRIPT_NAME, script)
    return replace(told, onnx=ONNX_NAME, classes=example)


def _facts(predictor: Predictor, sha256: dict[str, str], told: Told) -> dict[str, Any]:
    """`config.json`: all that a program without mets_ray needs to know."""
    facts, bundle = predictor.facts, predictor.bundle
    onnx = None
    if told.onnx is not None:
        from mets_ray.model.onnx_graph import EMBEDDING, INPUT, OPSET

        onnx = {"file": told.onnx, "opset": OPSET, "input": INPUT, "output": EMBEDDING}
    return {
        "library_name": "mets_ray",
        "model_version": predictor.model_version,
        "bundle_digest": bundle.digest,
        "ecg": {
            "unit": "mV",
            "leads": facts.leads,
            "sampling_rate_hz": facts.sampling_rate_hz,
            "duration_s": facts.duration_s,
            "samples": facts.signal.num_samples,
            "highpass_hz": facts.highpass_hz,
            "takes_fewer_leads": bundle.takes_fewer_leads,
        },
        "embedding_dimension": bundle.config.encoder.embedding_dimension,
        "logit_scale": predictor.logit_scale,
        "logit_bias": float(bundle.model.logit_bias),
        "text": {
            "model": facts.text_model,
            "revision": facts.text_revision,
            "pooling": facts.text_pooling,
            "max_length": facts.text_max_length,
            "fingerprint": facts.text_fingerprint,
        },
        "onnx": onnx,
        "classes": {
            of.name: {"file": class_file(of), "version": of.version}
            for of in facts.prompt_sets.values()
            if class_file(of) in sha256
        },
        "sha256": sha256,
    }


def _require_onnx(config: ExportConfig) -> None:
    if config.onnx and find_spec("onnx") is None:
        raise ConfigError(
            "`onnx` is true, and the package onnx is not installed",
            hint="pip install 'mets-ray[fast]', or set onnx=false",
        )


def _read_notes(uri: str) -> str:
    try:
        return storage.read_bytes(storage.absolute(uri)).decode()
    except UnicodeDecodeError as error:
        raise ConfigError(f"`notes_uri` {uri} is not UTF-8: {error.reason}", hint="save it as UTF-8") from error


def _check_output(output_uri: str) -> None:
    """Raise ConfigError for a folder with files that no export wrote: it would be replaced."""
    there = [entry.name for entry in storage.list_folder(output_uri)]
    if there and not {MANIFEST_NAME, CONFIG_NAME} <= set(there):
        raise ConfigError(
            f"`output_uri` is `{output_uri}`, which holds {len(there)} files or folders and no earlier export",
            hint="name a new folder",
        )

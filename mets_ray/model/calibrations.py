"""Calibration files of a bundle: what `evaluate` fitted on validation records, for one prompt set in one version.

calibration/<prompt set>@<version>.json lies beside the bundle's files and is not one of them: `bundle.json` does not
list it, and it names the bundle by its digest. It has a digest of its own, and a signature as bundles do where there is
a key. A class is calibrated for its own wordings only, and each task by itself, so evaluations of several tasks share a
file.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mets_ray import storage
from mets_ray.errors import CheckpointError, MetsError
from mets_ray.metrics.calibration import Calibration, PromptVersion
from mets_ray.metrics.cross_fitting import CrossFitted

FOLDER_NAME = "calibration"
_SCHEMA_VERSION = 1
_MOST_BYTES = 16 << 20

Reason = tuple[str, str]
"""Why something is not calibrated: (reason, message), as in `Windows.warnings`."""


@dataclass(frozen=True)
class TaskCalibration:
    """One task: the calibration, the hash of each class's wordings, and the data whose validation folds it is from.

    `records_in_folds`: all records of these folds. Those without a label of the task are not in the calibration, so it
    is for ECGs that have one of its classes. `cross_fitted`: how good it is, where that was measured.
    """

    calibration: Calibration
    wordings_sha256: Mapping[str, str]
    source: str
    dataset_sha256: str
    synthetic: bool
    folds: str
    records_in_folds: int
    cross_fitted: CrossFitted | None = None


@dataclass(frozen=True)
class CalibrationFile:
    """The calibrations of one prompt set in one version, by task, for the bundle with this digest."""

    run: str
    bundle_digest: str
    prompts: PromptVersion
    tasks: Mapping[str, TaskCalibration]

    @property
    def name(self) -> str:
        return f"{self.prompts.name}@{self.prompts.version}.json"

    def to_bytes(self, key: str = "") -> bytes:
        """The file: JSON with its digest, and with a key its signature."""
        tasks = {
            task: {name: value for name, value in vars(of).items() if name not in ("calibration", "cross_fitted")}
            | {"calibration": of.calibration.to_json()}
            | ({} if of.cross_fitted is None else {"cross_fitted": of.cross_fitted.to_json()})
            for task, of in self.tasks.items()
        }
        facts = {
            "schema_version": _SCHEMA_VERSION,
            "bundle": {"run": self.run, "digest": self.bundle_digest},
            "prompt_set": vars(self.prompts),
            "tasks": tasks,
        }
        return storage.seal(json.dumps(facts, allow_nan=False), key)

    @classmethod
    def from_bytes(cls, data: bytes, where: str, key: str = "") -> "CalibrationFile":
        """What `to_bytes` wrote. Raises CheckpointError for a damaged file, another schema, or a missing signature."""
        try:
            facts = storage.sealed_facts(data, _SCHEMA_VERSION, key)
            prompts = PromptVersion(**facts["prompt_set"])
            tasks = {task: _task_from_json(of) for task, of in facts["tasks"].items()}
            return cls(str(facts["bundle"]["run"]), str(facts["bundle"]["digest"]), prompts, tasks)
        except (KeyError, TypeError, ValueError, AttributeError, MetsError) as error:
            why = error.fact if isinstance(error, MetsError) else str(error)
            raise CheckpointError(
                f"the calibration `{where.rsplit('/', 1)[-1]}` cannot be used: {why}",
                where=where,
                hint="run evaluate again: it rewrites the file",
            ) from error


@dataclass(frozen=True)
class Calibrations:
    """The calibration files of one bundle. `left_out`: by file name, why one that was found is not used."""

    files: tuple[CalibrationFile, ...] = ()
    left_out: Mapping[str, Reason] = field(default_factory=dict)

    def find(self, name: str, version: int) -> tuple[TaskCalibration | None, Reason]:
        """The calibration of a class list, or None and why there is none.

        name: of a prompt set, or `set:task`. Without a task it is that of the file's only one.
        """
        prompt_set, _, task = name.partition(":")
        of_set = [file for file in self.files if file.prompts.name == prompt_set]
        for file in of_set:
            if file.prompts.version == version:
                found = file.tasks.get(task) if task or len(file.tasks) != 1 else next(iter(file.tasks.values()))
                known = ", ".join(file.tasks)
                return found, ("no_calibration", f"prompt set `{prompt_set}@{version}` is calibrated for {known} only")
        if reason := self.left_out.get(f"{prompt_set}@{version}.json"):
            return None, reason
        if of_set:
            others = ", ".join(str(file.prompts.version) for file in of_set)
            return None, ("other_version", f"`{prompt_set}` is calibrated in version {others}, and this is {version}")
        return None, ("no_calibration", f"there is no calibration for prompt set `{prompt_set}`")


NO_CALIBRATIONS = Calibrations()


def wordings_sha256(wordings: tuple[str, ...]) -> str:
    """Hash of the wordings of a class, in their order."""
    return storage.digest_of({"wordings": list(wordings)})


def read_calibrations(uri: str, bundle_digest: str, key: str = "") -> Calibrations:
    """The calibrations in a folder; empty where there is none. What cannot be used is left out with its reason."""
    files, left_out = [], {}
    try:
        entries = storage.list_folder(uri)
    except MetsError as error:
        return Calibrations((), {uri.rsplit("/", 1)[-1]: ("calibration_left_out", error.fact)})
    for entry in entries:
        if entry.is_folder or not entry.name.endswith(".json"):
            continue
        try:
            files.append(_read(storage.join(uri, entry.name), bundle_digest, key))
        except MetsError as error:
            left_out[entry.name] = ("calibration_left_out", error.fact)
    return Calibrations(tuple(files), left_out)


def require_calibrations(uri: str, bundle_digest: str, key: str = "") -> Calibrations:
    """The calibrations that a setting names: a folder of them, or one file.

    Raises CheckpointError if there is none, or one cannot be used: damaged, of another bundle, not signed.
    """
    if uri.endswith(".json"):
        return Calibrations((_read(uri, bundle_digest, key),))
    uris = [storage.join(uri, entry.name) for entry in storage.list_folder(uri) if entry.name.endswith(".json")]
    if not uris:
        raise CheckpointError(
            f"`{uri}` holds no calibration", hint="give the folder or the file that evaluate printed as `calibration`"
        )
    return Calibrations(tuple(_read(one, bundle_digest, key) for one in uris))


def _read(uri: str, bundle_digest: str, key: str) -> CalibrationFile:
    file = CalibrationFile.from_bytes(storage.read_bytes(uri, max_bytes=_MOST_BYTES), uri, key)
    if file.bundle_digest != bundle_digest:
        raise CheckpointError(
            f"the calibration `{uri.rsplit('/', 1)[-1]}` is of another bundle: `{file.run}` with digest "
            f"{file.bundle_digest[:8]}, and this one has {bundle_digest[:8]}",
            where=uri,
            hint="evaluate this bundle: it writes a calibration of its own",
        )
    return file


def _task_from_json(state: Mapping[str, Any]) -> TaskCalibration:
    return TaskCalibration(
        Calibration.from_json(state["calibration"]),
        {str(name): str(sha256) for name, sha256 in state["wordings_sha256"].items()},
        str(state["source"]),
        str(state["dataset_sha256"]),
        bool(state["synthetic"]),
        str(state["folds"]),
        int(state["records_in_folds"]),
        CrossFitted.from_json(state["cross_fitted"]) if "cross_fitted" in state else None,
    )

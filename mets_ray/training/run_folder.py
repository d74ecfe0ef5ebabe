"""The folder of a run: a new one, or the one to resume, after checking that its settings are the same."""

import json
import uuid
from collections.abc import Collection
from datetime import datetime
from typing import Any

import yaml
from ray.train import Checkpoint, Result

from mets_ray import storage
from mets_ray.bundles import MANIFEST_NAME
from mets_ray.config.kinds import free_at_resume
from mets_ray.config.load import dump_config
from mets_ray.config.older import from_older
from mets_ray.config.settings import Config
from mets_ray.dataset.card import DatasetCard
from mets_ray.errors import CheckpointError
from mets_ray.model.bundle import read_facts

_CHECKPOINT_LIST = "checkpoint_manager_snapshot.json"  # Ray Train's own: it resumes from what is listed there


def earlier_folds_of(config: Config, card: DatasetCard) -> tuple[int, ...]:
    """Folds of the same source that the initial weights of this run were already trained on."""
    if config.train.init_from is None:
        return ()
    facts = read_facts(config.train.init_from)
    is_same = facts.dataset_source == card.source and facts.patient_folds == card.patient_folds
    return facts.seen_folds if is_same else ()


def new_run_uri(config: Config, kind: str) -> str:
    """Where a new run of a command writes: under `run_uri`, named after the command and the time."""
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    return storage.join(storage.absolute(config.run_uri), f"{kind}-{stamp}-{uuid.uuid4().hex[:4]}")


def open_run_folder(config: Config, kind: str = "pretrain", *, kept: Collection[str] = ()) -> str:
    """A new run's folder, or the folder of the run to resume, after checking that its settings are the same.

    kind: the command. kept: sections that its runs must keep, although they mean nothing to pretraining. Raises
    CheckpointError if `train.resume` is not a run, its settings differ, or its list of checkpoints is damaged.
    """
    if config.train.resume is None:
        run_uri = new_run_uri(config, kind)
        storage.write_bytes(storage.join(run_uri, "config.yaml"), dump_config(config).encode())
        return run_uri
    run_uri = storage.absolute(config.train.resume)
    config_uri = storage.join(run_uri, "config.yaml")
    if not storage.exists(config_uri):
        raise CheckpointError(
            f"`train.resume` is `{run_uri}`, which holds no config.yaml", hint=f"give the run_uri that {kind} printed"
        )
    if storage.exists(storage.join(run_uri, MANIFEST_NAME)):
        raise CheckpointError(
            f"`train.resume` is `{run_uri}`, a bundle or a checkpoint and not a run",
            hint=f"give the run's folder, {run_uri.rpartition('/')[0]}, or start a new run with train.init_from",
        )
    before = _read_settings(config_uri)
    changed = _changed(before, config.model_dump(mode="json"), set(free_at_resume(Config)) - set(kept))
    if changed:
        lines = [f"`{key}` was {old!r}, is {new!r}" for key, old, new in changed]
        raise CheckpointError(
            "a resumed run must keep its settings:\n" + "\n".join(lines),
            where=run_uri,
            hint="give the run's own config.yaml as --config, or start a new run with train.init_from"
            if kind == "pretrain"
            else "give the command as it was, with train.resume, or start a new run without it",
        )
    _check_checkpoints(run_uri)
    return run_uri


def checkpoint_uri(run_uri: str, checkpoint: Checkpoint) -> str:
    """Where a checkpoint lies in the folder of its run."""
    return storage.join(run_uri, checkpoint.path.rstrip("/").rsplit("/", 1)[-1])


def chosen_checkpoint(run_uri: str, result: Result) -> tuple[str, dict[str, Any]]:
    """(URI, figures) of the checkpoint that `selection_score` selected in a finished run."""
    checkpoint, figures = max(result.best_checkpoints or [], key=lambda pair: pair[1]["selection_score"])
    return checkpoint_uri(run_uri, checkpoint), figures


def _check_checkpoints(run_uri: str) -> None:
    """Raise CheckpointError if Ray Train's list of checkpoints, or the manifest of one that is listed, is damaged."""
    list_uri = storage.join(run_uri, _CHECKPOINT_LIST)
    if not storage.exists(list_uri):
        return  # stopped before the first checkpoint
    try:
        results = json.loads(storage.read_bytes(list_uri))["checkpoint_results"]
        names = [str(result["checkpoint_dir_name"]) for result in results]
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise CheckpointError(
            f"`{list_uri}` is damaged: {type(error).__name__}: {error}",
            hint="start a new run with train.init_from and one of this run's checkpoint folders",
        ) from error
    for name in names:
        fault = storage.name_fault(name)
        if fault or not storage.exists(storage.join(run_uri, name, MANIFEST_NAME)):
            raise CheckpointError(
                f"`{list_uri}` names the checkpoint {name!r}: {fault or 'it is missing'}",
                hint="start a new run with train.init_from and one of this run's checkpoint folders",
            )
        read_facts(storage.join(run_uri, name))


def _read_settings(config_uri: str) -> dict[str, Any]:
    try:
        return dict(from_older(yaml.safe_load(storage.read_bytes(config_uri))))
    except (yaml.YAMLError, ValueError, TypeError, AttributeError, LookupError, RecursionError) as error:
        raise CheckpointError(
            f"`{config_uri}` is damaged: {type(error).__name__}: {error}",
            hint="write it again with the settings of the run, or start a new run with train.init_from",
        ) from error


def _changed(
    before: dict[str, Any], after: dict[str, Any], free: Collection[str], prefix: str = ""
) -> list[tuple[str, Any, Any]]:
    """(key, old, new) of each setting that differs and that a resumed run must keep; it may change those in `free`."""
    found = []
    for name in sorted(set(before) | set(after)):
        key, old, new = f"{prefix}{name}", before.get(name), after.get(name)
        if key in free or old == new:
            continue
        if isinstance(old, dict) and isinstance(new, dict):
            found += _changed(old, new, free, f"{key}.")
        else:
            found.append((key, old, new))
    return found

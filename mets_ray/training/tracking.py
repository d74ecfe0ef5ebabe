"""Trackers for a run's figures: TensorBoard always, MLflow and W&B if configured."""

import importlib
import shutil
import tempfile
from pathlib import Path
from typing import Any

from mets_ray import storage
from mets_ray.config.settings import Config
from mets_ray.errors import ConfigError


def check_trackers(config: Config) -> None:
    """Raise ConfigError if a configured tracker is not installed, before hours of work and not after them."""
    for name in ("mlflow", "wandb"):
        if getattr(config.train, name):
            _module(name)


class Tracker:
    """One run's loggers. Only the driver holds one, so a restarted worker never logs an epoch twice."""

    def __init__(self, config: Config, run_uri: str) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._target_uri = storage.join(run_uri, "tensorboard")
        self._folder = Path(tempfile.mkdtemp(prefix="mets_ray_tensorboard_"))
        self._writer = SummaryWriter(str(self._folder))
        settings = config.model_dump(mode="json")
        self._mlflow = _module("mlflow") if config.train.mlflow else None
        self._wandb = _module("wandb") if config.train.wandb else None
        name = run_uri.rstrip("/").rsplit("/", 1)[-1]
        if self._mlflow:
            self._mlflow.start_run(run_name=name)
            self._mlflow.log_params(
                {
                    f"{group}.{key}": value
                    for group, keys in settings.items()
                    if isinstance(keys, dict)
                    for key, value in keys.items()
                }
            )
        if self._wandb:
            self._wandb.init(name=name, config=settings)

    def log(self, epoch: int, figures: dict[str, float | None]) -> None:
        """Log one epoch; TensorBoard's file is copied to the run folder each time, so a lost driver loses nothing."""
        numbers = {key: value for key, value in figures.items() if isinstance(value, int | float)}
        for key, value in numbers.items():
            self._writer.add_scalar(key, value, epoch)
        self._writer.flush()
        for path in self._folder.iterdir():
            storage.write_bytes(storage.join(self._target_uri, path.name), path.read_bytes())
        if self._mlflow:
            self._mlflow.log_metrics(numbers, step=epoch)
        if self._wandb:
            self._wandb.log(numbers, step=epoch)

    def close(self) -> None:
        self._writer.close()
        shutil.rmtree(self._folder, ignore_errors=True)
        if self._mlflow:
            self._mlflow.end_run()
        if self._wandb:
            self._wandb.finish()


def _module(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ConfigError(
            f"`train.{name}` is true, but {name} is not installed", hint=f"pip install 'mets_ray[{name}]'"
        ) from error

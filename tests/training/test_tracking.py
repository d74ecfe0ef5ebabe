"""A run's figures in TensorBoard, and in MLflow and W&B where they are installed."""

import importlib.util

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mets_ray import storage
from mets_ray.config.load import load_config
from mets_ray.errors import ConfigError
from mets_ray.training.tracking import Tracker, check_trackers

EPOCHS = [{"loss": 2.0, "validation_macro_auroc": None}, {"loss": 1.0, "validation_macro_auroc": 0.75}]


def track(run_uri, *words):
    tracker = Tracker(load_config(None, list(words)), str(run_uri))
    for epoch, figures in enumerate(EPOCHS, start=1):
        tracker.log(epoch, figures)
    tracker.close()


def test_tensorboard_has_every_figure_of_every_epoch(tmp_path):
    track(tmp_path)
    assert len(storage.list_files(str(tmp_path / "tensorboard"))) == 1
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [(1, 2.0), (2, 1.0)]
    assert [(event.step, event.value) for event in events.Scalars("validation_macro_auroc")] == [(2, 0.75)]


def test_figures_are_there_before_the_run_ends(tmp_path):
    tracker = Tracker(load_config(), str(tmp_path))
    tracker.log(1, EPOCHS[0])
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [event.value for event in events.Scalars("loss")] == [2.0]
    tracker.close()


@pytest.mark.parametrize("name", ["mlflow", "wandb"])
def test_a_tracker_that_is_not_installed_is_named_before_the_work_starts(name):
    config = load_config(None, [f"train.{name}=true"])
    if importlib.util.find_spec(name):
        check_trackers(config)
    else:
        with pytest.raises(ConfigError, match=f"`train.{name}` is true, but {name} is not installed") as error:
            check_trackers(config)
        assert f"mets_ray[{name}]" in error.value.hint


def test_mlflow_has_every_figure(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow", reason="MLflow is not installed")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file:{tmp_path}/mlruns")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    track(tmp_path / "run-1", "train.mlflow=true")
    (run,) = mlflow.search_runs(output_format="list")
    assert (run.info.run_name, run.data.metrics["loss"], run.data.params["train.epochs"]) == ("run-1", 1.0, "50")

"""What failed in training: told apart, and known again."""

from types import SimpleNamespace

import pytest

from mets_ray.errors import MetsError
from mets_ray.training.failures import Failure, record_failure, repeated_failure


def failure(start, *, step=3, worker=0):
    error = MetsError("the loss is nan", where="records a, b", hint="look")
    return Failure.of(error, start=start, worker=worker, epoch=1, step=step)


def test_a_failure_counts_as_repeated_when_two_starts_fail_at_one_step(tmp_path):
    assert repeated_failure(str(tmp_path)) is None
    for one in (failure("a"), failure("a", worker=1), failure("b", step=4)):
        record_failure(one, str(tmp_path))
    assert repeated_failure(str(tmp_path)) is None, "one start on two workers, and another step"
    record_failure(failure("c"), str(tmp_path))
    error = repeated_failure(str(tmp_path)).as_error()
    assert error.fact == "the loss is nan"
    assert error.hint == "look"
    assert "records a, b; epoch 2, step 3, worker 0; it failed there twice" in error.where


@pytest.mark.parametrize(("gpus", "action", "found"), [(1, "fail", "fail"), (1, "off", None), (0, "fail", None)])
def test_ray_s_detector_of_hangs_is_asked_for_on_gpus(tmp_path, monkeypatch, gpus, action, found):
    from ray.train.v2._internal.callbacks.nccl_ras import NCCLRASCallback

    from mets_ray.config.load import load_config
    from mets_ray.training import launch

    for name in ("RAY_TRAIN_ENABLE_NCCL_HANG_DETECTOR", "RAY_TRAIN_NCCL_RAS_ACTION"):
        monkeypatch.setenv(name, "0")  # remembers to restore it
        monkeypatch.delenv(name)
    config = load_config(None, [f"train.hang_detector={action}"])
    job = SimpleNamespace(
        config=config, run_uri=f"{tmp_path}/run", run="run", messages=None,
        shares=SimpleNamespace(gpus_per_worker=gpus, worker_cpus=1.0),
    )  # fmt: skip
    callbacks = launch._trainer(job)._create_default_callbacks()
    detectors = [callback for callback in callbacks if isinstance(callback, NCCLRASCallback)]
    assert [detector._action for detector in detectors] == ([found] if found else [])
    failure_config = launch._trainer(job).run_config.failure_config
    assert (failure_config.max_failures, failure_config.max_preemption_failures) == (3, -1)

"""What a replica says about itself: which parts answer, and when it is to be replaced."""

import asyncio

import numpy as np
import pytest

from mets_ray.errors import DatasetError
from mets_ray.model import predictor as predictor_module
from mets_ray.model.bundle import load_bundle
from mets_ray.model.predictor import Predictor
from mets_ray.serve import health
from mets_ray.serve.deployments import ZeroShot
from mets_ray.serve.health import Canary, Health, Probe
from mets_ray.serve.settings import ServeConfig
from tests.support.serving import make_bundle, plain_server, synthetic_ecg


def readiness(*, failed_passes=0, ask_lm=None, state_uri=None):
    return asyncio.run(Health(lambda: failed_passes, ask_lm, state_uri).readiness()).model_dump()


async def answers(*_):
    return np.zeros((1, 4))


async def fails(*_):
    raise DatasetError("the store does not respond")


def test_each_part_has_a_state_of_its_own(tmp_path):
    store = str(tmp_path / "state")
    whole = {"status": "ok", "model": "ok", "language_model": "ok", "store": "ok"}
    assert readiness(ask_lm=answers, state_uri=store) == whole
    assert readiness() == whole | {"language_model": "none", "store": "none"}
    assert readiness(ask_lm=fails, state_uri=store) == whole | {"status": "degraded", "language_model": "failing"}
    (tmp_path / "file").write_text("a file where the folder should be")
    broken = readiness(ask_lm=answers, state_uri=str(tmp_path / "file"))
    assert broken == whole | {"status": "degraded", "store": "failing"}
    for count, state in ((2, "ok"), (3, "failing")):
        assert readiness(failed_passes=count, ask_lm=answers, state_uri=store) == whole | {
            "status": state,
            "model": state,
        }


def test_a_part_that_is_silent_makes_nobody_wait_and_is_asked_once(monkeypatch):
    monkeypatch.setattr(health, "_PATIENCE_S", 0.05)
    monkeypatch.setattr(health, "_PERIOD_S", 0.0)
    calls = []

    async def run():
        silence = asyncio.Event()

        async def ask():
            calls.append(1)
            await silence.wait()

        probe = Probe(ask)
        assert [await probe.state() for _ in range(3)] == ["failing"] * 3
        assert len(calls) == 1
        silence.set()
        await asyncio.sleep(0.01)
        assert await probe.state() == "ok"
        assert len(calls) == 2

    asyncio.run(run())


def test_the_canary_notices_an_encoder_that_has_changed(tmp_path):
    predictor = Predictor(load_bundle(str(make_bundle(tmp_path))), device="cpu")
    canary = Canary(predictor)
    (vector,) = predictor.embed_windows(canary.window[None])
    canary.check(vector)
    for wrong in (np.full_like(vector, np.nan), np.zeros_like(vector), -vector, np.roll(vector, 1)):
        with pytest.raises(RuntimeError, match="known window"):
            canary.check(wrong)


def test_a_replica_says_that_it_is_ill(tmp_path, monkeypatch):
    """Serve calls `check_health`; without Ray it is called here. tests/system shows that the replica is replaced."""
    bundle = str(make_bundle(tmp_path))
    own_class = ZeroShot.func_or_class.__mro__[1]  # below what Serve wraps around it
    replica = own_class(ServeConfig(bundle_uri=bundle, auth="none"), bundle, None)
    window = replica._predictor.windows(synthetic_ecg()).signal_uv[0]
    works = predictor_module.microvolts_to_millivolts

    def fails(*_):
        raise RuntimeError("CUDA error")

    async def run():
        await replica.check_health()
        monkeypatch.setattr(predictor_module, "microvolts_to_millivolts", fails)
        with pytest.raises(RuntimeError, match="CUDA error"):  # the canary alone
            await replica.check_health()
        for _ in range(health.FAILED_PASSES):
            with pytest.raises(RuntimeError, match="CUDA error"):
                await replica._batches(window)
        monkeypatch.setattr(predictor_module, "microvolts_to_millivolts", works)
        with pytest.raises(RuntimeError, match="3 forward passes failed"):  # the canary works again
            await replica.check_health()
        await replica._batches(window)
        await replica.check_health()
        # no error, but other values: two leads in each other's place
        swapped = [1, 0, *range(2, 12)]
        monkeypatch.setattr(
            predictor_module, "microvolts_to_millivolts", lambda signal_uv, model: works(signal_uv[:, swapped], model)
        )
        with pytest.raises(RuntimeError, match="known window has changed"):
            await replica.check_health()

    asyncio.run(run())


def test_readyz_is_503_once_the_model_fails_and_scores_again_after_it_works(tmp_path, monkeypatch):
    bundle = make_bundle(tmp_path)
    with plain_server(bundle, with_lm=False) as (client, _):
        assert client.get("/readyz").json()["status"] == "ok"
        monkeypatch.setattr("tests.support.serving.Encode.failed_in_a_row", 3)
        answer = client.get("/readyz")
        assert (answer.status_code, answer.json()["model"]) == (503, "failing")
        assert client.get("/healthz").status_code == 200

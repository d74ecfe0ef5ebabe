"""Recent requests beside the reference of the bundle: planted changes are seen, and signals are forgotten."""

import asyncio

import pytest

from mets_ray.errors import CheckpointError
from mets_ray.model.bundle import load_bundle
from mets_ray.model.predictor import Predictor
from mets_ray.serve.deployments import build
from mets_ray.serve.input_drift import RecentInputs
from mets_ray.serve.settings import ServeConfig
from tests.support.references import made_up_reference, synthetic_signals, write_reference
from tests.support.serving import Counts, make_bundle, make_service, synthetic_ecg


@pytest.fixture(scope="module")
def signals():
    return synthetic_signals(range(0, 360, 3))  # of different patients: a third of the records have one of their own


@pytest.fixture(scope="module")
def bundle(signals, tmp_path_factory):
    bundle = make_bundle(tmp_path_factory.mktemp("bundle"))
    write_reference(bundle, made_up_reference(bundle, signals[::2]))
    return bundle


def after(bundle, signals):
    """What is known after these ECGs; a measurement is due before 64 of them wait."""
    predictor = Predictor(load_bundle(str(bundle)), encoder_runtime="torch")
    recent = RecentInputs.of(predictor)
    assert recent.measure().compared == 0
    for start in range(0, len(signals), 30):
        part = signals[start : start + 30]
        for signal, embedding in zip(part, predictor.embed_windows(part), strict=True):
            recent.observe(signal, embedding)
        found = recent.measure()
    assert not recent._waiting
    return found


def drifted(found):
    return {name.partition(":")[0] for name, ratio in found.ratios.items() if ratio > 1}


def test_the_same_kind_of_ecg_is_no_drift_and_planted_changes_are(bundle, signals):
    new = signals[1::2]
    assert after(bundle, new[:40]).ratios == {}  # too few to tell
    same = after(bundle, new)
    assert (same.compared, drifted(same)) == (60, set())
    assert len(same.ratios) == 31
    assert "amplitude_mv" in drifted(after(bundle, 2 * new))
    slow = new.copy()
    slow[:, :, :500] = new[:, :, ::2]  # half the time, twice the rate
    slow[:, :, 500:] = new[:, :, ::2]
    assert {"heart_rate_per_min", "centroid_hz"} <= drifted(after(bundle, slow))
    swapped = new.copy()
    swapped[:, [0, 1]] = new[:, [1, 0]]
    assert "limb_leads_disagree" in drifted(after(bundle, swapped))
    fewer = new.copy()
    fewer[:, 6:] = 0
    assert "leads_recorded" in drifted(after(bundle, fewer))


def test_requests_are_observed_and_bundles_without_a_reference_observe_nothing(bundle, tmp_path):
    service = make_service(bundle, Counts(), state_uri=str(tmp_path))

    async def embed():
        for ecg in (synthetic_ecg(1), synthetic_ecg(2), synthetic_ecg(3, duration_s=30)):
            await service.embed_ecg(service.predictor.windows(ecg))

    asyncio.run(embed())
    assert service.recent_inputs.measure().compared == 3  # of three windows the first
    bare = make_bundle(tmp_path, seed=1)  # other weights, so another digest
    assert RecentInputs.of(Predictor(load_bundle(str(bare)), encoder_runtime="torch")) is None
    with pytest.raises(CheckpointError, match="is of another bundle"):
        build(ServeConfig(bundle_uri=str(bare), reference_uri=f"{bundle}/reference/inputs.json"))

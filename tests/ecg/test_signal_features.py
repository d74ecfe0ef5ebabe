"""Features of the encoder's input: on ECGs whose heart rate is known, and on ones that were changed on purpose."""

import numpy as np
import pytest

from mets_ray.ecg.ecg import LEADS
from mets_ray.ecg.preprocess import SignalConfig, preprocess
from mets_ray.ecg.signal_features import feature_names, signal_features
from mets_ray.ecg.synthetic_patients import describe
from tests.support.serving import synthetic_ecg

NAMES = feature_names(LEADS)


@pytest.fixture(scope="module", params=[100, 500])
def ecgs(request):
    rate = request.param
    signal = SignalConfig(rate, 10.0, highpass_hz=0.5)
    count = 40 if rate == 100 else 8
    return rate, np.stack([preprocess(synthetic_ecg(n, sampling_rate_hz=rate), signal) for n in range(count)])


def measured(signal_uv, rate):
    return dict(zip(NAMES, signal_features(signal_uv, LEADS, rate).T, strict=True))


def test_the_heart_rate_is_that_of_the_ecg(ecgs):
    rate, signals = ecgs
    known = np.array([describe(n, seed=0).heart_rate_per_min for n in range(len(signals))])
    off = np.abs(measured(signals, rate)["heart_rate_per_min"] / known - 1)
    assert np.median(off) < 0.03
    assert np.mean(off < 0.15) >= 0.85  # premature beats and fibrillation move the mean rate


def test_each_change_moves_its_own_feature(ecgs):
    rate, signals = ecgs
    whole = measured(signals, rate)
    louder = measured((2 * signals.astype(np.int32)).clip(-32768, 32767).astype(np.int16), rate)
    np.testing.assert_allclose(louder["amplitude_mv:II"], 2 * whole["amplitude_mv:II"], rtol=1e-4)
    np.testing.assert_allclose(louder["heart_rate_per_min"], whole["heart_rate_per_min"])
    turned = signals.copy()
    turned[:, 0] *= -1
    turned = measured(turned, rate)
    np.testing.assert_allclose(turned["polarity:I"], -whole["polarity:I"], atol=0.02)
    assert (turned["limb_leads_disagree"].mean(), whole["limb_leads_disagree"].max()) == (1, 0)
    faster = measured(signals[:, :, ::2], rate)  # the samples of half the rate, taken for those of the whole
    ratio = np.median(faster["centroid_hz"] / whole["centroid_hz"])
    assert ratio > 1.4
    assert np.nanmedian(faster["heart_rate_per_min"] / whole["heart_rate_per_min"]) == pytest.approx(2, rel=0.1)


def test_what_is_not_there_is_not_measured():
    signals = np.zeros((2, 12, 1000), dtype=np.int16)
    signals[0, 1, 500:] = 300  # one step and nothing else
    found = measured(signals, 100)
    assert found["leads_recorded"].tolist() == [1, 0]
    assert found["flat_leads"].tolist() == [1, 0]
    assert found["amplitude_mv:II"][0] == pytest.approx(0.3)
    for name in ("amplitude_mv:I", "heart_rate_per_min", "limb_leads_disagree"):
        assert np.isnan(found[name]).all()
    assert np.isnan(found["centroid_hz"][1])
    two = signal_features(signals[:, :2], ("V1", "II"), 100)
    assert two.shape == (2, len(feature_names(("V1", "II"))))

"""Drift of inputs: planted shifts are found at any size, and the same distribution is not called one."""

import json
import math

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mets_ray import storage
from mets_ray.errors import MetsError
from mets_ray.metrics.input_drift import Distance, InputCounts, find_drift, psi
from mets_ray.metrics.input_reference import InputReference
from mets_ray.metrics.input_thresholds import EmbeddedEcgs, build_reference
from mets_ray.pipelines.input_drift import METADATA_KEY, _sum

NAMES = ("amplitude", "rate", "counted", "constant")
FIXED = {"counted": (0.5,), "constant": (1.5,)}


def drawn(records, seed, *, patients=None):
    """Features, embeddings and patients; ECGs of one patient are alike."""
    generator = np.random.default_rng(seed)
    patient = generator.integers(patients or records, size=records)
    own = np.random.default_rng(seed + 1000).normal(size=(records, 6))[patient]
    values = 0.7 * own + 0.7 * generator.normal(size=(records, 6))
    features = np.stack(
        [np.exp(values[:, 0]), 70 + 15 * values[:, 1], values[:, 2] > 1.5, np.full(records, 12.0)], axis=1
    )
    features[generator.random(records) < 0.05, 1] = math.nan
    return features, values @ np.linspace(0.1, 1.0, 48).reshape(6, 8), patient


@pytest.fixture(scope="module")
def reference():
    features, embeddings, patients = drawn(900, 0, patients=600)
    return build_reference(
        NAMES, features, patients, EmbeddedEcgs(embeddings, patients, True), fixed_edges=FIXED, seed=0
    )


def counts_of(reference, features, embeddings, patients):
    return InputCounts.of(reference, NAMES, features, embeddings, patients)


@pytest.mark.parametrize("records", [100, 400, 6000])
def test_the_same_distribution_is_no_drift(reference, records):
    found = 0
    for seed in range(1, 21):
        drift = find_drift(reference, counts_of(reference, *drawn(records, seed, patients=int(records / 1.2) + 1)))
        assert drift.embeddings is not None
        found += bool(drift.drifted)
    assert found <= 2


def test_a_shift_is_found_and_named(reference):
    features, embeddings, patients = drawn(400, 50)
    doubled, slow, lost = features.copy(), features.copy(), features.copy()
    doubled[:, 0] *= 2
    slow[:, 1] *= 0.8
    lost[::2, 1] = math.nan
    for changed, name in ((doubled, "amplitude"), (slow, "rate"), (lost, "rate")):
        drift = find_drift(reference, counts_of(reference, changed, embeddings, patients))
        assert [one.name for one in drift.drifted] == [name]
    few = features.copy()
    few[:40, 3] = 1.0  # one in ten, where the reference has one value only
    assert [one.name for one in find_drift(reference, counts_of(reference, few, embeddings, patients)).drifted] == [
        "constant"
    ]
    (row,) = [row for row in find_drift(reference, counts_of(reference, doubled, embeddings, patients)).features
              if row.name == "amplitude"]  # fmt: skip
    assert row.shares[-2] > 2 * row.reference_shares[-2]
    assert sum(row.shares) == pytest.approx(1) == sum(row.reference_shares)
    assert row.ks > 0.2
    moved = find_drift(reference, counts_of(reference, features, embeddings + 0.5, patients))
    assert [one.name for one in moved.drifted] == ["embeddings"]
    assert moved.shift > 0.3
    wider = find_drift(reference, counts_of(reference, features, 1.5 * embeddings, patients))
    assert "embeddings" in [one.name for one in wider.drifted]


def test_parts_add_up_and_json_keeps_everything(reference):
    again = InputReference.from_json(reference.to_json())
    assert again.features == reference.features
    features, embeddings, patients = drawn(300, 7)
    whole = counts_of(again, features, embeddings, patients)
    parts = [
        InputCounts.from_json(counts_of(reference, features[rows], embeddings[rows], patients[rows]).to_json())
        for rows in (slice(0, 100), slice(100, 300))
    ]
    both = parts[0].plus(parts[1])
    assert both.records == 300
    assert all((one == other).all() for one, other in zip(both.features, whole.features, strict=True))
    np.testing.assert_allclose(both.products, whole.products)
    one, other = (find_drift(again, counts._replace(patients=200)) for counts in (both, whole))
    assert one.embeddings is not None
    assert one.embeddings.value == pytest.approx(other.embeddings.value)


def test_few_patients_are_not_compared(reference):
    with pytest.raises(MetsError, match="49 patients are too few"):
        find_drift(reference, counts_of(reference, *drawn(200, 3))._replace(patients=49))
    features, embeddings, patients = drawn(49, 3)
    with pytest.raises(MetsError, match="needs 50 patients"):
        build_reference(NAMES, features, patients, EmbeddedEcgs(embeddings, patients, True), fixed_edges=FIXED, seed=0)
    features, _, patients = drawn(300, 3)
    without = build_reference(
        NAMES, features, patients, EmbeddedEcgs(embeddings, np.arange(49), True), fixed_edges=FIXED, seed=0
    )
    assert without.embeddings is None
    assert find_drift(without, counts_of(without, *drawn(200, 4))).embeddings is None


def test_what_does_not_fit_is_refused(reference):
    features, embeddings, patients = drawn(100, 3)
    with pytest.raises(MetsError, match="the feature `rate`, which is not measured here"):
        InputCounts.of(reference, ("amplitude", "other", "counted", "constant"), features, embeddings, patients)
    with pytest.raises(MetsError, match="embeddings have 5 numbers, those of the reference 8"):
        counts_of(reference, features, embeddings[:, :5], patients)
    state = reference.to_json()
    for damaged, words in (
        ({**state, "features": [{**state["features"][0], "counts": [1, 2]}]}, "has 2 counts for 9 edges"),
        ({**state, "features": [{"name": "a"}]}, "no reference of inputs"),
        ({**state, "embeddings": {**state["embeddings"], "variances": [1.0]}}, "axes are"),
        ({"records": 3}, "no reference of inputs"),
    ):
        with pytest.raises(MetsError, match=words):
            InputReference.from_json(damaged)


def test_psi_of_known_shares():
    before, after = np.array([500.0, 500.0]), np.array([250.0, 750.0])
    assert psi(before, after) == pytest.approx(0.25 * math.log(3), rel=0.01)
    assert psi(before, before) == 0


def test_a_threshold_of_zero_is_exceeded_without_bound_or_not_at_all():
    assert [Distance("embeddings", value, 0.0).ratio for value in (0.0, 1e-9)] == [0.0, math.inf]
    assert Distance("embeddings", 3.0, 1.5).ratio == 2.0


def test_a_patient_in_several_files_of_scores_is_one(reference, tmp_path):
    """Thresholds depend on the number of patients."""
    features, embeddings, patients = drawn(1600, 5, patients=200)
    order = np.random.default_rng(0).permutation(1600)
    digest = storage.digest_of(reference.to_json())
    uris = []
    for number, part in enumerate(np.array_split(order, 8)):
        counts = counts_of(reference, features[part], embeddings[part], patients[part])
        table = pa.table({"patient_id": patients[part].astype(str)})
        metadata = {METADATA_KEY: json.dumps({"reference": digest} | counts.to_json()).encode()}
        uris.append(str(tmp_path / f"{number}.parquet"))
        pq.write_table(table.replace_schema_metadata(metadata), uris[-1])
    found, missing = _sum(uris, digest)
    whole = counts_of(reference, features, embeddings, patients)
    assert missing == 0
    assert (found.records, found.patients) == (1600, len(np.unique(patients))) == (whole.records, whole.patients)
    np.testing.assert_allclose(found.products, whole.products)
    assert _sum(uris, "another reference") == (None, 8)

"""Does it learn from the reports? True pairs against shuffled ones, the same small run each time."""

import importlib
import statistics

import pytest

from mets_ray.config.load import load_config
from tests.conftest import ROOT
from tests.support.datasets import auroc_of_fold, synthetic_rows, write_dataset

SEEDS = range(2)
# What the bounds below were measured with. With the default recipe one seed gave 0.895 and 0.652, at its last epoch.
PUBLISHED = ["text.unit=report", "augment.lead_dropout=0", "augment.cropping=0", "augment.gain=0",
             "train.choose=best"]  # fmt: skip


@pytest.mark.timeout(1500)
def test_shuffled_reports_teach_nothing_and_true_ones_explanations_that_point_at_the_finding(
    ray_cluster, tmp_path, monkeypatch
):
    from mets_ray.model.predictor import load_predictor
    from mets_ray.training.fit import fit

    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    hit_rates = importlib.import_module("explanations").hit_rates
    bundles = {}

    def macro_auroc(name, *, seed, shuffled_reports):
        rows = synthetic_rows(800, seed=seed, shuffled_reports=shuffled_reports)
        dataset_uri = write_dataset(tmp_path / name, rows)
        words = ["encoder.width=8", "train.epochs=8", "train.batch_size=64", "train.num_workers=1",
                 "train.learning_rate=2e-3", *PUBLISHED, f"seed={seed}", f"dataset_uri={dataset_uri}",
                 f"run_uri={tmp_path}/{name}", f"text.store_uri={tmp_path}/texts"]  # fmt: skip
        config = load_config(None, words)
        bundles[name] = fit(config, dataset_uri).bundle_uri
        return auroc_of_fold(10, dataset_uri, bundles[name])

    true = macro_auroc("true", seed=0, shuffled_reports=None)
    shuffled = [macro_auroc(f"shuffled{seed}", seed=seed, shuffled_reports=seed) for seed in SEEDS]
    print(f"true {true:.3f}, shuffled {[round(value, 3) for value in shuffled]}")
    assert abs(statistics.mean(shuffled) - 0.5) <= 0.1
    assert true - statistics.mean(shuffled) >= 0.25

    # Measured with these settings: 30 of 30 for each finding; pointing anywhere would hit a quarter to a third.
    for finding, hits in hit_rates(load_predictor(bundles["true"]), each=20).items():
        print(f"{finding}: {hits.hits} of {hits.ecgs}, by chance {hits.chance:.0%}")
        assert hits.rate >= 0.8, finding
        assert hits.chance < 0.4

"""The supervised baseline trains the encoder of the bundle, and is called after it."""

from types import SimpleNamespace

import pytest

from mets_ray.config.load import load_config
from mets_ray.dataset.folds import Selection
from mets_ray.dataset.prepared import PreparedDataset
from mets_ray.evaluation import baselines
from mets_ray.evaluation.label_curve import label_curve, supervised_method
from tests.support.datasets import synthetic_rows, write_dataset


@pytest.mark.parametrize(
    ("architecture", "name"),
    [("resnet1d_18", "supervised ResNet1d-18"), ("seresnet1d_18", "supervised SE-ResNet1d-18")],
)
def test_the_encoder_is_that_of_the_bundle(tmp_path, monkeypatch, architecture, name):
    of_bundle = load_config(None, [f"encoder.architecture={architecture}", "encoder.width=8"])
    config = load_config(None, ["evaluate.baselines=[supervised]"])  # as who evaluates a bundle of somebody else
    inputs = SimpleNamespace(
        config=config,
        dataset=PreparedDataset.open(write_dataset(tmp_path, synthetic_rows(40))),
        test=Selection((10,)),
        records=SimpleNamespace(record_ids=("a",), rows=1),
        predictor=SimpleNamespace(bundle=SimpleNamespace(config=of_bundle)),
        questions=None,
        scores={},
    )
    given = []
    monkeypatch.setattr(baselines, "reachable_nodes", lambda: [{"CPU": 1.0}])
    monkeypatch.setattr(
        baselines.ray,
        "remote",
        lambda **_: lambda learn: SimpleNamespace(remote=lambda *words: given.extend(words) or ()),
    )
    assert list(baselines._supervised(inputs)) == []
    assert of_bundle.encoder in given
    assert config.encoder not in given
    assert supervised_method(of_bundle.encoder) == name
    assert label_curve(inputs, ()) == ()

"""`train.init_from`: weights that are not those of the run's model are refused before the first step."""

from types import SimpleNamespace

import pytest

from mets_ray.config.load import load_config
from mets_ray.ecg.ecg import LEADS
from mets_ray.errors import CheckpointError
from mets_ray.model.bundle import build_model
from mets_ray.training.state import _same_shape


def check(words_of_bundle, words_of_run):
    bundle, run = (load_config(None, ["encoder.width=4", *words]) for words in (words_of_bundle, words_of_run))
    job = SimpleNamespace(config=run, dataset=SimpleNamespace(card=SimpleNamespace(leads=LEADS)))
    _same_shape(build_model(bundle, leads=12, text_features=6), job, 6)


@pytest.mark.parametrize(
    ("bundle", "run", "words"),
    [
        (
            ["encoder.lead_mask=false"],
            ["encoder.lead_mask=false", "encoder.width=8"],
            r"`ecg_encoder\.stem\.0\.weight` is \(4, 12, 7\).* and \(8, 12, 7\) in the model",
        ),
        (["encoder.lead_mask=false"], ["encoder.lead_mask=true"], r"`ecg_encoder\.stem\.lead_gain` is absent"),
        (["encoder.lead_mask=true"], ["encoder.lead_mask=false"], r"`ecg_encoder\.stem\.lead_gain` is \(12, 4\)"),
    ],
)
def test_weights_of_another_encoder_are_refused_by_name(bundle, run, words):
    with pytest.raises(CheckpointError, match=words) as caught:
        check(bundle, run)
    assert "encoder settings" in caught.value.hint


def test_weights_of_the_same_encoder_are_taken():
    check(["encoder.lead_mask=true"], ["encoder.lead_mask=true", "encoder.activation_checkpointing=true"])

"""Ways to train that cost more than the usual one: streaming text, records without labels."""

import numpy as np
import pytest

from mets_ray.errors import ConfigError
from tests.support.datasets import synthetic_rows, write_dataset
from tests.support.pipeline import config_of, losses


def test_streaming_gives_the_losses_of_cached(prepared, tmp_path):
    from mets_ray.training.fit import figures, fit

    words = ["text.mode=streaming", "text.unit=report", "train.num_workers=1", "train.epochs=1",
             "train.schedule=constant", "folds.validation=[]"]  # fmt: skip
    streamed = fit(config_of(tmp_path / "a", *words, dataset_uri=prepared), prepared)
    cached = fit(config_of(tmp_path / "b", "text.mode=cached", *words[1:], dataset_uri=prepared), prepared)
    np.testing.assert_allclose(losses(streamed), losses(cached), rtol=1e-4)
    assert streamed.history[0]["lm_texts_embedded"] > 0
    assert cached.history[0]["lm_texts_embedded"] == 0
    assert streamed.history[0]["validation_macro_auroc"] is None
    assert figures(streamed)["validation_macro_auroc"] is None


def test_unlabelled_records_train_too_and_retrieval_chooses_the_checkpoint(ray_cluster, prepared, tmp_path):
    from mets_ray.evaluation.evaluate import evaluate
    from mets_ray.training.fit import fit

    dataset_uri = write_dataset(tmp_path / "data", synthetic_rows(150), source="wfdb")
    words = ["text.unit=report", "text.mode=streaming", "folds.validation=hash:0.3", "train.choose=best",
             "train.epochs=3"]  # fmt: skip
    chosen = fit(config_of(tmp_path, *words, dataset_uri=dataset_uri), dataset_uri)
    assert chosen.history[0]["validation_macro_auroc"] is None
    recall = [epoch["ecg_to_text_recall_at_10"] + epoch["text_to_ecg_recall_at_10"] for epoch in chosen.history]
    assert recall[chosen.epoch - 1] == max(recall)
    # A user's own labels count for classes of the same name; those that no class has are told.
    (tmp_path / "own.csv").write_text(
        "task,class,prompt\nrhythm,SR,normal sinus rhythm\nrhythm,AFIB,atrial fibrillation\n"
    )
    own = config_of(tmp_path, f"evaluate.prompt_set={tmp_path}/own.csv", "folds.train=[1]", dataset_uri=dataset_uri)
    result = evaluate(own, dataset_uri, chosen.bundle_uri)
    assert [row.name for row in result.tasks[0].classes] == ["SR", "AFIB"]
    assert any("Labels that the prompt set has no class for: " in notice for notice in result.notices)
    (tmp_path / "foreign.csv").write_text("task,class,prompt\nrhythm,sinus,normal sinus rhythm\n")
    foreign = config_of(tmp_path, f"evaluate.prompt_set={tmp_path}/foreign.csv", dataset_uri=dataset_uri)
    with pytest.raises(ConfigError, match=r"has a class of rhythm; their labels are .*`SR`"):
        evaluate(foreign, dataset_uri, chosen.bundle_uri)
    # Its bundle holds no prompts, so a data set with labels is scored through the LM.
    assert 0 < evaluate(config_of(tmp_path, dataset_uri=prepared), prepared, chosen.bundle_uri).macro_auroc < 1

"""sensitivity.py: AUROCs worked by hand, scikit-learn's, and the cosines that tasks.py hands over."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import roc_auc_score

from mets_ray.errors import ConfigError, MetsError
from mets_ray.metrics.sensitivity import wording_sensitivity
from mets_ray.model.mets import Mets
from mets_ray.model.zero_shot import class_vectors, wording_similarities, wording_vectors
from mets_ray.tasks.label_sets import LabelSet
from mets_ray.tasks.prompt_sets import PromptSet
from mets_ray.text.embeddings import EmbeddingTable
from mets_ray.text.reports import text_id


def test_by_hand():
    truth = np.array([[True, False], [True, True], [False, False], [False, True]])
    # Of 4 pairs: the first wording wins all, the second 2 (one of them by two ties), the third none.
    first = np.array([[0.9, 0.5, -1.0], [0.8, 0.1, -0.9], [0.2, 0.5, 0.3], [0.1, 0.1, 0.4]])
    second = np.array([[0.1], [0.7], [0.4], [0.2]])  # the positives 0.7 and 0.2 against 0.1 and 0.4: 3 of 4
    one, two = wording_sensitivity([first, second], truth)
    assert one.auroc.tolist() == [1.0, 0.5, 0.0]
    assert (one.lowest, one.highest, one.spread) == (0.0, 1.0, 1.0)
    assert two.auroc.tolist() == [0.75]
    assert (two.lowest, two.highest, two.spread) == (0.75, 0.75, 0.0)


def test_against_scikit_learn():
    generator = np.random.default_rng(7)
    truth = generator.random((200, 3)) < [0.5, 0.1, 0.02]
    similarity = [generator.normal(size=(200, wordings)) + truth[:, [c]] for c, wordings in enumerate((1, 4, 6))]
    for column, found in enumerate(wording_sensitivity(similarity, truth)):
        expected = [roc_auc_score(truth[:, column], cosines) for cosines in similarity[column].T]
        assert found.auroc.tolist() == pytest.approx(expected, abs=1e-12)
        assert found.lowest == pytest.approx(min(expected), abs=1e-12)
        assert found.highest == pytest.approx(max(expected), abs=1e-12)
        assert found.spread == pytest.approx(max(expected) - min(expected), abs=1e-12)


@pytest.mark.parametrize("value", [True, False])
def test_a_class_that_all_or_no_records_have_is_not_defined(value):
    truth = np.array([[value, True], [value, False]])
    nothing, defined = wording_sensitivity([np.eye(2), np.eye(2)], truth)
    assert np.isnan([*nothing.auroc, nothing.lowest, nothing.highest, nothing.spread]).all()
    assert len(nothing.auroc) == 2
    assert defined.auroc.tolist() == [1.0, 0.0]


def test_no_records():
    (found,) = wording_sensitivity([np.zeros((0, 2))], np.zeros((0, 1), dtype=np.bool_))
    assert np.isnan([*found.auroc, found.spread]).all()


def test_what_cannot_be_scored_is_refused():
    truth = np.array([[True], [False]])
    with pytest.raises(MetsError, match="`similarity` has 2 classes and `truth` 1"):
        wording_sensitivity([np.eye(2), np.eye(2)], truth)
    with pytest.raises(MetsError, match="class 0 of `similarity` has no wording"):
        wording_sensitivity([np.zeros((2, 0))], truth)
    with pytest.raises(MetsError, match="1 of 2 values of `scores` are not finite"):
        wording_sensitivity([np.array([[np.nan], [0.0]])], truth)


PROMPTS = PromptSet("mine", 1, "0" * 64, {"heart": {"NORM": ("normal",), "MI": ("infarct", "old infarct", "scar")}})
LABELS = LabelSet("heart", {"MI": ("IMI",), "NORM": ("NORM",)})


@pytest.fixture
def model() -> Mets:
    torch.manual_seed(0)
    return Mets(text_features=6, width=4, norm="group", dimension=5).double()


@pytest.fixture
def table() -> EmbeddingTable:
    texts = [text for texts in PROMPTS.tasks["heart"].values() for text in texts]
    vectors = np.random.default_rng(0).normal(size=(len(texts), 6)).astype(np.float16)
    return EmbeddingTable.build(np.array([text_id(text) for text in texts], dtype=np.int64), vectors)


def test_cosines_of_each_wording_in_the_order_of_the_labels(model, table):
    ecg = F.normalize(torch.randn(7, 5, dtype=torch.float64), dim=1).numpy()
    by_class = [PROMPTS.tasks["heart"][name] for name in LABELS.classes]
    ids = np.array([text_id(text) for texts in by_class for text in texts])
    vectors = wording_vectors(model, table.lookup(ids), by_class)
    found = wording_similarities(vectors, ecg)
    assert [cosines.shape for cosines in found] == [(7, 3), (7, 1)]
    assert all(cosines.dtype == np.float64 for cosines in found)
    for cosines, texts in zip(found, (("infarct", "old infarct", "scar"), ("normal",)), strict=True):
        for column, text in enumerate(texts):
            features = torch.from_numpy(table.lookup(np.array([text_id(text)]))).double()
            vector = model.text_projection(features)[0].detach()
            expected = F.cosine_similarity(torch.from_numpy(ecg), vector[None], dim=1)
            assert cosines[:, column] == pytest.approx(expected.numpy(), abs=1e-12)
    # The class vector points where the mean of the wordings does; with one wording it is that wording.
    averaged = torch.from_numpy(ecg) @ class_vectors(model, PROMPTS, LABELS, table).T
    assert averaged[:, 1].numpy() == pytest.approx(found[1][:, 0], abs=1e-12)
    ratio = found[0].mean(axis=1) / averaged[:, 0].numpy()
    assert ratio == pytest.approx(np.full(7, ratio[0]), abs=1e-9)


def test_a_class_without_words_is_named(model, table):
    labels = LabelSet("heart", {"MI": (), "CD": ()})
    with pytest.raises(ConfigError, match="has no prompt for `CD` of `heart`"):
        class_vectors(model, PROMPTS, labels, table)

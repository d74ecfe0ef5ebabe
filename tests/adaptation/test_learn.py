"""Heads on made-up features: drawn labels, arrays that give the fitted scores, and what nothing can be learnt from."""

import numpy as np
import pytest

from mets_ray.adaptation.examples import drawn_examples, labelled_examples
from mets_ray.adaptation.head import make_head
from mets_ray.adaptation.labels import read_labels
from mets_ray.adaptation.learn import fit_linear, fit_text
from mets_ray.config.load import load_config
from mets_ray.errors import ConfigError
from mets_ray.metrics.auroc import macro_auroc
from mets_ray.model.bundle import load_bundle
from mets_ray.model.predictor import Predictor
from mets_ray.pipelines.embed import EmbeddedRecords
from tests.support.datasets import synthetic_rows, write_dataset
from tests.support.serving import make_bundle

CLASSES = ("AFIB", "SR", "STACH")


def config_of(*words):
    return load_config(None, [f"adapt.{word}" for word in words])


def records_of(labels, *, seed=0):
    """Records with these codes; values 0 to 2 say which of `CLASSES` each has."""
    generator = np.random.default_rng(seed)
    features = generator.normal(size=(len(labels), 32)).astype(np.float32)
    features[:, :3] += 2 * np.array([[name in codes for name in CLASSES] for codes in labels])
    embeddings = generator.normal(size=(len(labels), 128)).astype(np.float32)
    embeddings[:, :3] += 6 * np.array([[name in codes for name in CLASSES] for codes in labels])
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    names = tuple(f"r{seed}-{number}" for number in range(len(labels)))
    patients = np.array([f"p{number // 2}" for number in range(len(labels))])
    return EmbeddedRecords(names, patients, labels, ("",) * len(labels), embeddings, features, len(labels))


def mixed(count, *, seed=0):
    generator = np.random.default_rng(seed)
    return records_of([[CLASSES[generator.integers(3)]] if number % 5 else [] for number in range(count)], seed=seed)


@pytest.fixture(scope="module")
def labels(tmp_path_factory):
    table = tmp_path_factory.mktemp("table") / "t.csv"
    table.write_text("record_id,labels\n" + "".join(f"x{number},{name}\n" for number, name in enumerate(CLASSES)))
    found = read_labels(config_of(f"labels_uri={table}", "method=linear").adapt, "none")
    return type(found)(found.label_set, {}, None, None)


@pytest.fixture(scope="module")
def predictor(tmp_path_factory):
    return Predictor(load_bundle(str(make_bundle(tmp_path_factory.mktemp("b")))), encoder_runtime="torch")


def test_labels_are_drawn_by_class_and_what_is_short_is_said(labels):
    records = mixed(100)
    everything, notices = drawn_examples(config_of(), labels, records)
    assert (len(everything.rows), notices) == (80, ())
    few, notices = drawn_examples(config_of("labels_per_class=8"), labels, records)
    assert few.truth.sum(axis=0).tolist() == [8, 8, 8]
    assert notices == ()
    assert few.features.tolist() == records.features[few.rows].tolist()
    many, (notice,) = drawn_examples(config_of("labels_per_class=500"), labels, records)
    assert len(many.rows) == 80
    assert notice.startswith("`adapt.labels_per_class` is 500, and some classes have fewer, which are all taken: AFIB ")


def test_what_nothing_can_be_learnt_from_is_refused_with_a_remedy(labels):
    for words, codes, told in (
        ((), [["AF"], []], r"none of the 2 ECGs in `folds.train` has a class of `t` \(AFIB, SR, STACH\)"),
        ((), [["SR"], ["SR"], []], "all 2 labelled ECGs of `t` in `folds.train` have the same class, 'SR'"),
        (("labels_per_class=0", "method=linear"), [["SR"], ["AFIB"]], "`adapt.labels_per_class` is 0"),
    ):
        with pytest.raises(ConfigError, match=told) as error:
            drawn_examples(config_of(*words), labels, records_of(codes))
        assert error.value.hint


def test_the_arrays_of_a_linear_head_give_the_fitted_scores(labels):
    config = config_of("method=linear")
    train, _ = drawn_examples(config, labels, mixed(200))
    validation = labelled_examples(labels, mixed(100, seed=1))
    fitted = fit_linear(train, validation)
    logits = validation.features @ fitted.weight.T + fitted.bias
    assert macro_auroc(logits, validation.truth)[0] > 0.8
    assert fitted.inverse_penalty > 0
    # A class without a label is left out.
    without = train._replace(truth=train.truth & [True, True, False])
    assert fit_linear(without, validation).columns == (0, 1)


def test_a_text_head_without_labels_is_zero_shot_and_with_them_better(labels, predictor, tmp_path):
    from mets_ray.dataset.prepared import PreparedDataset

    dataset = PreparedDataset.open(write_dataset(tmp_path, synthetic_rows(4)))
    validation = labelled_examples(labels, mixed(100, seed=1))
    known = predictor.facts.prompt_sets["descriptive"].tasks["synthetic"]
    classes = {name: known[name] for name in CLASSES}
    vectors = predictor.class_vectors(classes).numpy()
    heads = {}
    for number in (0, 16):
        config = config_of(f"labels_per_class={number}")
        train, _ = drawn_examples(config, labels, mixed(200))
        fitted = fit_text(train, validation, vectors, predictor)
        heads[number] = make_head(config, "mine", labels, (train, validation), fitted, 0.5, (predictor, dataset))
    of = validation.features, validation.embeddings
    zero_shot = predictor.independent_scores(validation.embeddings @ vectors.T)
    np.testing.assert_allclose(1 / (1 + np.exp(-heads[0].logits(*of))), zero_shot, rtol=1e-5)
    facts = heads[16].facts
    assert (heads[0].facts.records, facts.records, facts.labels["SR"]) == (0, 48, 16)
    of_words = macro_auroc(zero_shot, validation.truth)[0]
    assert heads[0].facts.validation_macro_auroc == pytest.approx(of_words)
    assert facts.validation_macro_auroc > of_words + 0.2
    assert facts.validation_macro_auroc == pytest.approx(macro_auroc(heads[16].logits(*of), validation.truth)[0])
    assert facts.dataset_sha256 == dataset.card.content_sha256

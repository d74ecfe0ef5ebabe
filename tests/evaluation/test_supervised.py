"""supervised.py on ECGs so easy that seconds on a CPU learn them."""

import math

import numpy as np
import pytest
import torch

from mets_ray.config.settings import AugmentConfig, EncoderConfig
from mets_ray.ecg.ecg import LEADS
from mets_ray.errors import MetsError
from mets_ray.evaluation import supervised
from mets_ray.evaluation.supervised import METS_RECIPE, LabelledEcgs, SupervisedEcg, train_supervised
from mets_ray.metrics.auroc import macro_auroc
from mets_ray.model.augment import BatchPlace, draw_views
from mets_ray.model.ecg_encoder import encoder_shape

ENCODER = EncoderConfig(width=4)
VIEWS = AugmentConfig()


def learn(train, validation, *, encoder=ENCODER, augment=None, seed=0, **settings):
    """`train_supervised` with METS's recipe but for small batches and a high rate."""
    recipe = METS_RECIPE.model_copy(update={"epochs": 4, "batch_size": 16, "learning_rate": 1e-2} | settings)
    return train_supervised(
        LabelledEcgs(*train), LabelledEcgs(*validation), encoder=encoder, settings=recipe, augment=augment, seed=seed
    )


def made_up(records: int, seed: int):
    """int16 µV [record, 2, 64] and two independent classes: a fast wave on lead 0, a slow one on lead 1."""
    generator = np.random.default_rng(seed)
    truth = generator.random((records, 2)) < 0.5
    time = np.arange(64) / 64
    waves = np.stack([np.sin(2 * np.pi * 16 * time), np.sin(2 * np.pi * 3 * time)])
    signal = 100.0 * generator.normal(size=(records, 2, 64)) + 400.0 * truth[:, :, None] * waves
    return signal.astype(np.int16), truth


def same_weights(first: SupervisedEcg, second: SupervisedEcg) -> bool:
    other = second.state_dict()
    return all(torch.equal(value, other[name]) for name, value in first.state_dict().items())


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_easy_classes_are_learned_and_the_same_seed_gives_the_same_bits():
    train, validation, test = made_up(96, 0), made_up(32, 1), made_up(64, 2)
    found = learn(train, validation)
    scores = found.scores(test[0])
    assert macro_auroc(scores, test[1])[0] > 0.9
    assert [figures.epoch for figures in found.epochs] == [1, 2, 3, 4]
    assert found.epochs[-1].train_loss < found.epochs[0].train_loss
    assert found.untrained_classes == ()

    torch.manual_seed(123)  # the caller's generator has no part in it, and keeps its state
    before = torch.get_rng_state()
    again = learn(train, validation)
    assert torch.equal(torch.get_rng_state(), before)
    assert again.epochs == found.epochs
    assert same_weights(found.model, again.model)
    assert (again.scores(test[0]) == scores).all()
    other = learn(train, validation, seed=1, epochs=1)
    assert other.epochs[0].train_loss != found.epochs[0].train_loss


def test_views_are_those_of_pretraining_and_follow_from_the_seed(monkeypatch):
    train, validation = made_up(32, 0), made_up(16, 1)
    none = AugmentConfig(lead_dropout=0.0, cropping=0.0, gain=0.0)
    plain, untouched, first, again = (
        learn(train, validation, epochs=2, augment=augment).model for augment in (None, none, VIEWS, VIEWS)
    )
    assert same_weights(plain, untouched)
    assert same_weights(first, again)
    assert not same_weights(plain, first)

    seen = []
    monkeypatch.setattr(supervised, "augmented", lambda signal_mv, views: (seen.append(views), signal_mv)[1])
    learn(train, validation, epochs=2, augment=VIEWS)
    assert [len(views.gain) for views in seen] == [16, 16, 16, 16]  # of both epochs, and of no validation record
    for views, (epoch, step) in zip(seen, [(1, 1), (1, 2), (2, 1), (2, 2)], strict=True):
        expected = draw_views(VIEWS, BatchPlace(0, epoch, step, 16), range(16), leads=LEADS[:2], samples=64)
        np.testing.assert_array_equal(views.gain, expected.gain)
        np.testing.assert_array_equal(views.start, expected.start)


def test_the_model_is_that_of_the_best_epoch(monkeypatch):
    train, validation = made_up(32, 0), made_up(16, 1)
    figures = iter([0.6, 0.8, 0.8, 0.7])
    monkeypatch.setattr(supervised, "macro_auroc", lambda scores, truth: (next(figures), None))
    found = learn(train, validation, epochs=4)
    monkeypatch.undo()
    assert found.best == found.epochs[1]
    stopped = learn(train, validation, epochs=2)
    # The rate is constant, so two epochs of four are two of two.
    assert found.epochs[1].train_loss == stopped.epochs[1].train_loss
    monkeypatch.setattr(supervised, "macro_auroc", lambda scores, truth: (1.0 - stopped_epochs.pop(), None))
    stopped_epochs = [0.1, 0.9]
    last = learn(train, validation, epochs=2)
    assert last.best.epoch == 2
    assert same_weights(found.model, last.model)


def test_validation_chooses_the_epoch_and_moves_no_weight():
    train = made_up(32, 0)
    first = learn(train, made_up(16, 1), epochs=2)
    second = learn(train, made_up(24, 2), epochs=2)
    assert [f.train_loss for f in first.epochs] == [f.train_loss for f in second.epochs]


def test_scores_do_not_depend_on_the_batch_and_are_logits_of_millivolts():
    train, validation = made_up(32, 0), made_up(16, 1)
    found = learn(train, validation, epochs=1)
    scores = found.scores(validation[0])
    assert scores.dtype == np.float32
    assert not found.model.training
    assert found.scores(validation[0], batch_size=3) == pytest.approx(scores, abs=1e-5)
    with torch.no_grad():
        expected = found.model(torch.from_numpy(validation[0]).float() / 1000.0).numpy()
    assert scores == pytest.approx(expected, abs=1e-6)


def test_the_loss_of_the_first_step_is_that_of_untrained_weights():
    train, validation = made_up(16, 0), made_up(16, 1)
    encoder = EncoderConfig(width=4, norm="group")
    found = learn(train, validation, epochs=1, encoder=encoder)
    torch.manual_seed(0)
    model = SupervisedEcg(classes=2, **encoder_shape(encoder, 2))
    with torch.no_grad():
        probability = torch.sigmoid(model(torch.from_numpy(train[0]).float() / 1000.0)).double().numpy()
    expected = -np.mean(np.where(train[1], np.log(probability), np.log(1.0 - probability)))
    assert found.epochs[0].train_loss == pytest.approx(expected, rel=1e-5)


def test_batches_are_nearly_equal_and_hold_each_record_once(monkeypatch):
    (signal, truth), validation = made_up(17, 0), made_up(16, 1)
    signal[:, 0, 0] = np.arange(17)
    batches = []
    to_millivolts = supervised.microvolts_to_millivolts

    def recording(rows, model):
        if model.training:
            batches.append(rows[:, 0, 0].tolist())
        return to_millivolts(rows, model)

    monkeypatch.setattr(supervised, "microvolts_to_millivolts", recording)
    learn((signal, truth), validation, epochs=2)
    assert sorted(map(len, batches)) == [8, 8, 9, 9]
    first, second = batches[0] + batches[1], batches[2] + batches[3]
    assert sorted(first) == sorted(second) == list(range(17))
    assert first != second


def test_a_class_without_positives_scores_one_half():
    (signal, truth), validation, test = made_up(10, 0), made_up(24, 1), made_up(24, 2)
    truth[:, 1] = False
    found = learn((signal, truth), validation, epochs=2)
    assert found.untrained_classes == (1,)
    _, per_class = macro_auroc(found.scores(test[0]), test[1])
    assert per_class[1] == 0.5
    _, on_validation = macro_auroc(found.scores(validation[0]), validation[1])
    assert found.best.validation_macro_auroc == np.mean([on_validation[0], 0.5])


def test_a_memory_map_is_read_in_batches(tmp_path, monkeypatch):
    (signal, truth), validation = made_up(32, 0), made_up(16, 1)
    np.save(tmp_path / "signal.npy", signal)
    mapped = np.load(tmp_path / "signal.npy", mmap_mode="r")
    largest = []
    to_millivolts = supervised.microvolts_to_millivolts
    monkeypatch.setattr(
        supervised,
        "microvolts_to_millivolts",
        lambda rows, model: largest.append(len(rows)) or to_millivolts(rows, model),
    )
    found = learn((mapped, truth), validation, epochs=1)
    found.scores(mapped, batch_size=5)
    assert max(largest) == 16


def test_a_loss_that_is_not_finite_ends_training_with_its_step():
    with pytest.raises(MetsError, match=r"loss is (nan|inf) at step 2 of 2 of epoch 1"):
        learn(made_up(32, 0), made_up(16, 1), learning_rate=1e30)


@pytest.mark.parametrize("optimizer", ["adam", "adamw"])
def test_optimizer_and_decay_reach_torch(monkeypatch, optimizer):
    kind, seen = {"adam": "Adam", "adamw": "AdamW"}[optimizer], []
    original = getattr(torch.optim, kind)

    def recording(groups, **options):
        seen.append((groups, options))
        return original(groups, **options)

    monkeypatch.setattr(torch.optim, kind, recording)
    learn(made_up(16, 0), made_up(16, 1), epochs=1, weight_decay=0.5, optimizer=optimizer)
    ((decayed, others), options) = seen[0]
    assert options == {"lr": 1e-2}
    assert (decayed["weight_decay"], others["weight_decay"]) == (0.5, 0.0)  # as in pretraining: weights only
    assert {value.ndim for value in decayed["params"]} == {2, 3}
    assert {value.ndim for value in others["params"]} == {1}


def test_the_rate_follows_the_schedule(monkeypatch):
    rates = []
    original = supervised.set_learning_rate

    def recording(optimizer, settings, progress):
        original(optimizer, settings, progress)
        rates.append(optimizer.param_groups[0]["lr"])

    monkeypatch.setattr(supervised, "set_learning_rate", recording)
    learn(made_up(32, 0), made_up(16, 1), epochs=2)
    assert rates == [1e-2] * 4
    rates.clear()
    learn(made_up(32, 0), made_up(16, 1), epochs=2, schedule="cosine")
    assert rates == pytest.approx([1e-2 * 0.5 * (1 + math.cos(math.pi * share / 4)) for share in range(4)])


def test_what_does_not_fit_is_refused():
    (x, y), (v, t) = made_up(16, 0), made_up(8, 1)
    for train, validation, message in (
        ((x[:0], y[:0]), (v, t), "0 train ECGs for 0 rows"),
        ((x, y), (v, np.ones_like(t)), "no class has both positives and negatives among 8 validation records"),
    ):
        with pytest.raises(MetsError, match=message):
            learn(train, validation)
    found = learn((x, y), (v, t), epochs=1)
    assert math.isfinite(found.epochs[0].train_loss)
    with pytest.raises(MetsError, match="ECGs have 1 leads"):
        found.scores(v[:, :1])
    # jaxtyping is on in tests; outside of them this is the only thing between millivolts and a thousandth of them.
    with pytest.raises(MetsError, match="ECGs are float32, not int16 microvolts"):
        supervised._scores(found.model, v.astype(np.float32), (), 8)

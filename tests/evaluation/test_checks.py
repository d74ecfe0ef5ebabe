"""Which records a bundle may be scored on: data sets and patients are compared, not the numbers of folds."""

import dataclasses
from types import SimpleNamespace

import pytest

from mets_ray.config.load import load_config
from mets_ray.dataset.folds import Selection
from mets_ray.dataset.prepared import PreparedDataset
from mets_ray.errors import ConfigError, DatasetError, MetsError
from mets_ray.evaluation.calibrate import check_single_windows
from mets_ray.evaluation.checks import calibration_folds, check_fit, choose_test, notices_of
from mets_ray.model.bundle import read_facts
from tests.support.datasets import synthetic_rows, write_dataset
from tests.support.serving import make_bundle


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checks")
    write_dataset(folder, synthetic_rows(60))
    return PreparedDataset.open(str(folder))


@pytest.fixture(scope="module")
def facts(tmp_path_factory):
    return read_facts(str(make_bundle(tmp_path_factory.mktemp("bundle"))))


def of_source(dataset, source):
    return dataclasses.replace(dataset, card=dataset.card.model_copy(update={"source": source}))


def trained_on(facts, card, **changes):
    same = {"dataset_source": card.source, "dataset_sha256": card.content_sha256, "train_folds": (1, 2)}
    signal = {"sampling_rate_hz": card.sampling_rate_hz, "duration_s": card.duration_s, "highpass_hz": card.highpass_hz}
    return facts.model_copy(
        update=same | signal | {"leads": card.leads, "validation": (), "earlier_folds": ()} | changes
    )


@pytest.mark.parametrize(
    ("source", "changes", "refused"),
    [
        ("synthetic", {}, True),
        ("synthetic", {"dataset_sha256": "a cut of it"}, True),
        ("wfdb", {}, True),
        ("wfdb", {"dataset_sha256": "prepared at another rate", "dataset_source_sha256": "the same CSV"}, True),
        ("wfdb", {"dataset_sha256": "another hospital", "dataset_source_sha256": "another CSV"}, False),
        ("wfdb", {"dataset_sha256": "another hospital", "dataset_source_sha256": ""}, False),
        ("wfdb", {"dataset_source": "ptbxl"}, False),
    ],
)
def test_a_fold_number_alone_refuses_nothing(dataset, facts, source, changes, refused):
    scored = of_source(dataset, source)
    if "dataset_source_sha256" in changes:
        card = scored.card.model_copy(update={"source_sha256": "the same CSV"})
        scored = dataclasses.replace(scored, card=card)
    trained = trained_on(facts, scored.card, **changes)
    config = load_config()
    if refused:
        with pytest.raises(ConfigError, match="fold 2, which trained the bundle"):
            check_fit(config, scored, trained, Selection((2, 10)))
    else:
        alarms = check_fit(config, scored, trained, Selection((2, 10)))
        same_kind = trained.dataset_source == scored.card.source
        assert [("another data set" in alarm) for alarm in alarms] == [True] * same_kind


@pytest.mark.parametrize(("trained", "tested", "is_told"), [(None, 10, True), (20, None, True), (20, 20, False)])
def test_folds_of_another_division_are_other_patients(dataset, facts, trained, tested, is_told):
    scored = of_source(dataset, "ptbxl")
    scored = dataclasses.replace(scored, card=scored.card.model_copy(update={"patient_folds": tested}))
    bundle = trained_on(facts, scored.card, dataset_sha256="prepared otherwise", patient_folds=trained)
    if is_told:
        assert [("another data set" in alarm) for alarm in check_fit(load_config(), scored, bundle, Selection((2,)))]
    else:
        with pytest.raises(ConfigError, match="fold 2, which trained the bundle"):
            check_fit(load_config(), scored, bundle, Selection((2,)))


def test_a_fold_that_a_cut_data_set_lacks_is_said_and_null_is_every_fold(dataset):
    every = tuple(dataset.card.folds)
    assert choose_test(None, dataset) == (Selection(every), [])
    assert choose_test((every[0],), dataset) == (Selection((every[0],)), [])
    test, notices = choose_test((every[0], 42), dataset)
    assert test == Selection((every[0],))
    assert "fold 42, which the data set lacks" in notices[0]
    with pytest.raises(ConfigError, match=r"folds\.test=null") as caught:
        choose_test((42,), dataset)
    assert "`folds.test` is [42]" in caught.value.fact


@pytest.mark.parametrize(
    ("changes", "refused"),
    [
        ({"train_folds": (1, 2), "validation": (3,)}, False),
        ({"train_folds": (1, 3)}, True),
        ({"train_folds": (1, 2), "earlier_folds": (2, 3)}, True),  # the weights that it began with
        ({"train_folds": (1, 2), "validation": (3,), "earlier_folds": (1, 2, 3)}, False),  # the same split as before
        ({"train_folds": (1, 3), "dataset_sha256": "another hospital"}, False),
    ],
)
def test_records_that_trained_the_bundle_or_what_it_began_with_do_not_calibrate_it(dataset, facts, changes, refused):
    scored = of_source(dataset, "wfdb")
    trained = trained_on(facts, scored.card, **changes)
    config = load_config(None, ["folds.train=[]", "folds.validation=[3]"])
    if refused:
        with pytest.raises(DatasetError, match="patients have records in the validation and in the bundle's"):
            calibration_folds(config, scored, trained, Selection((10,)))
    else:
        assert calibration_folds(config, scored, trained, Selection((10,))) == Selection((3,))


@pytest.mark.parametrize(
    ("words", "changes", "is_said"),
    [
        ([], {"dataset_source": "wfdb"}, False),
        (["train.init_from=ptbxl-demo"], {"dataset_source": "wfdb"}, True),  # trained on PTB-XL, then on a clinic's own
        (["train.init_from=ptbxl-demo"], {"earlier_folds": ()}, True),
        (["train.init_from=ptbxl-demo"], {"earlier_folds": (1, 2)}, False),  # `check_fit` compares these
    ],
)
def test_what_the_weights_began_as_is_said_where_nothing_compares_it(dataset, facts, words, changes, is_said):
    scored = of_source(dataset, "ptbxl")
    trained = trained_on(facts, scored.card, **changes)
    bundle = SimpleNamespace(config=load_config(None, words), takes_fewer_leads=True)
    inputs = SimpleNamespace(
        config=load_config(),
        dataset=scored,
        test=Selection((10,)),
        predictor=SimpleNamespace(facts=trained, bundle=bundle, heads={}),
        records=SimpleNamespace(partial=0, rows=6, labels=[]),
        questions=SimpleNamespace(tasks={}),
        scores={},
    )
    assert any("began as those of `ptbxl-demo`" in notice for notice in notices_of(inputs)) == is_said


@pytest.mark.parametrize(
    ("trained", "tested", "is_told"),
    [
        ("cinc2021", "cpsc2018", True),
        ("cinc2021", "ptbxl", True),
        ("cinc", "csn", True),
        ("ptbxl", "cinc2021", True),
        ("ptbxl", "cpsc2018", False),
        ("csn", "cpsc2018", False),
        ("cinc2021", "mitbih", False),
    ],
)
def test_a_source_that_gathers_others_may_hold_their_records(dataset, facts, trained, tested, is_told):
    scored = of_source(dataset, tested)
    alarms = check_fit(load_config(), scored, trained_on(facts, scored.card, dataset_source=trained), Selection((10,)))
    assert ["the challenge of 2021 gathered" in alarm for alarm in alarms] == [True] * is_told


def test_means_of_windows_are_not_calibrated():
    with pytest.raises(MetsError, match="windows of recordings"):
        check_single_windows(SimpleNamespace(rows=4, record_ids=("a", "b")))
    check_single_windows(SimpleNamespace(rows=2, record_ids=("a", "b")))

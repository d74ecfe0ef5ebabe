"""Windows, class vectors and scores of a bundle, without Ray and HTTP, against the code that training uses."""

import inspect
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch

from mets_ray.ecg.ecg import LEADS, Ecg
from mets_ray.ecg.preprocess import preprocess
from mets_ray.errors import CheckpointError, ConfigError, RecordError, RequestError
from mets_ray.model.bundle import load_bundle
from mets_ray.model.predictor import Predictor, load_predictor
from mets_ray.model.windows import mean_embedding
from mets_ray.model.zero_shot import class_vectors, task_scores
from mets_ray.serve.class_lists import bundle_prompt_sets, class_list, labels_as_classes
from mets_ray.serve.deployments import build
from mets_ray.serve.settings import ServeConfig
from mets_ray.tasks.label_sets import load_label_sets
from mets_ray.tasks.prompt_sets import load_prompt_set
from mets_ray.text.reports import METS_TRAIN_TEMPLATE
from tests.support.references import made_up_reference, synthetic_signals, write_reference
from tests.support.serving import lm, make_bundle, synthetic_ecg

CONFIG = ServeConfig(bundle_uri="unused", auth="none")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return load_bundle(str(make_bundle(tmp_path_factory.mktemp("bundle"))))


@pytest.fixture
def predictor(bundle):
    return Predictor(bundle, device="cpu", text_cache_texts=4096)


def test_class_vectors_are_those_of_evaluation(bundle, predictor):
    expected = class_vectors(
        bundle.model, load_prompt_set("descriptive"), load_label_sets("synthetic")["synthetic"], bundle.prompts
    )
    classes = bundle_prompt_sets(bundle.facts)["descriptive:synthetic"].classes
    names = list(load_label_sets("synthetic")["synthetic"].classes)
    found = predictor.class_vectors({name: classes[name] for name in names})
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-7)


def test_zero_shot_of_an_ecg_is_what_task_scores_makes_of_its_window(bundle, predictor):
    label_set = load_label_sets("synthetic")["synthetic"]
    ecgs = [synthetic_ecg(index) for index in range(6)]
    windows = np.stack([preprocess(ecg, bundle.facts.signal) for ecg in ecgs])
    with torch.no_grad():
        embeddings = bundle.model.embed_ecg(torch.from_numpy(windows).float() / 1000).numpy()
    for name in ("descriptive", "mets"):
        expected, _, kept = task_scores(
            bundle.model, load_prompt_set(name), label_set, bundle.prompts, embeddings, [["SR"]] * len(ecgs)
        )
        assert kept.all()
        softmax = torch.tensor(expected * float(bundle.model.logit_scale)).softmax(dim=-1).numpy()
        for ecg, cosines, scores in zip(ecgs, expected, softmax, strict=True):
            rows = predictor.zero_shot(ecg, prompt_set=name, task="synthetic")
            by_class = {row.class_name: row for row in rows}
            assert set(by_class) == set(label_set.classes)
            assert [by_class[key].similarity for key in label_set.classes] == pytest.approx(cosines.tolist(), abs=1e-5)
            assert [by_class[key].score for key in label_set.classes] == pytest.approx(scores.tolist(), abs=1e-5)
            assert [row.score for row in rows] == sorted((row.score for row in rows), reverse=True)
            assert sum(row.score for row in rows) == pytest.approx(1.0)


@pytest.mark.parametrize(("unit", "around"), [("statement", "{}"), ("report", METS_TRAIN_TEMPLATE)])
def test_words_of_ones_own_go_through_the_lm_as_the_training_texts_stood(tmp_path, unit, around):
    bundle = load_bundle(str(make_bundle(tmp_path, f"text.unit={unit}")))
    predictor = Predictor(bundle)
    assert predictor.template == around
    ecg, words = synthetic_ecg(), ["atrial fibrillation", "a heart on holiday"]
    rows = predictor.zero_shot(ecg, words)
    features = lm()([around.format(word) for word in words])
    with torch.no_grad():
        vectors = bundle.model.embed_prompt(torch.from_numpy(features), np.zeros(2, np.int8)).numpy()
    expected = dict(zip(words, (vectors @ predictor.embed(ecg)).tolist(), strict=True))
    assert {row.class_name: row.similarity for row in rows} == pytest.approx(expected, abs=1e-5)
    assert rows[0].similarity >= rows[1].similarity
    # Wordings of a class are averaged, and another template gives another text.
    (one,) = predictor.zero_shot(ecg, {"holiday": words}, multi_label=True)
    mean = vectors.mean(axis=0) / np.linalg.norm(vectors.mean(axis=0))
    assert one.similarity == pytest.approx(float(mean @ predictor.embed(ecg)), abs=1e-5)
    logit = float(bundle.model.logit_scale) * one.similarity + float(bundle.model.logit_bias)
    assert one.score == pytest.approx(1 / (1 + np.exp(-logit)), abs=1e-5)
    (short,) = [row for row in predictor.zero_shot(ecg, ["AF", "a heart on holiday"]) if row.class_name == "AF"]
    assert short.similarity == pytest.approx(expected["atrial fibrillation"], abs=1e-6)
    other = predictor.zero_shot(ecg, words, template="ECG without {}")
    assert {row.class_name for row in other} == set(words)
    assert other[0].similarity != rows[0].similarity


def test_z_scores_are_standard_deviations_above_the_ecgs_of_the_reference(tmp_path):
    """Of words of one's own; none without a reference, over several windows, or where leads are missing."""
    bundle_uri, words, ecg = str(make_bundle(tmp_path)), ["atrial fibrillation", "normal ECG"], synthetic_ecg(1000)
    assert {row.z_score for row in Predictor(load_bundle(bundle_uri)).zero_shot(ecg, words)} == {None}
    signals_uv = synthetic_signals(range(60))
    write_reference(bundle_uri, made_up_reference(bundle_uri, signals_uv))
    predictor = Predictor(load_bundle(bundle_uri))
    rows = {row.class_name: row for row in predictor.zero_shot(ecg, words)}
    for word in words:
        of_reference = predictor.embed_windows(signals_uv).astype(float) @ predictor.embed_texts([word])[0]
        expected = (rows[word].similarity - of_reference.mean()) / of_reference.std()
        # The reference keeps the main axes; across the others an untrained model varies as no trained one does.
        assert rows[word].z_score == pytest.approx(expected, rel=0.2)
        assert abs(expected) > 0.1
    longer = replace(ecg, signal_mv=np.tile(ecg.signal_mv, 2))
    assert {row.z_score for row in predictor.zero_shot(longer, words)} == {None}
    fewer = replace(ecg, signal_mv=ecg.signal_mv[:2], leads=ecg.leads[:2])
    assert {row.z_score for row in predictor.zero_shot(fewer, words)} == {None}


def test_what_makes_a_score_worthless_is_said(predictor):
    def zero_shot(factor, classes, **ways):
        ecg = synthetic_ecg(1)
        return predictor.zero_shot(replace(ecg, signal_mv=ecg.signal_mv * np.float32(factor)), classes, **ways)

    two = {"one": ["Sinus rhythm"], "other": ["Atrial fibrillation"]}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        zero_shot(1, two)
        zero_shot(1, {"one": ["Sinus rhythm"]}, multi_label=True)
    with pytest.warns(UserWarning, match="check the unit"):
        zero_shot(0.01, two)
    with pytest.warns(UserWarning, match="set multi_label"):
        zero_shot(1, {"one": ["Sinus rhythm"]})
    with pytest.warns(UserWarning, match=r"`Vorhofflimmern` \(German\)"):
        zero_shot(1, ["Vorhofflimmern", "sinus rhythm"])
    with pytest.raises(TypeError, match=r"read a file with mets_ray\.read_ecg"):
        inspect.unwrap(Predictor.windows)(predictor, "ecg.hea")  # without the types that tests check


def test_the_lm_is_loaded_for_new_words_only_and_must_be_the_bundles(bundle):
    ecg = synthetic_ecg()
    for changes, error, words in (
        ({"text_model": "/no/such/model"}, ConfigError, "/no/such/model"),
        ({"text_fingerprint": "0" * 64}, CheckpointError, "fingerprint"),
    ):
        predictor = Predictor(replace(bundle, facts=bundle.facts.model_copy(update=changes)))
        assert len(predictor.zero_shot(ecg, prompt_set="descriptive", task="synthetic")) == len(
            bundle.facts.prompt_sets["descriptive"].tasks["synthetic"]
        )
        with pytest.raises(error, match=words):
            predictor.zero_shot(ecg, ["something entirely new"])


def test_a_prompt_set_may_come_from_a_file(predictor, tmp_path):
    path = tmp_path / "mine.json"
    path.write_text('{"mine": {"AF": ["atrial fibrillation"], "SR": ["sinus rhythm"]}}')
    ecg = synthetic_ecg()
    of_file = predictor.zero_shot(ecg, prompt_set=str(path))
    given = predictor.zero_shot(ecg, {"AF": ["atrial fibrillation"], "SR": ["sinus rhythm"]}, template="{}")
    assert [row[:3] for row in of_file] == [row[:3] for row in given]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "neither `labels` nor `prompt_set` is given"),
        ({"labels": ["a"], "prompt_set": "mets"}, "both `labels` and `prompt_set` are given"),
        ({"labels": ["a"], "task": "synthetic"}, "`task` is 'synthetic' beside `labels`"),
        ({"labels": "a label"}, "`labels` is the text 'a label', not a list"),
        ({"labels": []}, "`labels` is empty"),
        ({"labels": ["b", "a", "b"]}, "`labels` holds 'b' twice"),
        ({"labels": ["a", " - "]}, "holds ' - ', a wording without words"),
        ({"labels": {"a": "a"}}, "is 'a', not a list of wordings"),
        ({"labels": {"a": []}}, r"is \[\], not a list of wordings"),
        ({"labels": ["a"], "template": "no place"}, "no place"),
        ({"prompt_set": "mets", "task": "synthetic", "template": "{}"}, "`template` is given with a prompt set"),
        ({"prompt_set": "mets"}, r"prompt set `mets` has \d+ tasks(.|\n)*ptbxl_super"),
        ({"prompt_set": "mets", "task": "rhythms"}, r"`task` is 'rhythms'(.|\n)*ptbxl_super"),
        ({"prompt_set": "met"}, "met"),
    ],
)
def test_classes_that_cannot_be_used_say_why(predictor, given, words):
    with pytest.raises(ConfigError, match=words):
        predictor.zero_shot(synthetic_ecg(), **given)


def test_a_loaded_predictor_says_what_it_is(tmp_path):
    uri = make_bundle(tmp_path)
    predictor = load_predictor(str(uri))
    assert predictor.facts.run == "pretrain-20260101-000000-test"
    assert predictor.signal == load_bundle(str(uri)).facts.signal
    with pytest.raises(CheckpointError, match=r"holds no bundle\.json"):
        load_predictor(str(tmp_path))


def test_a_class_without_features_asks_for_the_lm_once(predictor):
    classes = {"x": ("something entirely new",)}
    assert predictor.class_vectors(classes) is None
    assert predictor.missing_texts(["something entirely new"] * 2) == ["something entirely new"]
    predictor.keep_features(["something entirely new"], lm()(["something entirely new"]))
    assert predictor.missing_texts(["something entirely new"]) == []
    assert predictor.class_vectors(classes).shape == (1, 128)


def test_features_beyond_the_bound_are_forgotten_oldest_first(bundle):
    predictor = Predictor(bundle, device="cpu", text_cache_texts=2)
    features = np.zeros((3, 384), dtype=np.float16)
    predictor.keep_features(["a", "b", "c"], features)
    assert predictor.missing_texts(["a", "b", "c"]) == ["a"]
    assert predictor.cache_bytes() == {"text_features": 2 * 384 * 2, "class_vectors": 0}
    assert predictor.class_vectors({"b": ("b",), "c": ("c",)}).shape == (2, 128)
    assert 2 * 128 * 4 < predictor.cache_bytes()["class_vectors"] < 2 * 128 * 4 + 2048  # with their texts


def test_one_window_is_what_preprocess_gives(predictor, bundle):
    ecg = synthetic_ecg(sampling_rate_hz=500)
    windows = predictor.windows(ecg)
    np.testing.assert_array_equal(windows.signal_uv, preprocess(ecg, bundle.facts.signal)[None])
    assert windows.warnings == (("resampled", "500 Hz was resampled to 100 Hz"),)


@pytest.mark.parametrize(
    ("duration_s", "starts_s"),
    [(10, [0]), (10.4, [0]), (10.6, [0, 0.6]), (20, [0, 10]), (25, [0, 7.5, 15]), (30.4, [0, 10.2, 20.4])],
)
def test_longer_recordings_are_seen_as_evenly_spread_windows(predictor, bundle, duration_s, starts_s):
    whole = synthetic_ecg(duration_s=40)
    ecg = Ecg(whole.signal_mv[:, : round(duration_s * 100)], whole.leads, 100.0)
    expected = [
        preprocess(Ecg(ecg.signal_mv[:, round(start * 100) :], ecg.leads, 100.0), bundle.facts.signal)
        for start in starts_s
    ]
    np.testing.assert_array_equal(predictor.windows(ecg).signal_uv, np.stack(expected))


@pytest.mark.parametrize("rate", [499.9999, 500.0001, 500.003])
def test_a_rate_that_is_not_quite_round_loses_no_window(predictor, rate):
    ecg = replace(synthetic_ecg(duration_s=25, sampling_rate_hz=500), sampling_rate_hz=rate)
    windows = predictor.windows(ecg)
    assert len(windows.signal_uv) == 3
    assert [reason for reason, _ in windows.warnings] == ["resampled", "windows_averaged"]
    assert f"{rate:.10g} Hz was resampled" in dict(windows.warnings)["resampled"]
    one = replace(synthetic_ecg(sampling_rate_hz=500), sampling_rate_hz=rate)
    assert len(predictor.windows(one).signal_uv) == 1


def test_signals_that_are_no_ecg_and_leads_under_other_names(predictor):
    ecg = synthetic_ecg()
    names = ("ECG I", "MLII", "d3", "avr", "Lead aVL", "AVF", "C1", "C2", "C3", "C4", "C5", "C6")
    windows = predictor.windows(replace(ecg, leads=names, other_signals=("ABP", "RESP")))
    np.testing.assert_array_equal(windows.signal_uv, predictor.windows(ecg).signal_uv)
    assert windows.warnings == (("signals_unused", "signals that are not ECG: ABP, RESP"),)


def test_a_bad_window_of_a_long_recording_is_left_out_with_a_warning(predictor):
    whole = synthetic_ecg(duration_s=30)
    signal_mv = whole.signal_mv.copy()
    signal_mv[3, 1100:1900] = np.nan
    windows = predictor.windows(Ecg(signal_mv, whole.leads, 100.0))
    assert len(windows.signal_uv) == 2
    assert [reason for reason, _ in windows.warnings] == ["window_left_out", "windows_averaged"]
    assert "window 2 of 3, from 10.0 s" in dict(windows.warnings)["window_left_out"]


def test_no_usable_window_is_refused_with_its_reason(predictor):
    ecg = synthetic_ecg(duration_s=30)
    with pytest.raises(RecordError) as refused:
        predictor.windows(Ecg(np.full_like(ecg.signal_mv, np.nan), ecg.leads, 100.0))
    assert (refused.value.reason, refused.value.where) == ("non_finite", "")


def test_a_signal_of_microvolts_called_millivolts_is_warned_about(predictor):
    ecg = synthetic_ecg()
    assert "low_amplitude" in dict(predictor.windows(Ecg(ecg.signal_mv / 100, ecg.leads, 100.0)).warnings)
    with pytest.raises(RecordError, match="nothing reaches a microvolt in III, aVL"):
        predictor.windows(Ecg(ecg.signal_mv / 1000, ecg.leads, 100.0))
    with pytest.raises(RecordError) as refused:
        predictor.windows(Ecg(ecg.signal_mv * 1000, ecg.leads, 100.0))
    assert refused.value.reason == "amplitude_too_large"


def test_scores_are_the_softmax_or_the_sigmoid_of_scaled_cosines(predictor, bundle):
    ecg = synthetic_ecg(duration_s=25)
    embedding = predictor.embed_windows(predictor.windows(ecg).signal_uv)
    vectors = predictor.class_vectors(bundle_prompt_sets(bundle.facts)["descriptive:synthetic"].classes)
    mean = embedding.astype(np.float64).mean(axis=0)
    cosine = vectors.double().numpy() @ (mean / np.linalg.norm(mean))
    logit = float(bundle.model.logit_scale) * cosine
    averaged = mean_embedding(embedding)
    (scores,), (cosines,) = predictor.scores(averaged[None], vectors, multi_label=False)
    np.testing.assert_allclose(cosines, cosine, atol=1e-6)
    np.testing.assert_allclose(scores, np.exp(logit) / np.exp(logit).sum(), atol=1e-5)
    (scores,), _ = predictor.scores(averaged[None], vectors, multi_label=True)
    np.testing.assert_allclose(scores, 1 / (1 + np.exp(-logit - float(bundle.model.logit_bias))), atol=1e-5)
    assert float(np.linalg.norm(averaged)) == pytest.approx(1.0)
    np.testing.assert_array_equal(predictor.embed(ecg), averaged)
    assert (averaged.dtype, averaged.shape) == (np.float32, (128,))


def test_one_window_has_the_embedding_that_evaluation_and_scoring_store(predictor):
    signal_uv = predictor.windows(synthetic_ecg()).signal_uv
    encoded = predictor.encode(signal_uv)
    np.testing.assert_array_equal(predictor.embed_windows(signal_uv), encoded.embeddings)
    np.testing.assert_array_equal(predictor.embed(synthetic_ecg()), encoded.embeddings[0])
    assert encoded.features.shape == (1, predictor.bundle.model.ecg_encoder.num_features)


def test_without_training_only_the_weights_differ(bundle, predictor):
    words = ["something entirely new"]
    predictor.keep_features(words, lm()(words))
    untrained = predictor.untrained(3)
    assert untrained.missing_texts(words) == []
    assert untrained.signal == predictor.signal
    ecg = synthetic_ecg()
    assert abs(untrained.embed(ecg) - predictor.embed(ecg)).max() > 0.01
    np.testing.assert_array_equal(untrained.embed(ecg), predictor.untrained(3).embed(ecg))
    assert abs(untrained.embed(ecg) - predictor.untrained(4).embed(ecg)).max() > 0.01


def test_a_bundle_of_two_leads_takes_two_leads(tmp_path):
    bundle = load_bundle(str(make_bundle(tmp_path, leads=("I", "II"))))
    predictor = Predictor(bundle, device="cpu", text_cache_texts=4096)
    ecg = synthetic_ecg()
    two = Ecg(ecg.signal_mv[[1, 0]], ("II", "I"), 100.0)
    windows = predictor.windows(two)
    assert windows.warnings == ()
    np.testing.assert_array_equal(windows.signal_uv, predictor.windows(ecg).signal_uv)
    assert dict(predictor.windows(ecg).warnings)["leads_unused"].startswith("leads that the model does not use: III")


@pytest.mark.parametrize(
    ("classes", "template", "reason"),
    [
        ({}, None, "no_classes"),
        ({str(n): (str(n),) for n in range(300)}, None, "too_many_classes"),
        ({"a": tuple("b" for _ in range(3000))}, None, "too_many_classes"),
        ({" ": (" ",)}, None, "blank_class"),
        ({"a": ()}, None, "blank_class"),
        ({"a": ("x" * 513,)}, None, "class_too_long"),
        ({"a": ("a",)}, "no place", "bad_template"),
        ({"a": ("a",)}, "{} and {}", "bad_template"),
        ({"a": ("\ud800",)}, None, "blank_class"),
        ({"a": ("b\ud800",)}, None, "not_unicode"),
    ],
)
def test_class_lists_that_cannot_be_used_say_why(classes, template, reason):
    with pytest.raises(RequestError) as refused:
        class_list(classes, template, CONFIG, default_template="{}")
    assert (refused.value.status, refused.value.reason) == (422, reason)


def test_labels_must_differ():
    with pytest.raises(RequestError) as refused:
        labels_as_classes(["a", "b", "a"])
    assert refused.value.reason == "repeated_class"
    assert class_list(labels_as_classes(["a {x}"]), "is {}", CONFIG, default_template="{}").texts == ["is a {x}"]


def test_settings_that_cannot_work_are_refused():
    for settings, words in (
        ({"encoder_min_replicas": 3}, "above `encoder_max_replicas`"),
        ({"text_cache_texts": 5}, "text_cache_texts"),
        ({"batch_size": 100, "max_ongoing_requests": 10}, "max_ongoing_requests"),
        ({"batchsize": 3}, "Extra inputs"),
    ):
        with pytest.raises(ValueError, match=words):
            ServeConfig(bundle_uri="x", **settings)


def test_build_takes_the_newest_bundle_and_refuses_a_folder_without_one(tmp_path):
    with pytest.raises(CheckpointError, match="contains none"):
        build(ServeConfig(bundle_uri=str(tmp_path), auth="none"))
    for day in (1, 3, 2):
        make_bundle(tmp_path, run=f"pretrain-2026010{day}-000000-test")
    app = build(ServeConfig(bundle_uri=str(tmp_path), auth="none"))
    assert app._bound_deployment.init_args[1].split("/")[-2] == "pretrain-20260103-000000-test"


def only(ecg, leads):
    return replace(ecg, signal_mv=ecg.signal_mv[[ecg.leads.index(lead) for lead in leads]], leads=tuple(leads))


@pytest.mark.parametrize("leads", [("II",), ("I", "V2"), ("V5", "V1", "II"), LEADS[:6], LEADS[:8]])
def test_an_ecg_with_some_of_the_leads_is_the_whole_one_with_zeros(bundle, predictor, leads):
    ecg = synthetic_ecg()
    windows = predictor.windows(only(ecg, leads))
    expected = preprocess(ecg, bundle.facts.signal)
    expected[[lead not in leads for lead in LEADS]] = 0
    np.testing.assert_array_equal(windows.signal_uv, expected[None])
    ((reason, words),) = windows.warnings
    assert reason == "leads_missing"
    assert words.startswith(f"{len(leads)} of 12 leads, without ")
    assert words.endswith("the quality with fewer leads was not measured for this bundle")
    assert predictor.zero_shot(only(ecg, leads), prompt_set="mets", task="synthetic")
    long = only(synthetic_ecg(duration_s=30), leads)
    assert len(predictor.windows(long).signal_uv) == 3
    assert [reason for reason, _ in predictor.windows(long).warnings] == ["leads_missing", "windows_averaged"]


def test_i_and_ii_are_the_six_limb_leads(predictor):
    windows = predictor.windows(only(synthetic_ecg(), ("II", "I")))
    assert windows.signal_uv.any(axis=2).tolist() == [[True] * 6 + [False] * 6]
    assert dict(windows.warnings)["leads_derived"] == "III, aVR, aVL, aVF were derived from I and II"
    assert dict(windows.warnings)["leads_missing"].startswith("6 of 12 leads, without V1, V2, V3, V4, V5, V6;")


def test_a_bundle_that_needs_every_lead_refuses_and_says_why(bundle):
    augment = bundle.config.augment.model_copy(update={"lead_dropout": 0.0})
    strict = Predictor(replace(bundle, config=bundle.config.model_copy(update={"augment": augment})))
    for ecg in (only(synthetic_ecg(), LEADS[:6]), replace(only(synthetic_ecg(), LEADS[:6]), absent_leads=LEADS[6:])):
        with pytest.raises(RecordError, match="V1, V2, V3, V4, V5, V6") as caught:
            strict.windows(ecg)
        assert caught.value.reason == "missing_leads"
        assert "augment.lead_dropout" in caught.value.hint
    assert strict.windows(synthetic_ecg()).warnings == ()


def test_a_timeline_scores_each_window_and_leaves_gaps_out(predictor):
    signal_mv = np.concatenate([synthetic_ecg(index).signal_mv for index in range(4)], axis=1)[:, :3700]
    signal_mv[2, 1450] = np.nan
    ecg = Ecg(signal_mv, synthetic_ecg().leads, 100.0)
    labels = {"a": ["sinus rhythm"], "b": ["atrial fibrillation"]}
    windows = list(predictor.timeline(ecg, labels, stride_s=4.5))
    assert [(window.start_s, window.end_s) for window in windows] == [(4.5 * n, 4.5 * n + 10) for n in range(7)]
    reasons = [window.left_out and window.left_out.reason for window in windows]
    assert reasons == [None, None, "non_finite", "non_finite", None, None, None]
    for window in windows:
        if window.left_out is None:
            first = round(100 * window.start_s)
            own = predictor.zero_shot(Ecg(signal_mv[:, first : first + 1000], ecg.leads, 100.0), labels)
            assert [row.class_name for row in window.classes] == ["a", "b"]
            for row in own:
                (found,) = (one for one in window.classes if one.class_name == row.class_name)
                assert found[1:3] == pytest.approx(row[1:3], abs=1e-6)
                assert "windows of a recording" in found.not_calibrated
    with pytest.raises(RecordError, match="needed"):
        predictor.timeline(Ecg(signal_mv[:, :999], ecg.leads, 100.0), labels)
    for wrong in ({}, {"labels": labels, "stride_s": 0}):
        with pytest.raises(ConfigError):
            predictor.timeline(ecg, **wrong)


def test_abbreviations_in_a_prompt_file_are_warned_of(predictor, tmp_path):
    file = tmp_path / "mine.csv"
    file.write_text("task,class,prompt\nt,AFIB,AF\nt,SR,sinus rhythm\n")
    with pytest.warns(UserWarning, match="write `AF` as `atrial fibrillation`"):
        predictor.zero_shot(synthetic_ecg(), prompt_set=str(file))

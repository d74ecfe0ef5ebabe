"""evaluation_page.py and sections.py: every part of a result stands on the page, in words a reader needs."""

import math
from dataclasses import replace

import numpy as np
import pytest

from mets_ray.metrics.balanced import sets_of_task
from mets_ray.metrics.calibration import PromptVersion, fit_calibration, score_calibration
from mets_ray.metrics.extremes import choose_examples
from mets_ray.metrics.intervals import Interval
from mets_ray.metrics.lead_set_scores import LeadSetScore
from mets_ray.metrics.sensitivity import wording_sensitivity
from mets_ray.metrics.similarities import TaskSimilarities
from mets_ray.metrics.task_scores import Comparison, score_task
from mets_ray.pictures.curves import roc_picture
from mets_ray.pictures.ecg import Shading
from mets_ray.results.evaluation_page import Drawn, _examples, evaluation_page, map_groups, tables_page
from mets_ray.results.export import calibrated_json, lead_set_json, wordings_csv
from mets_ray.results.page import markdown, render
from mets_ray.results.values import BaselineScore, ClassWordings, Evaluated, Retrieval

CLASSES = ("SR", "AFIB", "STACH", "SBRAD")
LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")


@pytest.fixture(scope="module")
def scores():
    generator = np.random.default_rng(3)
    truth = np.eye(4, dtype=bool)[generator.integers(4, size=120)]
    similarity = truth * 0.5 + generator.normal(size=truth.shape)
    names = tuple(f"record-{row:03d}" for row in range(120))
    return TaskSimilarities(
        "synthetic", CLASSES, names, np.array([f"p{row // 2}" for row in range(120)]), similarity, truth
    )


@pytest.fixture(scope="module")
def result(scores):
    from mets_ray.metrics.balanced import score_balanced

    (of_task,) = sets_of_task("synthetic")
    balanced = score_balanced(of_task, scores, per_class=200, samples=20, seed=0)
    calibration = fit_calibration(scores, PromptVersion("mets", 1, "ab"))
    wordings = wording_sensitivity([scores.similarity[:, [0, column]] for column in range(4)], scores.truth)
    return Evaluated(
        result_uri="r",
        macro_auroc=0.7,
        over="1 task",
        tasks=(score_task(scores, samples=20, seed=0),),
        balanced=(balanced,),
        notices=("SYNTHETIC data: these scores say nothing about real ECGs.",),
        pictures=(),
        alarms=("Leak!",),
        baselines=(
            BaselineScore("chance", "synthetic", Interval(0.5, 0.4, 0.6), "permuted"),
            BaselineScore("linear probe", "synthetic", Interval(0.8, 0.7, 0.9), "240 ECGs", 0.01),
        ),
        compared_to="another",
        comparisons=(Comparison("synthetic", Interval(0.01, -0.02, 0.03), 120),),
        calibrated={"synthetic": score_calibration(calibration, scores, 1 / (1 + np.exp(-scores.similarity)))},
        wordings={"synthetic": {n: ClassWordings(("one", "two"), w) for n, w in zip(CLASSES, wordings, strict=True)}},
        retrieval=Retrieval({1: 0.25, 5: 0.5}, {1: 0.125, 5: 0.75}, {1: 0.01, 5: 0.05}, 120, 100),
        lead_sets=(
            LeadSetScore("12 leads", LEADS, Interval(0.9, 0.85, 0.95), Interval(0.0, 0.0, 0.0),
                         {"synthetic": Interval(0.9, 0.85, 0.95)}, {"synthetic": Interval(0.0, 0.0, 0.0)}, 120),
            LeadSetScore("II", ("II",), Interval(0.8, 0.75, 0.84), Interval(0.1, 0.02, 0.15),
                         {"synthetic": Interval(0.8, 0.75, 0.84)}, {"synthetic": Interval(0.1, 0.02, 0.15)}, 120),
        ),
    )  # fmt: skip


@pytest.fixture(scope="module")
def drawn(scores, result):
    examples = choose_examples(scores)
    generator = np.random.default_rng(0)
    return Drawn(
        scores={"synthetic": scores},
        roc_pictures={"synthetic": roc_picture(result.tasks[0], scores, synthetic=True)},
        record_ids=scores.record_ids,
        map_rows=np.arange(120),
        map_points=generator.normal(size=(120, 2)),
        examples=examples,
        signals_uv={one.record_id: generator.integers(-500, 500, (12, 1000)).astype(np.int16) for one in examples},
        leads=LEADS,
        sampling_rate_hz=100,
        synthetic=True,
    )


def test_fewer_leads_stand_below_all_with_the_difference(result):
    table = markdown(tables_page(result, "title", 0))
    assert "## Fewer leads" in table
    assert "| 12 leads |  | 0.900 [0.850, 0.950] |" in table
    assert "| II | -0.100 [-0.150, -0.020] | 0.800 [0.750, 0.840] |" in table
    assert "## Fewer leads" not in markdown(tables_page(replace(result, lead_sets=()), "title", 0))
    assert lead_set_json(result.lead_sets[1]) == {
        "leads": ["II"],
        "value": 0.8,
        "lo": 0.75,
        "hi": 0.84,
        "loss": {"value": 0.1, "lo": 0.02, "hi": 0.15},
        "tasks": {"synthetic": {"value": 0.8, "lo": 0.75, "hi": 0.84, "loss": {"value": 0.1, "lo": 0.02, "hi": 0.15}}},
        "records": 120,
    }


def test_chance_is_at_most_certain_where_there_are_fewer_reports_than_hits(result):
    few = replace(result.retrieval, texts=2)
    shown = markdown(tables_page(replace(result, retrieval=few), "Title", 0))
    assert "| recall at 1 | 0.250 | 0.500 |" in shown
    assert "| recall at 5 | 0.500 | 1.000 |" in shown


def test_the_markdown_holds_every_table(result):
    shown = markdown(tables_page(result, "Title", 0, ("records: 100 101", "no reports")))
    assert "**ALARM: Leak!**" in shown
    assert "| this bundle, zero-shot | " in shown
    assert "| linear probe, 1% of labels | 0.800 [0.700, 0.900] |" in shown
    assert "| chance | 0.500 [0.400, 0.600] |" in shown
    assert "| synthetic | +0.010 [-0.020, +0.030] | 120 |" in shown
    assert "METS's balanced table: synthetic rhythm" in shown
    assert "Not zero-shot" in shown
    assert "| recall at 5 | 0.500 | 0.050 | 0.750 | 0.050 |" in shown
    assert "Records: 100 101.\nNo reports." in shown


def test_the_page_is_whole_and_shows_patients_only_as_pictures(result, drawn):
    html = render(evaluation_page(result, drawn, "Title", {"seed": "0"}, 0))
    # Bars, ROC, PR and map of the task; confusion; reliability; two best and two worst ECGs.
    assert html.count("data:image/png;base64,") == 4 + 1 + 1 + 4
    assert "Leak!" in html
    assert "sensitivity to wording" in html
    assert "handle this page as such" in html
    for example in drawn.examples:
        assert f"{example.kind}: {example.record_id}" in html
    assert "Blue parts carry the class" not in html


def test_the_examples_show_what_carries_their_class(drawn):
    first, second = drawn.examples[:2]
    plain = replace(drawn, examples=(first, second))
    shading = Shading({"V1": np.linspace(-1, 1, 20)}, 0.5)
    shaded = replace(plain, shadings={(first.task, first.record_id): shading})
    plain, section = _examples(plain, ""), _examples(shaded, "")
    assert "Blue parts carry the class" in section.text
    differ = [one.png != other.png for one, other in zip(plain.pictures, section.pictures, strict=True)]
    assert differ == [True, False]


def test_parts_that_could_not_be_made_leave_no_empty_section(result, drawn):
    bare = replace(result, calibrated={}, wordings={}, retrieval=None, comparisons=(), baselines=(), balanced=(),
                   lead_sets=())  # fmt: skip
    html = render(evaluation_page(bare, replace(drawn, examples=()), "Title", {}, 0))
    for word in ("calibrated", "sensitivity to wording", "Retrieval", "best and the worst", "Difference", "balanced",
                 "Fewer leads"):  # fmt: skip
        assert word not in html


def test_a_map_is_coloured_by_the_one_class_of_a_record(scores):
    truth = scores.truth.copy()
    truth[0] = [True, True, False, False]
    truth[1] = False
    changed = replace(scores, truth=truth)
    groups = map_groups(changed, ["record-000", "record-001", "record-002", "absent"])
    assert groups[:2] == ["several of these", "none of these"]
    assert groups[2] == CLASSES[int(scores.truth[2].argmax())]
    assert groups[3] == "none of these"


def test_a_class_whose_words_point_the_wrong_way_is_named(scores, result):
    turned = scores.similarity * [1, -1, 1, 1]
    calibration = fit_calibration(replace(scores, similarity=turned), PromptVersion("mets", 1, "ab"))
    found = score_calibration(calibration, replace(scores, similarity=turned), np.full(turned.shape, 0.5))
    shown = markdown(tables_page(replace(result, calibrated={"synthetic": found}), "T", 0))
    assert "60 patients, threshold by best_f1" in shown
    assert f"Brier score 0.2500 and {found.after.brier:.4f}" in shown
    assert "For AFIB, validation records with the class were LESS similar" in shown
    told = calibrated_json(found)
    assert told["calibration"]["prompt_set"] == {"name": "mets", "version": 1, "sha256": "ab"}
    assert told["test"]["SR"]["decided"] == int(found.calibration.decisions(turned)[:, 0].sum())


def test_wordings_as_csv(result):
    lines = wordings_csv(result).splitlines()
    assert lines[0] == "task,class,prompt,auroc"
    assert len(lines) == 1 + 4 * 2
    values = [float(line.split(",")[3]) for line in lines[1:]]
    assert all(not math.isnan(value) for value in values)
    first = result.wordings["synthetic"]["SR"].sensitivity.auroc
    assert values[:2] == pytest.approx(first.tolist(), abs=1e-5)


def test_a_head_of_one_task_has_no_mean_beside_those_of_all(result):
    other = replace(result.tasks[0], task="other")
    heads = tuple(
        BaselineScore(name, task, Interval(0.9, 0.8, 0.95), "")
        for name, task in (("head one", "synthetic"), ("head both", "synthetic"), ("head both", "other"))
    )
    page = markdown(tables_page(replace(result, tasks=(*result.tasks, other), baselines=heads), "title", 0))
    rows = [line.split("|") for line in page.splitlines() if line.startswith("| head ")]
    assert [row[-2].strip() for row in rows] == ["–", "0.900"]


def test_scores_of_each_head_have_a_folder_of_their_own():
    folders = [BaselineScore(f"head {name}", "t", Interval(0.5, 0.4, 0.6), "").folder for name in ("af-1", "af_1")]
    assert folders == ["head_af-1", "head_af_1"]
    probe = BaselineScore("linear probe", "t", Interval(0.5, 0.4, 0.6), "", 0.005)
    assert (probe.name, probe.folder) == ("linear probe, 0.5% of labels", "linear_probe_0_5_of_labels")

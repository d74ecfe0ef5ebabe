"""What a report says of an ECG with moved beats, and of which ECGs it may be said."""

import pytest

from mets_ray.ecg.retiming import FINDINGS
from mets_ray.text.retimed_statements import retimed_key, retimed_statements

NORMAL = ("Normal sinus rhythm", "Normal ECG")


def said(statements, finding="premature_atrial", known=()):
    found = list(retimed_statements(statements, {one.casefold(): one for one in known}))
    assert {one.finding for one in found} in (set(), set(FINDINGS))
    of_finding = [one for one in found if one.finding == finding]
    assert [one.way for one in of_finding] == list(range(len(of_finding)))
    return [one.statements for one in of_finding]


def test_the_rhythm_has_the_finding_and_the_ecg_is_normal_no_more():
    assert said(NORMAL) == [("Sinus rhythm with premature atrial complexes",)]
    assert said(("sinus bradycardia", "Left axis deviation", "Otherwise normal ECG"), "long_pr") == [
        ("Sinus bradycardia with 1st degree AV block", "Left axis deviation")
    ]
    assert said(("Sinus rhythm", "Abnormal ECG", "Inferior infarct, age undetermined")) == [
        ("Sinus rhythm with premature atrial complexes", "Abnormal ECG", "Inferior infarct, age undetermined")
    ]


@pytest.mark.parametrize(
    "statement",
    ["ECG normal", "EKG is normal", "Normal tracing", "WNL", "Unremarkable", "Otherwise unremarkable ECG.",
     "No significant abnormality", "No abnormalities detected", "Normal", "ECG within normal range", "Normal intervals",
     "AV conduction normal", "Regular rhythm"],
)  # fmt: skip
def test_other_words_for_a_normal_ecg_go_too(statement):
    assert said(("Sinus rhythm", statement)) == [("Sinus rhythm with premature atrial complexes",)]


def test_what_was_measured_of_the_intervals_is_what_they_are_then():
    assert said((*NORMAL, "Regular RR intervals", "Flat T waves in lateral leads")) == [
        ("Sinus rhythm with premature atrial complexes", "Flat T waves in lateral leads",
         "Irregular RR intervals", "Premature beats")
    ]  # fmt: skip
    for before in ("Regular RR intervals", "Irregular RR intervals"):
        assert said((*NORMAL, before), "long_pr") == [("Sinus rhythm with 1st degree AV block", "Regular RR intervals")]
    assert said((*NORMAL, "Irregular RR intervals", "Premature beats")) == []  # early ones are there already


def test_findings_beside_such_words_stay():
    for statement in (
        "Abnormal tracing",
        "ECG abnormal",
        "LBBB, otherwise unremarkable",
        "Junctional ST depression, probably normal",
        "Regular rate and rhythm, left bundle branch block",
        "No abnormality of the ST segment",
    ):
        assert said(("Sinus rhythm", statement)) == [("Sinus rhythm with premature atrial complexes", statement)]


def test_it_is_said_as_the_data_sets_reports_say_it():
    known = ("sinus rhythm with premature atrial complexes", "something else")
    assert said(NORMAL, known=known) == [known[:1]]
    both = (*known, "premature atrial contraction(s)")
    assert said(NORMAL, known=both) == [known[:1], (known[0], "premature atrial contraction(s)")]


@pytest.mark.parametrize(
    "statement",
    [
        "Atrial fibrillation",
        "Sinus rhythm with occasional premature ventricular complexes",
        "Sinus rhythm with 1st degree AV block",
        "Sinus rhythm with sinus arrhythmia",
        "Sinus tachycardia",
        "Ventricular-paced rhythm",
        "Pacing rhythm",
        "Atrial pacing pattern",
        "Prolonged QT",
        "Prolonged PR interval",
        "Short PR interval",
        "Complete heart block",
        "Junctional rhythm",
        "Undetermined rhythm irregularity",
        "pvc(s)",
        "1st degree a-v block",
        "a-fib, no p waves",
        "rapid sinus rhythm",
        "PACs",
        "PVCs",
        "1st degree AVB",
        "AF",
        "Mobitz type I (Wenckebach) atrioventricular block",
        "Atrioventricular dissociation",
        "Nodal rhythm",
        "2nd degree SA block",
        "S-A block",
        "Prolonged PQ interval",
        "Consider Wolff-Parkinson-White, type B",
        "WPW",
        "Delta waves in V1",
        "Sinoatrial block",
        "Sinus arrest",
        "Fusion beats",
        "Aberrantly conducted complexes",
        "Idioventricular rhythm",
        "Regular rhythm, no P waves found",
        "Ventricular couplets",
        "Long QTc",
    ],
)
def test_nothing_is_said_of_another_rhythm_or_of_intervals_that_are_long_already(statement):
    assert said((*NORMAL, statement)) == []


def test_nothing_is_said_where_no_sinus_rhythm_is_reported():
    assert said(()) == said(("Normal ECG",)) == said(("Left bundle branch block",)) == []
    assert said(("Sinus rhythm", "Right bundle branch block, AVF and V1"))


@pytest.mark.parametrize(
    "statement",
    [
        "Sinus rhythm, 70/min, left bundle branch block, inferior infarct",
        "Sinus rhythm with complete left bundle branch block",
        "sinus rhythm voltage criteria for lvh",
        "No sinus rhythm: supraventricular rhythm",
    ],
)
def test_nothing_is_said_where_a_finding_would_go_with_the_rhythm(statement):
    assert said((statement,)) == said((*NORMAL, statement)) == []


def test_the_rhythm_may_stand_with_the_normal_ecg():
    for statement in (
        "sinus rhythm normal ecg",
        "Normal sinus rhythm, otherwise normal ECG.",
        "Marked sinus bradycardia",
    ):
        assert said((statement,))


def test_each_report_and_way_has_a_key_of_its_own():
    keys = {retimed_key(report, finding, way) for report in (1, 2) for finding in ("a", "b") for way in (0, 1)}
    assert len(keys) == 8

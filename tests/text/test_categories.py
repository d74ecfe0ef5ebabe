"""The kind of finding that a statement is."""

import pytest

from mets_ray.text.categories import categories_of

CONDUCTION, INFARCT = "Conduction disturbance", "Myocardial infarction"
HYPERTROPHY, ST_T = "Hypertrophy or enlargement", "ST and T wave changes"


@pytest.mark.parametrize(
    ("statement", "kinds"),
    [
        ("Left bundle branch block", {CONDUCTION}),
        ("Sinus rhythm with 1st degree AV block", {CONDUCTION}),
        ("Prolonged PR interval", {CONDUCTION}),
        ("PR interval is prolonged", {CONDUCTION}),
        ("Left anterior fascicular block", {CONDUCTION}),
        ("Inferior infarct, age undetermined", {INFARCT}),
        ("** ** ACUTE MI / STEMI ** **", {INFARCT}),
        ("QS complexes in V2", {INFARCT}),
        ("Anterior infarct with ST elevation", {INFARCT}),
        ("Possible left atrial enlargement", {HYPERTROPHY}),
        ("Left ventricular hypertrophy with repolarization abnormality", {HYPERTROPHY, ST_T}),
        ("Nonspecific T wave abnormality", {ST_T}),
        ("ST & T wave abnormality, consider lateral ischemia", {ST_T}),
        ("Prolonged QT", {ST_T}),
        ("Repolarization abnormality with left bundle branch block", {CONDUCTION, ST_T}),
        ("1 degree atrioventricular block", {CONDUCTION}),
        ("Mobitz type I (Wenckebach) atrioventricular block", {CONDUCTION}),
        ("PR interval extension", {CONDUCTION}),
        ("Interior differences conduction", {CONDUCTION}),
        ("Cannot rule out inferior myocardial damage", {INFARCT}),
        ("Left ventricular hypertrophy without repolarization abnormality", {HYPERTROPHY}),
        ("High left precordial voltages", {HYPERTROPHY}),
        ("High T voltage", {ST_T}),
        ("myocardial ischaemia cannot be excluded", {ST_T}),
        # The finding is the change of ST and T, whatever is considered.
        ("T wave abnormality, consider anterior myocardial damage", {ST_T}),
        ("ST elevation, possible inferior myocardial damage", {ST_T}),
        ("ischaemia is a possible cause, but consider metabolic & other systemic causes", {ST_T}),
        # A disease that explains a finding, and what is usual in a flutter, are findings of no kind.
        ("left bundle branch block, this is most commonly due to ischaemic heart disease", {CONDUCTION}),
        ("Transient ischemic attack", set()),
        ("Atrial flutter with variable AV block", set()),
        ("Atrial flutter with 2:1 AV block", set()),
        ("atrial premature beat(s) with aberrant intraventricular conduction", set()),
        ("Questionable positional Q waves in inferior leads", set()),
        ("deep but narrow q waves in i, avl", set()),
        # What is denied, or gone.
        ("no ecg evidence of ventricular hypertrophy or ischaemia", set()),
        ("there is no definite ecg evidence to suggest a pre-excitation syndrome", set()),
        ("poor anteroseptal r progression but no definite evidence of prior infarction in this region", set()),
        ("no definite evidence of ischaemia or rhythm disturbance minor qt prolongation", {ST_T}),
        ("right bundle branch block, no acute ST changes", {CONDUCTION}),
        ("No infarct, left ventricular hypertrophy", {HYPERTROPHY}),
        ("No ischemia, infarct, or hypertrophy", set()),
        ("No LVH, ischemia or infarct", set()),
        ("Neither LVH nor RVH", set()),
        ("Absence of LVH", set()),
        ("Negative for ischemia", set()),
        ("Infarct ruled out", set()),
        ("Infarction excluded", set()),
        ("Q waves absent", set()),
        ("Ischemia unlikely, left ventricular hypertrophy", {HYPERTROPHY}),
        ("old anteroseptal infarct cannot be excluded", {INFARCT}),
        ("in the presence of lbbb, ischaemia is not excluded", {CONDUCTION, ST_T}),
        # What is normal, or only measured.
        ("Normal ST segments", set()),
        ("T waves normal", set()),
        ("ST isoelectric", set()),
        ("QTc 410 ms", set()),
        ("PR 160 ms, QRS 90 ms, QTc 410 ms", set()),
        ("Borderline prolonged QTc", {ST_T}),
        ("QT interval is longer than usual", {ST_T}),
        ("Normal sinus rhythm with left bundle branch block", {CONDUCTION}),
        ("st-t wave changes have resolved", set()),
        ("compared with the last tracing, st segment depression has resolved", set()),
        # What the statement itself takes for normal, and what is of none of these kinds.
        ("Minimal voltage criteria for LVH, may be normal variant", set()),
        ("PR interval is normal", set()),
        ("Q waves in II, III, aVF are probably normal", set()),
        ("Sinus rhythm with short PR", set()),
        ("Normal sinus rhythm", set()),
        ("Normal ECG", set()),
        ("Atrial fibrillation", set()),
        ("Low voltage QRS", set()),
        ("Left axis deviation", set()),
    ],
)
def test_the_kind_of_a_statement(statement, kinds):
    assert set(categories_of([statement])) == kinds


def test_kinds_come_each_once_in_a_fixed_order():
    said = ["Nonspecific T wave abnormality", "Inferior infarct", "RBBB", "Left bundle branch block", "Normal axis"]
    assert categories_of(said) == (CONDUCTION, INFARCT, ST_T)
    assert categories_of(said[::-1]) == (CONDUCTION, INFARCT, ST_T)
    assert categories_of([]) == ()

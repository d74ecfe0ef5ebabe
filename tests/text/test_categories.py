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

"""What training adds to the statements of a report."""

from mets_ray.training.categories import kinds_said, with_kinds


def with_categories(reports):
    return with_kinds(reports, kinds_said(reports))


def test_reports_say_the_kind_of_their_findings_once_and_as_they_spell_it():
    reports = {
        "a": ("Sinus rhythm", "Left bundle branch block"),
        "b": ("st and t wave changes", "T wave inversion in V3"),  # said already
        "c": ("Nonspecific T wave abnormality",),
        "d": ("Normal ECG",),
        "Inferior infarct": (),  # a report without statements is its own
    }
    assert with_categories(reports) == {
        "a": ("Sinus rhythm", "Left bundle branch block", "Conduction disturbance"),
        "b": ("st and t wave changes", "T wave inversion in V3"),
        "c": ("Nonspecific T wave abnormality", "st and t wave changes"),
        "d": ("Normal ECG",),
        "Inferior infarct": ("Inferior infarct", "Myocardial infarction"),
    }


def test_what_was_measured_is_of_no_kind():
    measured = ("T wave inversion in lateral leads", "flat t waves in inferior leads", "Q waves in anterior leads")
    assert with_categories({"a": measured}) == {"a": measured}
    both = (*measured, "T wave inversion in I, aVL")
    assert with_categories({"a": both}) == {"a": (*both, "ST and T wave changes")}


def test_the_statements_of_each_kind_are_the_reports_own():
    reports = {
        "a": ("Inferior infarct", "Septal infarct", "Nonspecific T wave abnormality", "Sinus rhythm"),
        "b": ("myocardial infarction", "Flat T waves in inferior leads"),
        "c": ("Normal ECG",),
        "Left bundle branch block": (),
    }
    assert kinds_said(reports) == {
        "a": {
            "myocardial infarction": ("Inferior infarct", "Septal infarct"),
            "ST and T wave changes": ("Nonspecific T wave abnormality",),
        },
        "b": {"myocardial infarction": ("myocardial infarction",)},
        "c": {},
        "Left bundle branch block": {"Conduction disturbance": ("Left bundle branch block",)},
    }

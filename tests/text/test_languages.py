"""languages.py: the language of a report."""

import csv

import pytest

from mets_ray.text.languages import NAMES, language_of
from mets_ray.text.reports import clean_report, sentences
from mets_ray.text.translate import PhraseTable


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("Sinus rhythm with premature ventricular complexes. Abnormal ECG.", "en"),
        ("sinusrhythmus, linkstyp, unspezifische st-veränderungen", "de"),
        ("sinusrytm, vänster el-axel, ospecifika st-t förändringar", "sv"),
        ("Rythme sinusal. Bloc de branche gauche.", "fr"),
        ("Ritmo sinusal, bloqueo de rama derecha, eje izquierdo", "es"),
        ("Ritmo sinusal. Bloqueio do ramo direito. Alterações da repolarização.", "pt"),
        ("Ritmo sinusale, blocco di branca destra nei limiti", "it"),
        ("Sinusritme. Linkerbundeltakblok. Afwijkend ecg.", "nl"),
        ("窦性心律 正常心电图", "zh"),
        ("Синусовый ритм", "und-Cyrl"),
        ("洞調律 正常 のリズム", "ja"),
        ("", "und"),
        ("QRS 98 ms", "und"),
        ("atrial fibrillation", "en"),
        ("fibrillation auriculaire", "fr"),
    ],
)
def test_a_report_has_a_language(text, language):
    assert language_of(text) == language
    assert language in NAMES


def test_real_reports_have_the_language_of_the_phrase_table_that_reads_them(data_folder):
    codes, phrases = {"german": "de", "english": "en", "swedish": "sv"}, PhraseTable.load()
    with (data_folder / "ptb-xl" / "ptbxl_database.csv").open(encoding="utf-8") as file:
        reports = [clean_report(row["report"]) for row in csv.DictReader(file) if sentences(row["report"])][::12]
    same = sum(codes[phrases.translate(report).language] == language_of(report) for report in reports)
    assert same >= 0.98 * len(reports)

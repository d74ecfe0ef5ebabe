"""Where the sentences of a report end, in the forms that reports are written in."""

import textwrap
import time

import pytest

from mets_ray.text.reports import sentences


@pytest.mark.parametrize(
    ("report", "parts"),
    [
        ("T wave inversion in V4-V6. Sinus rhythm.", ["T wave inversion in V4-V6", "Sinus rhythm"]),
        ("Flat T waves in V5,6; left axis deviation", ["Flat T waves in V5,6", "left axis deviation"]),
        (
            "st segments are depressed in i, avl, v5,6. t waves low.",
            ["st segments are depressed in i, avl, v5,6", "t waves low"],
        ),
        ("ST elevation in V1, 2. Sinus rhythm", ["ST elevation in V1, 2", "Sinus rhythm"]),
        ("ST elevation in V1 - V3. Old infarct", ["ST elevation in V1 - V3", "Old infarct"]),
        ("T flach in V4 und V5. Linkstyp", ["T flach in V4 und V5", "Linkstyp"]),
        ("st-hebung v1 bis v3. linkstyp", ["st-hebung v1 bis v3", "linkstyp"]),
        ("T inversion in II, III. Sinus rhythm", ["T inversion in II, III", "Sinus rhythm"]),
        ("T inversion in aVL. Sinus rhythm", ["T inversion in aVL", "Sinus rhythm"]),
        ("V6.Sinus rhythm", ["V6", "Sinus rhythm"]),
        ("Heart rate 72. Sinus rhythm. Axis 45.", ["Heart rate 72", "Sinus rhythm", "Axis 45"]),
        ("rate 72. 12 lead ECG normal", ["rate 72", "12 lead ECG normal"]),
        ("Rate 72. Marked ST depression", ["Rate 72", "Marked ST depression"]),
        ("compared with tracing of 20:7,92. old infarct", ["compared with tracing of 20:7,92", "old infarct"]),
        ("prolonged pr interval 0.28", ["prolonged pr interval 0.28"]),
        ("PR 0.28. Sinus rhythm", ["PR 0.28", "Sinus rhythm"]),
        ("QT 0,44. Sinusrhythmus", ["QT 0,44", "Sinusrhythmus"]),
        ("QRS 0.12 s. LBBB.", ["QRS 0.12 s", "LBBB"]),
        ("ves >5/min. sinusrhythmus", ["ves >5/min", "sinusrhythmus"]),
        ("axis -30. LAD", ["axis -30", "LAD"]),
        ("WPW type A. Sinus rhythm", ["WPW type A", "Sinus rhythm"]),
        ("Mobitz 2. Sinusrhythmus", ["Mobitz 2", "Sinusrhythmus"]),
        ("vorhofflattern 2:1. linkstyp", ["vorhofflattern 2:1", "linkstyp"]),
        ("version 4.46 of the program", ["version 4.46 of the program"]),
    ],
)
def test_a_sentence_ends_after_a_lead_or_a_number(report, parts):
    assert list(sentences(report)) == parts


@pytest.mark.parametrize(
    ("report", "parts"),
    [
        ("1. Sinus rhythm", ["1. Sinus rhythm"]),
        ("1. Sinus rhythm. 2. LBBB.", ["1. Sinus rhythm", "2. LBBB"]),
        ("1. Sinus rhythm 2. LBBB, rate 72. 3. Old infarct", ["1. Sinus rhythm", "2. LBBB, rate 72", "3. Old infarct"]),
        ("1) Sinus rhythm 2) LBBB (old) 3) LVH", ["1) Sinus rhythm", "2) LBBB (old)", "3) LVH"]),
        ("(1) Sinus rhythm (2) LBBB", ["(1) Sinus rhythm", "(2) LBBB"]),
        ("1.) SR 2.) LSB", ["1.) SR", "2.) LSB"]),
        ("1.Sinus rhythm 2.LBBB", ["1.Sinus rhythm", "2.LBBB"]),
        ("I. Sinus rhythm. II. LBBB", ["I. Sinus rhythm", "II. LBBB"]),
        ("a. Sinus rhythm. b. LBBB", ["a. Sinus rhythm", "b. LBBB"]),
        ("Befund: 1. SR 2. LSB", ["1. SR", "2. LSB"]),
        ("1. SR 2. AV-Block 2. Grades 3. LSB", ["1. SR", "2. AV-Block 2. Grades", "3. LSB"]),
        ("AV-Block 1. Grades", ["AV-Block 1. Grades"]),
        ("AV-Block 1.Grades. LSB", ["AV-Block 1.Grades", "LSB"]),
        ("AV-Block I. Grades. Sinusrhythmus", ["AV-Block I. Grades", "Sinusrhythmus"]),
        ("a-v block iii. grades", ["a-v block iii. grades"]),
        ("V2 im 4. ICR. Sinusrhythmus", ["V2 im 4. ICR", "Sinusrhythmus"]),
        ("am 3. postoperativen Tag. LSB", ["am 3. postoperativen Tag", "LSB"]),
        ("ECG of 12. 3. 92: sinus rhythm. Normal ECG.", ["ECG of 12. 3. 92: sinus rhythm", "Normal ECG"]),
        ("EKG vom 12.3.1992. Sinusrhythmus", ["EKG vom 12.3.1992", "Sinusrhythmus"]),
        ("EKG vom 12.3. unverändert. SR", ["EKG vom 12.3. unverändert", "SR"]),
        ("am 3. Mai 1992 LSB. SR", ["am 3. Mai 1992 LSB", "SR"]),
        ("10.05.93: vorhofflattern", ["10.05.93: vorhofflattern"]),
    ],
)
def test_ordinals_dates_and_numbered_lists_stay_whole(report, parts):
    assert list(sentences(report)) == parts


@pytest.mark.parametrize(
    ("report", "parts"),
    [
        ("Poss. inferior infarct. Prob. LVH.", ["Poss. inferior infarct", "Prob. LVH"]),
        ("poss. inferior infarct. prob. lvh.", ["poss. inferior infarct", "prob. lvh"]),
        ("POSS. INFERIOR INFARCT. LVH.", ["POSS. INFERIOR INFARCT", "LVH"]),
        ("Poss.Infarct. LVH", ["Poss.Infarct", "LVH"]),
        ("Sinus tachycardia vs. atrial flutter", ["Sinus tachycardia vs. atrial flutter"]),
        ("Cannot excl. inf. infarct. LVH", ["Cannot excl. inf. infarct", "LVH"]),
        ("Some leads (e.g. V5) are low. LVH", ["Some leads (e.g. V5) are low", "LVH"]),
        ("LVH, i.e. strain. SR", ["LVH, i.e. strain", "SR"]),
        ("Incompl. RBBB. Nonspec. T wave abnormality", ["Incompl. RBBB", "Nonspec. T wave abnormality"]),
        ("V.a. Infarkt. LSB", ["V.a. Infarkt", "LSB"]),
        ("V. a. Infarkt; z. B. bei Ischämie. LSB", ["V. a. Infarkt", "z. B. bei Ischämie", "LSB"]),
        ("Ischämie u.a. Ursachen. LSB", ["Ischämie u.a. Ursachen", "LSB"]),
        ("Z.n. Infarkt, d.h. Narbe. LSB", ["Z.n. Infarkt, d.h. Narbe", "LSB"]),
        ("Wahrscheinl. Infarkt. Evtl. LSB. Fragl. Q.", ["Wahrscheinl. Infarkt", "Evtl. LSB", "Fragl. Q"]),
        ("Mögl. Vorderwandinfarkt bzw. Narbe. LSB", ["Mögl. Vorderwandinfarkt bzw. Narbe", "LSB"]),
        ("inkompl. Rechtsschenkelblock. SR", ["inkompl. Rechtsschenkelblock", "SR"]),
        ("Misst. infarkt, t.ex. inferior. Bl.a. flimmer", ["Misst. infarkt, t.ex. inferior", "Bl.a. flimmer"]),
        ("Neg. T in V1. SR", ["Neg. T in V1", "SR"]),
        ("Old ant. infarct, lat. ischemia. LVH", ["Old ant. infarct, lat. ischemia", "LVH"]),
        ("ST elevation lat. Sinus rhythm", ["ST elevation lat", "Sinus rhythm"]),
        ("ACUTE INF. INFARCT. LVH", ["ACUTE INF. INFARCT", "LVH"]),
        ("LVH etc. Sinus rhythm", ["LVH etc", "Sinus rhythm"]),
        ("LVH etc. with strain", ["LVH etc. with strain"]),
        ("Left axis dev. Normal ECG", ["Left axis dev", "Normal ECG"]),
        ("Compared with No. 3: unchanged. SR", ["Compared with No. 3: unchanged", "SR"]),
        ("Compared with ECG of Jan. 5. Unchanged", ["Compared with ECG of Jan. 5", "Unchanged"]),
        ("SR, LT. Kein Anhalt für Ischämie.", ["SR, LT", "Kein Anhalt für Ischämie"]),  # Linkstyp, not "laut"
    ],
)
def test_an_abbreviation_ends_nothing_and_keeps_the_doubt(report, parts):
    assert list(sentences(report)) == parts


@pytest.mark.parametrize(
    ("report", "parts"),
    [
        ("Infarct? Not excluded. Sinus rhythm", ["Infarct? Not excluded", "Sinus rhythm"]),
        ("Ischemia? No. Sinus rhythm", ["Ischemia? No", "Sinus rhythm"]),
        ("LBBB; not present", ["LBBB; not present"]),
        ("Atrial fibrillation. Ruled out.", ["Atrial fibrillation. Ruled out"]),
        ("Left bundle branch block: not seen. SR", ["Left bundle branch block: not seen", "SR"]),
        ("LSB. Nicht nachweisbar. SR", ["LSB. Nicht nachweisbar", "SR"]),
        ("Förmaksflimmer. Kan ej uteslutas. SR", ["Förmaksflimmer. Kan ej uteslutas", "SR"]),
        ("No evidence of ischemia; or infarct", ["No evidence of ischemia; or infarct"]),
        ("No evidence of:\n- ischemia\n- LBBB", ["No evidence of: ischemia; LBBB"]),
        ("No evidence of:\nIschemia\nInfarct", ["No evidence of: Ischemia; Infarct"]),
        ("Kein Hinweis auf: 1. LSB 2. RSB", ["Kein Hinweis auf: 1. LSB; 2. RSB"]),
        ("Possible: 1. LVH. 2. Infarct.", ["Possible: 1. LVH; 2. Infarct"]),
        ("Sinus rhythm! LBBB? LVH", ["Sinus rhythm!", "LBBB?", "LVH"]),
        ("Sinus rhythm. No ischemia.", ["Sinus rhythm", "No ischemia"]),
    ],
)
def test_what_denies_or_doubts_stays_with_what_it_is_about(report, parts):
    assert list(sentences(report)) == parts


MUSE = "Sinus rhythm\nLeft axis deviation\nST & T wave abnormality, consider\nInferior ischemia\nAbnormal ECG"
LONG = (
    "Q waves in II, III and aVF are consistent with an old inferior Infarct of uncertain age, and the T waves in V4, "
    "V5 and V6 are low. ST elevation in V1-V3. Otherwise normal ECG, compared with the ECG of March. No other Findings."
)


@pytest.mark.parametrize("width", range(40, 120, 3))
def test_a_wrapped_text_reads_as_if_it_were_not(width):
    assert sentences(textwrap.fill(LONG, width)) == sentences(LONG)
    assert len(sentences(LONG)) == 4


@pytest.mark.parametrize(
    ("report", "parts"),
    [
        (
            MUSE,
            [
                "Sinus rhythm",
                "Left axis deviation",
                "ST & T wave abnormality, consider Inferior ischemia",
                "Abnormal ECG",
            ],
        ),
        (
            "SINUS RHYTHM\r\nINFERIOR INFARCT, AGE\r\nUNDETERMINED",
            ["SINUS RHYTHM", "INFERIOR INFARCT, AGE; UNDETERMINED"],
        ),
        ("Sinus rhythm\x85Left axis", ["Sinus rhythm", "Left axis"]),
        ("Sinus rhythm\x0bLeft axis", ["Sinus rhythm", "Left axis"]),
        ("Sinus rhythm\u2028Left axis", ["Sinus rhythm", "Left axis"]),
        ("sinus rhythm\nleft axis", ["sinus rhythm left axis"]),  # may be wrapped: nothing shows where a finding ends
        ("- Sinus rhythm\n- LBBB", ["Sinus rhythm", "LBBB"]),
        ("* sinus rhythm\n* lbbb", ["sinus rhythm", "lbbb"]),
        ("• Sinus rhythm • LBBB", ["Sinus rhythm", "LBBB"]),
        ("Findings:\n1. Sinus rhythm\n2. LBBB", ["1. Sinus rhythm", "2. LBBB"]),
        ("AV-Block\n1. Grades\nLSB", ["AV-Block 1. Grades", "LSB"]),
        ("Rate of\n72. Sinus rhythm", ["Rate of 72", "Sinus rhythm"]),
        ("Poss.\nInfarct\nLVH", ["Poss. Infarct", "LVH"]),
        ("ST &amp; T wave abnormality; LVH", ["ST &amp; T wave abnormality", "LVH"]),
        ("Sinus rhythm;LBBB", ["Sinus rhythm", "LBBB"]),
        ("Sinus rhythm.Normal ECG", ["Sinus rhythm", "Normal ECG"]),
        ("Sinus rhythm. - . ; LBBB ...", ["Sinus rhythm", "LBBB"]),
        ("sinus\u00adrhythm\u200b.\u00a0normal\u2009ecg", ["sinusrhythm", "normal ecg"]),
    ],
)
def test_lines_lists_and_marks(report, parts):
    assert list(sentences(report)) == parts


@pytest.mark.parametrize(
    "unit",
    ["Dr. ", "1. a ", "V1. ", "i. ", "e. g. ", "LVH\n", "- a\n", "&", "v1,2,", "4.46 ", "12. 3. ", "No: 1. a ", "a) "],
)
def test_a_long_report_takes_linear_time(unit):
    began = time.process_time()
    sentences(unit * (40_000 // len(unit)))
    assert time.process_time() - began < 5  # up to 0.1 s when this was written

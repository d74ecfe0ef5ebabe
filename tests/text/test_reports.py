"""Reports cleaned, against real ones; templates and the ids of texts."""

import hashlib
import pickle
import re
from collections import Counter

import numpy as np
import pytest

from mets_ray.errors import ConfigError, RecordError
from mets_ray.text.reports import METS_TRAIN_TEMPLATE, apply_template, clean_report, sentences, text_hash, text_id
from mets_ray.text.translate import ENGLISH, PhraseTable
from tests.support.tables import csv_rows


# Real PTB-XL reports and what must be left of them.
@pytest.mark.parametrize(
    ("report", "cleaned"),
    [
        ("sinus rhythm. normal ecg.", "sinus rhythm. normal ecg."),
        ("  sinusrhythmus \n  normales ekg ", "sinusrhythmus normales ekg"),
        ("schrittmacher ekg 4.46 unbestÄtigter bericht", "schrittmacher ekg"),
        ("schrittmacher ekg 4.46 unbestätigter bericht.", "schrittmacher ekg"),
        ("linkstyp 4.46 unbestÄtigter beri", "linkstyp"),
        ("linkstyp 4.46 unbestÄtig", "linkstyp"),
        ("linkstyp 4.46 unbest", "linkstyp"),
        ("linkstyp 4.46", "linkstyp"),
        ("linkstyp unbestaetigter bericht", "linkstyp"),
        ("Sinus rhythm. UNCONFIRMED REPORT", "Sinus rhythm."),
        # "alter unbest." is "age undetermined": a finding
        ("inferiorer infarkt alter unbest. 4.46 unbestÄtigter bericht", "inferiorer infarkt alter unbest."),
        ("inferiorer infarkt alter unbest.", "inferiorer infarkt alter unbest."),
        ("inferiorer infarkt, unbestÄtigter befund in v2", "inferiorer infarkt, unbestÄtigter befund in v2"),
        # the annotators' note holds the labels
        ("sinus rhythm. normal ecg. Edit: NORM 100, (NORM 100)", "sinus rhythm. normal ecg."),
        ("lagetyp normal 4.46 unbestÄtigter bericht Edit: NORM 100, (ISCIL)", "lagetyp normal"),
        # numbers that are measurements or dates stay
        ("prolonged pr interval 0.28", "prolonged pr interval 0.28"),
        ("10.05.93: vorhofflattern 2:1", "10.05.93: vorhofflattern 2:1"),
        # decomposed umlauts, as macOS writes them, and characters without width
        ("linkstyp 4.46 unbesta\u0308tigter bericht", "linkstyp"),
        ("LINKSTYP UNBESTA\u0308TIGTER BERICHT", "LINKSTYP"),
        (
            "\ufefftiefe nega\u00adtive t-wellen u\u0308ber v1\u00a0\u2009bis\x0bv3\x85",
            "tiefe negative t-wellen über v1 bis v3",
        ),
        ("sinus\x00rhythm\x07 normal\u200b ecg", "sinus rhythm normal ecg"),
        ("trace only requested. sinus rhythm", "trace only requested. sinus rhythm"),
    ],
)
def test_cleaned_report(report, cleaned):
    assert clean_report(report) == cleaned
    assert clean_report(cleaned) == cleaned


@pytest.mark.parametrize(
    ("report", "reason"),
    [
        ("", "empty_report"),
        (" \n\t", "empty_report"),
        (" . - ", "empty_report"),
        ("4.46 unbestÄtigter bericht", "empty_report"),
        ("Edit: NORM 100", "empty_report"),
        ("trace only requested.", "no_findings"),
        ("  TRACE  only\nrequested ", "no_findings"),
        ("trace only requested. Edit: IMI 50", "no_findings"),
    ],
)
def test_text_that_is_no_report(report, reason):
    with pytest.raises(RecordError) as caught:
        clean_report(report)
    assert caught.value.reason == reason
    assert pickle.loads(pickle.dumps(caught.value)).reason == reason


def test_real_reports(data_folder):
    outcome: Counter[str] = Counter()
    for row in csv_rows(data_folder / "ptb-xl" / "ptbxl_database.csv"):
        try:
            cleaned = clean_report(row["report"])
        except RecordError as error:
            outcome[error.reason] += 1
            continue
        whole = " ".join(row["report"].split())
        assert whole.startswith(cleaned)  # only tails go
        tail = whole[len(cleaned) :]
        outcome["kept whole" if not tail else "shortened"] += 1
        assert tail == "" or tail.startswith((" 4.46", " Edit: "))
        assert "Edit:" not in cleaned
        assert not cleaned.endswith(("bericht", "4.46"))
    assert outcome == {"kept whole": 1992 - 206 - 46 - 2, "shortened": 206, "no_findings": 46, "empty_report": 2}


def test_real_sentences(data_folder):
    """English reports: no two findings are left in one sentence, and none is cut in its middle."""
    table = PhraseTable.load()
    rows = csv_rows(data_folder / "ptb-xl" / "ptbxl_database.csv")
    english = {row["report"] for row in rows if table.translate(row["report"]).language == ENGLISH}
    found = {report: sentences(report) for report in english}
    parts = [part for one in found.values() for part in one]
    assert len(english) > 350
    assert {match.group() for part in parts for match in re.finditer(r"\S*[\w)][.;]\s", part)} == {"(eg. ", "dh. "}
    assert [part for part in parts if part.endswith((".", "(eg")) or not part.strip()] == []
    for report, cut in found.items():
        assert _letters(report).startswith(_letters("".join(cut)))


def _letters(text: str) -> str:
    return "".join(filter(str.isalnum, text))


def test_template():
    assert apply_template(METS_TRAIN_TEMPLATE, "normal {0} ecg {}") == "The report of the ECG is that normal {0} ecg {}"
    for template in ("no place", "{} and {}", "{0}"):
        with pytest.raises(ConfigError, match="not exactly one"):
            apply_template(template, "x")


def test_text_id_is_the_head_of_the_hash():
    text = "sinusrytm hÖgersidigt skÄnkelblock"
    assert text_hash(text) == hashlib.sha256(text.encode()).hexdigest()
    assert text_id(text) % 2**64 == int(text_hash(text)[:16], 16)
    ids = [text_id(f"text {number}") for number in range(200)]
    assert min(ids) < 0 < max(ids)
    assert len(set(np.array(ids, dtype=np.int64).tolist())) == 200
    assert (
        text_id("sinus rhythm") == 6116843544572650550
    )  # sha256sum says 54e3…; stored in checkpoints and tables: must never change

"""A report as it enters the data set, its sentences, templates, and the ids of texts."""

import hashlib
import re
import unicodedata
from collections.abc import Iterable

from mets_ray.errors import ConfigError, RecordError
from mets_ray.text.sentence_ends import split_sentences

METS_TRAIN_TEMPLATE = "The report of the ECG is that {}"
"""Text that METS trains on (Li et al. 2023, PMLR v227 li24a)."""

# The annotators' note after some reports of PTB-XL: ` Edit: NORM 100, (ISCIL)`. It holds the very SCP codes that
# evaluation scores, so keeping it would leak labels into the text. The capital E is theirs; reports are lower case.
_ANNOTATION = re.compile(r"(?:^|\s)Edit:.*$")

# `4.46 unbestÄtigter bericht` = program version and "unconfirmed report". The field is cut at a fixed length, hence the
# incomplete endings. `alter unbest.` ("age undetermined") is a finding and stays.
_UNCONFIRMED = re.compile(
    r"(?:(?:^|\s)\d\.\d\d)?(?:^|\s)unbest(?:ä|ae)tig\w*(?:\s+b\w*)?[\s.]*$"
    r"|(?:^|\s)unconfirmed (?:report|ecg|interpretation)[\s.]*$"
    r"|\s4\.46(?:\s+unbest\w*)?$",
    re.IGNORECASE,
)
_INVISIBLE = {"Cf": "", "Cc": " "}  # by Unicode category
_NO_FINDINGS = re.compile(r"trace only requested[\s.]*", re.IGNORECASE)


def clean_report(text: str) -> str:
    """The report itself, on one line, in its own case and language, and in Unicode's composed form (NFC).

    Removes what is about the report and not about the ECG: the tail "unbestätigter bericht" ("unconfirmed report")
    with the program version before it, and PTB-XL's annotation note ` Edit: ...`, which holds label codes.

    Raises RecordError `empty_report` when no word is left and `no_findings` for "trace only requested".
    """
    report = " ".join(_lines(text))
    report = _UNCONFIRMED.sub("", _ANNOTATION.sub("", report)).strip()
    if not any(character.isalnum() for character in report):
        raise RecordError("empty_report", "the report contains no words")
    if _NO_FINDINGS.fullmatch(report):
        raise RecordError("no_findings", "the report describes no finding")
    return report


def sentences(text: str) -> tuple[str, ...]:
    """Sentences of a report, which is cleaned first because it may hold label codes; none where nothing is left.

    Words that only deny or doubt, as in `Infarct? Not excluded.`, stay with the sentence before them.
    """
    try:
        report = clean_report(text)
    except RecordError:
        return ()
    return split_sentences(_lines(text), len(report))  # only tails are cleaned away


def statements_of(parts: Iterable[str]) -> tuple[str, ...]:
    """A report that came as a list: each part is a statement, on one line, in its own words. Parts without a finding
    (blank, "unconfirmed report") and repetitions are left out."""
    statements = []
    for part in parts:
        try:
            statements.append(clean_report(part))
        except RecordError:
            continue
    return tuple(dict.fromkeys(statements))


def join_statements(statements: Iterable[str]) -> str:
    """The statements as one report: `Sinus rhythm. Normal ECG`."""
    return ". ".join(statement.rstrip(" .") for statement in statements)


def _lines(text: str) -> list[str]:
    """The lines that hold something, with single blanks, composed, without characters that have no width."""
    if not text.isprintable():  # a soft hyphen or a control character would cut a word in two
        text = "".join(_INVISIBLE.get(unicodedata.category(one), one) if not one.isspace() else one for one in text)
    lines = (" ".join(line.split()) for line in unicodedata.normalize("NFC", text).splitlines())
    return [line for line in lines if line]


def apply_template(template: str, text: str) -> str:
    """`template` with its one `{}` replaced by `text`, whose own braces mean nothing. Raises ConfigError otherwise."""
    if template.count("{}") != 1:
        raise ConfigError(
            f"template {template!r} holds {template.count('{}')} `{{}}`, not exactly one",
            hint=f"write it like {METS_TRAIN_TEMPLATE!r}",
        )
    return template.replace("{}", text)


def text_hash(text: str) -> str:
    """SHA-256 of the text in UTF-8, 64 hexadecimal digits."""
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def text_id(text: str) -> int:
    """Signed 64-bit id of a text: the first 8 bytes, big-endian, of its SHA-256.

    Two of 800,000 distinct texts (MIMIC-IV-ECG) share an id with probability 2e-8.
    """
    return int.from_bytes(hashlib.sha256(text.encode("utf-8")).digest()[:8], "big", signed=True)

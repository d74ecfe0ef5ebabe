"""`mets-ray search`: needs no Ray. The table goes to stdout; with `--json` one JSON object does."""

import argparse
import dataclasses
import json
from collections.abc import Sequence
from typing import Any

from mets_ray.archive.archive import Archive, open_archive
from mets_ray.archive.results import Hit, SearchPage
from mets_ray.console import say
from mets_ray.errors import ConfigError, MetsError

_EXAMPLES = """examples:
  mets-ray search .runs/archive-… "left bundle branch block; first degree AV block ^0.5; not atrial fibrillation"
  mets-ray search .runs/archive-… "descriptive:ptbxl_super/MI" --where "age > 60 and sex = 'female'" --k 20
  mets-ray search .runs/archive-… --like 00123_lr --json
  mets-ray search .runs/archive-… --report "Sinus rhythm. Left axis deviation."
"""


def run_search(words: Sequence[str]) -> None:
    """Parse the words and search. Exits with 0, with 2 for a search that cannot be read, with 1 for other errors."""
    arguments = parse_words(words)
    try:
        archive = open_archive(arguments.uri, bundle_uri=arguments.bundle)
        page = _search(archive, arguments)
    except MetsError as error:
        say(f"search: {error}")
        if arguments.json:
            print(json.dumps({"job": "search", "error": str(error)}))
        raise SystemExit(2 if isinstance(error, ConfigError) else 1) from None
    print(json.dumps(_facts(archive, page)) if arguments.json else _table(archive, page))


def parse_words(words: Sequence[str]) -> argparse.Namespace:
    """The words of a command line; exits for `--help` and for words that it does not know."""
    parser = argparse.ArgumentParser(
        prog="mets-ray search",
        description="Find ECGs of an archive by words, by an ECG of it, or by a report.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("uri", help="the archive_uri that mets-ray index printed")
    asked = parser.add_mutually_exclusive_group(required=True)
    asked.add_argument("words", nargs="?", help="terms between semicolons, `not` before a term, ^WEIGHT behind it")
    asked.add_argument("--like", metavar="RECORD_ID", help="in place of words: a record of the archive")
    asked.add_argument("--report", metavar="TEXT", help="in place of words: a report")
    parser.add_argument("--k", type=int, default=50, help="hits, at most 1000 (default 50)")
    parser.add_argument("--where", help="filter on columns, for example: age > 60 and sex = 'female'")
    parser.add_argument("--cursor", help="go on where a page ended")
    parser.add_argument("--all-records", action="store_true", help="not only the best record of each patient")
    parser.add_argument("--bundle", metavar="URI", help="the bundle, where it lies elsewhere than when it was indexed")
    parser.add_argument("--json", action="store_true", help="one JSON object with everything")
    return parser.parse_args(list(words))


def _search(archive: Archive, arguments: argparse.Namespace) -> SearchPage:
    options: dict[str, Any] = {
        "k": arguments.k,
        "where": arguments.where,
        "cursor": arguments.cursor,
        "one_per_patient": not arguments.all_records,
    }
    if arguments.like is not None:
        return archive.like(arguments.like, **options)
    if arguments.report is not None:
        return archive.search(archive.report_query(arguments.report), **options)
    return archive.search(arguments.words, **options)


def _facts(archive: Archive, page: SearchPage) -> dict[str, Any]:
    return {
        "job": "search",
        "archive_uri": archive.uri,
        "model_version": f"{archive.facts.bundle_run}#{archive.facts.bundle_digest[:8]}",
        **dataclasses.asdict(page),
    }


def _table(archive: Archive, page: SearchPage) -> str:
    head = ("", "record", "patient", "similarity", "percentile", "probability", "age", "sex", "source")
    rows = [head, *(_row(number, hit) for number, hit in enumerate(page.hits, start=1))]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines.append(f"{len(page.hits)} of {archive.facts.records:,} records")
    lines += [f"{term.words!r} is the class {term.class_name}" for term in page.terms if term.class_name]
    lines += [f"no probability for {term.words!r}: {term.not_calibrated}" for term in page.terms if term.not_calibrated]
    if page.cursor:
        lines.append(f"more: --cursor {page.cursor}")
    return "\n".join([*lines, "Research software, not a medical device."])


def _row(number: int, hit: Hit) -> tuple[str, ...]:
    age, probability = hit.columns["age"], hit.probability
    return (
        str(number),
        hit.record_id,
        hit.patient_id,
        f"{hit.similarity:.3f}",
        f"{hit.percentile:.2f}",
        "" if probability is None else f"{probability:.3f}",
        "" if age is None else f"{age:.0f}",
        hit.columns["sex"] or "",
        hit.columns["source"],
    )

"""`mets-ray search`: a table for people, JSON for programs, and an exit status."""

import json

import pytest

from mets_ray.archive.archive import open_archive
from mets_ray.archive.command import run_search
from mets_ray.errors import CheckpointError
from tests.support.archives import tiny_archive
from tests.support.calibrations import made_up_file, write_file
from tests.support.serving import make_bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    bundle = make_bundle(tmp_path_factory.mktemp("bundle"))
    write_file(bundle, made_up_file(bundle))
    return bundle


@pytest.fixture(scope="module")
def archive_uri(bundle, tmp_path_factory):
    return tiny_archive(tmp_path_factory.mktemp("archive"), records=60, bundle_uri=bundle)


def answer(capsys, *words):
    run_search(words)
    return json.loads(capsys.readouterr().out)


def test_words_find_records_with_the_probability_of_their_class(archive_uri, bundle, capsys):
    found = answer(capsys, archive_uri, "AFIB; not broad QRS ^0.5", "--k", "3", "--where", "age > 40", "--json")
    assert [(term["words"], term["class_name"], term["negated"]) for term in found["terms"]] == [
        ("AFIB", "descriptive:synthetic/AFIB", False),
        ("broad QRS", "", True),
    ]
    assert len(found["hits"]) == 3
    assert all(hit["columns"]["age"] > 40 and hit["probability"] is None for hit in found["hits"])
    run_search([archive_uri, "AFIB", "--k", "3"])
    shown = capsys.readouterr().out
    assert "'AFIB' is the class descriptive:synthetic/AFIB" in shown
    more = shown.split("--cursor ")[1].split()[0]
    first = answer(capsys, archive_uri, "AFIB", "--k", "3", "--json")
    following = answer(capsys, archive_uri, "AFIB", "--k", "3", "--cursor", more, "--json")
    ids = [[hit["patient_id"] for hit in page["hits"]] for page in (first, following)]
    assert len({*ids[0], *ids[1]}) == 6
    for hit in first["hits"]:
        whole = not hit["columns"]["leads_missing"]
        assert (hit["probability"] is not None) == whole  # a calibration is for whole ECGs
    assert any(hit["probability"] is not None for hit in first["hits"] + following["hits"])


def test_records_and_reports_can_be_searched_by(archive_uri, capsys):
    like = answer(capsys, archive_uri, "--like", "r00003", "--k", "2", "--json")
    assert [hit["record_id"] for hit in like["hits"]] == [
        hit.record_id for hit in open_archive(archive_uri).like("r00003", k=2).hits
    ]
    report = answer(capsys, archive_uri, "--report", "Sinus rhythm. Left axis deviation.", "--k", "2", "--json")
    assert report["terms"][0]["words"] == "Sinus rhythm. Left axis deviation."


@pytest.mark.parametrize(
    ("words", "status", "fact"),
    [
        ((" ; ",), 2, "no words"),
        (("--like", "r00003", "--k", "0"), 2, "`k` is 0"),
        (("--like", "r00003", "--where", "weight > 1"), 2, "not a column"),
        (("--like", "nobody"), 2, "no record"),
    ],
)
def test_what_cannot_be_searched_for_has_an_exit_status(archive_uri, capsys, words, status, fact):
    with pytest.raises(SystemExit) as ended:
        run_search([archive_uri, *words, "--json"])
    shown = capsys.readouterr()
    assert ended.value.code == status
    assert fact in json.loads(shown.out)["error"]
    assert "hint:" in shown.err


def test_an_archive_of_another_bundle_is_refused(archive_uri, tmp_path, capsys):
    other = str(make_bundle(tmp_path, seed=1))
    with pytest.raises(CheckpointError, match="another bundle"):
        open_archive(archive_uri, bundle_uri=other).search("AFIB")
    with pytest.raises(SystemExit) as ended:
        run_search([archive_uri, "AFIB", "--bundle", other])
    assert ended.value.code == 1
    with pytest.raises(SystemExit) as ended:
        run_search([str(tmp_path), "AFIB"])
    assert ended.value.code == 1
    assert "not an archive's index" in capsys.readouterr().err

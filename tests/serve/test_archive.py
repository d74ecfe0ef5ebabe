"""The archive over real HTTP, without Ray: questions, pages, cohorts, signals, scopes, the audit log, bad input."""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from mets_ray.archive.query import Direction
from mets_ray.dataset.prepared import PreparedDataset
from mets_ray.dataset.shard_reader import signals
from mets_ray.errors import CheckpointError, DatasetError, RequestError
from mets_ray.serve.archive.question import Question
from mets_ray.serve.archive.replica import ArchiveReplica
from mets_ray.serve.settings import ServeConfig
from tests.support.archives import DATASET, rows_of, tiny_archive, unit_vectors, write_archive
from tests.support.scored_archives import scored_archive
from tests.support.serving import json_ecg, make_bundle, npy, plain_server, synthetic_ecg

WORDS = {"words": "atrial fibrillation"}
LISTED = 40


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return make_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="module")
def archive(bundle, tmp_path_factory):
    """(URI of the index, URI of the data set) of a few synthetic ECGs that were really scored."""
    return scored_archive(tmp_path_factory.mktemp("archive"), bundle, records=LISTED)


@pytest.fixture(scope="module")
def rows(archive):
    dataset = PreparedDataset.open(archive[1])
    return dataset.read(dataset.row_groups(dataset.all_folds)[0], dataset.all_folds)


@pytest.fixture(scope="module")
def cohorts(tmp_path_factory):
    return tmp_path_factory.mktemp("cohorts")


@pytest.fixture(scope="module")
def client(bundle, archive, cohorts):
    settings = {"archive_max_k": 20, "archive_max_words": 3, "archive_cohort_uri": str(cohorts)}
    with plain_server(bundle, archive_uri=archive[0], **settings) as (client, _):
        yield client


def found(answer):
    assert answer.status_code == 200, answer.text
    return [hit["record_id"] for hit in answer.json()["hits"]]


def refused(answer, status, reason):
    assert (answer.status_code, answer.json()["error"]["reason"]) == (status, reason), answer.text
    return answer.json()["error"]


def test_what_can_be_searched(client):
    answer = client.get("/v1/archive").json()
    assert answer["records"] == LISTED
    assert {"age", "sex"} <= {column["name"] for column in answer["columns"]}
    assert (answer["shows_reports"], answer["finds_reports"], answer["writes_cohorts"]) == (False, False, True)
    assert answer["limits"]["archive_max_k"] == 20
    assert "not diagnosis" in answer["notice"]
    assert client.get("/v1/model").json()["archive"]


def test_words_find_the_most_similar_page_by_page(client):
    asked = WORDS | {"k": 15, "one_per_patient": False}
    first = client.post("/v1/search", json=asked)
    hits = first.json()["hits"]
    assert [hit["similarity"] for hit in hits] == sorted((hit["similarity"] for hit in hits), reverse=True)
    assert set(hits[0]) >= {"record_id", "patient_id", "similarity", "percentile", "probability", "age", "sex"}
    assert not {"shard", "shard_row", "dataset", "report"} & {*hits[0], *hits[0]["columns"]}
    pages, cursor = found(first), first.json()["next_cursor"]
    while cursor:
        page = client.post("/v1/search", json=asked | {"cursor": cursor})
        pages += found(page)
        cursor = page.json()["next_cursor"]
    assert len(pages) == len(set(pages)) == LISTED
    patients = [hit["patient_id"] for hit in client.post("/v1/search", json=WORDS | {"k": 20}).json()["hits"]]
    assert len(patients) == len(set(patients)) > 5


def test_weights_not_and_filters_change_what_is_found(client):
    every = {"k": 20, "one_per_patient": False}
    plain = found(client.post("/v1/search", json=WORDS | every))
    terms = [{"text": "atrial fibrillation"}, {"text": "sinus rhythm", "weight": 3.0, "not": True}]
    answer = client.post("/v1/search", json={"words": terms} | every)
    assert found(answer) != plain
    assert [(term["words"], term["negated"]) for term in answer.json()["terms"]] == [
        ("atrial fibrillation", False),
        ("sinus rhythm", True),
    ]
    women = client.post("/v1/search", json=WORDS | every | {"where": "sex = 'female'"}).json()["hits"]
    assert {hit["sex"] for hit in women} == {"female"}


def test_an_ecg_finds_itself_and_a_record_finds_others(client, rows):
    record_id, patient_id = rows["record_id"][7].as_py(), rows["patient_id"][7].as_py()
    signal_uv = signals(rows)[7]
    query = {"unit": "uV", "sampling_rate_hz": 100, "leads": ",".join(synthetic_ecg().leads), "k": 5}
    headers = {"content-type": "application/x-npy"}
    by_file = client.post("/v1/search", params=query, content=npy(signal_uv), headers=headers)
    assert found(by_file)[0] == record_id
    ecg = {**json_ecg(synthetic_ecg()), "signal": signal_uv.tolist(), "unit": "uV"}
    by_json = client.post("/v1/search", json={"ecg": ecg, "k": 5})
    assert found(by_json) == found(by_file)
    like = client.post("/v1/search", json={"record_id": record_id, "k": 5}).json()["hits"]
    assert patient_id not in {hit["patient_id"] for hit in like}
    report = client.post("/v1/search", json={"report": rows["report"][7].as_py(), "k": 5})
    assert len(found(report)) == 5


def test_a_cohort_is_counted_listed_and_written(client, cohorts):
    middle = client.post("/v1/search", json=WORDS | {"k": 20, "one_per_patient": False}).json()["hits"]
    asked = WORDS | {"above": middle[-1]["similarity"] - 1e-6}
    counted = client.post("/v1/cohort", json=asked).json()
    assert (counted["count"], counted["of_records"]) == (20, LISTED)
    listed = client.post("/v1/cohort", json=asked | {"format": "ndjson"})
    assert listed.headers["content-type"] == "application/x-ndjson"
    lines = [json.loads(line) for line in listed.text.splitlines()]
    assert [line["line"] for line in lines] == ["record"] * 20 + ["summary"]
    assert lines[-1] == counted
    ids = {line["record_id"] for line in lines[:-1]}
    assert ids == {hit["record_id"] for hit in middle}
    written = client.post("/v1/cohort", json=asked | {"format": "parquet"}).json()
    assert Path(written["uri"]).parent == cohorts
    table = pq.read_table(written["uri"])
    assert set(table["record_id"].to_pylist()) == ids
    assert "report" not in table.column_names


def test_signals_are_those_of_the_data_set(client, rows):
    record_id = rows["record_id"][11].as_py()
    answer = client.get(f"/v1/archive/ecg/{record_id}").json()
    assert np.array_equal(answer["signal_uv"], signals(rows)[11])
    assert (answer["record_id"], answer["report"], answer["sampling_rate_hz"]) == (record_id, None, 100)
    refused(client.get("/v1/archive/ecg/absent"), 404, "unknown_record")
    refused(client.get(f"/v1/archive/ecg/{'a' * 501}"), 404, "unknown_record")
    refused(client.get("/v1/archive/ecg/../../etc/passwd%00"), 404, "no_such_route")
    refused(client.get("/v1/archive/ecg/..%2f..%2fcard.json"), 404, "unknown_record")


BAD = {
    "no words": ({"words": []}, "bad_query"),
    "empty words": ({"words": [" "]}, "bad_query"),
    "only not": ({"words": [{"text": "lbbb", "not": True}]}, "bad_query"),
    "weight of zero": ({"words": [{"text": "lbbb", "weight": 0}]}, "bad_query"),
    "weight that is none": ({"words": [{"text": "lbbb", "weight": "NaN"}]}, "bad_fields"),
    "a control character": ({"words": ["lbbb\u0007"]}, "control_character"),
    "long words": ({"words": ["a" * 513]}, "class_too_long"),
    "many words": ({"words": ["a", "b", "c", "d"]}, "too_many_words"),
    "an empty report": ({"report": " "}, "bad_query"),
    "a long report": ({"report": "Sinus rhythm. " * 400}, "report_too_long"),
    "nothing": ({}, "bad_fields"),
    "two questions": ({"words": "lbbb", "record_id": "1"}, "bad_fields"),
    "a long id": ({"record_id": "a" * 501}, "bad_fields"),
    "a source without a record": (WORDS | {"source": "ptb-xl"}, "bad_fields"),
    "an embedding": ({"embedding": [0.1, 0.2]}, "bad_fields"),
    "k of zero": (WORDS | {"k": 0}, "bad_k"),
    "a huge k": (WORDS | {"k": 10**9}, "bad_k"),
    "an unknown column": (WORDS | {"where": "weight_kg > 60"}, "bad_query"),
    "SQL": (WORDS | {"where": "age > 60; drop table ecgs"}, "bad_query"),
    "a subquery": (WORDS | {"where": "record_id in (select record_id from ecgs)"}, "bad_query"),
    "a long filter": (WORDS | {"where": "age > 60 and " * 50 + "age > 60"}, "where_too_long"),
    "another cursor": (WORDS | {"cursor": "eyJhIjoxfQ"}, "bad_query"),
    "a long cursor": (WORDS | {"cursor": "a" * 5000}, "bad_query"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_questions_are_refused_with_a_reason(client, name):
    body, reason = BAD[name]
    error = refused(client.post("/v1/search", json=body), 422, reason)
    assert "Traceback" not in error["message"]
    assert error["hint"]


def test_other_bad_input_is_refused_before_it_is_parsed(client):
    refused(client.post("/v1/search", json={"record_id": "absent"}), 404, "unknown_record")
    refused(client.post("/v1/search", json={"record_id": "1", "nearest_reports": 3}), 403, "no_reports")
    large = client.post(
        "/v1/search", content=b'{"words": "' + b"a" * 9_000_000, headers={"content-type": "application/json"}
    )
    refused(large, 413, "too_large")
    refused(client.post("/v1/search?k=3", json=WORDS), 400, "query_beside_json")
    refused(
        client.post("/v1/search", content=b"{", headers={"content-type": "application/json"}), 400, "malformed_body"
    )
    refused(
        client.post("/v1/search", content=b"GIF", headers={"content-type": "image/gif"}), 415, "unsupported_media_type"
    )
    refused(
        client.post("/v1/cohort", content=b"above", headers={"content-type": "text/csv"}), 415, "unsupported_media_type"
    )
    for above in (2, -1.5, "NaN", None):
        refused(client.post("/v1/cohort", json=WORDS | {"above": above}), 422, "bad_fields")
    refused(client.post("/v1/cohort", json=WORDS | {"above": 0.1, "uri": "/etc/passwd"}), 422, "bad_fields")
    ignored = refused(client.post("/v1/cohort", json=WORDS | {"above": 0.1, "source": "ptb-xl"}), 422, "bad_fields")
    assert "filter with `where`" in ignored["message"]
    refused(client.get("/v1/search"), 405, "method_not_allowed")


def test_without_an_archive_there_is_nothing_of_it(bundle):
    with plain_server(bundle) as (client, _):
        for method, path in (
            ("POST", "/v1/search"),
            ("POST", "/v1/cohort"),
            ("GET", "/v1/archive"),
            ("GET", "/archive"),
        ):
            refused(client.request(method, path), 404, "no_such_route")
        assert not client.get("/v1/model").json()["archive"]


TOKENS = [
    {"name": "searcher", "token": "a-token-that-may-search", "scopes": ["search"]},
    {"name": "scorer", "token": "a-token-that-may-score", "scopes": ["score"]},
]


def test_only_the_scope_of_its_own_opens_the_archive_and_the_log_holds_no_words(bundle, archive, monkeypatch, caplog):
    monkeypatch.setenv("METS_RAY_TOKENS", json.dumps(TOKENS))
    searcher, scorer = ({"authorization": f"Bearer {entry['token']}"} for entry in TOKENS)
    settings = {"auth": "bearer", "archive_reports": True, "archive_max_cohort": 3}
    caplog.set_level("INFO", "ray.serve.audit")
    with plain_server(bundle, archive_uri=archive[0], **settings) as (client, _):
        assert "default-src 'self'" in client.get("/archive").headers["content-security-policy"]
        asked = {"words": ["secret finding"], "where": "age > 61"}
        record_id = found(client.post("/v1/search", json=asked, headers=searcher))[0]
        routes = (
            ("POST", "/v1/search"),
            ("POST", "/v1/cohort"),
            ("GET", "/v1/archive"),
            ("GET", f"/v1/archive/ecg/{record_id}"),
        )
        for method, path in routes:
            refused(client.request(method, path), 401, "no_token")
            refused(client.request(method, path, headers=scorer), 403, "wrong_scope")
        refused(client.post("/v1/zero-shot", json={}, headers=searcher), 403, "wrong_scope")
        assert client.get("/v1/archive", headers=searcher).json()["shows_reports"]
        assert client.get(f"/v1/archive/ecg/{record_id}", headers=searcher).json()["report"]
        asked = {"record_id": record_id, "nearest_reports": 3}
        reports = client.post("/v1/search", json=asked, headers=searcher).json()["nearest_reports"]
        assert len(reports) == 3
        assert all("no diagnosis" in report["notice"] and report["report"] for report in reports)
        refused(
            client.post("/v1/search", json=WORDS | {"nearest_reports": 3}, headers=searcher), 422, "reports_of_words"
        )
        refused(
            client.post("/v1/cohort", json=WORDS | {"above": -1, "format": "parquet"}, headers=searcher),
            403,
            "no_cohort_folder",
        )
        refused(
            client.post("/v1/cohort", json=WORDS | {"above": -1, "format": "ndjson"}, headers=searcher),
            422,
            "cohort_too_large",
        )
    lines = [
        json.loads(record.getMessage().removeprefix("audit "))
        for record in caplog.records
        if record.name == "ray.serve.audit"
    ]
    first = lines[0]
    assert (first["who"], first["needs"], first["status"]) == ("searcher", "search", 200)
    assert first["words_sha256"] == hashlib.sha256(b'["secret finding"]').hexdigest()
    assert first["where_sha256"] == hashlib.sha256(b'"age > 61"').hexdigest()
    assert len([line for line in lines if line["needs"] == "search"]) >= 12
    shown = next(line for line in lines if line["status"] == 200 and line["route"].startswith("/v1/archive/ecg/"))
    assert shown["record_id_sha256"] == hashlib.sha256(json.dumps(record_id).encode()).hexdigest()
    assert "secret" not in caplog.text


def test_a_shard_that_is_gone_is_said_and_the_rest_goes_on(bundle, archive, tmp_path):
    index, dataset_uri = archive
    moved = tmp_path / "moved"
    shutil.copytree(dataset_uri, moved)
    with plain_server(bundle, archive_uri=index, archive_dataset_uri=str(moved)) as (client, _):
        record_id = found(client.post("/v1/search", json=WORDS))[0]
        for shard in (moved / "shards").iterdir():
            shard.unlink()
        error = refused(client.get(f"/v1/archive/ecg/{record_id}"), 500, "archive_damaged")
        assert str(tmp_path) not in error["message"]
        assert found(client.post("/v1/search", json=WORDS))[0] == record_id


def test_a_replica_goes_on_with_what_was_added(tmp_path):
    uri = tiny_archive(tmp_path, records=20)
    replica = ArchiveReplica(ServeConfig(bundle_uri="", archive_uri=uri), "d" * 64)
    question = Question((Direction(unit_vectors(1)[0]),))
    before = replica.search(question, 5, None, None, False)
    assert not replica.refresh()
    other = DATASET.model_copy(update={"source": "other"})
    rows = rows_of(unit_vectors(10, seed=1), first=100, key="f" * 16, source=["other"] * 10)
    write_archive(uri, rows, key="f" * 16, dataset=other)
    assert replica.facts().records == 20
    assert replica.refresh()
    assert replica.facts().records == 30
    assert replica.search(question, 25, None, None, False).hits[5:]
    with pytest.raises(RequestError) as refusal:
        replica.search(question, 5, None, before.cursor, False)
    assert (refusal.value.status, refusal.value.reason) == (409, "archive_changed")
    # A replica that has not looked yet takes the cursor of one that has.
    newer = ArchiveReplica(ServeConfig(bundle_uri="", archive_uri=uri), "d" * 64)
    again = rows_of(unit_vectors(10, seed=2), first=200, key="e" * 16, source=["third"] * 10)
    write_archive(uri, again, key="e" * 16, dataset=DATASET.model_copy(update={"source": "third"}))
    assert newer.refresh()
    cursor = newer.search(question, 5, None, None, False).cursor
    assert replica.search(question, 5, None, cursor, False) == newer.search(question, 5, None, cursor, False)


def test_an_index_of_another_bundle_is_refused_before_it_is_served(tmp_path):
    config = ServeConfig(bundle_uri="", archive_uri=tiny_archive(tmp_path, records=4))
    with pytest.raises(CheckpointError, match="bundle"):
        ArchiveReplica(config, "e" * 64)
    half = config.model_copy(update={"archive_uri": str(tmp_path / "half")})
    write_archive(half.archive_uri, rows_of(unit_vectors(4)), finish=False)
    with pytest.raises(DatasetError, match="half-written"):
        ArchiveReplica(half, "d" * 64)

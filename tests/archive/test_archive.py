"""Searching an index: the nearest, once for each patient, page by page; and indices that cannot be searched."""

import json
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from mets_ray import storage
from mets_ray.archive import cohorts
from mets_ray.archive import writer as writer_module
from mets_ray.archive.archive import open_archive
from mets_ray.archive.facts import FACTS_NAME, IndexedDataset
from mets_ray.archive.lance_table import TABLE_NAME, open_table
from mets_ray.archive.query import Direction, RecordKey
from mets_ray.archive.self_check import check_archive
from mets_ray.errors import CheckpointError, ConfigError, DatasetError
from tests.support.archives import DATASET, KEY, SOURCE, rows_of, tiny_archive, unit_vectors, write_archive

RECORDS = 200
VECTORS = unit_vectors(RECORDS)
PATIENTS = np.arange(RECORDS) // 2


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    return open_archive(tiny_archive(tmp_path_factory.mktemp("archive"), records=RECORDS, reports=True))


def nearest(vector, *, keep=None, one_per_patient=True):
    """Numbers of records, the nearest first, by comparing all of them."""
    order, seen, found = np.argsort(-(VECTORS @ vector), kind="stable"), set(), []
    for number in order.tolist():
        if (keep is None or keep(number)) and not (one_per_patient and PATIENTS[number] in seen):
            seen.add(PATIENTS[number])
            found.append(number)
    return found


def numbers(hits):
    return [int(hit.record_id[1:]) for hit in hits]


def test_hits_are_the_nearest_of_each_patient_with_their_place_in_the_archive(archive):
    vector = VECTORS[3]
    page = archive.search_directions([Direction(vector)], k=20)
    assert numbers(page.hits) == nearest(vector)[:20]
    cosines = VECTORS @ vector
    for hit in page.hits:
        own = cosines[int(hit.record_id[1:])]
        assert hit.similarity == pytest.approx(own, abs=1e-6)
        assert hit.percentile == pytest.approx(100.0 * (cosines < own - 1e-6).mean(), abs=0.51)
        assert hit.probability is None
    every = archive.search_directions([Direction(vector)], k=20, one_per_patient=False)
    assert numbers(every.hits) == nearest(vector, one_per_patient=False)[:20]
    assert page.hits[0].columns["shard_row"] == 3
    assert page.hits[0].columns["shard"] == "shards/part-00000.parquet"


@pytest.mark.parametrize("k", [7, 60])
def test_pages_follow_each_other_and_end(archive, k):
    vector, cursor, found = -VECTORS[5], None, []
    while True:
        page = archive.search_directions([Direction(vector)], k=k, cursor=cursor, where="fold > 2")
        found += numbers(page.hits)
        cursor = page.cursor
        if cursor is None:
            break
    assert found == nearest(vector, keep=lambda number: number % 10 + 1 > 2)


def test_filters_hold_for_every_hit(archive):
    where = "age > 60 and not sex = 'male' and leads_missing is empty and statement_ids has 1 and device is null"

    def keep(number):
        young = number % 7 == 6 or 20 + number % 70 <= 60
        return not young and number % 2 == 0 and number % 5 != 4 and number % 3 == 1

    page = archive.search_directions([Direction(VECTORS[0])], where=where)
    assert numbers(page.hits) == nearest(VECTORS[0], keep=keep)
    assert page.cursor is None
    assert archive.search_directions([Direction(VECTORS[0])], where="age > 1000").hits == ()


def test_like_leaves_the_own_patient_out(archive):
    hits = archive.like("r00003", k=5).hits
    assert numbers(hits) == nearest(VECTORS[3], keep=lambda number: PATIENTS[number] != 1)[:5]
    assert numbers(archive.like(VECTORS[3], k=1).hits) == [3]
    np.testing.assert_array_equal(archive.embedding("r00003"), VECTORS[3])
    assert archive.record("r00003").columns["shard_row"] == 3


def test_several_terms_count_by_their_weight_and_not_subtracts_half(archive):
    one, other = VECTORS[0], VECTORS[10]
    spread = [(VECTORS @ vector).std() for vector in (one, other)]
    wanted = 2.0 * one / spread[0] - 0.5 * other / spread[1]
    page = archive.search_directions([Direction(one, "a", 2.0), Direction(other, "b", negated=True)], k=10)
    assert numbers(page.hits) == nearest((wanted / np.linalg.norm(wanted)).astype(np.float32))[:10]
    first = page.hits[0]
    assert [term.similarity for term in first.terms] == pytest.approx(
        [float(VECTORS[numbers([first])[0]] @ vector) for vector in (one, other)], abs=1e-6
    )
    assert first.probability is None
    assert [(term.words, term.negated) for term in page.terms] == [("a", False), ("b", True)]
    with pytest.raises(ConfigError, match="cancel each other"):
        archive.search_directions([Direction(one), Direction(one, weight=2.0, negated=True)])
    tiny = [Direction(one, weight=5e-324), Direction(other, weight=5e-324)]  # only the ratio of weights counts
    same = archive.search_directions([Direction(one), Direction(other)], k=10)
    assert numbers(archive.search_directions(tiny, k=10).hits) == numbers(same.hits)


def test_a_cohort_is_every_record_above_a_similarity(archive):
    query = [Direction(VECTORS[3])]
    expected = np.flatnonzero(VECTORS @ VECTORS[3] >= 0.5)
    assert numbers(archive.cohort(query, above=0.5)) == expected.tolist()
    count = archive.count(query, above=0.5, where="sex = 'male'")
    assert count == (int((expected % 2 == 1).sum()), len(set(PATIENTS[expected[expected % 2 == 1]])), RECORDS // 2)
    found, cursor = [], None
    while True:
        page = archive.cohort_page(query, above=0.5, k=30, cursor=cursor)
        found += numbers(page.hits)
        cursor = page.cursor
        if cursor is None:
            break
    assert found == expected.tolist()
    assert archive.cohort_page(query, above=1.0, where="age > 1000").hits == ()


def test_a_cohort_is_read_to_its_end_where_whole_batches_lie_before_a_page(archive, monkeypatch):
    monkeypatch.setattr(cohorts, "_ROWS_AT_ONCE", 16)
    found, cursor = [], None
    while not found or cursor:
        page = archive.cohort_page([Direction(VECTORS[3])], above=-1.0, k=40, cursor=cursor)
        found += numbers(page.hits)
        cursor = page.cursor
    assert found == list(range(RECORDS))


@pytest.mark.parametrize("where", ["sex = 'male' OR age < 40", "NOT sex = 'male'", None])
def test_pages_of_a_filtered_cohort_join_to_the_whole_of_several_fragments(tmp_path, where):
    for number in range(4):
        own = {"key": str(number), "source": [f"s{number}"] * 50}
        rows = rows_of(VECTORS[number * 50 : number * 50 + 50], first=number * 50, **own)
        write_archive(tmp_path, rows, key=str(number), dataset=DATASET.model_copy(update={"source": f"s{number}"}))
    archive = open_archive(str(tmp_path))
    query = [Direction(VECTORS[3])]
    whole = [hit.record_id for hit in archive.cohort(query, above=-0.2, where=where)]
    found, cursor = [], None
    while not found or cursor:
        page = archive.cohort_page(query, above=-0.2, where=where, k=7, cursor=cursor)
        found += [hit.record_id for hit in page.hits]
        cursor = page.cursor
    assert found == whole
    assert len(set(whole)) == len(whole)
    assert len(whole) > 30


def test_patients_of_two_sources_with_equal_ids_are_two(tmp_path):
    other = rows_of(VECTORS[100:], key="other", record_id=[f"x{n}" for n in range(100)], source=["sph"] * 100)
    write_archive(tmp_path, rows_of(VECTORS[:100]))
    write_archive(tmp_path, other, key="other", dataset=DATASET.model_copy(update={"source": "sph"}))
    archive = open_archive(str(tmp_path))
    query = [Direction(VECTORS[3])]
    assert archive.facts.patients == archive.count(query, above=-1.0).patients == 100
    page = archive.search_directions(query, k=200)
    assert len(page.hits) == len({(hit.columns["source"], hit.patient_id) for hit in page.hits}) == 100
    found = {(hit.columns["source"], hit.patient_id) for hit in archive.like("x3", k=200).hits}
    assert ("sph", "p00001") not in found
    assert (SOURCE, "p00001") in found


def test_records_of_other_patients_are_never_replaced(tmp_path):
    write_archive(tmp_path, rows_of(VECTORS[:20]))
    strangers = rows_of(VECTORS[20:40], key="other", patient_id=[f"B{n}" for n in range(20)])
    with pytest.raises(ConfigError, match="has the id of another patient's record") as caught:
        write_archive(tmp_path, strangers, key="other")
    assert "folder of its own" in caught.value.hint
    assert open_archive(str(tmp_path)).facts.records == 20
    write_archive(tmp_path, rows_of(VECTORS[40:70], key="third"), key="third")  # the data set has grown
    facts = open_archive(str(tmp_path)).facts
    assert (facts.records, facts.datasets[KEY].shards) == (30, 0)


def test_reports_of_similar_ecgs_come_once_and_as_retrieved(archive, tmp_path):
    found = archive.nearest_reports("r00003", k=3)
    assert len({near.report for near in found}) == 3
    similarities = [near.similarity for near in found]
    assert similarities == sorted(similarities, reverse=True)
    assert all("no diagnosis" in near.notice for near in found)
    assert sum(near.records for near in archive.nearest_reports("r00003", k=4)) == 32
    without = open_archive(tiny_archive(tmp_path, records=4))
    with pytest.raises(ConfigError, match="holds no reports"):
        without.nearest_reports("r00001")


@pytest.mark.parametrize("k", [0, -1, 1001, 10**9, True])
def test_a_number_of_hits_that_cannot_be_is_refused(archive, k):
    with pytest.raises(ConfigError, match="`k` is") as caught:
        archive.search_directions([Direction(VECTORS[0])], k=k)
    assert "1 to 1,000" in caught.value.hint


def test_a_cursor_of_another_search_is_refused(archive):
    cursor = archive.search_directions([Direction(VECTORS[0])], k=5).cursor
    for directions, options in (
        ([Direction(VECTORS[1])], {}),
        ([Direction(VECTORS[0])], {"where": "age > 1"}),
        ([Direction(VECTORS[0])], {"one_per_patient": False}),
    ):
        with pytest.raises(ConfigError, match="another search"):
            archive.search_directions(directions, k=5, cursor=cursor, **options)
    for text in ("x", "a" * 5000, "bnVsbA", "{}", "é"):
        with pytest.raises(ConfigError, match="did not come from a search"):
            archive.search_directions([Direction(VECTORS[0])], cursor=text)


@pytest.mark.parametrize("vector", [VECTORS[0][:64], 2 * VECTORS[0], np.full(128, np.nan, np.float32)])
def test_a_vector_of_another_space_is_refused(archive, vector):
    with pytest.raises(ConfigError):
        archive.search_directions([Direction(vector)])


def test_an_unknown_record_is_refused(archive):
    for ask in (archive.like, archive.embedding, archive.record):
        with pytest.raises(ConfigError, match="no record 'r99999'"):
            ask("r99999")
    with pytest.raises(ConfigError, match="no record"):
        archive.like("' or 1 = 1")
    with pytest.raises(ConfigError, match="no record 'r00001' of the source 'sph'"):
        archive.record("r00001", source="sph")


def test_searching_loads_neither_torch_nor_ray(archive):
    code = (
        "import sys, numpy as np; from mets_ray.archive.archive import open_archive; "
        "from mets_ray.archive.query import Direction; archive = open_archive(sys.argv[1]); "
        "archive.search_directions([Direction(archive.embedding('r00001'))]); "
        "sys.exit(repr({'torch', 'ray', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code, archive.uri], check=False, capture_output=True, text=True)
    assert done.stderr.strip() == "set()"


def test_indices_that_cannot_be_searched_say_why(tmp_path):
    with pytest.raises(DatasetError, match="not an archive's index"):
        open_archive(str(tmp_path / "nothing"))
    write_archive(tmp_path / "half", rows_of(VECTORS[:10]), finish=False)
    with pytest.raises(DatasetError, match="half-written") as caught:
        open_archive(str(tmp_path / "half"))
    assert "again" in caught.value.hint
    uri = tiny_archive(tmp_path / "whole", records=20)
    with pytest.raises(CheckpointError, match="another bundle"):
        open_archive(uri).require_bundle("e" * 64)
    with pytest.raises(CheckpointError, match="another bundle"):
        write_archive(uri, rows_of(VECTORS[:1]), digest="e" * 64)
    with pytest.raises(ConfigError, match=r"index\.reports=false"):
        write_archive(uri, rows_of(VECTORS[:1]), reports=True)
    opened = open_archive(uri)
    (data,) = (tmp_path / "whole" / TABLE_NAME / "data").glob("*.lance")
    data.unlink()
    with pytest.raises(DatasetError, match="a file of the index is gone") as caught:
        open_archive(uri).search_directions([Direction(VECTORS[0])])
    assert "index the scores again" in caught.value.hint
    assert opened.facts.records == 20
    path = tmp_path / "whole" / FACTS_NAME
    facts = json.loads(path.read_bytes())
    path.write_text(json.dumps(facts | {"records": 21}))
    with pytest.raises(DatasetError, match="not what was written"):
        open_archive(uri)
    path.write_bytes(storage.seal(json.dumps(storage.unseal(json.dumps(facts).encode()).facts | {"schema_version": 9})))
    with pytest.raises(DatasetError, match="schema version 9"):
        open_archive(uri)


def test_readers_see_what_was_finished_and_each_record_once(tmp_path):
    uri = str(tmp_path)
    first = write_archive(uri, rows_of(VECTORS[:50]))
    before = open_archive(uri)
    assert first.shards() == {(KEY, "shards/part-00000.parquet")}
    # The data set has grown: the same records, 10 of them with other embeddings, and 30 new ones.
    grown = IndexedDataset(uri="/nowhere", source=SOURCE, content_sha256="e" * 64, synthetic=True)
    vectors = np.concatenate([-VECTORS[:10], VECTORS[10:80]])
    half = write_archive(uri, rows_of(vectors, key="grown"), key="grown", dataset=grown, finish=False)
    assert not half.is_published
    assert open_archive(uri).facts.records == 50
    assert len(open_archive(uri).search_directions([Direction(VECTORS[0])], one_per_patient=False, k=100).hits) == 50
    half.finish("grown")
    after = open_archive(uri)
    assert (after.facts.records, after.facts.patients) == (80, 40)
    assert {key: one.shards for key, one in after.facts.datasets.items()} == {KEY: 0, "grown": 1}
    hits = after.search_directions([Direction(VECTORS[0])], one_per_patient=False, k=100).hits
    assert sorted(hit.record_id for hit in hits) == [f"r{number:05d}" for number in range(80)]
    np.testing.assert_array_equal(after.embedding("r00000"), -VECTORS[0])
    np.testing.assert_array_equal(before.embedding("r00000"), VECTORS[0])  # it stays as it was opened


def test_with_a_vector_index_the_answers_are_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(writer_module, "INDEXED_FROM", 1000)
    vectors = unit_vectors(3000, 32)
    write_archive(tmp_path, rows_of(vectors[:2000]))
    write_archive(tmp_path, rows_of(vectors[2000:], first=2000, shard="shards/part-00001.parquet"))
    archive = open_archive(str(tmp_path))
    assert archive.facts.partitions > 1
    assert writer_module.VECTOR_INDEX in {one.name for one in open_table(str(tmp_path)).describe_indices()}
    check = check_archive(archive)
    assert (check.queries, check.found_themselves) == (16, 16)
    assert check.recall >= 0.98
    narrow = archive.search_directions([Direction(vectors[0])], k=5, where="record_id in ('r00007', 'r02500')")
    assert {hit.record_id for hit in narrow.hits} == {"r00007", "r02500"}


def test_without_the_extra_the_remedy_is_named(archive, monkeypatch):
    monkeypatch.setitem(sys.modules, "lance", None)
    with pytest.raises(ConfigError) as caught:
        open_archive(archive.uri)
    assert caught.value.hint == "pip install 'mets_ray[archive]'"


TIMES = ["2001-06-02T23:59:00", "2001-06-03T10:00:00", "2001-06-03T12:00:00+02:00", "2001-06-04", None]


@pytest.mark.parametrize(
    ("where", "kept"),
    [
        ("recorded_at >= '2001-06-03 11:00'", {2, 3}),
        ("recorded_at < '2001-06-03 11:00'", {0, 1}),
        ("recorded_at <= '2001-06-03'", {0, 1, 2}),
        ("recorded_at > '2001-06-03'", {3}),
        ("recorded_at between '2001-06-01' and '2001-06-03'", {0, 1, 2}),
        ("recorded_at = '2001-06-03'", {1, 2}),
        ("recorded_at != '2001-06-03'", {0, 3, 4}),
        ("recorded_at in ('2001-06-02', '2001-06-04')", {0, 3}),
        ("recorded_at not in ('2001-06-02', '2001-06-04')", {1, 2, 4}),
        ("recorded_at is null", {4}),
        ("recorded_at >= '2001'", {0, 1, 2, 3}),
    ],
)
def test_a_day_is_all_of_it(tmp_path, where, kept):
    archive = open_archive(tiny_archive(tmp_path, records=40, recorded_at=[TIMES[n % 5] for n in range(40)]))
    found = numbers(archive.cohort([Direction(unit_vectors(40)[0])], above=-1.0, where=where))
    assert {number % 5 for number in found} == kept
    assert len(found) == 8 * len(kept)


@pytest.mark.parametrize(
    ("where", "keep"),
    [
        ("not age > 60", lambda number: number % 7 == 6 or 20 + number % 70 <= 60),
        ("age != 30", lambda number: number % 7 == 6 or 20 + number % 70 != 30),
        ("age not between 30 and 60", lambda number: number % 7 == 6 or not 30 <= 20 + number % 70 <= 60),
        ("not device in ('MAC 5500')", lambda number: True),  # no device is known
        ("not (age > 60 or sex = 'male')",
         lambda number: number % 2 == 0 and (number % 7 == 6 or 20 + number % 70 <= 60)),
        ("not not age > 60", lambda number: number % 7 != 6 and 20 + number % 70 > 60),
    ],
)  # fmt: skip
def test_what_is_not_known_is_not_what_it_is_compared_with(archive, where, keep):
    found = numbers(archive.cohort([Direction(VECTORS[0])], above=-1.0, where=where))
    assert found == [number for number in range(RECORDS) if keep(number)]


def test_a_cohort_of_a_record_leaves_its_patient_out(archive):
    query, of = [Direction(VECTORS[3])], RecordKey("r00003")
    expected = [number for number in range(RECORDS) if PATIENTS[number] != 1]
    assert numbers(archive.cohort(query, above=-1.0, not_of=of)) == expected
    assert archive.count(query, above=-1.0, not_of=of)[:2] == (RECORDS - 2, RECORDS // 2 - 1)
    page = archive.cohort_page(query, above=-1.0, k=20, not_of=of)
    following = archive.cohort_page(query, above=-1.0, k=20, not_of=of, cursor=page.cursor)
    assert numbers(page.hits + following.hits) == expected[:40]
    with pytest.raises(ConfigError, match="cursor"):
        archive.cohort_page(query, above=-1.0, k=20, cursor=page.cursor)


def test_windows_and_their_means_have_no_probability(tmp_path):
    calibrated = SimpleNamespace(probabilities=lambda similarity: (np.full_like(similarity, 0.5),))
    query = [Direction(VECTORS[0], "a", calibrated=calibrated)]
    for windows in (False, True):
        uri = tmp_path / str(windows)
        write_archive(uri, rows_of(VECTORS[:20]), dataset=DATASET.model_copy(update={"windows": windows}))
        hits = open_archive(str(uri)).search_directions(query, where="leads_missing is empty").hits
        assert {hit.probability for hit in hits} == {None if windows else 0.5}

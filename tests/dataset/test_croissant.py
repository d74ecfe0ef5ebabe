"""croissant.py: what mlcroissant makes of the description."""

import hashlib
from collections import Counter

import pytest

from mets_ray.dataset.card import shard_schema
from mets_ray.dataset.croissant import write_croissant
from tests.support.datasets import synthetic_rows, write_card, write_rows

mlcroissant = pytest.importorskip("mlcroissant")


@pytest.fixture(scope="module")
def described(tmp_path_factory):
    folder = tmp_path_factory.mktemp("croissant")
    rows = synthetic_rows(6)
    summaries = [
        write_rows(folder, rows[:4], name="part-00000-abc"),
        write_rows(folder, rows[4:], name="part-00001-abc"),
    ]
    folds = dict(Counter(row.fold for row in rows))
    licence = "https://creativecommons.org/licenses/by/4.0/"
    card = write_card(
        folder,
        summaries,
        folds=folds,
        licence=licence,
        citation="Somebody 2020",
        created_at="2026-01-02T03:04:05+00:00",
    )
    card_sha256 = hashlib.sha256((folder / "card.json").read_bytes()).hexdigest()
    return folder, rows, card, mlcroissant.Dataset(write_croissant(str(folder), card, card_sha256))


def test_mlcroissant_finds_neither_error_nor_warning(described):
    _, _, card, found = described
    assert not found.metadata.ctx.issues.errors
    assert not found.metadata.ctx.issues.warnings
    assert found.metadata.license == [card.licence]
    assert found.metadata.cite_as == card.citation


def test_every_file_has_the_hash_of_its_bytes(described):
    folder, _, card, found = described
    hashes = {one.content_url: one.sha256 for one in found.metadata.file_objects}
    assert set(hashes) == {"card.json", *(shard.path for shard in card.shards)}
    for path, sha256 in hashes.items():
        assert hashlib.sha256((folder / path).read_bytes()).hexdigest() == sha256


def test_mlcroissant_reads_all_records_with_all_columns(described):
    _, rows, card, found = described
    records = list(found.records("records"))
    assert {f"records/{name}" for name in shard_schema(card.signal).names} == set(records[0])
    assert [record["records/record_id"].decode() for record in records] == [row.record_id for row in rows]
    assert len(records[0]["records/signal_uv"]) == 12 * 1000

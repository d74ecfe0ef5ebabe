"""What is written with a hash is checked when it is read; what is lost or damaged is made again."""

import json
import os
import shutil

import numpy as np
import pytest
import wfdb

from mets_ray import storage
from mets_ray.dataset.card import CARD_NAME, read_card
from mets_ray.dataset.prepared import PreparedDataset
from mets_ray.dataset.shard_reader import open_shard, signals
from mets_ray.errors import DatasetError
from mets_ray.sources.files import Files
from mets_ray.sources.manifest import ManifestRow
from mets_ray.sources.table_manifest import table_manifest
from tests.support.datasets import SIGNAL, synthetic_rows, write_dataset, write_rows
from tests.support.flips import try_flips

ROWS = synthetic_rows(300)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("whole"), ROWS)


@pytest.fixture
def folder(whole, tmp_path):
    """A copy of a data set of one shard with two row groups."""
    shutil.copytree(whole, tmp_path / "data")
    return tmp_path / "data"


def as_version_1(folder):
    """The card as the last version wrote it: without digest and pieces."""
    card = json.loads((folder / CARD_NAME).read_text())
    del card["digest"]
    for shard in card["shards"]:
        del shard["pieces"]
    (folder / CARD_NAME).write_text(json.dumps(card | {"schema_version": 1}))


def everything(folder):
    """All that jobs read of a data set, through the ways in which they read it."""
    data = PreparedDataset.open(str(folder))
    groups = data.row_groups(data.all_folds)
    tables = [data.read(group, data.all_folds) for group in groups]
    (shard,) = data.card.shards
    return (
        data.card.model_dump(exclude={"shards"}),
        groups,
        [table.drop_columns(["signal_uv"]).to_pydict() for table in tables],
        [signals(table).tobytes() for table in tables],
        list(data.distinct_statements(data.all_folds)),
        open_shard(data.uri, shard).read(columns=["age", "sex"]).to_pydict(),
    )


@pytest.mark.parametrize("older", [False, True])
def test_no_flipped_bit_of_a_shard_changes_a_value(folder, older):
    if older:
        as_version_1(folder)
    (shard,) = read_card(str(folder)).shards
    assert bool(shard.pieces) is not older
    assert try_flips(folder / shard.path, lambda: everything(folder))["found"] == 60


def test_no_flipped_bit_of_a_card_changes_a_value(folder):
    outcomes = try_flips(folder / CARD_NAME, lambda: read_card(str(folder)).model_dump_json())
    assert outcomes["found"] >= 50  # the others are blanks


def test_every_byte_of_a_shard_is_in_a_piece_and_little_is_read_for_two_columns(folder):
    (shard,) = read_card(str(folder)).shards
    assert sum(piece.size for piece in shard.pieces) == (folder / shard.path).stat().st_size
    # Damage in the signals does not touch those who read no signals, and is found by those who do.
    data = bytearray((folder / shard.path).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / shard.path).write_bytes(bytes(data))
    dataset = PreparedDataset.open(str(folder))
    groups = dataset.row_groups(dataset.all_folds)
    assert list(dataset.distinct_reports(dataset.all_folds))
    with pytest.raises(DatasetError, match=rf"{shard.path}` is damaged: bytes \d+ to \d+") as error:
        [dataset.read(group, dataset.all_folds) for group in groups]
    assert "run prepare again" in error.value.hint


def test_a_shard_is_hashed_once_by_a_process_until_it_is_written_again(folder, monkeypatch):
    (shard,) = read_card(str(folder)).shards
    past = (folder / shard.path).stat().st_mtime - 60
    os.utime(folder / shard.path, (past, past))
    monkeypatch.setattr(storage.pieces, "_SETTLED_S", -1.0)  # the file's other time, of its change, cannot be set back
    hashed = []
    sha256 = storage.pieces.hashlib.sha256

    class Counted:
        @staticmethod
        def sha256(data=b""):
            hashed.append(len(data))
            return sha256(data)

    monkeypatch.setattr(storage.pieces, "hashlib", Counted)
    first = everything(folder)
    assert sum(hashed) == (folder / shard.path).stat().st_size
    assert everything(folder) == first
    assert sum(hashed) == (folder / shard.path).stat().st_size
    data = bytearray((folder / shard.path).read_bytes())
    data[100] ^= 1
    (folder / shard.path).write_bytes(bytes(data))
    with pytest.raises(DatasetError, match="is damaged"):
        everything(folder)


@pytest.mark.parametrize("older", [False, True])
def test_a_shortened_or_lengthened_shard_is_found(folder, older):
    if older:
        as_version_1(folder)
    (shard,) = read_card(str(folder)).shards
    data = (folder / shard.path).read_bytes()
    for other in (b"", data[:7], data[:-1], data + b"\0", data[: len(data) // 2]):
        (folder / shard.path).write_bytes(other)
        with pytest.raises(DatasetError, match=rf"{shard.path}` is damaged"):
            everything(folder)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b"{}", b'{"digest": null}']
)
def test_a_card_that_is_none_is_named(folder, content):
    (folder / CARD_NAME).write_bytes(content)
    with pytest.raises(DatasetError, match=CARD_NAME) as error:
        read_card(str(folder))
    assert error.value.hint


def test_a_card_without_its_digest_is_refused(folder):
    card = json.loads((folder / CARD_NAME).read_text())
    del card["digest"]
    (folder / CARD_NAME).write_text(json.dumps(card))
    with pytest.raises(DatasetError, match="has no `digest`"):
        read_card(str(folder))


@pytest.mark.parametrize("path", ["../../../x.parquet", "/x.parquet", "a/../../x", "a\\..\\x", "x\0", "s3://b/x"])
def test_a_shard_s_path_stays_below_the_card(folder, path):
    card = storage.unseal((folder / CARD_NAME).read_bytes()).facts
    card["shards"][0]["path"] = path
    (folder / CARD_NAME).write_bytes(storage.seal(json.dumps(card)))
    with pytest.raises(DatasetError, match="is not a path below the card"):
        read_card(str(folder))


# --- made again


def files_of(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("kind", ["shards", "rejected", "progress"])
@pytest.mark.parametrize("damage", ["lost", "flipped", "half", "empty"])
def test_a_lost_or_damaged_file_is_made_again_and_the_others_are_kept(tmp_path, capfd, kind, damage):
    rows = list(ROWS[:6])
    rows[1] = ManifestRow(**vars(rows[1]) | {"report": "  "})
    first = write_rows(tmp_path, rows)
    before = files_of(tmp_path)
    (path,) = (tmp_path / kind).iterdir()
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.unlink()
    if damage != "lost":
        path.write_bytes({"flipped": bytes(data), "half": bytes(data[: len(data) // 2]), "empty": b""}[damage])
    again = write_rows(tmp_path, rows)
    assert not again.reused
    assert (again.shard, again.rejected, again.folds) == (first.shard, first.rejected, first.folds)
    assert files_of(tmp_path) == before
    if (kind, damage) != ("progress", "lost"):
        assert path.name in capfd.readouterr().err
    assert write_rows(tmp_path, rows).reused


def test_no_flipped_bit_of_a_progress_file_changes_the_summary(tmp_path):
    first = write_rows(tmp_path, ROWS[:6]).model_copy(update={"reused": True})
    path = tmp_path / "progress" / "part-00000-abc.json"
    whole = path.read_bytes()
    again = 0
    for position in range(0, 8 * len(whole), len(whole) // 2):
        flipped = bytearray(whole)
        flipped[position // 8] ^= 1 << position % 8
        path.write_bytes(bytes(flipped))
        summary = write_rows(tmp_path, ROWS[:6])
        again += not summary.reused
        assert summary.model_copy(update={"reused": True}) == first
    assert again >= 12


def test_a_record_that_leaves_its_source_is_counted_and_never_read(tmp_path):
    source = tmp_path / "source"
    for place in (source, tmp_path):  # the record outside could be read
        place.mkdir(exist_ok=True)
        wfdb.wrsamp(
            "r", 100, ["mV"] * 12, list(SIGNAL.leads), np.random.default_rng(0).normal(0, 0.3, (1000, 12)),
            fmt=["16"] * 12, adc_gain=[1000.0] * 12, baseline=[0] * 12, write_dir=str(place),
        )  # fmt: skip
    records = ["r", "../r", "a/../../r", "..\\r", "./r", "s3://bucket/r", "a::file:///r", "C:\\r"]
    (tmp_path / "m.csv").write_text("record,report\n" + "".join(f"{name},sinus rhythm\n" for name in records))
    manifest = table_manifest(str(source), str(tmp_path / "m.csv"))
    wfdb_source = Files(kind="files", uri=str(source), manifest_uri=str(tmp_path / "m.csv"))
    summary = write_rows(tmp_path / "out", manifest.rows, source=wfdb_source)
    assert summary.rejected == {"unsafe_path": 6}

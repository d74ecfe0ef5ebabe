"""The embedding store: parts come back as one table, finished parts are kept, what is absent is named."""

import hashlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mets_ray import storage
from mets_ray.errors import DatasetError
from mets_ray.pipelines.lm_actors import TextEmbedder
from mets_ray.text.embeddings import EmbeddingTable, part_folder, read_store, write_part
from mets_ray.text.reports import text_id
from tests.support.flips import try_flips

TEXTS = [f"report {n}" for n in range(7)]


def batch_of(texts, *, prompts=()):
    vectors = np.random.default_rng(len(texts)).normal(size=(len(texts), 5)).astype(np.float16)
    return {
        "text": np.asarray(texts, dtype=object),
        "text_id": np.asarray([text_id(text) for text in texts]),
        "embedding": vectors,
        "embedded": np.ones(len(texts), dtype=np.int8),
        "is_prompt": np.asarray([text in prompts for text in texts]),
    }


def test_parts_come_back_as_one_table(tmp_path):
    folder = part_folder(str(tmp_path), "a" * 64)
    first, second = batch_of(TEXTS[:4], prompts=TEXTS[:1]), batch_of(TEXTS[4:])
    counts = [write_part(batch, folder_uri=folder) for batch in (first, second)]
    assert counts == [(3, 1), (3, 0)]
    table = read_store(str(tmp_path), "a" * 64)
    expected = np.concatenate([first["embedding"], second["embedding"]])
    np.testing.assert_array_equal(table.lookup(np.asarray([text_id(text) for text in TEXTS])), expected)
    assert table.missing([*TEXTS, "new", "new"]) == ["new"]
    write_part(first, folder_uri=folder)
    assert len(storage.list_files(folder)) == 2  # the same texts are the same part
    assert len(read_store(str(tmp_path), "b" * 64).ids) == 0  # another LM


def as_older(folder):
    """The part with the name that the last version gave it."""
    (path,) = folder.iterdir()
    hashes = pq.read_table(path)["text_hash"].to_pylist()
    name = hashlib.sha256("".join(hashes).encode()).hexdigest()[:16]
    return path.rename(path.with_name(f"part-{name}.parquet"))


def test_no_flipped_bit_of_a_part_changes_a_value(tmp_path):
    store, lm = str(tmp_path), "a" * 64
    write_part(batch_of(TEXTS), folder_uri=part_folder(store, lm))
    (path,) = (tmp_path / lm[:16]).iterdir()

    def values():
        table = read_store(store, lm)
        return table.ids.tobytes(), table.vectors.tobytes()

    assert try_flips(path, values)["found"] == 60
    for content in (b"", b"PAR1", path.read_bytes()[:-1]):
        path.write_bytes(content)
        with pytest.raises(DatasetError, match=rf"{path.name}` is damaged") as error:
            values()
        assert "delete this file" in error.value.hint


def test_of_a_part_of_the_last_version_the_texts_are_checked(tmp_path):
    store, lm = str(tmp_path), "a" * 64
    batch = batch_of(TEXTS)
    write_part(batch, folder_uri=part_folder(store, lm))
    path = as_older(tmp_path / lm[:16])
    np.testing.assert_array_equal(read_store(store, lm).lookup(batch["text_id"]), batch["embedding"])
    table = pq.read_table(path)
    ids = table["text_id"].to_numpy()
    hashes = table["text_hash"].to_pylist()
    swapped_ids = table.set_column(0, "text_id", pa.array(ids[::-1]))
    swapped_texts = table.set_column(1, "text_hash", pa.array(hashes[::-1]))
    infinite = pa.FixedSizeListArray.from_arrays(pa.array(np.full(7 * 5, np.inf, np.float16)), 5)
    for other in (swapped_ids, swapped_texts, table.slice(1), table.set_column(2, "embedding", infinite)):
        pq.write_table(other, path)
        with pytest.raises(DatasetError, match=rf"{path.name}` is damaged"):
            read_store(store, lm)
    for content in (b"", b"PAR1", b"x" * 100):
        path.write_bytes(content)
        with pytest.raises(DatasetError, match=rf"{path.name}` is damaged"):
            read_store(store, lm)


@pytest.mark.parametrize("fingerprint", ["../../../x", "/etc", "a\\b", "x\0", ""])
def test_a_fingerprint_is_no_path(tmp_path, fingerprint):
    with pytest.raises(DatasetError, match="is not the fingerprint of a language model"):
        part_folder(str(tmp_path), fingerprint)


def test_parts_of_two_lengths_are_an_error_of_ours(tmp_path):
    folder = part_folder(str(tmp_path), "a" * 64)
    write_part(batch_of(TEXTS[:4]), folder_uri=folder)
    longer = batch_of(TEXTS[4:])
    write_part(longer | {"embedding": np.ones((3, 6), np.float16)}, folder_uri=folder)
    with pytest.raises(DatasetError, match="vectors of different lengths"):
        read_store(str(tmp_path), "a" * 64)


def test_a_text_that_was_never_embedded_is_an_error():
    table = EmbeddingTable.build(np.asarray([5, 1, 5]), np.ones((3, 2), dtype=np.float16))
    assert table.ids.tolist() == [1, 5]
    for identity in (0, 3, 9):
        with pytest.raises(DatasetError, match="has no text embedding"):
            table.lookup(np.asarray([1, identity]))
    empty = EmbeddingTable(np.empty(0, dtype=np.int64), np.empty((0, 2), dtype=np.float16))
    with pytest.raises(DatasetError):
        empty.lookup(np.asarray([1]))


def test_the_embedder_counts_each_distinct_text_of_a_batch_once():
    embedder = TextEmbedder(model="packaged-minilm", pooling="mean", max_length=32, batch_size=8, device="cpu")
    texts = ["sinus rhythm", "atrial fibrillation", "sinus rhythm"]
    batch = embedder({"text": np.asarray(texts, dtype=object)})
    assert batch["embedded"].tolist() == [1, 1, 0]
    assert batch["embedding"].shape == (3, 384)
    np.testing.assert_array_equal(batch["embedding"][0], batch["embedding"][2])

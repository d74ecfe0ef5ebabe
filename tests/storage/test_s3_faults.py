"""Storage on a bad day: passing faults are retried, nothing is lost, and lasting faults still fail soon."""

import asyncio
import hashlib
import logging
import os
import pickle
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

pytest.importorskip("boto3")
pytest.importorskip("s3fs")
pytest.importorskip("moto.server")

import pyarrow as pa
import pyarrow.fs
import pyarrow.parquet as pq
from botocore.exceptions import ClientError

from mets_ray import storage
from mets_ray.errors import DatasetError
from mets_ray.storage import s3
from tests.support.faulty_proxy import count_retries, faulty_proxy
from tests.support.s3 import s3_server

EVERY_FAULT = ["slow_down", "error", "reset", "lost"]


@pytest.fixture(scope="module")
def store():
    with s3_server() as environment:
        yield environment


@pytest.fixture
def proxy(store, monkeypatch):
    with faulty_proxy(store["AWS_ENDPOINT_URL"], seed=1, stall_s=1.5) as proxy:
        for name, value in (store | {"AWS_ENDPOINT_URL": proxy.url}).items():
            monkeypatch.setenv(name, value)
        s3.RetryingS3FileSystem.clear_instance_cache()
        storage.faults._require_s3_bucket.cache_clear()
        monkeypatch.setattr(s3, "_LONGEST_PAUSE_S", 0.1)
        yield proxy
    s3.RetryingS3FileSystem.clear_instance_cache()


@pytest.fixture
def root(request):
    return f"s3://ecg/{request.node.name.replace('[', '-').rstrip(']')}"


@pytest.mark.parametrize("fault", [*EVERY_FAULT, "cut"])
def test_a_read_is_retried(proxy, root, fault):
    data = os.urandom(300_000)
    storage.write_bytes(f"{root}/a", data)
    proxy.plan.extend([fault] * 4)
    assert count_retries(proxy, lambda: storage.read_bytes(f"{root}/a"))[0] == data


@pytest.mark.parametrize("fault", EVERY_FAULT)
def test_a_write_is_retried(proxy, root, fault):
    proxy.plan.extend([fault] * 4)
    count_retries(proxy, lambda: storage.write_bytes(f"{root}/a", b"whole"))
    assert storage.read_bytes(f"{root}/a") == b"whole"


@pytest.mark.parametrize("fault", [*EVERY_FAULT, "cut"])
def test_a_listing_is_retried(proxy, root, fault):
    storage.write_bytes(f"{root}/a", b"1")
    proxy.plan.extend([fault, None, fault, fault])
    assert count_retries(proxy, lambda: storage.list_files(root))[0] == [f"{root}/a"]


def test_exists_is_retried_and_no_is_an_answer(proxy, root):
    storage.write_bytes(f"{root}/a", b"1")
    proxy.plan.extend(["slow_down", "error"])
    assert count_retries(proxy, lambda: storage.exists(f"{root}/a")) == (True, 2)
    assert count_retries(proxy, lambda: storage.exists(f"{root}/b")) == (False, 0)


def test_a_stall_shorter_than_the_timeout_is_waited_for(proxy, root):
    storage.write_bytes(f"{root}/a", b"1")
    proxy.plan.append("stall")
    assert count_retries(proxy, lambda: storage.read_bytes(f"{root}/a")) == (b"1", 0)


def test_a_stall_longer_than_the_timeout_is_retried(proxy, root, monkeypatch):
    storage.write_bytes(f"{root}/a", b"1")
    monkeypatch.setattr(storage.stores, "_S3_CLIENT", storage.stores._S3_CLIENT | {"read_timeout": 0.5})
    before = storage.RESENDS.total
    proxy.plan.append("stall")
    assert storage.read_bytes(f"{root}/a") == b"1"
    assert storage.RESENDS.total == before + 1


# --- a new file is made by one writer only, whatever happens to the answers


@pytest.mark.parametrize("faults", [["lost"], ["lost", "slow_down"], ["lost", "lost", "error"]])
def test_an_own_upload_whose_answer_was_lost_is_not_somebody_elses(proxy, root, faults):
    proxy.plan.extend(faults)
    assert storage.create_bytes(f"{root}/a", b"mine")
    assert storage.read_bytes(f"{root}/a") == b"mine"


@pytest.mark.parametrize("faults", [[], ["lost"], ["error", "lost"]])
def test_somebody_elses_upload_is_not_ours_though_the_bytes_are_equal(proxy, root, faults):
    assert storage.create_bytes(f"{root}/a", b"equal")
    proxy.plan.extend(faults)
    assert not storage.create_bytes(f"{root}/a", b"equal")


def test_of_many_creators_on_a_bad_day_one_wins(proxy, root):
    proxy.shares = {"slow_down": 0.1, "lost": 0.2, "reset": 0.1}
    with ThreadPoolExecutor(8) as pool:
        for turn in range(5):
            uri = f"{root}/{turn}"
            made = list(pool.map(lambda number, uri=uri: storage.create_bytes(uri, b"%d" % number), range(8)))
            assert made.count(True) == 1
            assert storage.read_bytes(uri) == b"%d" % made.index(True)


# --- big files and folders: parts, and what Ray's checkpoints use


def test_an_upload_in_parts_and_a_download_in_parts(proxy, root, tmp_path, monkeypatch):
    # As with files of hundreds of MB: parts of 5 MiB, the least that S3 takes, and more than are read at a time.
    monkeypatch.setattr("s3fs.core.calculate_chunksize", lambda size, chunksize=None: 5 * 2**20)
    monkeypatch.setattr(s3, "_DOWNLOAD_PART_BYTES", 2 * 2**20)
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "manifest").write_bytes(b"{}")
    (folder / "weights").write_bytes(os.urandom(11 * 2**20))
    proxy.plan.extend(["lost", "lost", "error", "lost"])
    proxy.only = "weights?uploadId="  # the completion; parts have partNumber before it
    count_retries(proxy, lambda: storage.publish_folder(folder, root, "manifest"))
    assert not proxy.plan
    proxy.only = ""
    proxy.plan.extend(["lost", "error", "reset", "lost", "lost", "slow_down"] * 2)
    count_retries(proxy, lambda: storage.publish_folder(folder, root, "manifest"))
    assert not proxy.plan
    proxy.shares = {"cut": 0.3, "error": 0.2}
    count_retries(proxy, lambda: storage.download_folder(root, tmp_path / "copy"))
    assert (tmp_path / "copy" / "weights").read_bytes() == (folder / "weights").read_bytes()


@pytest.mark.parametrize("etag", [f"{hashlib.md5(bytes(16)).hexdigest()}-1", f"{'1' * 32}-1"])
def test_a_completion_that_was_already_done_is_known_by_the_parts(etag, monkeypatch):
    """Some stores forget an upload once it is complete; moto's server did not, so a fake stands here."""
    monkeypatch.setattr(s3, "_LONGEST_PAUSE_S", 0.01)
    asked = []

    async def store(operation, parameters):
        asked.append(operation)
        if operation == "HeadObject":
            return {"ETag": f'"{etag}"'}
        if len(asked) == 1:
            raise ConnectionResetError
        raise ClientError({"Error": {"Code": "NoSuchUpload"}, "ResponseMetadata": {"HTTPStatusCode": 404}}, operation)

    parts = {"Parts": [{"PartNumber": 1, "ETag": f'"{"0" * 32}"'}]}
    call = s3.RetryingCall(store)("CompleteMultipartUpload", {"Bucket": "b", "Key": "k", "MultipartUpload": parts})
    if etag.startswith("1"):
        with pytest.raises(ClientError, match="NoSuchUpload"):
            asyncio.run(call)
    else:
        assert asyncio.run(call)["ETag"] == f'"{etag}"'
    assert asked == ["CompleteMultipartUpload", "CompleteMultipartUpload", "HeadObject"]


def test_copies_as_ray_makes_them_of_checkpoints(proxy, root, tmp_path, monkeypatch):
    """Ray Train copies a checkpoint with pyarrow; the filesystem travels to workers in a pickle."""
    monkeypatch.setattr(s3.RetryingS3FileSystem, "default_block_size", 5 * 2**20)  # of parts; 50 MiB otherwise
    (tmp_path / "a").mkdir()
    for name, size in (("model", 900_000), ("state", 12_000_000), ("empty", 0)):
        (tmp_path / "a" / name).write_bytes(os.urandom(size))
    filesystem, path = storage.arrow_filesystem(root)
    filesystem = pickle.loads(pickle.dumps(filesystem))
    proxy.shares = {"slow_down": 0.15, "error": 0.1, "cut": 0.15, "reset": 0.1}

    def there_and_back():
        pyarrow.fs.copy_files(str(tmp_path / "a"), path, destination_filesystem=filesystem)
        (tmp_path / "b").mkdir()
        pyarrow.fs.copy_files(path, str(tmp_path / "b"), source_filesystem=filesystem)

    _, again = count_retries(proxy, there_and_back)
    assert again > 3
    for name in ("model", "state", "empty"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_many_threads_read_parquet_on_a_bad_day(proxy, root):
    table = pa.table({"a": list(range(200_000))})
    filesystem, path = storage.arrow_filesystem(f"{root}/table.parquet")
    pq.write_table(table, path, filesystem=filesystem, row_group_size=20_000)
    proxy.shares = {"slow_down": 0.2, "cut": 0.2, "reset": 0.1}
    # More failures than botocore's own quota of about 100 allows in a process.
    with ThreadPoolExecutor(16) as pool:
        tables, again = count_retries(
            proxy, lambda: list(pool.map(lambda _: pq.read_table(path, filesystem=filesystem), range(60)))
        )
    assert all(read.equals(table) for read in tables)
    assert again > 110


# --- how long


def test_patience_ends(proxy, root, monkeypatch, caplog):
    storage.write_bytes(f"{root}/a", b"1")
    s3.RetryingS3FileSystem.clear_instance_cache()
    monkeypatch.setattr(s3, "RETRY_FOR_S", 3.0)
    proxy.always = "slow_down"
    began = time.monotonic()
    with caplog.at_level(logging.WARNING), pytest.raises(DatasetError, match="answers with server errors"):
        storage.read_bytes(f"{root}/a")
    assert 1.0 < time.monotonic() - began < 8.0
    (line,) = [record.getMessage() for record in caplog.records if record.name == "mets_ray.storage.s3"]
    assert "503 SlowDown" in line
    assert root not in line


def test_a_server_has_less_patience_than_a_job(proxy, root):
    storage.write_bytes(f"{root}/a", b"1")
    calls = [
        lambda: storage.read_bytes(f"{root}/a"),
        lambda: storage.read_bytes(f"{root}/a", max_bytes=10),
        lambda: storage.list_folder(root),
        lambda: storage.create_bytes(f"{root}/b", b"1"),
        lambda: storage.delete_files([f"{root}/c"]),
    ]
    for fault, call in [*(("stall", call) for call in calls), ("slow_down", calls[0]), ("reset", calls[0])]:
        proxy.always = fault
        began = time.monotonic()
        with pytest.raises(storage.UnreachableError), storage.patience(0.2):
            call()
        assert time.monotonic() - began < 1.4  # the proxy stalls for 1.5 s
    proxy.always = None
    with storage.patience(20):
        assert storage.read_bytes(f"{root}/a") == b"1"


def test_a_store_that_was_there_and_is_gone_for_a_while_is_waited_for(store, monkeypatch, root):
    """A restart of the store, or of what stands before it: connections are refused."""
    with faulty_proxy(store["AWS_ENDPOINT_URL"]) as proxy:
        for name, value in (store | {"AWS_ENDPOINT_URL": proxy.url}).items():
            monkeypatch.setenv(name, value)
        s3.RetryingS3FileSystem.clear_instance_cache()
        storage.write_bytes(f"{root}/a", b"1")
        port = int(proxy.url.rsplit(":", 1)[1])
    before = storage.RESENDS.total
    with ThreadPoolExecutor(1) as pool:
        read = pool.submit(storage.read_bytes, f"{root}/a")
        time.sleep(1.0)
        assert not read.done()
        with faulty_proxy(store["AWS_ENDPOINT_URL"], port=port):
            assert read.result(60) == b"1"
    assert storage.RESENDS.total - before >= 2
    s3.RetryingS3FileSystem.clear_instance_cache()

"""storage.py on local disk and on S3: moto's server on loopback, a real S3 API over HTTP."""

import errno
import hashlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mets_ray import storage
from mets_ray.errors import ConfigError, DatasetError
from mets_ray.storage import MissingFileError

boto3 = pytest.importorskip("boto3")
pytest.importorskip("s3fs")
moto_server = pytest.importorskip("moto.server")
s3_module = pytest.importorskip("mets_ray.storage.s3")


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def use_endpoint(environment: pytest.MonkeyPatch, endpoint: str) -> None:
    for name, value in {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    }.items():
        environment.setenv(name, value)
    s3_module.RetryingS3FileSystem.clear_instance_cache()
    storage.faults._require_s3_bucket.cache_clear()


@pytest.fixture(scope="module")
def endpoint():
    server = moto_server.ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3(endpoint, monkeypatch):
    """A boto3 client of its own, which shares no cache with fsspec; the bucket `data` is empty."""
    use_endpoint(monkeypatch, endpoint)
    client = boto3.client("s3")
    urllib.request.urlopen(urllib.request.Request(f"{endpoint}/moto-api/reset", method="POST"))
    client.create_bucket(Bucket="data")
    yield client
    s3_module.RetryingS3FileSystem.clear_instance_cache()


def set_unchecked_requests(endpoint: str, count: bytes) -> None:
    """After so many requests moto checks access keys and signatures as AWS does; it knows no key of ours."""
    request = urllib.request.Request(f"{endpoint}/moto-api/reset-auth", data=count, method="POST")
    request.add_header("Content-Type", "text/plain")
    urllib.request.urlopen(request)


@pytest.fixture(params=["local", "file", "s3"])
def root(request, tmp_path):
    if request.param == "s3":
        request.getfixturevalue("s3")
        return "s3://data/some/folder"
    return f"file://{tmp_path}/some/folder" if request.param == "file" else f"{tmp_path}/some/folder"


@pytest.fixture
def closed_endpoint(monkeypatch):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    use_endpoint(monkeypatch, f"http://127.0.0.1:{port}")
    yield f"127.0.0.1:{port}"
    s3_module.RetryingS3FileSystem.clear_instance_cache()


# --- names


def test_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/somebody")
    assert storage.absolute("runs/a") == f"{tmp_path}/runs/a"
    assert storage.absolute("~/runs") == "/home/somebody/runs"
    assert storage.absolute("/data") == "/data"
    assert storage.absolute("s3://bucket/a/") == "s3://bucket/a"
    assert storage.absolute("file:///data") == "file:///data"


def test_join():
    assert storage.join("s3://bucket/a/", "b/", "/c.json") == "s3://bucket/a/b/c.json"
    assert storage.join("/data", "shards/a.parquet") == "/data/shards/a.parquet"
    assert storage.join("/", "a") == "/a"


def test_is_local():
    assert [storage.is_local(uri) for uri in ("/a", "a", "file:///a", "s3://a/b", "gs://a")] == [True] * 3 + [False] * 2


@pytest.mark.parametrize(("scheme", "extra"), [("gs", "gcs"), ("az", "azure"), ("abfs", "azure")])
def test_a_missing_extra_is_named(scheme, extra):
    module = {"gcs": "gcsfs", "azure": "adlfs"}[extra]
    try:
        __import__(module)
    except ImportError:
        with pytest.raises(ConfigError) as caught:
            storage.read_bytes(f"{scheme}://bucket/a")
        assert caught.value.hint == f"pip install mets_ray[{extra}]"
    else:
        pytest.skip(f"{module} is installed")


def test_unknown_scheme():
    with pytest.raises(ConfigError, match="Protocol not known: sftb"):
        storage.exists("sftb://host/a")


# --- the same on every storage


def test_write_read_replace(root):
    uri = storage.join(root, "deep/card.json")
    assert not storage.exists(uri)
    storage.write_bytes(uri, b"one")
    assert storage.read_bytes(uri) == b"one"
    storage.write_bytes(uri, b"")
    assert storage.read_bytes(uri) == b""
    assert storage.exists(uri)
    assert storage.exists(root)
    assert storage.exists(storage.join(root, "deep"))
    assert not storage.exists(storage.join(root, "dee"))


def test_missing_file(root):
    storage.write_bytes(storage.join(root, "a"), b"1")
    with pytest.raises(MissingFileError, match="does not exist"):
        storage.read_bytes(storage.join(root, "b"))


def test_linked_folders_are_listed_once_and_circles_end(tmp_path):
    for name in (
        "source/plain/A1.hea",
        "source/z/Z1.hea",
        "elsewhere/E1.hea",
        "elsewhere/deep/E2.hea",
        "beside/B1.hea",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("1")
    source = tmp_path / "source"
    (source / "georgia").symlink_to(tmp_path / "elsewhere")  # a folder on another disk
    (source / "again").symlink_to("georgia")
    (source / "deep").symlink_to(tmp_path / "elsewhere" / "deep")  # part of it
    (source / "a").symlink_to("z")  # beside the folder itself
    (source / "plain" / "round").symlink_to("..")
    (source / "plain" / "up").symlink_to(tmp_path)  # not followed: out of `source`, and through it again
    (tmp_path / "elsewhere" / "back").symlink_to(source)
    (source / "self").symlink_to("self")
    (source / "one.hea").symlink_to(tmp_path / "beside" / "B1.hea")
    (source / "gone.hea").symlink_to(tmp_path / "gone")
    names = [uri.removeprefix(f"{source}/") for uri in storage.list_files(str(source), ".hea")]
    assert names == [
        "again/E1.hea", "again/deep/E2.hea", "gone.hea", "one.hea", "plain/A1.hea", "z/Z1.hea",
    ]  # fmt: skip
    (tmp_path / "linked").symlink_to(source)
    linked = str(tmp_path / "linked")
    assert storage.list_files(linked, ".hea") == [storage.join(linked, name) for name in names]
    assert storage.list_files(str(source / "one.hea")) == []


def test_list_files(root):
    assert storage.list_files(root) == []
    for name in ("b.parquet", "a.parquet", "deep/c.parquet", "card.json"):
        storage.write_bytes(storage.join(root, name), b"1")
    names = ["a.parquet", "b.parquet", "card.json", "deep/c.parquet"]
    assert storage.list_files(root) == [storage.join(root, name) for name in names]
    assert storage.list_files(root, ".parquet") == [storage.join(root, n) for n in names if n.endswith("parquet")]
    assert all(storage.read_bytes(uri) == b"1" for uri in storage.list_files(root))


def test_publish_and_download(root, tmp_path):
    source = tmp_path / "source"
    (source / "deep").mkdir(parents=True)
    big = os.urandom(3_000_000)
    (source / "weights").write_bytes(big)
    (source / "deep" / "a").write_bytes(b"a")
    (source / "manifest.json").write_bytes(b"{}")
    storage.publish_folder(source, root, "manifest.json")
    storage.download_folder(root, str(tmp_path / "copy"))
    copied = {
        path.relative_to(tmp_path / "copy").as_posix() for path in (tmp_path / "copy").rglob("*") if path.is_file()
    }
    assert copied == {"weights", "deep/a", "manifest.json"}
    assert (tmp_path / "copy" / "weights").read_bytes() == big

    (source / "manifest.json").write_bytes(b"{2}")
    storage.publish_folder(source, root, "manifest.json")
    assert storage.read_bytes(storage.join(root, "manifest.json")) == b"{2}"


def test_publish_needs_its_manifest(root, tmp_path):
    (tmp_path / "source").mkdir()
    with pytest.raises(DatasetError, match=r"has no `manifest\.json`"):
        storage.publish_folder(tmp_path / "source", root, "manifest.json")


def test_download_of_nothing(root, tmp_path):
    with pytest.raises(MissingFileError, match="holds no files"):
        storage.download_folder(root, tmp_path / "copy")


def test_pyarrow_reads_and_writes(root):
    filesystem, path = storage.arrow_filesystem(storage.join(root, "table.parquet"))
    filesystem.create_dir(path.rpartition("/")[0])
    table = pa.table({"a": list(range(1000))})
    pq.write_table(table, path, filesystem=filesystem)
    assert pq.ParquetFile(filesystem.open_input_file(path)).read().equals(table)
    assert storage.list_files(root) == [storage.join(root, "table.parquet")]


def test_a_file_in_pieces_is_checked_where_it_is_read(root):
    uri, data = storage.join(root, "file"), os.urandom(100_000)
    whole = hashlib.sha256(data).hexdigest()
    pieces = storage.cut(data, [10, 20, 30_000, 90_000], 1_000)
    assert [piece.size for piece in pieces] == [20, 29_980, 60_000, 10_000]
    storage.write_bytes(uri, data)
    assert storage.open_checked(uri, whole).read() == data
    file = storage.open_checked(uri, whole, pieces)
    assert (file.size(), file.read_at(10, 5), file.read_at(70_000, 15)) == (100_000, data[5:15], data[15:70_015])
    flipped = bytearray(data)
    flipped[95_000] ^= 1
    storage.write_bytes(uri, bytes(flipped))
    file = storage.open_checked(uri, whole, pieces, hint="make it again")
    assert file.read_at(90_000, 0) == data[:90_000]
    with pytest.raises(storage.DamagedFileError, match=r"is damaged: bytes 90000 to 100000.*\nhint: make it again"):
        file.read_at(1, 99_999)
    with pytest.raises(storage.DamagedFileError, match="is damaged: its sha256 is not the one"):
        storage.open_checked(uri, whole)
    assert (storage.is_whole(uri, whole), storage.is_whole(f"{uri}2", whole)) == (False, False)
    with pytest.raises(MissingFileError):
        storage.open_checked(f"{uri}2", whole, pieces)


def test_many_threads(root):
    uris = [storage.join(root, f"{n:03d}") for n in range(100)]
    with ThreadPoolExecutor(32) as pool:
        list(pool.map(lambda uri: storage.write_bytes(uri, uri.encode()), uris))
        assert list(pool.map(storage.read_bytes, uris)) == [uri.encode() for uri in uris]
    assert storage.list_files(root) == uris


# --- local: whole or not at all


def test_bytes_and_names_are_on_the_disk_before_they_count(tmp_path, monkeypatch):
    """What a power cut leaves is what was synced: first the bytes, then the name, then the folder that has the name."""
    events = []
    sync, rename, link = os.fsync, os.replace, os.link

    def synced(descriptor):
        sync(descriptor)
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        events.append(("folder" if path.is_dir() else "bytes", path.stat().st_size if path.is_file() else path.name))

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", lambda *paths: (rename(*paths), events.append(("named",))))
    monkeypatch.setattr(os, "rename", lambda *paths: (rename(*paths), events.append(("named",))))
    monkeypatch.setattr(os, "link", lambda *paths: (link(*paths), events.append(("named",))))
    expected = [("bytes", 3), ("named",), ("folder", "new")]
    storage.write_bytes(str(tmp_path / "new" / "card.json"), b"abc")
    assert events == expected
    events.clear()
    storage.create_bytes(str(tmp_path / "new" / "once.json"), b"abc")
    assert events == expected
    events.clear()
    storage.publish_folder(tmp_path / "new", str(tmp_path / "bundle"), "card.json")
    assert sorted(events[:2]) == [("bytes", 3), ("bytes", 3)]
    assert [event[0] for event in events[2:]] == ["folder", "named", "folder"]


def test_local_readers_see_whole_files(tmp_path):
    uri = str(tmp_path / "file")
    storage.write_bytes(uri, b"0" * 2_000_000)
    stop = threading.Event()

    def write() -> None:
        for turn in range(10_000):
            if stop.is_set():
                return
            storage.write_bytes(uri, b"%d" % (turn % 10) * 2_000_000)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(200):
            data = storage.read_bytes(uri)
            assert len(data) == 2_000_000
            assert data == data[:1] * len(data)
    finally:
        stop.set()
        writer.join()
    assert storage.list_files(str(tmp_path)) == [uri]


def test_a_killed_writer_leaves_the_old_file(tmp_path):
    """Kill a process that rewrites a file of 20 MB all the time; leftovers are not listed."""
    uri = str(tmp_path / "file")
    code = (
        "import sys\nfrom mets_ray import storage\n"
        "for turn in range(10_000):\n"
        "    storage.write_bytes(sys.argv[1], b'%d' % (turn % 10) * 20_000_000)\n"
        "    print(turn, flush=True)\n"
    )
    for delay in (0.0, 0.013, 0.031):
        process = subprocess.Popen([sys.executable, "-c", code, uri], stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.readline()
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        data = storage.read_bytes(uri)
        assert data == data[:1] * 20_000_000
    assert storage.list_files(str(tmp_path)) == [uri]


def test_a_failed_write_leaves_nothing(tmp_path):
    (tmp_path / "file").mkdir()
    with pytest.raises(DatasetError, match="cannot be used"):
        storage.write_bytes(str(tmp_path / "file"), b"1")
    (tmp_path / "plain").write_bytes(b"")
    with pytest.raises(DatasetError, match="cannot be used"):
        storage.write_bytes(str(tmp_path / "plain" / "below"), b"1")
    assert names_in(tmp_path) == ["file", "plain"]


def test_local_publish_replaces_all_or_nothing(tmp_path):
    source, target = tmp_path / "source", tmp_path / "bundles" / "best"
    source.mkdir()
    (source / "manifest.json").write_bytes(b"1")
    (source / "old").write_bytes(b"")
    storage.publish_folder(source, str(target), "manifest.json")
    (source / "old").unlink()
    (source / "broken").symlink_to(tmp_path / "nowhere")
    (source / "manifest.json").write_bytes(b"2")
    with pytest.raises(DatasetError):
        storage.publish_folder(source, str(target), "manifest.json")
    assert names_in(target) == ["manifest.json", "old"]
    assert (target / "manifest.json").read_bytes() == b"1"

    (source / "broken").unlink()
    storage.publish_folder(source, str(target), "manifest.json")
    assert names_in(target) == ["manifest.json"]
    assert (target / "manifest.json").read_bytes() == b"2"
    assert names_in(target.parent) == ["best"]


# --- S3


def test_s3_listings_are_not_remembered(s3):
    storage.write_bytes("s3://data/a/1", b"")
    assert storage.list_files("s3://data/a") == ["s3://data/a/1"]
    assert not storage.exists("s3://data/a/2")
    s3.put_object(Bucket="data", Key="a/2", Body=b"2")
    assert storage.exists("s3://data/a/2")
    assert storage.list_files("s3://data/a") == ["s3://data/a/1", "s3://data/a/2"]
    s3.delete_object(Bucket="data", Key="a/1")
    assert not storage.exists("s3://data/a/1")
    assert storage.list_files("s3://data/a") == ["s3://data/a/2"]


def test_s3_publish_puts_the_manifest_last(s3, tmp_path):
    """An upload that fails on its way, at a file that cannot be read, leaves no manifest, not even the old one."""
    if not Path("/proc/self/mem").exists():
        pytest.skip("needs a file that opens and cannot be read: Linux's /proc/self/mem")
    source = tmp_path / "source"
    source.mkdir()
    (source / "manifest.json").write_bytes(b"{}")
    storage.publish_folder(source, "s3://data/bundle", "manifest.json")
    assert storage.exists("s3://data/bundle/manifest.json")
    (source / "a").write_bytes(b"1")
    (source / "z").symlink_to("/proc/self/mem")
    with pytest.raises(DatasetError, match="Input/output error"):
        storage.publish_folder(source, "s3://data/bundle", "manifest.json")
    assert storage.list_files("s3://data/bundle") == ["s3://data/bundle/a"]


def test_download_stays_in_its_folder(s3, tmp_path):
    s3.put_object(Bucket="data", Key="bundle/../../escaped", Body=b"1")
    with pytest.raises(DatasetError, match="outside the folder"):
        storage.download_folder("s3://data/bundle", tmp_path / "a" / "b")
    assert not list(tmp_path.rglob("escaped"))


CALLS = {
    "read": storage.read_bytes,
    "exists": storage.exists,
    "list": storage.list_files,
    "write": lambda uri: storage.write_bytes(uri, b"1"),
}


@pytest.mark.parametrize("call", CALLS)
def test_s3_missing_bucket_is_no_missing_file(s3, call):
    with pytest.raises(DatasetError, match="there is no bucket `absent`") as caught:
        CALLS[call]("s3://absent/a")
    assert not isinstance(caught.value, MissingFileError)


def test_s3_listing_a_whole_bucket(s3):
    assert storage.list_files("s3://data") == []
    storage.write_bytes("s3://data/a", b"1")
    assert storage.list_files("s3://data") == ["s3://data/a"]
    with pytest.raises(DatasetError, match="there is no bucket `absent`"):
        storage.list_files("s3://absent")


@pytest.mark.parametrize("call", CALLS)
def test_s3_wrong_credentials(s3, endpoint, call):
    storage.write_bytes("s3://data/a", b"1")
    set_unchecked_requests(endpoint, b"0")
    try:
        with pytest.raises(DatasetError, match="access to `s3://data/a` is refused") as caught:
            CALLS[call]("s3://data/a")
    finally:
        set_unchecked_requests(endpoint, b"inf")
    assert not isinstance(caught.value, MissingFileError)
    assert "credentials" in caught.value.hint


def test_s3_no_credentials(s3, monkeypatch):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    s3_module.RetryingS3FileSystem.clear_instance_cache()
    with pytest.raises(DatasetError, match=r"is refused.*Unable to locate credentials"):
        storage.read_bytes("s3://data/a")


@pytest.mark.parametrize("call", CALLS)
def test_s3_unreachable(closed_endpoint, call):
    started = time.monotonic()
    with pytest.raises(DatasetError, match="cannot be reached") as caught:
        CALLS[call]("s3://data/a")
    assert time.monotonic() - started < 20
    assert closed_endpoint in caught.value.fact
    assert not isinstance(caught.value, MissingFileError)


def test_a_file_is_created_by_one_writer_only(root):
    uri = storage.join(root, "versions", "00000001.json")
    assert storage.create_bytes(uri, b"first")
    assert not storage.create_bytes(uri, b"second")
    assert storage.read_bytes(uri) == b"first"


def test_of_many_creators_at_a_time_one_wins(root):
    uri = storage.join(root, "version.json")
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda number: storage.create_bytes(uri, b"%d" % number), range(16)))
    assert made.count(True) == 1
    assert storage.read_bytes(uri) == b"%d" % made.index(True)


def test_a_folder_is_listed_at_one_depth(root, tmp_path):
    for name in ("b", "a", "sub/c", "sub/deeper/d"):
        storage.write_bytes(f"{root}/{name}", name.encode())
    assert storage.list_folder(root) == [
        ("a", False, 1),
        ("b", False, 1),
        ("sub", True, storage.list_folder(root)[2][2]),
    ]
    assert [entry.name for entry in storage.list_folder(f"{root}/sub")] == ["c", "deeper"]
    assert storage.list_folder(f"{root}/nothing") == []
    (tmp_path / "linked").symlink_to(tmp_path)
    assert {entry.name: entry.is_folder for entry in storage.list_folder(str(tmp_path))}["linked"]
    with pytest.raises(storage.NotAFolderError, match="is a file"):
        storage.list_folder(f"{root}/a")


def test_bytes_are_counted_without_the_files_that_are_too_large(root):
    for name, size in (("a", 10), ("sub/b", 20), ("sub/c", 1000)):
        storage.write_bytes(f"{root}/{name}", bytes(size))
    assert storage.folder_bytes(root, max_file_bytes=1000) == 1030
    assert storage.folder_bytes(root, max_file_bytes=999) == 30
    assert storage.folder_bytes(f"{root}/nothing", max_file_bytes=1) == 0


def test_files_are_deleted_and_may_be_gone_already(root):
    for name in ("a", "sub/b", "sub/c", "keep/d"):
        storage.write_bytes(f"{root}/{name}", b"1")
    gone = [f"{root}/{name}" for name in ("a", "sub/b", "sub/c", "nothing", "none/at/all")]
    storage.delete_files(gone)
    storage.delete_files(gone)
    storage.delete_files([])
    assert storage.list_files(root) == [f"{root}/keep/d"]
    assert [entry.name for entry in storage.list_folder(root)] == ["keep"]


def test_a_file_that_is_too_large_or_none_is_refused_before_it_is_read(root, tmp_path):
    storage.write_bytes(f"{root}/a", b"12345")
    assert storage.read_bytes(f"{root}/a", max_bytes=5) == b"12345"
    with pytest.raises(DatasetError, match="has 5 bytes; at most 4"):
        storage.read_bytes(f"{root}/a", max_bytes=4)
    with pytest.raises(MissingFileError):
        storage.read_bytes(f"{root}/b", max_bytes=4)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DatasetError, match="is not a file"):
        storage.read_bytes(str(tmp_path / "pipe"), max_bytes=4)


@pytest.mark.parametrize("reason", [errno.EPERM, errno.ENOTSUP, errno.ENOSYS])
def test_a_file_is_created_by_one_writer_where_there_are_no_hard_links(tmp_path, monkeypatch, reason):
    def refuse(*paths):
        raise OSError(reason, os.strerror(reason))

    monkeypatch.setattr(os, "link", refuse)
    test_a_file_is_created_by_one_writer_only(str(tmp_path / "a"))
    test_of_many_creators_at_a_time_one_wins(str(tmp_path / "b"))

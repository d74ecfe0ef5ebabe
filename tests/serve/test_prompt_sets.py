"""Registered class lists on a bad day: damaged and foreign files, flipped bits, a silent store, endless writers."""

import asyncio
import json
import os
import shutil
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from mets_ray import storage
from mets_ray.errors import DatasetError
from mets_ray.model.bundle import read_facts
from mets_ray.serve import examples
from mets_ray.serve.class_lists import ClassList
from mets_ray.serve.prompt_set_files import DamagedFileError, PromptSetFiles
from mets_ray.serve.settings import ServeConfig
from mets_ray.serve.store_calls import StoreCalls
from tests.support.faulty_proxy import faulty_proxy
from tests.support.s3 import s3_server
from tests.support.serving import json_ecg, make_bundle, plain_server, synthetic_ecg

ECG = json_ecg(synthetic_ecg())
FIRST, SECOND = ["sinus rhythm", "atrial fibrillation"], ["sinus rhythm", "pacemaker rhythm"]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return make_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture
def state(tmp_path):
    return tmp_path / "state"


@pytest.fixture
def files(bundle, state):
    """The files alone, with features of 16 values."""
    facts = read_facts(str(bundle)).model_copy(update={"text_features": 16})
    return PromptSetFiles(str(state), facts, ServeConfig(bundle_uri=str(bundle)))


def put(client, name, labels, status=201):
    answer = client.put(f"/v1/prompt-sets/{name}", json={"candidate_labels": labels})
    assert answer.status_code == status, answer.text
    return answer.json()


def use(client, reference):
    return client.post("/v1/zero-shot", json={"ecg": ECG, "prompt_set": reference})


def refused(answer, status, reason):
    assert (answer.status_code, answer.json()["error"]["reason"]) == (status, reason), answer.text
    return answer.json()["error"]


def similarities(answer):
    assert answer.status_code == 200, answer.text
    return [row["similarity"] for row in answer.json()["classes"]]


def reasons(answer):
    assert answer.status_code == 200, answer.text
    return {warned["reason"] for warned in answer.json()["warnings"]}


def registered(model):
    return {f"{one['name']}@{one['version']}" for one in model["prompt_sets"] if one["origin"] == "registered"}


# One damaged or foreign file --------------------------------------------------------------------------------------


def rewritten(**changes):
    """The file with other facts, its hash unchanged."""

    def damage(path):
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return damage


def truncated(path):
    os.truncate(path, path.stat().st_size // 2)


def huge(path):
    os.truncate(path, 2**40)


def folder(path):
    path.unlink()
    (path / "x").mkdir(parents=True)
    (path / "x" / "y.json").write_text("{}")


def empty_folder(path):
    path.unlink()
    path.mkdir()


def pipe(path):
    path.unlink()
    os.mkfifo(path)


def nowhere(path):
    path.unlink()
    path.symlink_to("/nothing/at/all")


def loop(path):
    path.unlink()
    path.symlink_to(path)


KINDS = {
    "empty": lambda path: path.write_bytes(b""),
    "truncated": truncated,
    "list": lambda path: path.write_text("[]"),
    "number": lambda path: path.write_text("1"),
    "null": lambda path: path.write_text("null"),
    "object": lambda path: path.write_text("{}"),
    "deep": lambda path: path.write_text("[" * 200_000),
    "deep object": lambda path: path.write_text('{"classes":' * 100_000),
    "html": lambda path: path.write_text("<html>503</html>"),
    "binary": lambda path: path.write_bytes(np.random.default_rng(0).bytes(5000)),
    "zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "utf-16": lambda path: path.write_text(path.read_text(), encoding="utf-16"),
    "huge": huge,
    "folder": folder,
    "empty folder": empty_folder,
    "pipe": pipe,
    "link to nothing": nowhere,
    "link to itself": loop,
    "wrong hash": rewritten(sha256="0" * 64),
    "no hash": lambda path: path.write_text(json.dumps({**json.loads(path.read_text()), "sha256": None})),
    "other classes": rewritten(classes={"sinus rhythm": ["atrial fibrillation"]}),
    "newer schema": rewritten(schema_version=3),
    "older schema": rewritten(schema_version=1),
    "negative schema": rewritten(schema_version=-1),
    "other name": rewritten(name="other"),
    "other version": rewritten(version=1),
    "more keys": rewritten(surprise=1),
}


@pytest.fixture(scope="module")
def damaged_server(bundle, tmp_path_factory):
    """A server that keeps nothing in memory, so that every request reads the files."""
    state = tmp_path_factory.mktemp("state")
    with plain_server(bundle, state_uri=str(state), prompt_set_refresh_s=1e-6, prompt_set_cache_bytes=1) as (client, _):
        put(client, "sound", FIRST)
        yield client, state


@pytest.mark.parametrize("kind", KINDS)
def test_one_damaged_version_hides_nothing_else(damaged_server, kind):
    client, state = damaged_server
    name = kind.replace(" ", "-")
    put(client, name, FIRST)
    put(client, name, SECOND)
    KINDS[kind](state / "prompt_sets" / name / "00000002.json")
    file = f"prompt_sets/{name}/00000002.json"

    model = client.get("/v1/model")
    assert "damaged_file" in reasons(model) or kind == "link to nothing"
    assert {"sound@1", f"{name}@1"} <= registered(model.json())
    newest = use(client, name)
    assert similarities(newest) == similarities(use(client, f"{name}@1")) == similarities(use(client, "sound"))
    assert newest.json()["prompt_set"] == f"{name}@1"
    if kind == "link to nothing":  # no file at all
        refused(use(client, f"{name}@2"), 404, "unknown_prompt_set")
    else:
        assert file in newest.json()["warnings"][0]["message"]
        assert file in "".join(warned["message"] for warned in model.json()["warnings"])
        assert file in refused(use(client, f"{name}@2"), 500, "damaged_file")["message"]
    assert str(state) not in model.text.replace(model.json()["bundle_uri"], "")

    assert put(client, name, SECOND)["prompt_set"] == f"{name}@3"
    assert use(client, name).json()["prompt_set"] == f"{name}@3"
    assert client.delete(f"/v1/prompt-sets/{name}").status_code == 200
    refused(use(client, name), 410, "retired_prompt_set")
    assert put(client, name, FIRST)["version"] == 4
    assert similarities(use(client, name)) == similarities(use(client, "sound"))
    client.delete(f"/v1/prompt-sets/{name}")


def test_a_name_of_which_nothing_can_be_read_says_so_and_can_be_written(damaged_server):
    client, state = damaged_server
    put(client, "alone", FIRST)
    truncated(state / "prompt_sets" / "alone" / "00000001.json")
    assert "prompt_sets/alone/00000001.json" in refused(use(client, "alone"), 500, "damaged_file")["message"]
    assert "sound@1" in registered(client.get("/v1/model").json())
    assert put(client, "alone", FIRST)["prompt_set"] == "alone@2"
    assert similarities(use(client, "alone")) == similarities(use(client, "sound"))


def test_foreign_files_are_named_and_count_for_nothing(damaged_server):
    client, state = damaged_server
    put(client, "among", FIRST)
    root = state / "prompt_sets"
    foreign = [
        root / ".DS_Store",
        root / "README.md",
        root / "Upper" / "00000001.json",
        root / "a b" / "00000001.json",
        root / "among" / "notes.txt",
        root / "among" / "2.json",
        root / "among" / "00000000.json",
        root / "among" / "99999999.json",
        root / "among" / "00000003.json.bak",
        root / "among" / "sub" / "00000009.json",
        root / "among" / "٠٠٠٠٠٠٠٤.json",
    ]
    for path in foreign:
        path.parent.mkdir(exist_ok=True)
        path.write_text("{}")
    (root / "a-file").write_text("where a folder should be")
    model = client.get("/v1/model")
    assert {"sound@1", "among@1"} <= registered(model.json())
    shown = "".join(warned["message"] for warned in model.json()["warnings"])
    for named in (".DS_Store", "README.md", "'prompt_sets/Upper'", "a-file", "among/2.json", "among/sub", "99999999"):
        assert named in shown, named
    assert reasons(use(client, "among")) == set()
    assert put(client, "among", SECOND)["prompt_set"] == "among@2"
    assert "prompt_sets/a-file" in refused(use(client, "a-file"), 500, "damaged_file")["message"]
    answer = client.put("/v1/prompt-sets/a-file", json={"candidate_labels": FIRST})
    assert "prompt_sets/a-file" in refused(answer, 500, "damaged_file")["message"]
    assert put(client, "after-it", FIRST)["prompt_set"] == "after-it@1"


@pytest.mark.parametrize("part", ["retired", "retired/mine", "text_features"])
def test_a_file_where_a_folder_should_be_stops_only_what_is_in_it(bundle, state, part):
    with plain_server(bundle, state_uri=str(state)) as (client, _):
        put(client, "mine", FIRST)
    if part == "text_features":
        shutil.rmtree(state / part)
    (state / part).parent.mkdir(exist_ok=True)
    (state / part).write_text("a file")
    with plain_server(bundle, state_uri=str(state)) as (client, _):
        assert registered(client.get("/v1/model").json()) == {"mine@1"}
        assert similarities(use(client, "mine"))
        assert similarities(use(client, "mine@1"))
        if part != "text_features":
            assert put(client, "mine", SECOND)["version"] == 2


def test_a_list_beyond_todays_limits_is_named_when_it_is_read(bundle, state):
    with plain_server(bundle, state_uri=str(state)) as (client, _):
        put(client, "long", [f"class {number}" for number in range(20)])
        put(client, "short", FIRST)
    with plain_server(bundle, state_uri=str(state), max_classes=10) as (client, _):
        assert registered(client.get("/v1/model").json()) == {"short@1"}
        assert "20 classes" in refused(use(client, "long"), 500, "damaged_file")["message"]


def test_versions_of_schema_1_are_read_and_their_features_computed_again(bundle, state):
    path = state / "prompt_sets" / "old" / "00000007.json"
    path.parent.mkdir(parents=True)
    texts = {label: [label] for label in ("sinus rhythm", "a class of old times")}
    path.write_text(
        json.dumps({"schema_version": 1, "name": "old", "version": 7, "classes": texts, "hypothesis_template": None})
    )
    with plain_server(bundle, state_uri=str(state)) as (client, counts):
        expected = client.post("/v1/zero-shot", json={"ecg": ECG, "candidate_labels": list(texts)})
        assert similarities(use(client, "old")) == similarities(expected)
        assert len(counts.lm_texts) == 1
        assert put(client, "old", FIRST)["version"] == 8


# Flipped bits ------------------------------------------------------------------------------------------------------


def test_each_flipped_bit_of_a_version_is_found_or_changes_nothing(files, state):
    written = ClassList({"A": ("alpha wave", "beta"), "B": ("γ wave",)}, "ECG: {}", "mine", 1)
    assert files.create(written)
    assert not files.create(written)
    path = state / "prompt_sets" / "mine" / "00000001.json"
    sound, counts = path.read_bytes(), Counter()
    for bit in range(8 * len(sound)):
        path.write_bytes(flipped(sound, bit))
        found = or_fault(lambda: files.read("mine", 1))
        counts["found" if isinstance(found, DamagedFileError) else "without effect"] += 1
        assert getattr(found, "file", None) == "prompt_sets/mine/00000001.json" or found.is_same_as(written)
    print(f"version file: {8 * len(sound)} flips, {dict(counts)}")
    assert counts["found"] > 0.9 * 8 * len(sound)


def test_each_flipped_bit_of_features_is_found_or_changes_nothing(files, state):
    texts = ["alpha", "beta"]
    features = np.random.default_rng(0).normal(size=(2, 16)).astype(np.float16)
    files.keep_features("mine", texts, features)
    (path,) = (state / "text_features").rglob("*.safetensors")
    sound, counts = path.read_bytes(), Counter()
    for bit in range(8 * len(sound)):
        path.write_bytes(flipped(sound, bit))
        found = or_fault(lambda: files.read_features("mine", texts))
        counts["found" if isinstance(found, DamagedFileError) else "without effect"] += 1
        assert path.name in getattr(found, "file", "") or np.array_equal(found, features)
    print(f"feature file: {8 * len(sound)} flips, {dict(counts)}")
    assert counts["found"] > 0.95 * 8 * len(sound)
    files.keep_features("mine", texts, features)  # replaces what is damaged
    assert path.read_bytes() == sound


def or_fault(read):
    try:
        return read()
    except DamagedFileError as error:
        return error


def flipped(data, bit):
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def test_features_of_other_texts_or_another_count_are_not_taken(files, state):
    lists = {"one": ["a"], "two": ["a", "b"], "other-two": ["c", "d"]}
    for name, texts in lists.items():
        files.keep_features(name, texts, np.ones((len(texts), 16), np.float16))
    paths = {name: next((state / "text_features").glob(f"*/{name}/*")) for name in lists}
    written = {name: path.read_bytes() for name, path in paths.items()}
    for name, texts in lists.items():
        for other in lists:
            paths[name].write_bytes(written[other])
            if other == name:
                assert files.read_features(name, texts).shape == (len(texts), 16)
            else:
                with pytest.raises(DamagedFileError, match=paths[name].name):
                    files.read_features(name, texts)


FEATURE_KINDS = {
    kind: KINDS[kind]
    for kind in ("empty", "truncated", "object", "html", "binary", "zeros", "huge", "folder", "pipe", "link to itself")
}
FEATURE_KINDS["last bit"] = lambda path: path.write_bytes(flipped(path.read_bytes(), 8 * path.stat().st_size - 2))


@pytest.fixture(scope="module")
def feature_servers(bundle, tmp_path_factory):
    """A state with a registered list for every kind of damage to its features, and the scores of each before that."""
    state = tmp_path_factory.mktemp("features")
    expected = {}
    with plain_server(bundle, state_uri=str(state)) as (client, _):
        for kind in FEATURE_KINDS:
            put(client, kind.replace(" ", "-"), [f"the first class, {kind}", f"the second class, {kind}"])
            expected[kind] = similarities(use(client, kind.replace(" ", "-")))
    for kind, damage in FEATURE_KINDS.items():
        (path,) = (state / "text_features").glob(f"*/{kind.replace(' ', '-')}/*.safetensors")
        damage(path)
    return state, expected


def test_damaged_features_without_an_lm_are_an_error_that_names_the_file(bundle, feature_servers):
    state, _ = feature_servers
    with plain_server(bundle, state_uri=str(state), with_lm=False) as (client, _):
        for kind in FEATURE_KINDS:
            message = refused(use(client, kind.replace(" ", "-")), 500, "damaged_file")["message"]
            assert message.startswith("`text_features/")
            assert f"/{kind.replace(' ', '-')}/" in message
        assert client.post("/v1/zero-shot", json={"ecg": ECG, "prompt_set": "mets:synthetic"}).status_code == 200


def test_damaged_features_are_computed_again_and_stored_again(bundle, feature_servers):
    state, expected = feature_servers
    with plain_server(bundle, state_uri=str(state)) as (client, counts):
        for number, kind in enumerate(FEATURE_KINDS):
            assert similarities(use(client, kind.replace(" ", "-"))) == expected[kind], kind
            assert len(counts.lm_texts) == number + 1, kind
    with plain_server(bundle, state_uri=str(state), with_lm=False) as (client, _):
        for kind in expected.keys() - {"folder"}:  # what holds files of others is left alone
            assert similarities(use(client, kind.replace(" ", "-"))) == expected[kind], kind


# Names and texts that are no such thing ----------------------------------------------------------------------------


@pytest.mark.parametrize("character", ["\0", "\x01", "\n", "\r", "\t", "\x1b", "\x7f", "\x85", "\u2028", "\u2029"])
def test_control_characters_are_refused_in_every_text(damaged_server, character):
    client, _ = damaged_server
    text = f"sinus{character}rhythm"
    for body in (
        {"candidate_labels": [text]},
        {"candidate_labels": FIRST, "hypothesis_template": f"ECG{character}{{}}"},
        {"classes": {text: ["sinus rhythm"]}},
        {"classes": {"SR": ["sinus rhythm", text]}},
    ):
        refused(client.put("/v1/prompt-sets/control", json=body), 422, "control_character")
    for body in ({"candidate_labels": [text]}, {"candidate_labels": FIRST, "hypothesis_template": f"{text} {{}}"}):
        refused(client.post("/v1/zero-shot", json={"ecg": ECG} | body), 422, "control_character")
    embedded = client.post("/v1/embed", json={"texts": [text]})  # a report may have lines
    assert embedded.status_code == (200 if character in "\n\r\t\u2028\u2029" else 422)


def test_a_repeated_text_counts_each_time(damaged_server):
    client, _ = damaged_server
    assert len(client.post("/v1/embed", json={"texts": ["sinus rhythm"] * 256}).json()["embeddings"]) == 256
    refused(client.post("/v1/embed", json={"texts": ["sinus rhythm"] * 257}), 422, "too_many_classes")


def test_no_list_can_take_the_features_of_another(bundle, state):
    """Joined by any character, these lists would be one: the key is a list, and belongs to a name."""
    lists = [["sinus rhythm", "pacing"], ["sinus rhythm pacing"], ['sinus rhythm", "pacing'], ["sinus rhythm,pacing"]]
    with plain_server(bundle, state_uri=str(state)) as (client, _):
        for number, labels in enumerate(lists):
            put(client, f"list-{number}", labels)
        expected = [similarities(use(client, f"list-{number}")) for number in range(len(lists))]
    assert len(list((state / "text_features").rglob("*.safetensors"))) == len(lists)
    with plain_server(bundle, state_uri=str(state), with_lm=False) as (client, _):
        assert [similarities(use(client, f"list-{number}")) for number in range(len(lists))] == expected


@pytest.mark.parametrize("reference", ["mine@0", "mine@01", "mine@٣", "mine@", "mine@-1", "mine@1@1", "mine\n", "../x"])
def test_references_have_one_spelling(damaged_server, reference):
    client, _ = damaged_server
    refused(use(client, reference), 404, "unknown_prompt_set")


# A silent store ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def s3_proxy():
    with s3_server() as store, faulty_proxy(store["AWS_ENDPOINT_URL"], stall_s=600.0) as proxy:
        with pytest.MonkeyPatch.context() as environment:
            for name, value in (store | {"AWS_ENDPOINT_URL": proxy.url}).items():
                environment.setenv(name, value)
            clear()
            yield proxy
        clear()


def clear():
    from mets_ray.storage.s3 import RetryingS3FileSystem

    RetryingS3FileSystem.clear_instance_cache()
    storage.faults._require_s3_bucket.cache_clear()


def test_while_the_store_is_silent_all_that_needs_no_store_is_answered(bundle, s3_proxy):
    settings = {"state_uri": "s3://ecg/silent", "prompt_set_refresh_s": 0.1}
    with plain_server(bundle, **settings) as (client, _):  # with patience: a first connection takes longest
        put(client, "mine", FIRST)
        put(client, "other", ["a class that only the store knows"])
    with plain_server(bundle, **settings, store_patience_s=1.0) as (client, _):
        assert registered(client.get("/v1/model").json()) == {"mine@1", "other@1"}
        expected = similarities(use(client, "mine"))
        time.sleep(0.2)
        s3_proxy.always = "stall"
        asked = {
            "bare name": lambda: use(client, "mine"),
            "exact name": lambda: use(client, "mine@1"),
            "set of the bundle": lambda: use(client, "mets:synthetic"),
            "labels": lambda: client.post("/v1/zero-shot", json={"ecg": ECG, "candidate_labels": FIRST}),
            "model": lambda: client.get("/v1/model"),
            "list": lambda: client.get("/v1/prompt-sets"),
            "examples": lambda: client.get("/v1/examples/afib"),
            "preview": lambda: client.post("/v1/ecg", json=ECG),
            "embed": lambda: client.post("/v1/embed", json={"texts": FIRST}),
            "unknown name": lambda: use(client, "nobody-knows"),
            "unknown version": lambda: use(client, "mine@2"),
            "put": lambda: client.put("/v1/prompt-sets/new", json={"candidate_labels": FIRST}),
            "delete": lambda: client.delete("/v1/prompt-sets/mine"),
        }

        def timed(kind):
            began = time.monotonic()
            return kind, asked[kind](), time.monotonic() - began

        with ThreadPoolExecutor(16) as pool:
            answers = list(pool.map(timed, [kind for _ in range(10) for kind in asked]))
        needs_the_store = {"unknown name", "unknown version", "put", "delete"}
        for kind, answer, seconds in answers:
            assert seconds < 5.0, (kind, seconds)
            if kind in needs_the_store:
                refused(answer, 503, "storage")
                assert answer.headers["retry-after"] == "1"
            else:
                assert answer.status_code == 200, (kind, answer.text)
            if kind in ("bare name", "exact name"):
                assert similarities(answer) == expected
            if kind in ("bare name", "model", "list"):
                assert reasons(answer) == {"store_silent"}
            if kind in ("model", "list"):
                assert registered(answer.json()) == {"mine@1", "other@1"}
        served = Counter(answer.status_code for _, answer, _ in answers)
        print(f"silent store: {len(answers)} requests, {dict(served)}, longest {max(s for *_, s in answers):.2f} s")
        assert served == {200: 90, 503: 40}

        s3_proxy.always = None
        deadline = time.monotonic() + 20
        while use(client, "nobody-knows").status_code != 404:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        time.sleep(0.2)
        assert reasons(use(client, "mine")) == set()
        assert put(client, "mine", SECOND)["version"] == 2


def test_a_store_that_refuses_connections_at_the_start_stops_nothing(bundle, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    clear()
    try:
        with plain_server(bundle, state_uri="s3://ecg/none", store_patience_s=1.0) as (client, _):
            assert reasons(client.get("/v1/model")) == {"store_silent"}
            assert similarities(use(client, "mets:synthetic"))
            refused(use(client, "mine"), 503, "storage")
    finally:
        clear()


def test_damaged_and_foreign_objects_in_s3(bundle, s3_proxy):
    settings = {"state_uri": "s3://ecg/damaged", "prompt_set_refresh_s": 1e-6, "prompt_set_cache_bytes": 1}
    root = "s3://ecg/damaged/prompt_sets"
    with plain_server(bundle, **settings) as (client, _):
        put(client, "sound", FIRST)
        kinds = {"empty": b"", "half": None, "other": b"[1]", "large": b" " * (5 * 2**20)}
        for name, content in kinds.items():
            put(client, name, FIRST)
            put(client, name, SECOND)
            uri = f"{root}/{name}/00000002.json"
            storage.write_bytes(uri, storage.read_bytes(uri)[:50] if content is None else content)
        put(client, "place", FIRST)
        storage.write_bytes(f"{root}/place/00000002.json/x", b"{}")
        storage.write_bytes(f"{root}/README.md", b"hello")
        storage.write_bytes(f"{root}/sound/notes.txt", b"hello")
        model = client.get("/v1/model")
        shown = "".join(warned["message"] for warned in model.json()["warnings"])
        assert registered(model.json()) == {f"{name}@1" for name in ("sound", "place", *kinds)}
        for name in (*kinds, "place"):
            assert f"prompt_sets/{name}/00000002.json" in shown
            assert use(client, name).json()["prompt_set"] == f"{name}@1"
            assert put(client, name, SECOND)["version"] == 3
        assert "README.md" in shown
        assert "notes.txt" in shown
        assert client.delete("/v1/prompt-sets/large").json() == {"name": "large", "retired_through_version": 3}
        refused(use(client, "large@1"), 410, "retired_prompt_set")
        assert not storage.list_files(f"{root}/large")
        assert not [uri for uri in storage.list_files("s3://ecg/damaged/text_features") if "/large/" in uri]
        assert put(client, "large", FIRST)["version"] == 4


def test_calls_that_hang_hold_no_thread_of_others_and_are_shared():
    released, ran = threading.Event(), Counter()

    def hang():
        ran["hang"] += 1
        released.wait(60)
        return "late"

    async def tried():
        calls = StoreCalls(0.3)
        assert await calls("a", lambda: 1) == 1
        began = time.monotonic()
        faults = await asyncio.gather(*(calls("hang", hang) for _ in range(50)), return_exceptions=True)
        assert {type(fault) for fault in faults} == {storage.UnreachableError}
        assert ran == {"hang": 1}
        others = await asyncio.gather(*(calls(number, hang) for number in range(50)), return_exceptions=True)
        assert {type(fault) for fault in others} == {storage.UnreachableError}
        assert ran["hang"] == 1  # none of these was begun: the store was silent a moment ago
        assert time.monotonic() - began < 5
        assert await asyncio.to_thread(lambda: 2) == 2
        assert not calls.is_answering
        released.set()
        while not calls.is_answering:  # the call that hung has ended
            await asyncio.sleep(0.01)
        shared = await asyncio.gather(*(calls("b", lambda: time.sleep(0.1) or ran.update(["b"])) for _ in range(20)))
        assert (shared, ran["b"]) == ([None] * 20, 1)
        with pytest.raises(DatasetError, match="one file"):
            await calls("c", fail)
        assert calls.is_answering

    def fail():
        raise DatasetError("about one file")

    asyncio.run(tried())


# No growth without an end ------------------------------------------------------------------------------------------


def test_retiring_a_name_removes_its_files_and_keeps_its_numbers(bundle, state):
    settings = {"state_uri": str(state), "prompt_set_refresh_s": 0.2}
    with plain_server(bundle, **settings) as (client, _), plain_server(bundle, **settings) as (other, _):
        put(client, "mine", FIRST)
        put(client, "mine", SECOND)
        put(client, "stays", FIRST)
        assert [use(other, reference).status_code for reference in ("mine", "mine@1", "mine@2")] == [200] * 3
        for _ in range(2):
            answer = client.delete("/v1/prompt-sets/mine")
            assert (answer.status_code, answer.json()) == (200, {"name": "mine", "retired_through_version": 2})
        for reference in ("mine", "mine@1", "mine@2"):
            refused(use(client, reference), 410, "retired_prompt_set")
        refused(use(client, "mine@3"), 404, "unknown_prompt_set")
        time.sleep(0.3)
        refused(use(other, "mine@1"), 410, "retired_prompt_set")  # it is time to ask the store
        refused(use(other, "mine"), 410, "retired_prompt_set")
        assert registered(client.get("/v1/model").json()) == {"stays@1"}
        left = sorted(str(path.relative_to(state)) for path in state.rglob("*") if path.is_file())
        assert [path for path in left if "mine" in path] == ["retired/mine/00000002.json"]
        assert len(left) == 3
        assert put(client, "mine", FIRST)["version"] == 3
        assert use(client, "mine").json()["prompt_set"] == "mine@3"
        refused(client.delete("/v1/prompt-sets/never"), 404, "unknown_prompt_set")
        refused(client.delete("/v1/prompt-sets/mets"), 409, "reserved_name")
        refused(client.delete("/v1/prompt-sets/Mine"), 422, "bad_name")
    with plain_server(bundle) as (client, _):
        refused(client.delete("/v1/prompt-sets/mine"), 403, "no_state")


def test_quotas_by_name_and_in_all(bundle, state):
    width = read_facts(str(bundle)).text_features
    settings = {"max_prompt_sets": 3, "max_prompt_set_versions": 4, "max_prompt_set_bytes": 30 * 2 * width}
    with plain_server(bundle, state_uri=str(state), max_state_bytes=50 * 2 * width, **settings) as (client, _):

        def refuse(name, labels, reason):
            body = {"candidate_labels": labels}
            error = refused(client.put(f"/v1/prompt-sets/{name}", json=body), 409, reason)
            assert "the limit is `max_" in error["message"]
            assert "DELETE" in error["hint"]

        for number in range(4):
            put(client, "a", [f"class {number}"])
        refuse("a", ["class 5"], "too_many_versions")
        assert put(client, "a", ["class 3"], status=200)["version"] == 4  # nothing new
        refuse("b", [f"class {number}" for number in range(40)], "prompt_set_too_large")
        put(client, "b", [f"class {number}" for number in range(25)])
        put(client, "c", FIRST)
        refuse("d", FIRST, "too_many_prompt_sets")
        refuse("c", [f"class {number}" for number in range(22)], "store_full")
        assert client.delete("/v1/prompt-sets/b").status_code == 200
        assert put(client, "d", [f"class {number}" for number in range(22)])["version"] == 1
        put(client, "c", SECOND)
        for _ in range(28):
            client.delete("/v1/prompt-sets/d")
            put(client, "d", FIRST)
        assert len(list((state / "retired").iterdir())) == 2


def test_retired_names_have_a_limit_too(bundle, state):
    with plain_server(bundle, state_uri=str(state), max_prompt_sets=1) as (client, _):
        for number in range(10):
            put(client, f"name-{number}", FIRST)
            client.delete(f"/v1/prompt-sets/name-{number}")
        answer = client.put("/v1/prompt-sets/name-10", json={"candidate_labels": FIRST})
        refused(answer, 409, "too_many_prompt_sets")
        assert put(client, "name-3", FIRST)["version"] == 2


def test_memory_is_bounded_by_bytes(bundle, state):
    from tests.support.serving import Counts, make_service

    service = make_service(bundle, Counts(), state_uri=str(state), prompt_set_cache_bytes=20_000, text_cache_texts=2048)

    async def write():
        for number in range(40):
            texts = {f"class {index}": (f"class {index} of {number}",) for index in range(10)}
            service.predictor.keep_features(
                [text for one in texts.values() for text in one], np.ones((10, 384), np.float16)
            )
            await service.prompt_sets.register(f"set-{number}", ClassList(texts))
        store = service.prompt_sets.store
        assert 0 < store.cached_bytes <= 20_000
        for number in range(40):
            assert (await service.prompt_sets.find(f"set-{number}")).chosen.version == 1
        assert store.cached_bytes <= 20_000
        for number in range(200):
            with pytest.raises(Exception, match="no prompt set"):
                await service.prompt_sets.find(f"unknown-{number}")
        assert store.known_names == sorted(f"set-{number}" for number in range(40))
        assert len(service.prompt_sets._locks) == 0

    asyncio.run(write())


def test_unknown_examples_are_not_kept():
    examples._rendered.cache_clear()
    for number in range(1000):
        assert examples.example_json(f"nothing-{number}", 10.0) is None
    assert examples._rendered.cache_info().currsize == 0
    assert examples.example_json("afib", 10.0) is examples.example_json("afib", 10.0)


def test_features_kept_of_a_large_answer_do_not_keep_all_of_it(bundle):
    from mets_ray.model.predictor import load_predictor

    predictor = load_predictor(str(bundle))
    answer = np.ones((100, 384), np.float16)
    predictor.keep_features(["one text"], answer[:1])
    assert predictor._features[next(iter(predictor._features))].base is None


def test_sets_are_listed_in_pages(bundle, state):
    names = [f"set-{number:02d}" for number in range(23)]
    with plain_server(bundle, state_uri=str(state)) as (client, _):
        for name in names:
            put(client, name, FIRST)
        for limit in (1, 4, 5, 22, 23, 100):
            shown, after, pages = [], "", 0
            while after is not None:
                page = client.get("/v1/prompt-sets", params={"limit": limit, "after": after}).json()
                of_bundle = [one for one in page["prompt_sets"] if one["origin"] == "bundle"]
                assert bool(of_bundle) == (after == "")
                some = [one["name"] for one in page["prompt_sets"] if one["origin"] == "registered"]
                assert len(some) <= limit
                shown, after, pages = shown + some, page["next_after"], pages + 1
            assert (shown, pages) == (names, -(-len(names) // limit))
        for query in ({"limit": 0}, {"limit": 501}, {"limit": "x"}, {"page": 1}):
            refused(client.get("/v1/prompt-sets", params=query), 422, "bad_fields")
        assert registered(client.get("/v1/model").json()) == {f"{name}@1" for name in names}
        large = {f"{'x' * 400} {number}": ["sinus rhythm"] for number in range(256)}
        for name in names[:15]:
            assert client.put(f"/v1/prompt-sets/{name}", json={"classes": large}).status_code == 201
        answer = client.get("/v1/model")
        assert answer.json()["next_after"] in names
        assert len(answer.content) < 3 * 2**20

"""Tokens: where they come from, which lists are refused, and how they are changed without a restart."""

import hashlib
import json
import os

import pytest

from mets_ray.errors import ConfigError
from mets_ray.serve.settings import ServeConfig
from mets_ray.serve.tokens import Tokens

FIRST = "first-token-0123456789"
SECOND = "second-token-0123456789"


@pytest.fixture(autouse=True)
def empty_environment(monkeypatch):
    monkeypatch.delenv("METS_RAY_TOKEN", raising=False)
    monkeypatch.delenv("METS_RAY_TOKENS", raising=False)


@pytest.fixture
def tokens_of(tmp_path):
    def make(content=None, **settings):
        if content is not None:
            (tmp_path / "tokens.yaml").write_text(content if isinstance(content, str) else json.dumps(content))
            settings["tokens_file"] = str(tmp_path / "tokens.yaml")
        return Tokens(ServeConfig(bundle_uri="x", **settings))

    return make


def who(tokens, token):
    caller = tokens.caller([f"Bearer {token}".encode()])
    return None if caller is None else (caller.name, sorted(caller.scopes))


def test_one_token_of_the_environment_may_do_everything(tokens_of, monkeypatch):
    monkeypatch.setenv("METS_RAY_TOKEN", " secret\n")
    tokens = tokens_of()
    assert who(tokens, "secret") == ("METS_RAY_TOKEN", ["register", "score", "search"])
    assert who(tokens, "wrong") is None
    monkeypatch.setenv("OTHER", "other")
    assert who(tokens_of(token_env="OTHER"), "other") == ("OTHER", ["register", "score", "search"])


@pytest.mark.parametrize("value", [None, "", " \n"])
def test_without_a_token_nothing_starts(tokens_of, monkeypatch, value):
    if value is not None:
        monkeypatch.setenv("METS_RAY_TOKEN", value)
        monkeypatch.setenv("METS_RAY_TOKENS", value)
    with pytest.raises(ConfigError, match="METS_RAY_TOKEN"):
        tokens_of()


def test_lists_come_from_a_file_and_from_the_environment_and_add_up(tokens_of, monkeypatch):
    monkeypatch.setenv("METS_RAY_TOKEN", "secret")
    hashed = hashlib.sha256(SECOND.encode()).hexdigest()
    monkeypatch.setenv("METS_RAY_TOKENS", json.dumps([{"name": "ci", "sha256": hashed, "scopes": ["register"]}]))
    tokens = tokens_of(f"# of the wards\n- name: ward-3\n  token: {FIRST}\n")
    assert who(tokens, FIRST) == ("ward-3", ["score"])
    assert who(tokens, SECOND) == ("ci", ["register"])
    assert who(tokens, "secret") == ("METS_RAY_TOKEN", ["register", "score", "search"])
    assert who(tokens, hashed) is None


REFUSED = {
    "empty file": ("", "list"),
    "empty list": ("[]", "no token"),
    "one mapping": (json.dumps({"name": "a", "token": FIRST}), "list"),
    "text": (FIRST, "list"),
    "not YAML": (f"- name: [a\n  token: {FIRST}\n", "line"),
    "key twice": (f"- {{name: a, token: {FIRST}, token: {SECOND}}}", "twice"),
    "no name": ([{"token": FIRST}], "token 1, name"),
    "empty name": ([{"name": "", "token": FIRST}], "name"),
    "name with a line break": ([{"name": "a\nb", "token": FIRST}], "name"),
    "long name": ([{"name": "a" * 65, "token": FIRST}], "name"),
    "name twice": ([{"name": "a", "token": FIRST}, {"name": "a", "token": SECOND}], "two tokens are called `a`"),
    "token twice": ([{"name": "a", "token": FIRST}, {"name": "b", "token": FIRST}], "`a` and `b` are the same"),
    "the same as its hash": (
        [{"name": "a", "token": FIRST}, {"name": "b", "sha256": hashlib.sha256(FIRST.encode()).hexdigest().upper()}],
        "the same",
    ),
    "empty token": ([{"name": "a", "token": ""}], "token 1, token"),
    "short token": ([{"name": "b", "token": FIRST}, {"name": "a", "token": "x" * 15}], "token 2, token"),
    "spaces only": ([{"name": "a", "token": " " * 20}], "token 1, token"),
    "token with a space": ([{"name": "a", "token": "secret secret secret"}], "token 1, token"),
    "a number": ([{"name": "a", "token": 12345678901234567890}], "token 1, token"),
    "no token": ([{"name": "a"}], "exactly one"),
    "both": ([{"name": "a", "token": FIRST, "sha256": "0" * 64}], "exactly one"),
    "short hash": ([{"name": "a", "sha256": "0" * 63}], "sha256"),
    "hash of nothing": ([{"name": "a", "sha256": hashlib.sha256(b"").hexdigest()}], "empty token"),
    "no scope": ([{"name": "a", "token": FIRST, "scopes": []}], "scopes"),
    "unknown scope": ([{"name": "a", "token": FIRST, "scopes": ["admin"]}], "scopes"),
    "unknown key": ([{"name": "a", "token": FIRST, FIRST: 1}], "token 1"),
    "not UTF-8": ("- {name: a, token: \udcff" + FIRST + "}", "YAML"),
    "large": ("#" * 1_100_000, "bytes"),
}


@pytest.mark.parametrize("source", ["file", "environment"])
@pytest.mark.parametrize(("content", "words"), REFUSED.values(), ids=REFUSED)
def test_a_list_that_cannot_be_right_is_refused_and_not_quoted(tmp_path, monkeypatch, source, content, words):
    text = content if isinstance(content, str) else json.dumps(content)
    data = text.encode(errors="surrogateescape")
    settings = {}
    if source == "file":
        (tmp_path / "tokens.yaml").write_bytes(data)
        settings["tokens_file"] = str(tmp_path / "tokens.yaml")
    elif not text or len(text) > 1_000_000:
        pytest.skip("an environment variable that is empty is none, and one cannot be so long")
    else:
        monkeypatch.setenv("METS_RAY_TOKENS", text)
    with pytest.raises(ConfigError) as raised:
        Tokens(ServeConfig(bundle_uri="x", **settings))
    assert words in str(raised.value)
    assert FIRST not in str(raised.value)
    assert raised.value.__suppress_context__ or raised.value.__context__ is None


def test_a_name_of_the_list_cannot_be_that_of_the_environment(tokens_of, monkeypatch):
    monkeypatch.setenv("METS_RAY_TOKEN", FIRST)
    with pytest.raises(ConfigError, match="two tokens are called"):
        tokens_of([{"name": "METS_RAY_TOKEN", "token": SECOND}])
    with pytest.raises(ConfigError, match="the same token"):
        tokens_of([{"name": "ward", "token": FIRST}])


def test_a_missing_file_is_refused(tmp_path):
    for path in (tmp_path / "nothing", tmp_path):
        with pytest.raises(ConfigError, match="cannot be read"):
            Tokens(ServeConfig(bundle_uri="x", tokens_file=str(path)))


def test_a_relative_path_is_that_of_whoever_wrote_the_setting(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = ServeConfig(bundle_uri="x", tokens_file="tokens.yaml")
    assert config.tokens_file == str(tmp_path / "tokens.yaml")


def test_tokens_change_with_their_file(tokens_of, tmp_path):
    tokens = tokens_of([{"name": "a", "token": FIRST}])
    path = tmp_path / "tokens.yaml"
    assert who(tokens, FIRST) == ("a", ["score"])
    # within one tick of the clock and of the same size
    path.write_text(json.dumps([{"name": "b", "token": FIRST}]))
    assert who(tokens, FIRST) == ("b", ["score"])
    # by another file in its place, as secrets of Kubernetes change
    (tmp_path / "new").write_text(json.dumps([{"name": "a", "token": SECOND, "scopes": ["score", "register"]}]))
    (tmp_path / "new").replace(path)
    assert who(tokens, FIRST) is None
    assert who(tokens, SECOND) == ("a", ["register", "score"])
    # long after: seen by its time alone
    os.utime(path, (1_000_000_000, 1_000_000_000))
    assert who(tokens, SECOND) == ("a", ["register", "score"])
    path.write_text(json.dumps([{"name": "c", "token": FIRST}]))
    assert (who(tokens, FIRST), who(tokens, SECOND)) == (("c", ["score"]), None)


def test_a_file_that_breaks_leaves_the_tokens_as_they_were_and_is_logged_once(tokens_of, tmp_path, caplog):
    tokens = tokens_of([{"name": "a", "token": FIRST}])
    path = tmp_path / "tokens.yaml"
    for break_it in (
        lambda: path.write_text(f"- {{name: b, token: {SECOND}"),
        lambda: path.write_text(""),
        path.unlink,
    ):
        caplog.clear()
        break_it()
        for _ in range(3):
            assert (who(tokens, FIRST), who(tokens, SECOND)) == (("a", ["score"]), None)
        (record,) = [record for record in caplog.records if record.levelname == "ERROR"]
        assert "stay as they were" in record.getMessage()
        assert SECOND not in caplog.text
    path.write_text(json.dumps([{"name": "b", "token": SECOND}]))
    assert (who(tokens, FIRST), who(tokens, SECOND)) == (None, ("b", ["score"]))


def test_nothing_of_a_token_is_kept_but_its_hash(tokens_of, monkeypatch):
    monkeypatch.setenv("METS_RAY_TOKEN", SECOND)
    tokens = tokens_of([{"name": "a", "sha256": hashlib.sha256(FIRST.encode()).hexdigest()}])
    assert who(tokens, FIRST) == ("a", ["score"])
    assert SECOND not in repr(vars(tokens))

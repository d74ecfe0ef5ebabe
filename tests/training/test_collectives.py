"""Real gloo processes under DistributedDataParallel: loss and gradients are those of one process, to 1e-10."""

from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from mets_ray.model.loss import contrastive_loss, contrastive_loss_share, targets_one_hot, targets_same_report
from mets_ray.model.mets import Mets
from mets_ray.training import collectives, global_loss
from tests.support.gloo import gradients, run_groups

BATCH = 16
TEXT_IDS = torch.arange(BATCH) % 5  # every report recurs, on every worker
ROW_COUNTS = {1: [[16]], 2: [[8, 8], [11, 5]], 4: [[4, 4, 4, 4], [6, 5, 3, 2]]}
KINDS = ["one_hot", "same_report"]
CASES = [(world, counts, kind) for world in ROW_COUNTS for counts in ROW_COUNTS[world] for kind in KINDS]

pytestmark = pytest.mark.timeout(300)


def small_mets() -> Mets:
    torch.manual_seed(0)
    return Mets(text_features=24, width=8, norm="group", dimension=16).double()


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    signal_mv = torch.randn(BATCH, 12, 200, dtype=torch.float64, generator=generator)
    # Other features in every row: where equal ids have equal features, both target kinds are the same loss.
    text_features = torch.randn(BATCH, 24, dtype=torch.float64, generator=generator)
    return signal_mv, text_features


def loss_without_gathered_gradient(ecg, text, scale, text_ids, *, targets, row_counts) -> torch.Tensor:
    """What published code does: the gathered columns carry no gradient, a worker's own rows do."""
    rank = collectives.worker_rank()

    def columns(rows: torch.Tensor) -> torch.Tensor:
        parts = list(collectives.gather_rows_no_grad(rows, row_counts).split(row_counts))
        parts[rank] = rows
        return torch.cat(parts)

    first_row = sum(row_counts[:rank])
    matrix = (
        targets_one_hot(len(ecg), BATCH, first_row=first_row)
        if targets == "one_hot"
        else targets_same_report(text_ids, collectives.gather_rows_no_grad(text_ids, row_counts))
    )
    return contrastive_loss_share(ecg, text, columns(ecg), columns(text), scale, matrix, num_workers=len(row_counts))


def train_once(loss_function: Any, row_counts: list[int], kind: str) -> tuple[float, dict[str, torch.Tensor]]:
    """One forward and backward through DDP; the mean loss and this worker's averaged gradients."""
    rank = collectives.worker_rank()
    own = slice(sum(row_counts[:rank]), sum(row_counts[: rank + 1]))
    signal_mv, text_features = batch()
    model = DistributedDataParallel(small_mets(), find_unused_parameters=True)
    outputs = model(signal_mv[own], text_features[own])[:3]
    loss = loss_function(*outputs, TEXT_IDS[own], targets=kind, row_counts=row_counts)
    loss.backward()
    return collectives.mean_over_workers(loss.item()), gradients(model)


def gather_by_hand(row_counts: list[int]) -> dict[str, torch.Tensor]:
    """gather_rows alone, on three-dimensional rows, with another weight on every worker."""
    rank = collectives.worker_rank()
    own = slice(sum(row_counts[:rank]), sum(row_counts[: rank + 1]))
    rows = torch.arange(BATCH * 6, dtype=torch.float64).reshape(BATCH, 3, 2)[own].clone().requires_grad_()
    gathered = collectives.gather_rows(rows, row_counts)
    (gathered**2 * (rank + 1)).sum().backward()
    assert rows.grad is not None
    return {"gathered": gathered.detach(), "gradient": rows.grad, "rows": rows.detach()}


def worker(rank: int, world: int) -> dict[Any, Any]:
    found: dict[Any, Any] = {"rank": collectives.worker_rank(), "num_workers": collectives.num_workers()}
    for row_counts in ROW_COUNTS[world]:
        key = tuple(row_counts)
        own_ids = TEXT_IDS[sum(row_counts[:rank]) : sum(row_counts[: rank + 1])]
        found["ids", key] = collectives.gather_rows_no_grad(own_ids, row_counts)
        found["gather", key] = gather_by_hand(row_counts)
        for kind in KINDS:
            found["global", key, kind] = train_once(global_loss.global_contrastive_loss, row_counts, kind)
            found["no_grad", key, kind] = train_once(loss_without_gathered_gradient, row_counts, kind)
    found["sum"] = collectives.sum_over_workers(0.1 + rank)
    found["mean"] = collectives.mean_over_workers(0.1 + rank)
    found["sums"] = collectives.sums_over_workers([1.0, float(rank == world - 1)])
    found["added"] = [torch.full((2, 3), 0.5 + rank, dtype=torch.float64), torch.ones(1)]
    collectives.add_over_workers(found["added"])
    found["objects"] = collectives.gather_objects({"worker": rank})
    found["broadcast"] = [collectives.broadcast_object(f"from {rank}", source) for source in (0, world - 1)]
    for wrong in ([BATCH] * world if world > 1 else [3], [BATCH] * (world + 1)):
        with pytest.raises(ValueError, match="row_counts is"):
            collectives.gather_rows(torch.zeros(1, 2), wrong)
    return found


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[int, list[dict[Any, Any]]]:
    """What each worker of each world found; one group of processes per world."""
    return run_groups(worker, ROW_COUNTS, tmp_path_factory, limit_s=90)


def one_process(kind: str) -> tuple[float, dict[str, torch.Tensor]]:
    model = small_mets()
    targets = targets_one_hot(BATCH, BATCH) if kind == "one_hot" else targets_same_report(TEXT_IDS, TEXT_IDS)
    ecg, text, scale, _ = model(*batch())
    loss = contrastive_loss(ecg, text, scale, targets)
    loss.backward()
    return loss.item(), gradients(model)


def test_the_target_kinds_differ_here():
    assert abs(one_process("one_hot")[0] - one_process("same_report")[0]) > 1e-2


def largest_difference(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> float:
    assert ours.keys() == theirs.keys()
    return max((ours[name] - theirs[name]).abs().max().item() for name in theirs)


@pytest.mark.parametrize(("world", "row_counts", "kind"), CASES)
def test_loss_and_every_gradient_are_those_of_one_process(found, world: int, row_counts: list[int], kind: str):
    loss, expected = one_process(kind)
    assert "log_logit_scale" in expected
    assert all(gradient.abs().max() > 1e-6 for gradient in expected.values())
    for answer in found[world]:
        mean_loss, gradient = answer["global", tuple(row_counts), kind]
        assert mean_loss == pytest.approx(loss, abs=1e-10)
        assert largest_difference(gradient, expected) < 1e-10


@pytest.mark.parametrize(("world", "row_counts", "kind"), CASES)
def test_gathering_without_gradient_gives_another_gradient(found, world: int, row_counts: list[int], kind: str):
    loss, expected = one_process(kind)
    for answer in found[world]:
        mean_loss, gradient = answer["no_grad", tuple(row_counts), kind]
        assert mean_loss == pytest.approx(loss, abs=1e-10)
        if world == 1:
            assert largest_difference(gradient, expected) < 1e-10
        else:
            assert largest_difference(gradient, expected) > 1e-3


@pytest.mark.parametrize(("world", "row_counts"), [(w, counts) for w in ROW_COUNTS for counts in ROW_COUNTS[w]])
def test_gathered_rows_and_their_gradient(found, world: int, row_counts: list[int]):
    key = tuple(row_counts)
    everything = torch.arange(BATCH * 6, dtype=torch.float64).reshape(BATCH, 3, 2)
    for answer in found[world]:
        result = answer["gather", key]
        assert torch.equal(result["gathered"], everything)
        # The sum over workers of d/dx (weight x^2), weights 1 .. world.
        assert torch.equal(result["gradient"], 2 * result["rows"] * sum(range(1, world + 1)))
        assert answer["ids", key].dtype == torch.int64
        assert torch.equal(answer["ids", key], TEXT_IDS)


@pytest.mark.parametrize("world", ROW_COUNTS)
def test_small_talk(found, world: int):
    for rank, answer in enumerate(found[world]):
        assert (answer["rank"], answer["num_workers"]) == (rank, world)
        assert answer["sum"] == pytest.approx(sum(0.1 + other for other in range(world)), abs=1e-12)
        assert answer["mean"] == pytest.approx(answer["sum"] / world, abs=1e-12)
        assert answer["sums"] == [world, 1.0]
        total = sum(0.5 + other for other in range(world))
        assert answer["added"][0].tolist() == [[pytest.approx(total, abs=1e-12)] * 3] * 2
        assert answer["added"][1].tolist() == [world]
        assert answer["objects"] == [{"worker": other} for other in range(world)]
        assert answer["broadcast"] == ["from 0", f"from {world - 1}"]


def test_a_lone_worker_needs_no_process_group():
    assert not dist.is_initialized()
    assert (collectives.worker_rank(), collectives.num_workers()) == (0, 1)
    rows = torch.randn(3, 2, requires_grad=True)
    assert collectives.gather_rows(rows, [3]) is rows
    assert not collectives.gather_rows_no_grad(rows, [3]).requires_grad
    assert collectives.sum_over_workers(2.5) == collectives.mean_over_workers(2.5) == 2.5
    assert collectives.sums_over_workers([1.5, 0.0]) == [1.5, 0.0]
    assert collectives.broadcast_object({"a": 1}) == {"a": 1}
    assert collectives.gather_objects("x") == ["x"]
    for kind in KINDS:
        model = small_mets()
        loss = global_loss.global_contrastive_loss(*model(*batch())[:3], TEXT_IDS, targets=kind, row_counts=[BATCH])
        loss.backward()
        expected_loss, expected = one_process(kind)
        assert loss.item() == pytest.approx(expected_loss, abs=1e-12)
        assert largest_difference(gradients(model), expected) < 1e-12
    with pytest.raises(ValueError, match="row_counts is"):
        collectives.gather_rows(rows, [4])

"""statements.py and the sigmoid loss over statements: by hand, against a slow reference, and on gloo processes."""

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.parallel import DistributedDataParallel

from mets_ray.errors import DatasetError
from mets_ray.model.loss import statement_losses
from mets_ray.model.mets import Mets
from mets_ray.model.zero_shot import report_embeddings
from mets_ray.text.embeddings import EmbeddingTable
from mets_ray.text.reports import text_id
from mets_ray.text.statements import ReportStatements, one_spelling
from mets_ray.training import collectives, global_loss
from mets_ray.training.grad_cache import forward_loss
from tests.support.gloo import gradients, run_groups

REPORTS = {
    "SR. Normal": ("SR", "Normal"),
    "AF. LVH. LVH": ("AF", "LVH", "LVH"),
    "Normal": ("Normal",),
    "no parts": (),
}
IDS = {report: text_id(report) for report in REPORTS}


def ids_of(*texts):
    return np.asarray([text_id(text) for text in texts], dtype=np.int64)


def test_each_report_has_its_statements_once_and_one_without_any_is_itself():
    statements = ReportStatements.build(REPORTS)
    found = statements.of(ids_of("AF. LVH. LVH", "no parts", "SR. Normal"))
    assert [sorted(ids.tolist()) for ids in found] == [
        sorted(ids_of("AF", "LVH").tolist()),
        ids_of("no parts").tolist(),
        sorted(ids_of("SR", "Normal").tolist()),
    ]


def test_statements_that_differ_in_case_alone_are_one_as_most_reports_spell_it():
    reports = {"a": ("normal ecg", "sinus rhythm"), "b": ("Normal ECG",), "c": ("Normal ECG", "SINUS RHYTHM")}
    # Of spellings as frequent as each other, the first in the order of characters.
    assert one_spelling(reports) == {
        "a": ("Normal ECG", "SINUS RHYTHM"),
        "b": ("Normal ECG",),
        "c": ("Normal ECG", "SINUS RHYTHM"),
    }


def test_columns_are_the_distinct_statements_and_positives_say_who_has_them():
    statements = ReportStatements.build(REPORTS)
    rows = ids_of("Normal", "SR. Normal", "Normal")
    columns = statements.columns(rows)
    assert columns.tolist() == sorted(ids_of("SR", "Normal").tolist())
    positives = statements.positives(rows, columns)
    assert positives[:, columns == text_id("Normal")].all()
    assert positives[:, columns == text_id("SR")].ravel().tolist() == [False, True, False]


@pytest.mark.parametrize("known", [REPORTS, {}])
def test_a_report_that_nobody_read_is_refused(known):
    with pytest.raises(DatasetError, match="has no statements"):
        ReportStatements.build(known).of(ids_of("new"))


def test_a_report_is_the_mean_of_its_statements():
    torch.manual_seed(0)
    model = Mets(text_features=4, width=4, dimension=3)
    texts = sorted({part for parts in REPORTS.values() for part in parts} | {"no parts"})
    features = np.random.default_rng(0).normal(size=(len(texts), 4)).astype(np.float16)
    table = EmbeddingTable.build(ids_of(*texts), features)
    rows = ids_of("SR. Normal", "Normal", "SR. Normal")
    found = report_embeddings(model, table, ReportStatements.build(REPORTS), rows)
    each = {
        name: model.embed_text(torch.from_numpy(table.lookup(ids_of(name))).float())[0].detach().numpy()
        for name in ("SR", "Normal")
    }
    mean = (each["SR"] + each["Normal"]) / np.linalg.norm(each["SR"] + each["Normal"])
    np.testing.assert_allclose(found, [mean, each["Normal"], mean], atol=1e-6)


# --- the loss


def slow_loss(ecg, columns, scale, bias, positives):
    total = 0.0
    for row in range(len(ecg)):
        for column in range(len(columns)):
            logit = float(scale) * float(ecg[row] @ columns[column]) + float(bias)
            sign = 1.0 if positives[row, column] else -1.0
            total += math.log1p(math.exp(-sign * logit))
    return total


def unit_rows(rows, dimension=5):
    return torch.nn.functional.normalize(torch.randn(rows, dimension, dtype=torch.float64), dim=-1)


def test_the_loss_is_siglips_sum_forward_and_gradient():
    torch.manual_seed(1)
    ecg, columns = unit_rows(6), unit_rows(4)
    scale, bias = torch.tensor(7.0, dtype=torch.float64), torch.tensor(-2.0, dtype=torch.float64)
    positives = torch.rand(6, 4) < 0.4
    losses = statement_losses(ecg, columns, scale, bias, positives)
    assert losses.shape == (6,)
    assert losses.sum().item() == pytest.approx(slow_loss(ecg, columns, scale, bias, positives), rel=1e-12)
    inputs = [tensor.requires_grad_() for tensor in (ecg, columns, scale, bias)]
    assert torch.autograd.gradcheck(lambda *given: statement_losses(*given, positives), inputs)


# --- on 1, 2 and 4 gloo processes, in one pass and in parts

BATCH, STEPS = 12, 2
ROW_COUNTS: dict[int, list[list[int]]] = {1: [[12]], 2: [[6, 6], [7, 5]], 4: [[3, 3, 3, 3], [4, 3, 3, 2]]}
PARTS = (None, 2, 5)


def batch() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    signal_mv = torch.randn(BATCH, 12, 120, dtype=torch.float64, generator=generator)
    features = torch.randn(9, 6, dtype=torch.float64, generator=generator)
    return signal_mv, features, torch.rand(BATCH, 9, generator=generator) < 0.3


def small_mets() -> Mets:
    torch.manual_seed(5)
    return Mets(text_features=6, width=8, dimension=4, norm="group", sigmoid=True).double().train()


def train(row_counts: list[int], rows_per_part: int | None) -> tuple[list[float], dict[str, torch.Tensor]]:
    rank = collectives.worker_rank()
    own = slice(sum(row_counts[:rank]), sum(row_counts[: rank + 1]))
    signal_mv, features, positives = batch()

    def loss_of(ecg, text, scale, bias):
        return global_loss.global_statement_loss(ecg, text, scale, bias, positives[own], rows=BATCH)

    model = DistributedDataParallel(small_mets(), find_unused_parameters=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    losses = []
    for step in range(STEPS):
        loss, backward = forward_loss(
            model,
            signal_mv[own],
            features,
            loss_of,
            rows_per_part=rows_per_part,
            autocast=torch.autocast("cpu", enabled=False),
            row_counts=row_counts,
        )
        losses.append(collectives.mean_over_workers(loss.item()))
        optimizer.zero_grad(set_to_none=True)
        backward(torch.amp.GradScaler("cpu", enabled=False))
        if step + 1 < STEPS:
            optimizer.step()
    return losses, gradients(model)


def worker(rank: int, world: int) -> dict[Any, Any]:
    return {(tuple(counts), parts): train(counts, parts) for counts in ROW_COUNTS[world] for parts in PARTS}


@pytest.fixture(scope="module")
def one_process() -> tuple[list[float], dict[str, torch.Tensor]]:
    """The same steps written plainly: one process, one pass, the mean over the whole batch."""
    model, (signal_mv, features, positives) = small_mets(), batch()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    losses = []
    for step in range(STEPS):
        loss = statement_losses(*model(signal_mv, features), positives).mean()
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        if step + 1 < STEPS:
            optimizer.step()
    return losses, gradients(model)


@pytest.fixture(scope="module")
def found(tmp_path_factory) -> dict[int, list[dict[Any, Any]]]:
    return run_groups(worker, ROW_COUNTS, tmp_path_factory, limit_s=120)


@pytest.mark.parametrize("parts", PARTS)
@pytest.mark.parametrize("world", ROW_COUNTS)
def test_workers_and_parts_equal_one_process(found, one_process, world, parts):
    losses, gradient = one_process
    for counts in ROW_COUNTS[world]:
        for answer in found[world]:
            ours, of_worker = answer[tuple(counts), parts]
            assert ours == pytest.approx(losses, rel=1e-12)
            assert of_worker.keys() == gradient.keys()
            assert {"logit_bias", "log_logit_scale", "text_projection.weight"} <= gradient.keys()
            for name, expected in gradient.items():
                torch.testing.assert_close(of_worker[name], expected, rtol=1e-9, atol=1e-12)


def test_the_bias_is_trained_and_stored_only_with_the_sigmoid_loss():
    assert "logit_bias" in small_mets().state_dict()
    published = Mets(text_features=6, width=8, dimension=4)
    assert "logit_bias" not in published.state_dict()
    assert published.logit_bias.item() == 0.0
    assert not published.logit_bias.requires_grad
    copied = copy.deepcopy(small_mets())
    copied.load_state_dict(small_mets().state_dict())

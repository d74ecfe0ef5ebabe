"""The loss against Python loops, forward and gradient, and against the bug of the unofficial METS code."""

import pytest
import torch
import torch.nn.functional as F

from mets_ray.model.loss import (
    contrastive_loss,
    contrastive_loss_share,
    row_losses,
    targets_one_hot,
    targets_same_report,
)

TEXT_IDS = torch.tensor([7, 3, 7, 0, 3, 7, 9])


@pytest.fixture
def embeddings() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    ecg = F.normalize(torch.randn(7, 5, dtype=torch.float64), dim=1).requires_grad_()
    text = F.normalize(torch.randn(7, 5, dtype=torch.float64), dim=1).requires_grad_()
    return ecg, text, torch.tensor(1 / 0.07, dtype=torch.float64, requires_grad=True)


def targets_of(kind: str) -> torch.Tensor:
    if kind == "one_hot":
        return targets_one_hot(7, 7)
    if kind == "same_report":
        return targets_same_report(TEXT_IDS, TEXT_IDS)
    torch.manual_seed(1)
    return torch.rand(7, 7)  # any weights: one ECG may have several texts of unequal weight


def slow_direction(rows, columns, scale, weights) -> torch.Tensor:
    """Mean over rows of -sum_j w_ij/sum(w_i) log(exp(z_ij) / sum_k exp(z_ik)), scalar by scalar."""
    total = torch.zeros((), dtype=torch.float64)
    for i in range(len(rows)):
        logits = []
        for j in range(len(columns)):
            cosine = torch.zeros((), dtype=torch.float64)
            for k in range(rows.shape[1]):
                cosine = cosine + rows[i, k] * columns[j, k]
            logits.append(scale * cosine)
        denominator = sum(logit.exp() for logit in logits)
        mass = sum(weights[i])
        for j in range(len(columns)):
            total = total - weights[i][j] / mass * (logits[j].exp() / denominator).log()
    return total / len(rows)


def slow_loss(ecg, text, scale, targets) -> torch.Tensor:
    weights = targets.tolist()
    transposed = [list(column) for column in zip(*weights, strict=True)]
    return (slow_direction(ecg, text, scale, weights) + slow_direction(text, ecg, scale, transposed)) / 2


@pytest.mark.parametrize("kind", ["one_hot", "same_report", "any"])
def test_loss_and_gradient_equal_python_loops(embeddings, kind: str):
    targets = targets_of(kind)
    ecg, text, scale = embeddings
    fast, slow = contrastive_loss(ecg, text, scale, targets), slow_loss(ecg, text, scale, targets)
    assert fast.item() == pytest.approx(slow.item(), abs=1e-12)
    for ours, theirs in zip(torch.autograd.grad(fast, embeddings), torch.autograd.grad(slow, embeddings), strict=True):
        assert ours.abs().max() > 1e-3
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)
    assert torch.autograd.gradcheck(lambda e, t, s: contrastive_loss(e, t, s, targets), embeddings)


def test_one_hot_is_cross_entropy_with_arange(embeddings):
    ecg, text, scale = embeddings
    logits, labels = scale * ecg @ text.T, torch.arange(7)
    published = (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2
    assert contrastive_loss(ecg, text, scale, targets_one_hot(7, 7)).item() == pytest.approx(
        published.item(), abs=1e-12
    )


def test_one_hot_targets_start_at_the_first_row():
    torch.testing.assert_close(targets_one_hot(2, 5, first_row=3), torch.eye(5)[3:])
    torch.testing.assert_close(targets_one_hot(5, 5), torch.eye(5))


def test_equal_reports_share_the_target_equally(embeddings):
    ecg, text, scale = embeddings
    targets = targets_same_report(TEXT_IDS, TEXT_IDS)
    assert targets.tolist() == [[float(a == b) for b in TEXT_IDS.tolist()] for a in TEXT_IDS.tolist()]
    # Rows 0, 2 and 5 have text 7: each takes a third.
    log_probability = (scale * ecg @ text.T).log_softmax(dim=1)
    expected = -(log_probability[0, 0] + log_probability[0, 2] + log_probability[0, 5]) / 3
    assert row_losses(ecg, text, scale, targets)[0].item() == pytest.approx(expected.item(), abs=1e-12)


def test_both_target_kinds_are_one_loss_where_equal_texts_have_equal_embeddings(embeddings):
    """A duplicate's column pushes as much as the own one pulls less: no difference is left, in loss or gradient."""
    ecg, per_text, scale = embeddings
    _, row_of_text = TEXT_IDS.unique(return_inverse=True)
    losses, gradients = [], []
    for targets in (targets_of("one_hot"), targets_of("same_report")):
        loss = contrastive_loss(ecg, per_text[row_of_text], scale, targets)
        losses.append(loss.item())
        gradients.append(torch.autograd.grad(loss, embeddings))
    assert losses[0] == pytest.approx(losses[1], abs=1e-12)
    for one_hot, same_report in zip(*gradients, strict=True):
        assert one_hot.abs().max() > 1e-3
        torch.testing.assert_close(one_hot, same_report, rtol=0, atol=1e-12)


def test_the_target_kinds_part_where_equal_texts_have_unequal_embeddings(embeddings):
    one_hot, same_report = (
        contrastive_loss(*embeddings, targets=targets_of(kind)) for kind in ("one_hot", "same_report")
    )
    assert abs(one_hot.item() - same_report.item()) > 1e-2


def test_one_hot_loss_is_never_negative_and_the_unofficial_one_is():
    """METS-unofficial sets the diagonal to -inf in the denominator, so a good batch has a negative loss."""
    for seed in range(20):
        torch.manual_seed(seed)
        ecg = F.normalize(torch.randn(6, 4, dtype=torch.float64), dim=1)
        text = F.normalize(ecg + 0.3 * torch.randn(6, 4, dtype=torch.float64), dim=1)
        scale = torch.tensor(1 / 0.07, dtype=torch.float64)
        ours = contrastive_loss(ecg, text, scale, targets_one_hot(6, 6)).item()
        logits = scale * ecg @ text.T
        without_diagonal = logits.masked_fill(torch.eye(6, dtype=torch.bool), float("-inf"))
        unofficial = [
            (denominator.logsumexp(dim=1) - numerator.diagonal()).mean().item()
            for numerator, denominator in ((logits, without_diagonal), (logits.T, without_diagonal.T))
        ]
        assert ours >= 0
        assert abs(ours - sum(unofficial) / 2) > 1e-2
    assert sum(unofficial) / 2 < 0


@pytest.mark.parametrize("kind", ["one_hot", "same_report"])
@pytest.mark.parametrize("row_counts", [[7], [4, 3], [1, 5, 1]])
def test_the_mean_of_the_shares_is_the_loss(embeddings, kind: str, row_counts: list[int]):
    ecg, text, scale = embeddings
    targets = targets_of(kind)
    shares, start = [], 0
    for count in row_counts:
        own = slice(start, start + count)
        shares.append(
            contrastive_loss_share(ecg[own], text[own], ecg, text, scale, targets[own], num_workers=len(row_counts))
        )
        start += count
    mean = torch.stack(shares).mean()
    whole = contrastive_loss(ecg, text, scale, targets)
    assert mean.item() == pytest.approx(whole.item(), abs=1e-12)
    for ours, theirs in zip(torch.autograd.grad(mean, embeddings), torch.autograd.grad(whole, embeddings), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


def test_a_row_without_a_target_is_loud(embeddings):
    targets = targets_one_hot(7, 7)
    targets[2] = 0.0
    assert row_losses(*embeddings, targets=targets).isnan().nonzero().flatten().tolist() == [2]

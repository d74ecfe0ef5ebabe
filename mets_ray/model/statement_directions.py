"""Which way the ECGs with a statement lie: least squares from embeddings of ECGs to the statements of their reports.

The text projection learns where a statement belongs by gradient steps, and it has few reports to learn from: what
overfits is the way from words to ECGs, not the encoder. Where the embeddings of all training ECGs are known, the best
linear answer to "does the report hold this statement?" can be had in closed form, and a prompt takes that of the
training statements that are nearest to it (`Mets.embed_prompt`).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

# Of the mean variance of a dimension. Between 0.1 and 1 the AUROC by cross-validation hardly changes; docs/findings.md.
_RIDGE = 0.3

_LEAST_SPREAD = 1e-10  # of the embeddings' mean square: less is rounding, as where an encoder gives one answer to all


@dataclass(frozen=True)
class StatementSums:
    """Sums over ECGs, which add up over batches and workers.

    rows: [1], how many. embeddings: of their embeddings. products: of the embeddings' outer products. carriers:
    [statement], how many have each statement. of_carriers: of the embeddings of those.
    """

    rows: Float64[Tensor, "1"]
    embeddings: Float64[Tensor, "dimension"]
    products: Float64[Tensor, "dimension dimension"]
    carriers: Float64[Tensor, "statement"]
    of_carriers: Float64[Tensor, "statement dimension"]

    @classmethod
    def zeros(cls, statements: int, dimension: int) -> "StatementSums":
        """Of no ECG."""
        shapes = ((1,), (dimension,), (dimension, dimension), (statements,), (statements, dimension))
        return cls(*(torch.zeros(shape, dtype=torch.float64) for shape in shapes))

    def add(
        self,
        embeddings: Float[Tensor, "ecg dimension"],
        ecg: Int64[Tensor, "entry"],
        statement: Int64[Tensor, "entry"],
    ) -> None:
        """Add some ECGs, in place. Entry i says that the report of ECG `ecg[i]` holds the statement `statement[i]`."""
        embeddings = embeddings.double().cpu()
        self.rows.add_(len(embeddings))
        self.embeddings.add_(embeddings.sum(dim=0))
        self.products.add_(embeddings.T @ embeddings)
        self.carriers.index_add_(0, statement, torch.ones(len(statement), dtype=torch.float64))
        self.of_carriers.index_add_(0, statement, embeddings[ecg])

    def parts(self) -> tuple[Float64[Tensor, "*size"], ...]:
        """All sums, to be added up over workers in place."""
        return self.rows, self.embeddings, self.products, self.carriers, self.of_carriers


def statement_directions(sums: StatementSums) -> Float[Tensor, "statement dimension"]:
    """The coefficients of ridge regression, float32: embedding → 1 for ECGs with the statement, 0 for all others.

    As scikit-learn's `Ridge` with an intercept, which is left out: it ranks no ECG above another. The penalty is 0.3
    times the mean variance of a dimension, for each ECG. Zeros for a statement that none or all have, and for
    all of them where the embeddings of all ECGs are the same.
    """
    rows = float(sums.rows)
    mean = sums.embeddings / rows
    covariance = sums.products / rows - torch.outer(mean, mean)
    if covariance.trace() <= _LEAST_SPREAD * sums.products.trace() / rows:
        return torch.zeros(sums.of_carriers.shape)
    ridge = _RIDGE * covariance.trace() / len(mean) * torch.eye(len(mean), dtype=torch.float64)
    towards = (sums.of_carriers - sums.carriers[:, None] * mean) / rows
    coefficients: Tensor = torch.linalg.solve(covariance + ridge, towards.T).T
    return coefficients.float().contiguous()

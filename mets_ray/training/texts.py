"""What training compares ECGs with: the vectors of all texts, made once by the driver and shared by all workers."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float16, Int64
from torch import Tensor

from mets_ray.config.settings import Config
from mets_ray.console import say
from mets_ray.dataset.folds import Selection
from mets_ray.dataset.prepared import PreparedDataset
from mets_ray.model.mets import Mets
from mets_ray.model.zero_shot import report_embeddings
from mets_ray.pipelines.lm_actors import EmbeddedTexts, embed_texts, store_uri
from mets_ray.pipelines.texts import report_statements, report_texts
from mets_ray.text.embeddings import EmbeddingTable
from mets_ray.text.statements import ReportStatements, one_spelling
from mets_ray.training.collectives import gather_rows_no_grad
from mets_ray.training.global_loss import Targets, global_contrastive_loss, global_statement_loss
from mets_ray.training.grad_cache import LossOf

MOST_ANCHORS = 4096
"""Statements that a bundle keeps the LM features of: 6 MB at 768 features. The 12SL program has some hundred."""


@dataclass(frozen=True)
class Texts:
    """`table`: vectors of the prompts, and of the reports or their statements; made by the LM of `fingerprint`.

    `statements`, with `text.unit` statement: what each report is made of; an ECG then has several positives. Else None.
    `anchors`: vectors of the statements that prompts are blended with (`Mets.embed_prompt`); None without statements.
    """

    table: EmbeddingTable
    fingerprint: str
    statements: ReportStatements | None = None
    anchors: Float16[np.ndarray, "statement feature"] | None = None

    @property
    def features(self) -> int:
        """The LM's number of features."""
        return int(self.table.vectors.shape[1])

    def batch_loss(
        self, batch: Mapping[str, np.ndarray], *, targets: Targets, row_counts: list[int], device: torch.device
    ) -> tuple[Float16[Tensor, "text feature"], LossOf]:
        """Features of the texts that a batch is compared with, and this worker's share of the loss over the global one.

        batch: columns of `training_batches`. targets: of whole reports. row_counts: ECGs of every worker. A collective:
        every worker must call it. Raises DatasetError for a text that was not there at the start.
        """
        text_ids = torch.tensor(batch["text_id"], device=device)
        if self.statements is not None:
            # Every worker embeds the statements of all: they are few, and so no embedding has to travel.
            columns = self.statements.columns(gather_rows_no_grad(text_ids, row_counts).cpu().numpy())
            positives = torch.from_numpy(self.statements.positives(batch["text_id"], columns)).to(device)
            features = self.table.lookup(columns)

            def loss_of(ecg: Tensor, text: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
                return global_statement_loss(ecg, text, scale, bias, positives, rows=sum(row_counts))
        else:
            features = batch["embedding"] if "embedding" in batch else self.table.lookup(batch["text_id"])

            def loss_of(ecg: Tensor, text: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
                return global_contrastive_loss(ecg, text, scale, text_ids, targets=targets, row_counts=row_counts)

        # Writable: torch warns of the read-only arrays of the object store.
        return torch.from_numpy(np.require(features, np.float16, ["C", "W"])).to(device), loss_of

    def report_embeddings(
        self, model: Mets, text_ids: Int64[np.ndarray, "record"]
    ) -> Float[np.ndarray, "record dimension"]:
        """Unit vectors of whole reports, by the ids of their texts; see `zero_shot.report_embeddings`."""
        return report_embeddings(model, self.table, self.statements, text_ids)


def training_texts(
    config: Config, dataset: PreparedDataset, prompts: list[str], *, train: Selection, validation: Selection
) -> tuple[Texts, EmbeddedTexts]:
    """All texts that a run needs, and how much work the LM had with them.

    Raises ConfigError where an LM actor cannot fit or the model cannot be loaded.
    """
    template, of_reports = config.text.template, {}
    if config.text.unit == "statement":
        of_reports = one_spelling(report_statements(dataset, template, dataset.all_folds))
        texts = sorted({part for parts in of_reports.values() for part in parts})
        kind = f"distinct statements of {len(of_reports)} reports"
    else:
        # The stream embeds the train reports itself; validation needs its reports once, whatever the mode.
        wanted = dataset.all_folds if config.text.mode == "cached" else validation
        # The template stands in where there is no text: the LM's number of features must be known.
        texts = report_texts(dataset, template, wanted) or [template]
        kind = "distinct reports"
    say(f"text: {len(texts)} {kind} and {len(prompts)} prompts, LM `{config.text.model}`")
    embedded = embed_texts(config.text, store_uri(config, dataset), reports=texts, prompts=prompts)
    say(f"text: {embedded.reports_embedded} reports and {embedded.prompts_embedded} prompts went through the LM")
    if config.text.unit == "report":
        return Texts(embedded.table, embedded.fingerprint), embedded
    trained = {report: of_reports[report] for report in report_texts(dataset, template, train)}
    anchors = embedded.table.lookup(ReportStatements.build(trained).most_frequent(MOST_ANCHORS))
    return Texts(embedded.table, embedded.fingerprint, ReportStatements.build(of_reports), anchors), embedded

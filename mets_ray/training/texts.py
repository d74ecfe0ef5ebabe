"""The texts that training compares ECGs with: vectors built once by the driver and shared by all workers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float16, Float32, Int8, Int64
from torch import Tensor

from mets_ray.config.settings import Loss
from mets_ray.model.anchor_statements import AnchorStatements
from mets_ray.model.augment import Views
from mets_ray.model.mets import Mets
from mets_ray.model.zero_shot import report_embeddings
from mets_ray.text.embeddings import EmbeddingTable
from mets_ray.text.statements import ReportStatements
from mets_ray.training.collectives import gather_rows_no_grad
from mets_ray.training.global_loss import global_contrastive_loss, global_statement_loss
from mets_ray.training.grad_cache import LossOf
from mets_ray.training.statement_leads import StatementLeads


@dataclass(frozen=True)
class Texts:
    """`table`: vectors of the prompts, and of the reports or their statements, from the LM with `fingerprint`.

    `revision`: the LM's commit, if it came from the hub.
    `statements`: the statements of each report if `text.unit` is statement, so that an ECG has several positives;
    otherwise None.
    `statement_leads`: which leads show each of these; None without statements, or where every view is asked for all.
    `anchors`: vectors of the statements that prompts are blended with (`Mets.embed_prompt`); None without statements.
    `anchor_sides`: the side that each of them is about (`mets_ray.text.sides`).
    `anchor_ids`: which statements these are, ascending, where their directions are measured (`learn_directions`).
    `anchor_directions`: those of anchors that keep the ones they have, as their texts do in fine-tuning.
    `named`: the texts of those anchors that the bundle may name.
    """

    table: EmbeddingTable
    fingerprint: str
    statements: ReportStatements | None = None
    statement_leads: StatementLeads | None = None
    anchors: Float16[np.ndarray, "anchor feature"] | None = None
    anchor_sides: Int8[np.ndarray, "anchor"] | None = None
    anchor_ids: Int64[np.ndarray, "anchor"] | None = None
    anchor_directions: Float32[np.ndarray, "anchor dimension"] | None = None
    revision: str | None = None
    named: AnchorStatements | None = None

    def give_anchors(self, model: Mets) -> None:
        """Give a model the anchors of this run, and no directions of the bundle that its weights may come from."""
        # Copies: the object store's arrays are read-only.
        if self.anchors is not None:
            model.anchors = torch.from_numpy(self.anchors.copy())
        sides, known = self.anchor_sides, self.anchor_directions
        model.anchor_sides = None if sides is None else torch.from_numpy(sides.copy())
        model.anchor_directions = None if known is None else torch.from_numpy(known.copy())

    @property
    def features(self) -> int:
        """The LM's number of features."""
        return int(self.table.vectors.shape[1])

    def batch_loss(
        self,
        batch: Mapping[str, np.ndarray],
        *,
        loss: Loss,
        row_counts: list[int],
        device: torch.device,
        views: Views | None = None,
    ) -> tuple[Float16[Tensor, "text feature"], LossOf]:
        """Features of the texts that a batch is compared with, and this worker's share of the global batch's loss.

        batch: columns of `training_batches`. loss: `Config.loss`, sigmoid with statements. row_counts: ECGs of each
        worker. views: of the batch's ECGs; a statement is not asked of one without the leads that show it.
        A collective: every worker must call it. Raises DatasetError for a text without a vector.
        """
        text_ids = torch.tensor(batch["text_id"], device=device)
        if loss == "sigmoid":
            assert self.statements is not None
            # Every worker embeds the statements of all workers: they are few, so no embeddings need to be gathered.
            columns = self.statements.columns(gather_rows_no_grad(text_ids, row_counts).cpu().numpy())
            positives = torch.from_numpy(self.statements.positives(batch["text_id"], columns)).to(device)
            features = self.table.lookup(columns)
            seen = None
            if views is not None and self.statement_leads is not None:
                seen = torch.from_numpy(self.statement_leads.seen(batch["text_id"], columns, views.kept)).to(device)

            def loss_of(ecg: Tensor, text: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
                return global_statement_loss(ecg, text, scale, bias, positives, rows=sum(row_counts), seen=seen)
        else:
            features = batch["embedding"] if "embedding" in batch else self.table.lookup(batch["text_id"])

            def loss_of(ecg: Tensor, text: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
                return global_contrastive_loss(ecg, text, scale, text_ids, targets=loss, row_counts=row_counts)

        # Writable: torch warns about the read-only arrays of the object store.
        return torch.from_numpy(np.require(features, np.float16, ["C", "W"])).to(device), loss_of

    def labels_of(self, record_ids: Sequence[str], codes: list[list[str]]) -> list[list[str]]:
        """The codes of records for the validation AUROC. codes: those of the data set."""
        return codes

    def report_embeddings(
        self, model: Mets, text_ids: Int64[np.ndarray, "record"]
    ) -> Float[np.ndarray, "record dimension"]:
        """Unit vectors of whole reports, by text id; see `zero_shot.report_embeddings`."""
        return report_embeddings(model, self.table, self.statements, text_ids)

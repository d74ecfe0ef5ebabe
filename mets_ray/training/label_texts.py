"""What fine-tuning compares ECGs with: the classes of a task, in place of the texts of reports."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Bool, Float16, Float32
from torch import Tensor

from mets_ray.config.settings import Loss
from mets_ray.model.augment import Views
from mets_ray.model.loss import statement_losses
from mets_ray.training.collectives import num_workers, sum_over_workers
from mets_ray.training.grad_cache import LossOf
from mets_ray.training.texts import Texts


@dataclass(frozen=True)
class LabelTexts(Texts):
    """`class_vectors`: unit vectors of the classes, which stay as they are. `truth`: the classes of each train record
    that is learnt from, by record id. `codes`: labels by record id where they are not those of the data set."""

    class_vectors: Float32[np.ndarray, "class dimension"] = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    truth: Mapping[str, Bool[np.ndarray, " class"]] = field(default_factory=dict)
    codes: Mapping[str, tuple[str, ...]] | None = None

    def batch_loss(
        self,
        batch: Mapping[str, np.ndarray],
        *,
        loss: Loss,
        row_counts: list[int],
        device: torch.device,
        views: Views | None = None,
    ) -> tuple[Float16[Tensor, "text feature"], LossOf]:
        """Binary cross-entropy of each labelled ECG with every class; others of the same patients count for nothing.
        Labels are of the whole ECG, whatever a view of it keeps.

        A collective, as in `Texts`.
        """
        known = [self.truth.get(str(record_id)) for record_id in batch["record_id"]]
        nothing = np.zeros(len(self.class_vectors), dtype=np.bool_)
        positives = torch.from_numpy(np.stack([nothing if one is None else one for one in known])).to(device)
        weights = torch.tensor([one is not None for one in known], device=device)
        vectors = torch.tensor(self.class_vectors, device=device)
        rows = max(1.0, sum_over_workers(float(weights.sum())))

        def loss_of(ecg: Tensor, text: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
            losses = statement_losses(ecg, vectors.to(ecg.dtype), scale, bias, positives)
            return (losses * weights).sum() * num_workers() / rows

        # `Mets` embeds some text in every pass; its projection is frozen.
        return torch.tensor(self.table.vectors[:1], device=device), loss_of

    def labels_of(self, record_ids: Sequence[str], codes: list[list[str]]) -> list[list[str]]:
        """Those of the table of labels, if there is one."""
        return codes if self.codes is None else [list(self.codes.get(name, ())) for name in record_ids]

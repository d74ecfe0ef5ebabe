"""The description of a run that the driver sends to every worker."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mets_ray import storage
from mets_ray.cluster.shares import TrainShares
from mets_ray.config.settings import Config
from mets_ray.dataset.folds import Selection
from mets_ray.dataset.plan import EpochPlan, RowGroup, plan_epoch
from mets_ray.dataset.prepared import PreparedDataset
from mets_ray.tasks.prompt_sets import PromptSet
from mets_ray.tasks.questions import Questions


@dataclass(frozen=True)
class TrainJob:
    """Everything that a worker needs: of contrastive pretraining, or with `layer_decay` of fine-tuning on labels.

    `attempt` identifies this start of the job; `questions` are those of the validation AUROC; `prompt_sets` go into
    the bundle; `messages` is the actor `training.messages.Messages`, which also knows where the texts are.
    """

    config: Config
    run_uri: str
    attempt: str
    dataset: PreparedDataset
    train: Selection
    validation: Selection
    train_groups: tuple[RowGroup, ...]
    validation_groups: tuple[RowGroup, ...]
    questions: Questions
    prompt_sets: dict[str, PromptSet]
    earlier_folds: tuple[int, ...]
    shares: TrainShares
    messages: Any
    layer_decay: float | None = None

    @property
    def run(self) -> str:
        """The run's name: the last part of its folder."""
        return self.run_uri.rsplit("/", 1)[-1]

    @property
    def failures_uri(self) -> str:
        """Where this attempt's failures are written; a job that is started again begins with none."""
        return storage.join(self.run_uri, "failures", self.attempt)

    def may_become_bundle(self, epoch: int) -> bool:
        """Whether the weights at the end of `epoch` may be published: what a bundle holds beside them is measured."""
        return self.config.train.choose != "last" or epoch + 1 >= self.config.train.epochs

    def plan(self, epoch: int) -> EpochPlan:
        """The order of one epoch."""
        return epoch_plan(self.config, self.train_groups, epoch)


def epoch_plan(config: Config, train_groups: Sequence[RowGroup], epoch: int) -> EpochPlan:
    """The order of one epoch. Raises ConfigError if the train folds do not fill one batch."""
    return plan_epoch(
        train_groups,
        seed=config.seed,
        epoch=epoch,
        batch_size=config.train.batch_size,
        lanes=config.train.lanes,
        block_rows=config.train.block_rows,
    )

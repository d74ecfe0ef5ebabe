"""Training failures, recorded in the run's folder to tell a bug from bad luck.

A lost machine is worth a retry; an error that repeats at the same step is not. Ray Train counts failures but does not
look at their causes. So workers record where they failed, and a restarted group checks these records before it starts.
"""

from collections import defaultdict

from pydantic import BaseModel, ConfigDict, ValidationError

from mets_ray import storage
from mets_ray.errors import CheckpointError, MetsError

_ALLOWED_AT_ONE_STEP = 1


class Failure(BaseModel):
    """An error that a worker raised itself, not because another worker died.

    start: identifies one start of the worker group, so that an error on all workers counts once.
    """

    model_config = ConfigDict(frozen=True)

    start: str
    worker: int
    epoch: int
    step: int
    fact: str
    where: str = ""
    hint: str = ""

    @classmethod
    def of(cls, error: BaseException, *, start: str, worker: int, epoch: int, step: int) -> "Failure":
        at = {"start": start, "worker": worker, "epoch": epoch, "step": step}
        if isinstance(error, MetsError):
            return cls(**at, fact=error.fact, where=error.where, hint=error.hint)
        return cls(**at, fact=f"{type(error).__name__}: {error}")

    def as_error(self) -> MetsError:
        """The error to end the job with."""
        place = f"epoch {self.epoch + 1}, step {self.step}, worker {self.worker}; it failed there twice"
        return MetsError(self.fact, where=f"{self.where}; {place}" if self.where else place, hint=self.hint)


def record_failure(failure: Failure, folder_uri: str) -> None:
    """Write a failure to `folder_uri`, one file per worker and start."""
    uri = storage.join(folder_uri, f"{failure.start}-{failure.worker:05d}.json")
    storage.write_bytes(uri, failure.model_dump_json(indent=1).encode())


def repeated_failure(folder_uri: str) -> Failure | None:
    """A failure that repeated: two starts of the group raised their own errors at the same epoch and step.

    Raises CheckpointError for a record that is damaged.
    """
    starts: dict[tuple[int, int], dict[str, Failure]] = defaultdict(dict)
    for uri in storage.list_files(folder_uri, suffix=".json"):
        try:
            failure = Failure.model_validate_json(storage.read_bytes(uri))
        except ValidationError as error:
            raise CheckpointError(
                f"`{uri}` is damaged: {error.errors()[0]['msg']}", hint="delete it: it only records a failure"
            ) from error
        starts[failure.epoch, failure.step].setdefault(failure.start, failure)
    for at_one_step in starts.values():
        if len(at_one_step) > _ALLOWED_AT_ONE_STEP:
            return next(iter(at_one_step.values()))
    return None

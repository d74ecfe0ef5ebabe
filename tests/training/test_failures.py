"""What failed in training: told apart, and known again."""

from mets_ray.errors import MetsError
from mets_ray.training.failures import Failure, record_failure, repeated_failure


def failure(start, *, step=3, worker=0):
    error = MetsError("the loss is nan", where="records a, b", hint="look")
    return Failure.of(error, start=start, worker=worker, epoch=1, step=step)


def test_a_failure_counts_as_repeated_when_two_starts_fail_at_one_step(tmp_path):
    assert repeated_failure(str(tmp_path)) is None
    for one in (failure("a"), failure("a", worker=1), failure("b", step=4)):
        record_failure(one, str(tmp_path))
    assert repeated_failure(str(tmp_path)) is None, "one start on two workers, and another step"
    record_failure(failure("c"), str(tmp_path))
    error = repeated_failure(str(tmp_path)).as_error()
    assert error.fact == "the loss is nan"
    assert error.hint == "look"
    assert "records a, b; epoch 2, step 3, worker 0; it failed there twice" in error.where

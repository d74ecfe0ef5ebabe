"""Similarities that go to Parquet come back, and two results are compared on the records that both have."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from mets_ray.errors import DatasetError
from mets_ray.metrics.similarities import TaskSimilarities, paired
from mets_ray.metrics.task_scores import compare, score_task
from mets_ray.results.similarity_files import read_similarities, write_similarities


def result(*, seed=0, names=None, skill=1.0, classes=("a", "b")):
    names = tuple(f"r{number:03d}" for number in range(80)) if names is None else names
    numbers = np.asarray([int(name[1:]) for name in names])
    truth = np.stack([numbers % 2 == 0, numbers % 3 == 0], axis=1)
    noise = np.random.default_rng(seed).normal(size=(1000, 2))[numbers]
    return TaskSimilarities(
        "t", classes, names, np.asarray([f"p{n // 2}" for n in numbers]), skill * truth + noise, truth
    )


def test_they_come_back_as_they_went(tmp_path):
    scores = result()
    write_similarities(str(tmp_path), scores, {"bundle_run": "x"})
    back = read_similarities(str(tmp_path), "t")
    assert (back.task, back.classes, back.record_ids) == (scores.task, scores.classes, scores.record_ids)
    assert (back.patients == scores.patients).all()
    assert (back.similarity == scores.similarity).all()
    assert (back.truth == scores.truth).all()
    assert read_similarities(str(tmp_path), "another") is None
    write_similarities(str(tmp_path), result(seed=1), {}, baseline="linear_probe")
    assert (read_similarities(str(tmp_path), "t", "linear_probe").similarity == result(seed=1).similarity).all()
    assert (read_similarities(str(tmp_path), "t").similarity == scores.similarity).all()
    (tmp_path / "scores" / "broken.parquet").write_bytes(b"not parquet")
    with pytest.raises(DatasetError, match=r"holds no similarities(.|\n)*give the result folder"):
        read_similarities(str(tmp_path), "broken")


def test_a_comparison_is_on_the_common_records_in_any_order():
    one = result(seed=1, skill=2.0)
    names = tuple(reversed(one.record_ids[10:]))
    other = result(seed=2, names=names)
    first, second = paired(one, other)
    assert first.record_ids == second.record_ids == one.record_ids[10:]
    comparison = compare(one, other, samples=200, seed=0)
    assert comparison.records == 70
    expected = roc_auc_score(first.truth, first.similarity) - roc_auc_score(second.truth, second.similarity)
    assert comparison.difference.value == pytest.approx(expected)
    assert comparison.difference.low < expected < comparison.difference.high
    assert compare(one, one, samples=20, seed=0).difference == (0.0, 0.0, 0.0)


def test_what_cannot_be_compared_is_refused():
    one = result()
    with pytest.raises(DatasetError, match=r"has the classes .'a', 'b'. here and .'a', 'c'. in the other"):
        paired(one, result(classes=("a", "c")))
    with pytest.raises(DatasetError, match="no record of task `t` was scored in both"):
        paired(one, result(names=("r900",)))
    relabelled = result()
    relabelled.truth[3, 0] = not relabelled.truth[3, 0]
    words = "1 of 80 records have different labels in the other result, for example `r003`"
    with pytest.raises(DatasetError, match=words):
        paired(one, relabelled)


def test_a_table_counts_patients_and_positives():
    table = score_task(result(), samples=20, seed=0)
    assert table.records == 80
    assert [row.positives for row in table.classes] == [40, 27]
    assert [row.patients for row in table.classes] == [40, 27]

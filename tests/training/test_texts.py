"""Texts: what a batch is compared with, and its loss, by whole report and by statement, in one process."""

import numpy as np
import pytest
import torch

from mets_ray.errors import DatasetError
from mets_ray.model.loss import contrastive_loss, statement_losses, targets_one_hot, targets_same_report
from mets_ray.model.mets import Mets
from mets_ray.model.zero_shot import report_embeddings
from mets_ray.text.embeddings import EmbeddingTable
from mets_ray.text.reports import text_id
from mets_ray.text.statements import ReportStatements
from mets_ray.training.label_texts import LabelTexts
from mets_ray.training.texts import Texts

REPORTS = {"SR. Normal": ("SR", "Normal"), "AF. LVH": ("AF", "LVH"), "Normal": ("Normal",)}
ROWS = ["Normal", "SR. Normal", "Normal", "AF. LVH"]  # a report that recurs, and a statement that two reports share
CPU = torch.device("cpu")


def ids_of(*texts):
    return np.asarray([text_id(text) for text in texts], dtype=np.int64)


@pytest.fixture
def table():
    texts = sorted({*REPORTS, *(part for parts in REPORTS.values() for part in parts)})
    return EmbeddingTable.build(
        ids_of(*texts), np.random.default_rng(0).normal(size=(len(texts), 6)).astype(np.float16)
    )


def outputs(features, *, sigmoid=False):
    torch.manual_seed(0)
    model = Mets(text_features=6, width=4, dimension=3, norm="group", sigmoid=sigmoid)
    return model(torch.randn(len(ROWS), 12, 200), features)


@pytest.mark.parametrize("targets", ["one_hot", "same_report"])
def test_a_report_is_compared_with_the_reports_of_the_batch(table, targets):
    ids = ids_of(*ROWS)
    texts = Texts(table, "fingerprint")
    features, loss_of = texts.batch_loss({"text_id": ids}, loss=targets, row_counts=[len(ROWS)], device=CPU)
    assert texts.features == 6
    np.testing.assert_array_equal(features.numpy(), table.lookup(ids))
    ecg, text, scale, bias = outputs(features)
    same = torch.from_numpy(ids)
    matrix = targets_one_hot(4, 4) if targets == "one_hot" else targets_same_report(same, same)
    assert loss_of(ecg, text, scale, bias).item() == pytest.approx(
        contrastive_loss(ecg, text, scale, matrix).item(), rel=1e-6
    )


def test_labels_are_compared_with_all_classes_and_unlabelled_ecgs_with_none(table):
    vectors = torch.nn.functional.normalize(torch.randn(2, 3, generator=torch.Generator().manual_seed(1)), dim=-1)
    truth = {"a": np.array([True, False]), "c": np.array([True, True])}
    texts = LabelTexts(table, "f", class_vectors=vectors.numpy(), truth=truth, codes={"a": ("AF",)})
    batch = {"record_id": np.array(["a", "b", "c", "d"], dtype=object)}
    features, loss_of = texts.batch_loss(batch, loss="sigmoid", row_counts=[4], device=CPU)
    ecg, text, scale, bias = outputs(features, sigmoid=True)
    expected = statement_losses(ecg[[0, 2]], vectors, scale, bias, torch.tensor([[True, False], [True, True]])).mean()
    assert loss_of(ecg, text, scale, bias).item() == pytest.approx(expected.item(), rel=1e-6)
    assert texts.labels_of(["a", "b"], [["x"], ["y"]]) == [["AF"], []]
    assert Texts(table, "f").labels_of(["a"], [["x"]]) == [["x"]]


def test_a_stream_that_brings_its_vectors_needs_no_table(table):
    vectors = np.random.default_rng(1).normal(size=(len(ROWS), 6)).astype(np.float16)
    vectors.flags.writeable = False  # as Ray's object store gives them
    batch = {"text_id": ids_of("never", "embedded", "before", "this"), "embedding": vectors}
    features, _ = Texts(table, "f").batch_loss(batch, loss="one_hot", row_counts=[4], device=CPU)
    np.testing.assert_array_equal(features.numpy(), vectors)


def test_statements_are_compared_each_once_with_all_of_the_batch(table):
    texts = Texts(table, "fingerprint", ReportStatements.build(REPORTS))
    features, loss_of = texts.batch_loss({"text_id": ids_of(*ROWS)}, loss="sigmoid", row_counts=[4], device=CPU)
    names = sorted(["SR", "Normal", "AF", "LVH"], key=text_id)
    np.testing.assert_array_equal(features.numpy(), table.lookup(ids_of(*names)))
    ecg, text, scale, bias = outputs(features, sigmoid=True)
    positives = torch.tensor([[name in REPORTS[row] for name in names] for row in ROWS])
    expected = statement_losses(ecg, text, scale, bias, positives).mean()
    assert loss_of(ecg, text, scale, bias).item() == pytest.approx(expected.item(), rel=1e-6)


@pytest.mark.parametrize("statements", [None, ReportStatements.build(REPORTS)])
def test_whole_reports_are_embedded_as_they_were_trained_on(table, statements):
    model, ids = Mets(text_features=6, width=4, dimension=3), ids_of(*ROWS)
    found = Texts(table, "fingerprint", statements).report_embeddings(model, ids)
    np.testing.assert_array_equal(found, report_embeddings(model, table, statements, ids))
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1.0, rtol=1e-6)


@pytest.mark.parametrize("statements", [None, ReportStatements.build(REPORTS)])
def test_a_text_that_was_not_there_at_the_start_is_refused(table, statements):
    texts = Texts(table, "fingerprint", statements)
    loss = "one_hot" if statements is None else "sigmoid"
    with pytest.raises(DatasetError, match="the data set changed under the run"):
        texts.batch_loss({"text_id": ids_of("new", *ROWS[1:])}, loss=loss, row_counts=[4], device=CPU)


def test_which_row_holds_which_of_some_statements():
    statements = ReportStatements.build(REPORTS)
    columns = np.sort(ids_of("Normal", "AF", "never said"))
    rows, at = statements.entries(ids_of(*ROWS), columns)
    held = {(int(row), int(columns[column])) for row, column in zip(rows, at, strict=True)}
    normal, af = ids_of("Normal", "AF").tolist()
    assert held == {(0, normal), (1, normal), (2, normal), (3, af)}
    assert len(rows) == 4


@pytest.mark.parametrize("kept", [False, True])
def test_a_model_from_a_bundle_gets_the_anchors_of_the_run(table, kept):
    torch.manual_seed(0)
    model = Mets(text_features=6, width=4, dimension=3, sigmoid=True)
    model.anchors, model.anchor_directions = torch.randn(5, 6), torch.randn(5, 3)  # of the bundle: other statements
    model.anchor_sides = torch.zeros(5, dtype=torch.int8)
    directions = np.random.default_rng(2).standard_normal((len(table.ids), 3)).astype(np.float32) if kept else None
    sides = np.resize(np.array([-1, 0, 1], np.int8), len(table.ids)) if kept else None
    Texts(table, "f", anchors=table.vectors, anchor_sides=sides, anchor_directions=directions).give_anchors(model)
    np.testing.assert_array_equal(model.anchors.numpy(), table.vectors)
    assert (model.anchor_directions is not None) == kept
    if kept:
        np.testing.assert_array_equal(model.anchor_directions.numpy(), directions)
        np.testing.assert_array_equal(model.anchor_sides.numpy(), sides)
    assert (model.anchor_sides is not None) == kept
    found = model.embed_prompt(torch.randn(2, 6), np.ones(2, np.int8))
    assert found.shape == (2, 3), "anchors, their sides and directions are of the same statements"

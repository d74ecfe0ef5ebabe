"""Which labels a head learns from, and the words of its classes; what nothing can be learnt from is refused."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mets_ray.adaptation.adapt import adapt
from mets_ray.adaptation.labels import keep_labels, read_labels
from mets_ray.config.load import load_config
from mets_ray.errors import CheckpointError, ConfigError, DatasetError

TABLE = "record_id,labels\na,AF;PVC\nb,SR\nc,\n7.0,SR\n"
WORDS = {"rhythm": {"AF": ["atrial fibrillation"], "PVC": ["ventricular ectopics"], "SR": ["sinus rhythm"]}}


def settings(*words):
    return load_config(None, [f"adapt.{word}" for word in words]).adapt


@pytest.fixture
def table(tmp_path):
    (tmp_path / "rhythm.csv").write_text(TABLE)
    return tmp_path / "rhythm.csv"


def test_a_task_of_the_source_has_its_classes_and_their_words():
    labels = read_labels(settings("task=ptbxl_super"), "ptbxl")
    assert list(labels.label_set.classes) == list(labels.words)
    assert labels.prompt_set.tasks == {"ptbxl_super": labels.words}
    assert (labels.prompt_set.name, labels.of_record) == ("descriptive", None)
    assert read_labels(settings("method=linear"), "synthetic").words == {}  # its only task
    with pytest.raises(ConfigError, match=r"`adapt\.task` is not set, and `ptbxl` has 4 tasks"):
        read_labels(settings(), "ptbxl")
    with pytest.raises(
        ConfigError, match=r"`adapt\.task` is `rhythm`, which the source `ptbxl` has no labels for"
    ) as error:
        read_labels(settings("task=rhythm"), "ptbxl")
    assert "adapt.labels_uri" in error.value.hint


def test_a_table_has_the_classes_that_it_names(table, tmp_path):
    expected = {"a": ("AF", "PVC"), "b": ("SR",), "c": (), "7": ("SR",)}
    labels = read_labels(settings(f"labels_uri={table}", "method=linear"), "ptbxl")
    assert (labels.task, list(labels.label_set.classes), labels.of_record) == ("rhythm", ["AF", "PVC", "SR"], expected)
    lists = {"record_id": ["a", "b", "c", "7"], "labels": [["AF", "PVC"], ["SR"], [], ["SR"]]}
    pq.write_table(pa.table(lists), tmp_path / "lists.parquet")
    uri = tmp_path / "lists.parquet"
    assert read_labels(settings(f"labels_uri={uri}", "task=t", "method=linear"), "x").of_record == expected
    # A head that begins with words needs them.
    with pytest.raises(ConfigError, match="no words for 'AF' of `rhythm`") as error:
        read_labels(settings(f"labels_uri={table}"), "ptbxl")
    assert "adapt.method=linear" in error.value.hint
    (tmp_path / "words.json").write_text(json.dumps(WORDS))
    labels = read_labels(settings(f"labels_uri={table}", f"prompt_set={tmp_path / 'words.json'}"), "ptbxl")
    assert labels.words["PVC"] == ("ventricular ectopics",)


def test_a_resumed_run_has_the_labels_that_it_began_with(table, tmp_path):
    labels = read_labels(settings(f"labels_uri={table}", "method=linear"), "ptbxl")
    began = {"a": [True, True, False], "b": [False, False, True]}
    for _ in range(2):
        keep_labels(str(tmp_path), labels, began)
    with pytest.raises(CheckpointError, match="the 2 labelled ECGs are not those that this run began with"):
        keep_labels(str(tmp_path), labels, began | {"b": [True, False, True]})


def test_only_fine_tuning_has_something_to_resume(tmp_path):
    config = load_config(None, [f"train.resume={tmp_path}", "adapt.method=linear"])
    with pytest.raises(ConfigError, match=r"adapt\.method=linear has nothing to resume"):
        adapt(config, str(tmp_path), str(tmp_path))


def test_tables_that_cannot_be_used_are_refused(tmp_path):
    path = tmp_path / "t.csv"
    for content, kind, words in (
        ("record_id,labels\na,AF\nb,AF\n", ConfigError, "has one class only, 'AF'"),
        ("record_id,labels\na,\n", ConfigError, "has one class only, 'none'"),
        ("record_id,labels\na,AF\na,SR\n", DatasetError, "record `a` has two rows"),
        ("record_id,label\na,AF\n", DatasetError, "column `labels` is missing"),
    ):
        path.write_text(content)
        with pytest.raises(kind, match=words) as error:
            read_labels(settings(f"labels_uri={path}", "method=linear"), "ptbxl")
        assert error.value.hint


def test_cells_are_lists_as_in_a_manifest(tmp_path):
    (tmp_path / "t.csv").write_text('record_id,labels\na,"[\'AF\', \'PVC\']"\nb,"[""SR""]"\nc,AF;SR\nd,426783006.0\n')
    labels = read_labels(settings(f"labels_uri={tmp_path / 't.csv'}", "task=t", "method=linear"), "x")
    assert labels.of_record == {"a": ("AF", "PVC"), "b": ("SR",), "c": ("AF", "SR"), "d": ("426783006",)}

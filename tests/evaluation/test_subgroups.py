"""The groups of an evaluation: from the shards, the measures of `prepare`, and the signals; absent ones are named."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mets_ray.dataset.prepared import PreparedDataset
from mets_ray.dataset.quality.measures import quality_path
from mets_ray.dataset.quality.records import RecordQuality, record_qualities
from mets_ray.ecg.ecg import LEADS
from mets_ray.ecg.signal_features import HEART_RATE, LEADS_RECORDED, feature_names
from mets_ray.evaluation.subgroups import FAULT, NO_FAULT, groupings
from mets_ray.pipelines.embed import embedded_records
from mets_ray.sources.manifest import ManifestRow
from tests.support.datasets import synthetic_rows, write_card, write_rows

NAMES = feature_names(LEADS)


def row(number, *, age=50.0, sex="male", rate=70.0, leads=12.0):
    features = np.zeros(len(NAMES), dtype=np.float32)
    features[[NAMES.index(HEART_RATE), NAMES.index(LEADS_RECORDED)]] = rate, leads
    return {
        "record_id": f"r{number:02d}", "patient_id": f"p{number:02d}", "labels": ["SR"], "report": "", "age": age,
        "sex": sex, "ecg_embedding": [1.0, 0.0], "ecg_features": [1.0], "signal_features": features,
    }  # fmt: skip


def test_bands_and_names():
    rows = [
        row(0, age=17.9, sex="female", rate=59.9),
        row(1, age=18.0, rate=60.0),
        row(2, age=79.9, rate=99.9, leads=6),
        row(3, age=80.0, rate=100.0, leads=1),
        row(4, age=None, sex=None, rate=np.nan),
    ]
    qualities = {
        "r00": RecordQuality("CS-12 E", "2", ()),
        "r01": RecordQuality("CS-12 E", "", ("wander",)),
        "r02": RecordQuality("AT-6", "10", ()),
    }
    found = {one.attribute: one for one in groupings(embedded_records(rows), qualities, LEADS)}
    assert list(found) == ["sex", "age", "device", "site", "heart rate", "signal quality", "leads recorded"]
    assert found["sex"].groups == ("female", "male", "male", "male", None)
    assert found["age"].groups == ("0 to 17", "18 to 39", "60 to 79", "80 and above", None)
    assert [text and text.split()[0] for text in found["heart rate"].groups] == ["below", "60", "60", "100", None]
    assert found["leads recorded"].groups[2:4] == ("3 to 6 leads", "1 or 2 leads")
    assert found["device"].groups == ("2 others", "2 others", "2 others", None, None)  # each of fewer than 10 patients
    assert found["site"].groups == ("2 others", None, "2 others", None, None)
    assert found["signal quality"].groups == (NO_FAULT, FAULT, NO_FAULT, None, None)
    assert not any(one.absent for one in found.values())


def test_many_names_become_the_largest_and_the_others():
    rows = [row(number) for number in range(99)]
    names = [min(number // 10, 9) for number in range(90)] + [8] * 5 + [10, 11, 12, 12]
    qualities = {f"r{n:02d}": RecordQuality(f"device {name:02d}", "", ()) for n, name in enumerate(names)}
    (device,) = [one for one in groupings(embedded_records(rows), qualities, LEADS) if one.attribute == "device"]
    assert device.order == ("device 08", *(f"device {n:02d}" for n in range(7)), "4 others")
    assert set(device.groups) == set(device.order)


def test_what_an_older_data_set_lacks_is_absent():
    found = {one.attribute: one.absent for one in groupings(embedded_records([row(0)]), {}, LEADS)}
    assert {name for name, absent in found.items() if absent} == {"device", "site", "signal quality"}
    assert set(found.values()) == {"", "not in this data set"}


def test_prepare_carries_device_and_site_and_older_files_are_read(tmp_path):
    rows = [
        ManifestRow(**vars(one) | {"device": device, "site": site})
        for one, device, site in zip(synthetic_rows(3), ("AT-6", "AT-6", None), ("1", None, None), strict=True)
    ]
    summary = write_rows(tmp_path, rows)
    dataset = PreparedDataset(str(tmp_path), write_card(tmp_path, [summary]))
    found = record_qualities(dataset.uri, dataset.card.shards)
    assert [(one.device, one.site) for one in found.values()] == [("AT-6", "1"), ("AT-6", ""), ("", "")]
    assert not any("hum_50hz" in one.faults for one in found.values())

    path = tmp_path / quality_path("part-00000-abc")
    measures = pq.read_table(path)
    hum = np.array([0.0, 0.5, np.nan], dtype=np.float32)
    at = measures.column_names.index("hum_50hz_ratio")
    changed = measures.set_column(at, measures.schema.field(at), pa.array(hum)).drop_columns(["site", "recorded_at"])
    pq.write_table(changed, path)
    found = record_qualities(dataset.uri, dataset.card.shards)
    assert [(one.site, "hum_50hz" in one.faults) for one in found.values()] == [("", False), ("", True), ("", False)]
    path.unlink()
    assert record_qualities(dataset.uri, dataset.card.shards) == {}


@pytest.mark.parametrize("column", ["age", "sex"])
def test_the_shards_own_columns_arrive(column, tmp_path):
    summary = write_rows(tmp_path, synthetic_rows(3))
    dataset = PreparedDataset(str(tmp_path), write_card(tmp_path, [summary], folds={1: 1, 2: 1, 3: 1}))
    (group,) = dataset.row_groups(dataset.all_folds)
    known = [getattr(one, column) for one in synthetic_rows(3)]
    assert set(dataset.read(group, dataset.all_folds)[column].to_pylist()) <= set(known)

"""The fingerprint of a data set holds all that its bytes depend on."""

from dataclasses import fields, replace

import pytest

from mets_ray.config.load import load_config
from mets_ray.dataset.privacy import Privacy
from mets_ray.dataset.shard_writer import ShardSummary
from mets_ray.pipelines import prepare
from mets_ray.sources.manifest import ManifestRow
from mets_ray.sources.table_manifest import table_manifest

OTHER = {
    "record_id": "b",
    "patient_id": "p",
    "fold": 11,
    "record_uri": "/src/b",
    "report": "Sinus rhythm.",
    "statements": ("Sinus rhythm", "Left bundle branch block"),
    "labels": ("LBBB",),
    "age": 61.0,
    "sex": "female",
    "from_file": ("age", "report"),
    "fault": ("unreadable_row", "the row has another number of cells"),
    "device": "CS-12 E",
    "site": "2",
    "recorded_at": "2001-02-03T04:05:06",
}


@pytest.fixture
def manifest(tmp_path):
    (tmp_path / "m.csv").write_text("record,report,age\na,Sinus rhythm. LBBB,60\n")
    return table_manifest("/src", str(tmp_path / "m.csv"))


def name_of(manifest, *words, root="/src"):
    settings = load_config(None, list(words)).prepare
    privacy = Privacy.of(settings.deidentify, pseudonymise=settings.pseudonymise)
    return prepare.dataset_fingerprint(settings, manifest, root, privacy)


@pytest.mark.parametrize("field", [field.name for field in fields(ManifestRow)])
def test_every_column_is_part_of_it(manifest, field):
    (row,) = manifest.rows
    changed = replace(manifest, rows=(replace(row, **{field: OTHER[field]}),))
    assert name_of(changed) != name_of(manifest)


def test_settings_and_rules_are_part_of_it(manifest, monkeypatch):
    names = {
        name_of(manifest),
        name_of(manifest, "prepare.sampling_rate_hz=500"),
        name_of(manifest, "prepare.duration_s=5"),
        name_of(manifest, "prepare.highpass_hz=null"),
        name_of(manifest, "prepare.missing_leads=zero"),
        name_of(manifest, "prepare.measured_statements=true"),
        name_of(replace(manifest, has_reports=False)),
        name_of(replace(manifest, sha256="other")),
    }
    monkeypatch.setattr(prepare, "CONVERSION_VERSION", 99)
    names.add(name_of(manifest))
    monkeypatch.undo()
    monkeypatch.setattr(prepare, "clean_report", str.lower)
    names.add(name_of(manifest))
    assert len(names) == 10


def test_nothing_is_measured_for_shuffled_reports(manifest):
    shuffled = "prepare.shuffle_reports=true"
    assert name_of(manifest, shuffled, "prepare.measured_statements=true") == name_of(manifest, shuffled)


def test_the_card_says_which_leads_are_zeros():
    summary = ShardSummary(shard=None, records_in=1, rejected={}, folds={}, absent_leads={"V1": 600, "III": 3})
    assert prepare._signal_notes([summary, summary]) == (
        "leads that were not recorded are zeros, by records: III in 6, V1 in 1,200",
    )
    assert prepare._signal_notes([summary.model_copy(update={"absent_leads": {}})]) == ()


def test_where_the_source_lies_is_no_part_of_it(manifest):
    (row,) = manifest.rows
    copy = replace(manifest, rows=(replace(row, record_uri="s3://bucket/src/a"),))
    assert name_of(copy, root="s3://bucket/src") == name_of(manifest)

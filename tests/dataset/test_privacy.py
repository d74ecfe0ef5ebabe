"""Identifying text and ids in what `prepare` writes: shards, rejected records, messages, fingerprint."""

from dataclasses import replace

import pyarrow.parquet as pq
import pytest

from mets_ray.dataset.privacy import Privacy, note_of_finds, write_sample
from mets_ray.dataset.pseudonyms import KEY_VARIABLE, Pseudonyms
from mets_ray.errors import ConfigError, RecordError
from mets_ray.text.reports import clean_report
from tests.support.datasets import synthetic_rows, write_rows

KEY = Pseudonyms(b"k" * 32)
SIGNED = "Sinus rhythm. Confirmed by Dr. John Smith on 3/4/2015."


def rows():
    first, second, third, *others = synthetic_rows(6)
    signed = replace(first, report=SIGNED, statements=("Sinus rhythm", "Confirmed by Dr. John Smith on 3/4/2015"))
    return [signed, replace(second, record_uri="/data/patient-4711/miller_ecg"), replace(third, report=""), *others]


def written(folder, kind, name="part-00000-abc"):
    return pq.read_table(folder / kind / f"{name}.parquet").to_pylist()


def everything(folder):
    return b"".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


def test_what_is_found_is_masked_counted_and_shown(tmp_path):
    summary = write_rows(tmp_path, rows())
    first = written(tmp_path, "shards")[0]
    assert first["report"] == "Sinus rhythm. Confirmed by [name] on [date]."
    assert first["statements"] == ["Sinus rhythm"]
    assert summary.identifying == {"date": 1, "name": 1}
    assert {kind for kind, _, _ in summary.identifying_sample} == {"date", "name"}
    assert "name in 1 record" in note_of_finds(summary.identifying, "mask")[0]
    write_sample(str(tmp_path), summary.identifying_sample)
    assert (tmp_path / "identifying.csv").read_text().splitlines()[0] == "kind,record_id,words_around"
    assert b"Smith" not in everything(tmp_path)


def test_the_message_of_a_rejected_record_tells_nothing_of_the_person():
    report = "Edit: Dr. Müller, geb. 03.04.1941, MRN 12345678"
    (row,) = synthetic_rows(1)
    with pytest.raises(RecordError) as caught:
        clean_report(report)
    for error in (caught.value, RecordError("other", f"it says {report}", hint=f"mend {report}")):
        shown = str(Privacy().of_rejected(replace(row, report=report), error))
        assert "1941" not in shown
        assert "12345678" not in shown
    assert "Müller" not in str(caught.value)


def test_it_may_be_kept_or_refused(tmp_path):
    kept = write_rows(tmp_path / "kept", rows(), privacy=Privacy("keep"))
    assert written(tmp_path / "kept", "shards")[0]["report"] == SIGNED
    assert kept.identifying == {"date": 1, "name": 1}
    refused = write_rows(tmp_path / "refused", rows(), privacy=Privacy("refuse"))
    assert refused.rejected == {"empty_report": 1, "identifying_text": 1, "missing_file": 1}
    detail = written(tmp_path / "refused", "rejected")[0]
    assert detail["report"] == "Sinus rhythm. Confirmed by [name] on [date]."
    assert b"Smith" not in everything(tmp_path / "refused")


def test_shards_in_which_nothing_is_found_are_the_same_bytes_under_each_policy(tmp_path):
    shards = {
        policy: write_rows(tmp_path / policy, synthetic_rows(8), privacy=Privacy(policy)).shard.sha256
        for policy in ("keep", "mask", "refuse")
    }
    assert len(set(shards.values())) == 1


def test_pseudonyms_leave_no_id_and_the_same_folds(tmp_path):
    plain, hidden = tmp_path / "plain", tmp_path / "hidden"
    given = [replace(row, recorded_at="2001-02-03") for row in rows()]
    write_rows(plain, given)
    write_rows(hidden, given, privacy=Privacy(pseudonyms=KEY))
    before, after = written(plain, "shards"), written(hidden, "shards")
    assert [row["fold"] for row in before] == [row["fold"] for row in after]
    assert [row["signal_uv"] for row in before] == [row["signal_uv"] for row in after]
    assert [KEY.of("record", row["record_id"]) for row in before] == [row["record_id"] for row in after]
    assert [KEY.of("patient", row["patient_id"]) for row in before] == [row["patient_id"] for row in after]
    times = [{row["recorded_at"] for row in written(folder, "quality")} for folder in (plain, hidden)]
    assert times == [{"2001-02-03"}, {""}]  # the day leads to the person
    missing = next(row for row in written(hidden, "rejected") if row["reason"] == "missing_file")
    assert missing["detail"] == "`[id].hea` does not exist"
    for row in written(hidden, "rejected"):
        assert not any(word in str(row) for word in ("4711", "miller", *(one.record_id for one in given)))


def test_one_patient_keeps_one_pseudonym_and_another_key_gives_others():
    assert KEY.of("patient", "17") == Pseudonyms(b"k" * 32).of("patient", "17")
    names = {
        KEY.of("patient", "17"),
        KEY.of("record", "17"),
        KEY.of("patient", "18"),
        Pseudonyms(b"x" * 32).of("patient", "17"),
    }
    assert len(names) == 4
    assert "k" * 8 not in repr(Privacy(pseudonyms=KEY))


def test_a_key_must_be_there_and_long_enough(monkeypatch):
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    for key in (None, "", "short"):
        if key is not None:
            monkeypatch.setenv(KEY_VARIABLE, key)
        with pytest.raises(ConfigError, match=KEY_VARIABLE) as caught:
            Privacy.of("mask", pseudonymise=True)
        assert "openssl" in caught.value.hint
        assert key is None or key == "" or key not in str(caught.value)
    monkeypatch.setenv(KEY_VARIABLE, "k" * 32)
    assert Privacy.of("mask", pseudonymise=True).pseudonyms == KEY
    assert Privacy.of("mask", pseudonymise=False).pseudonyms is None


def test_the_fingerprint_covers_what_is_changed_and_nothing_else():
    clean, signed = synthetic_rows(3), rows()
    assert [Privacy(policy).facts(clean) for policy in ("keep", "mask", "refuse")] == [{}, {}, {}]
    assert Privacy("keep").facts(signed) == {}
    assert Privacy("mask").facts(signed) != Privacy("refuse").facts(signed)
    assert Privacy("mask").facts([replace(clean[0], from_file=("report",))])["deidentify"] == "mask"
    keys = {Privacy(pseudonyms=Pseudonyms(key)).facts(clean)["pseudonyms"] for key in (b"k" * 32, b"x" * 32)}
    assert len(keys) == 2

"""quality/: what is counted of a data set, what is said about it, and what stands on the page."""

import random
from collections import Counter
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest

from mets_ray.dataset.prepared import PreparedDataset
from mets_ray.dataset.quality.counts import BOUNDS, QualityCounts, age_band, quantiles
from mets_ray.dataset.quality.duplicates import RecordKeys, find_duplicates, near_groups
from mets_ray.dataset.quality.measures import coarse_hashes, signal_hash
from mets_ray.dataset.quality.page import Quality, Sample, quality_page, verdict_page
from mets_ray.dataset.quality.rejections import read_rejections
from mets_ray.dataset.quality.shard import count_shard
from mets_ray.dataset.quality.tally import Tally
from mets_ray.dataset.quality.verdict import verdict
from mets_ray.dataset.shard_reader import open_shard
from mets_ray.ecg.ecg import EcgMeta
from mets_ray.results.page import markdown, render
from mets_ray.sources.synthetic import Synthetic
from tests.support.datasets import synthetic_rows, write_card, write_dataset, write_rows


def counted(dataset):
    whole = QualityCounts()
    for shard in dataset.card.shards:
        whole.merge(count_shard(dataset.uri, dataset.card, shard))
    return whole


def judged(dataset):
    counts = counted(dataset)
    duplicates = find_duplicates(RecordKeys.concatenate(counts.keys))
    return counts, duplicates, {one.title: one for one in verdict(dataset.card, counts, duplicates)}


def html_of(dataset):
    counts, duplicates, _ = judged(dataset)
    rejections = read_rejections(dataset.uri, dataset.card)
    findings = verdict(dataset.card, counts, duplicates)
    png = b"\x89PNG\r\n\x1a\n" + bytes(20)
    return render(
        quality_page(Quality(dataset.card, counts, duplicates, rejections, findings, [Sample("r", png)]), "now")
    )


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Two shards: the second repeats two records of the first for other patients, in another fold."""
    folder = tmp_path_factory.mktemp("quality")
    rows = [
        replace(row, fold=1 + number % 3, patient_id=f"person-{number}")
        for number, row in enumerate(synthetic_rows(60))
    ]
    copies = [
        replace(row, record_id=f"copy-{row.record_id}", patient_id=f"other-{n}", fold=9)
        for n, row in enumerate(rows[:2])
    ]
    split = replace(rows[3], record_id="again", record_uri=rows[50].record_uri, fold=9)
    bad = [replace(rows[4], record_id="bad", report=" "), replace(rows[5], record_id="gone", record_uri="/none")]
    summaries = [
        write_rows(folder, rows[:40], name="part-00000-abc"),
        write_rows(folder, [*rows[40:50], *copies, split, *bad], name="part-00001-abc"),
    ]
    rejected = {"empty_report": 1, "missing_file": 1}
    folds = dict(Counter([row.fold for row in rows[:50]] + [9, 9, 9]))
    return PreparedDataset(str(folder), write_card(folder, summaries, rejected=rejected, folds=folds))


def test_shards_add_up_in_any_order(dataset):
    first, second = (count_shard(dataset.uri, dataset.card, shard) for shard in dataset.card.shards)
    again = [count_shard(dataset.uri, dataset.card, shard) for shard in reversed(dataset.card.shards)]
    first.merge(second)
    again[0].merge(again[1])
    assert first.records == first.from_source == 53
    assert first.distributions["amplitude_mv"].sum() == 53 * 12
    for name in ("flagged", "measured", "languages", "people"):
        assert getattr(first, name) == getattr(again[0], name)
    for name in ("reports", "statements", "labels"):
        assert getattr(first, name).counts == getattr(again[0], name).counts
    assert first.people["fold", "9"] == 3
    shards = [open_shard(dataset.uri, shard).read(columns=["labels"]) for shard in dataset.card.shards]
    labels = [label for shard in shards for found in shard["labels"].to_pylist() for label in set(found)]
    assert first.label_totals == Counter(labels)


def test_copies_and_patients_across_folds_stop(dataset):
    _, duplicates, findings = judged(dataset)
    assert (duplicates.signals.values, duplicates.signals.records, duplicates.signals.across_folds) == (2, 4, 4)
    assert duplicates.signals.across_patients == 4
    assert (duplicates.patients, duplicates.patients_across_folds) == (52, 1)
    assert findings["Copies of signals across folds"].level == "stop"
    assert findings["Patients in several folds"].level == "stop"
    assert findings["Limb leads"].level == "fine"
    assert findings["Synthetic data"].level == "look"


def test_the_page_has_every_part_and_says_how_to_mend(dataset):
    page = html_of(dataset)
    for words in ("Verdict", "What was rejected", "bad: the report", "missing_file", "I + III − II", "Most frequent"):
        assert words in page
    assert "http" not in page.replace("http-equiv", "")
    assert "person-" not in page
    assert page.count("<img") == page.count("alt=") >= 3


def test_a_text_of_few_patients_is_not_shown_however_many_records_have_it(tmp_path):
    rows = synthetic_rows(60)
    own = [replace(row, report="Father of twins", statements=("Father of twins",), patient_id="p") for row in rows[:30]]
    shared = [
        replace(row, report="Shared by many", statements=(), patient_id=f"q{n}") for n, row in enumerate(rows[30:])
    ]
    summary = write_rows(tmp_path, [*own, *shared])
    page = html_of(PreparedDataset(str(tmp_path), write_card(tmp_path, [summary])))
    assert "Shared by many" in page
    assert "Father of twins" not in page


def test_a_mended_shard_has_no_old_examples(tmp_path):
    rows = list(synthetic_rows(3))
    gone = replace(rows[1], record_uri=str(tmp_path / "none"))
    first = write_rows(tmp_path, [rows[0], gone, rows[2]])
    card = write_card(tmp_path, [first], rejected=first.rejected)
    (found,) = read_rejections(str(tmp_path), card)
    assert (found.reason, found.records, found.examples[0][0]) == ("missing_file", 1, rows[1].record_id)
    assert "again" in found.mending
    write_rows(tmp_path, rows)
    (found,) = read_rejections(str(tmp_path), card)
    assert found.examples == ()


def test_leads_in_another_order_are_found_named_and_stop(tmp_path):
    rows = synthetic_rows(16)
    summary = write_rows(tmp_path, rows, source=_mixed(rows))
    counts, _, findings = judged(PreparedDataset(str(tmp_path), write_card(tmp_path, [summary])))
    assert counts.suspects == {"aVL/aVF": 4}
    assert findings["Limb leads that contradict each other"].level == "stop"
    assert "aVL and aVF" in findings["Limb leads that contradict each other"].text
    assert counts.facts["device"].top(1) == [("MAC 5500", 16)]
    assert counts.examples["aVL/aVF"] == [row.record_id for row in rows[::4]]


def _mixed(rows):
    wrong = {row.record_uri for row in rows[::4]}

    class Mixed(Synthetic):
        def read(self, record_uri):
            ecg = replace(super().read(record_uri), meta=EcgMeta(format="muse", device="MAC 5500"))
            order = [*range(4), 5, 4, *range(6, 12)] if record_uri in wrong else range(12)
            return replace(ecg, signal_mv=ecg.signal_mv[list(order)])

    return Mixed(kind="synthetic")


def test_a_data_set_of_an_earlier_version_is_measured_from_its_shards(tmp_path):
    dataset = PreparedDataset.open(write_dataset(tmp_path, synthetic_rows(20)))
    before = counted(dataset)
    for file in (tmp_path / "quality").iterdir():
        file.unlink()
    after = counted(dataset)
    assert (before.from_source, after.from_source) == (20, 0)
    assert after.measured["wander"] == 0  # the filter took it away
    assert np.array_equal(before.keys[0].signal, after.keys[0].signal)
    assert np.array_equal(before.keys[0].coarse, after.keys[0].coarse)
    assert "only the stored signals" in html_of(dataset)


def test_measures_are_written_beside_the_shard_and_made_again_if_lost(tmp_path):
    rows = synthetic_rows(5)
    write_rows(tmp_path, rows)
    (file,) = (tmp_path / "quality").iterdir()
    written = file.read_bytes()
    assert pq.read_table(file)["record_id"].to_pylist() == [row.record_id for row in rows]
    file.unlink()
    assert not write_rows(tmp_path, rows).reused
    assert file.read_bytes() == written


def test_wrong_units_and_implausible_amplitudes_stop(tmp_path):
    class Volts(Synthetic):
        def read(self, record_uri):
            ecg = super().read(record_uri)
            return replace(ecg, signal_mv=ecg.signal_mv * 0.1)

    summary = write_rows(tmp_path, synthetic_rows(8), source=Volts(kind="synthetic"))
    counts, _, findings = judged(PreparedDataset(str(tmp_path), write_card(tmp_path, [summary])))
    assert findings["Implausible amplitudes"].level == "stop"
    assert counts.flagged["faint"] > 0


def test_a_tally_is_exact_until_it_is_full_and_then_low_by_what_it_says():
    draws = random.Random(0)
    words = [f"w{int(draws.paretovariate(0.6)) % 5000}" for _ in range(40_000)]
    truth, merged = Counter(words), Tally(capacity=200)
    for start in range(0, len(words), 1000):
        merged.merge(Tally(words[start : start + 1000], capacity=200))
    exact = Tally(words, capacity=5000)
    assert exact.counts == truth
    assert exact.missing == 0
    assert len(merged.counts) <= 200
    assert 0 < merged.missing <= merged.total / 200
    assert all(truth[key] - merged.missing <= merged.counts[key] <= truth[key] for key in truth)


def test_almost_equal_signals_are_found_and_others_are_not():
    generator = np.random.default_rng(1)
    source = Synthetic(kind="synthetic")
    ecgs = np.stack([source.read(row.record_uri).signal_mv[:, :1000] for row in synthetic_rows(100)])
    signals_uv = np.rint(ecgs * 1000).astype(np.int16)
    noisy = np.rint(signals_uv * 1.01 + generator.normal(0, 2, signals_uv.shape)).astype(np.int16)
    groups = near_groups(coarse_hashes(np.concatenate([signals_uv, noisy]), 100))
    assert (groups[:100] == groups[100:]).mean() > 0.95
    assert len(set(groups[:100].tolist())) == 100
    assert signal_hash(signals_uv[0]) != signal_hash(noisy[0])


@pytest.mark.parametrize(
    ("age", "band"), [(0.0, "0-17"), (17.9, "0-17"), (18.0, "18-29"), (80.0, "80+"), (None, "unknown")]
)
def test_ages_have_bands(age, band):
    assert age_band(age) == band


def test_quantiles_are_upper_edges():
    assert quantiles(np.array([1, 2, 1]), np.array([0.0, 1.0, 2.0, 3.0]), (0.25, 0.5, 1.0)) == [1.0, 2.0, 3.0]
    assert np.isnan(quantiles(np.array([0, 0]), np.array([0.0, 1.0, 2.0]), (0.5,))[0])
    assert not BOUNDS["faint"].is_beyond(np.array([np.nan]))[0]


def test_the_terminal_is_told_what_to_look_at(dataset):
    _, duplicates, _ = judged(dataset)
    words = markdown(verdict_page(verdict(dataset.card, counted(dataset), duplicates)))
    assert "| STOP | Patients in several folds |" in words


@pytest.mark.parametrize("rate_hz", [50, 100, 360, 500])
def test_coarse_hashes_are_those_of_the_mean_to_the_bit(rate_hz):
    """As they were computed before, so that hashes of old and new shards can be compared."""
    signals_uv = np.random.default_rng(rate_hz).integers(-32768, 32767, (3, 12, 7 * rate_hz + 3), dtype=np.int16)
    step = rate_hz // 50
    kept = signals_uv.shape[2] // step
    coarse = signals_uv[:, :, : kept * step].reshape(3, 12, kept, step).mean(axis=3, dtype=np.float32)
    coarse -= coarse.mean(axis=2, keepdims=True)
    signs = np.random.RandomState(0).randint(0, 2, (12 * kept, 64)).astype(np.float32) * 2 - 1
    bits = (coarse.reshape(3, -1) @ signs) > 0
    assert coarse_hashes(signals_uv, rate_hz).tolist() == np.packbits(bits, axis=1).view(">u8")[:, 0].tolist()

"""The texts of a prepared data set, and their vectors from the store, the bundle or the LM actors."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64

from mets_ray.config.settings import Config
from mets_ray.dataset.folds import Selection
from mets_ray.dataset.prepared import PreparedDataset
from mets_ray.model.bundle import Bundle, check_text_model
from mets_ray.model.predictor import Predictor
from mets_ray.pipelines.lm_actors import embed_texts, store_uri
from mets_ray.text.embeddings import EmbeddingTable, read_store
from mets_ray.text.reports import apply_template, text_id


def report_texts(dataset: PreparedDataset, template: str, selection: Selection) -> list[str]:
    """All distinct training texts of the selected records: their reports, formatted with the template."""
    reports = {report for of_shard in dataset.distinct_reports(selection) for report in of_shard}
    return sorted(apply_template(template, report) for report in reports)


def report_statements(dataset: PreparedDataset, template: str, selection: Selection) -> dict[str, tuple[str, ...]]:
    """The statements of each distinct training text of the selected records; a report without any counts as one."""
    found: dict[str, list[str]] = {}
    for of_shard in dataset.distinct_statements(selection):
        for report, parts in of_shard.items():
            statements = parts or [report]
            # If a report has several lists, always keep the same one, whatever shards they are in.
            found[report] = min(found.get(report, statements), statements, key=json.dumps)
    return {apply_template(template, report): tuple(statements) for report, statements in found.items()}


@dataclass(frozen=True)
class ReportsOfPatients:
    """Which patient has which report: `report_ids` of the texts in their template, and a number for each patient.

    `texts`: all distinct ones, sorted.
    """

    texts: list[str]
    report_ids: Int64[np.ndarray, " pair"]
    patients: Int64[np.ndarray, " pair"]

    @classmethod
    def read(cls, dataset: PreparedDataset, template: str, selection: Selection) -> "ReportsOfPatients":
        """Of the selected records. Raises DatasetError for a data set without reports."""
        ids: dict[str, int] = {}
        numbers: dict[str, int] = {}
        rows: list[tuple[int, int]] = []
        for reports, patients in dataset.reports_of_patients(selection):
            for report, patient in zip(reports, patients, strict=True):
                if report not in ids:
                    ids[report] = text_id(apply_template(template, report))
                rows.append((ids[report], numbers.setdefault(patient, len(numbers))))
        pairs = np.asarray(rows, dtype=np.int64).reshape(-1, 2)
        return cls(sorted(apply_template(template, report) for report in ids), pairs[:, 0], pairs[:, 1])


def learn_prompts(config: Config, predictor: Predictor, prompts: Sequence[str], dataset: PreparedDataset) -> None:
    """Add the features of prompts that `predictor` does not have yet, from the store or the bundle's LM.

    Raises CheckpointError if the LM found here is not the bundle's.
    """
    if missing := predictor.missing_texts(prompts):
        table = _by_the_lm_of(predictor.bundle, config, dataset, reports=[], prompts=missing)
        ids = np.asarray([text_id(prompt) for prompt in missing], dtype=np.int64)
        predictor.keep_features(missing, table.lookup(ids))


def report_table(config: Config, bundle: Bundle, reports: Iterable[str], dataset: PreparedDataset) -> EmbeddingTable:
    """Vectors of reports that are already in their template, from the store or the bundle's LM.

    Raises CheckpointError if the LM found here is not the bundle's.
    """
    return _by_the_lm_of(bundle, config, dataset, reports=sorted(set(reports)), prompts=[])


def _by_the_lm_of(
    bundle: Bundle, config: Config, dataset: PreparedDataset, *, reports: list[str], prompts: list[str]
) -> EmbeddingTable:
    facts, store = bundle.facts, store_uri(config, dataset)
    table = read_store(store, facts.text_fingerprint)
    if not table.missing([*reports, *prompts]):
        return table  # what is stored under the bundle's fingerprint is of the bundle's LM, which need not be here
    settings = config.text.model_copy(
        update={
            "model": facts.text_model,
            "revision": facts.text_revision,
            "pooling": facts.text_pooling,
            "max_length": facts.text_max_length,
        }
    )
    embedded = embed_texts(settings, store, reports=reports, prompts=prompts)
    check_text_model(facts, embedded.fingerprint)
    return embedded.table

"""What searching real ECGs in words finds: precision and recall by class, beside chance and beside a keyword search.

For `benchmarks/archive.py`. Each bundle searches an archive of the records that it was never trained on. A class is
asked for in the words of `descriptive`, and in plain words, as a person types them: the names of `class_names`, alone
and in the sentence of `text.template`. A keyword search with those plain words ranks the records' reports by the
cosine of TF-IDF. Chance is the share of the class: its precision at any k; its recall at k is k of all records.
"""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from bench_table import Row

from mets_ray.archive.archive import Archive, open_archive
from mets_ray.archive.facts import ArchiveFacts, IndexedDataset
from mets_ray.archive.query import Query, Term
from mets_ray.archive.schema import table_schema
from mets_ray.archive.words import read_query
from mets_ray.archive.writer import IndexWriter, write_fragments
from mets_ray.dataset.folds import Selection
from mets_ray.dataset.prepared import PreparedDataset
from mets_ray.dataset.shard_reader import signals
from mets_ray.model.predictor import Predictor, load_predictor
from mets_ray.tasks.label_sets import label_matrix
from mets_ray.tasks.prompt_sets import load_prompt_set
from mets_ray.tasks.questions import dataset_tasks
from mets_ray.text.reports import apply_template

PRECISION_AT, RECALL_AT = 10, 50
LEAST_RECORDS = 5  # of a class, among those that are searched
_BATCH = 64

Rank = Callable[[str, str, str], list[int]]
"""(task, class, its plain words) → numbers of the records found, the best first."""


@dataclass(frozen=True)
class Found:
    """How one way of asking did for one class in one group of records."""

    precision: float
    recall: float


def quality_rows(dataset_uri: str, bundle_uris: Sequence[str]) -> list[Row]:
    """Means over classes, of each task's classes with at least 5 records in a group, and over groups."""
    dataset = PreparedDataset.open(dataset_uri)
    found: dict[str, dict[str, list[Found]]] = {}
    for bundle_uri in bundle_uris:
        for way, name, one in _of_group(dataset, load_predictor(bundle_uri)):
            found.setdefault(way, {}).setdefault(name, []).append(one)
    rows = []
    for way, classes in found.items():
        means = {
            name: (np.mean([one.precision for one in group]), np.mean([one.recall for one in group]))
            for name, group in classes.items()
        }
        for place, measure in enumerate((f"precision@{PRECISION_AT}", f"recall@{RECALL_AT}")):
            detail = {name: round(float(values[place]), 3) for name, values in means.items()}
            value = float(np.mean([values[place] for values in means.values()]))
            rows.append(Row(f"archive.{measure}.{way}", (value,), "", detail=detail))
    return rows


def _of_group(dataset: PreparedDataset, predictor: Predictor) -> Iterator[tuple[str, str, Found]]:
    """(way, task/class, what was found) among the records that the bundle never saw."""
    unseen = Selection(tuple(sorted(set(dataset.card.folds) - set(predictor.facts.train_folds))))
    records = pa.concat_tables([dataset.read(group, unseen) for group in dataset.row_groups(unseen)])
    labels, names = records["labels"].to_pylist(), load_prompt_set("class_names").tasks
    with tempfile.TemporaryDirectory() as folder:
        ways = _ways(_archive(folder, dataset, predictor, records), predictor, records)
        for task, label_set in dataset_tasks(dataset.card.source).items():
            truth, _ = label_matrix(label_set, labels)
            for column, name in enumerate(label_set.classes):
                is_of_class = truth[:, column]
                if is_of_class.sum() < LEAST_RECORDS:
                    continue
                (words,) = names[task][name]
                chance = Found(float(is_of_class.mean()), min(1.0, RECALL_AT / len(is_of_class)))
                yield "chance", f"{task}/{name}", chance
                for way, rank in ways.items():
                    yield way, f"{task}/{name}", _judged(is_of_class, rank(task, name, words))


def _judged(is_of_class: np.ndarray, ranked: list[int]) -> Found:
    return Found(
        float(is_of_class[ranked[:PRECISION_AT]].sum()) / PRECISION_AT,
        float(is_of_class[ranked[:RECALL_AT]].sum() / is_of_class.sum()),
    )


def _ways(archive: Archive, predictor: Predictor, records: pa.Table) -> dict[str, Rank]:
    place = {name: number for number, name in enumerate(records["record_id"].to_pylist())}
    descriptive = load_prompt_set("descriptive").tasks

    def templated(words: str) -> str:
        # Not `predictor.template`, which leaves words alone where the bundle was trained on statements.
        return apply_template(predictor.bundle.config.text.template, words)

    def ask(term: Term) -> list[int]:
        directions = read_query(predictor, Query((term,)))
        page = archive.search_directions(directions, k=RECALL_AT, one_per_patient=False)
        return [place[hit.record_id] for hit in page.hits]

    return {
        "descriptive": lambda task, name, _: ask(Term(name, wordings=descriptive[task][name])),
        "plain_words": lambda _task, _name, words: ask(Term(words)),
        "plain_words_in_template": lambda _task, _name, words: ask(Term(words, wordings=(templated(words),))),
        "keywords": _keyword_search(records["report"].to_pylist()),
    }


def _keyword_search(reports: list[str]) -> Rank:
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(sublinear_tf=True)
    matrix = vectorizer.fit_transform(reports)

    def rank(_task: str, _name: str, words: str) -> list[int]:
        scores = (matrix @ vectorizer.transform([words]).T).toarray()[:, 0]
        order = np.argsort(-scores, kind="stable")
        return [int(number) for number in order if scores[number] > 0]

    return rank


def _archive(folder: str, dataset: PreparedDataset, predictor: Predictor, records: pa.Table) -> Archive:
    uri, digest, count = f"{folder}/archive", predictor.bundle.digest, records.num_rows
    signal_uv = signals(records)
    parts = [predictor.embed_windows(signal_uv[first : first + _BATCH]) for first in range(0, count, _BATCH)]
    embeddings = np.concatenate(parts)
    dimension = embeddings.shape[1]
    schema = table_schema(dimension, reports=False)
    known = {name: records[name] for name in ("record_id", "patient_id", "fold", "age", "sex")} | {
        "source": pa.array([dataset.card.source] * count),
        "dataset": pa.array(["group"] * count),
        "shard": pa.array(["group"] * count),
        "shard_row": pa.array(range(count), pa.int32()),
        "embedding": pa.FixedSizeListArray.from_arrays(pa.array(embeddings.reshape(-1)), dimension),
    }
    table = pa.table({field.name: known.get(field.name, pa.nulls(count)) for field in schema}).cast(schema)
    facts = ArchiveFacts(
        bundle_uri="", bundle_run=predictor.facts.run, bundle_digest=digest, dimension=dimension, has_reports=False
    )
    of = IndexedDataset(uri=dataset.uri, source=dataset.card.source, content_sha256="", synthetic=False)
    writer = IndexWriter.claim(uri, facts, "group", of)
    writer.append(write_fragments(uri, table))
    writer.finish("group")
    return open_archive(uri)

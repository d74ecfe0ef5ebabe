"""A run's texts: which it needs, which of them are stored, and the vectors of all, while the workers start."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import ray
from jaxtyping import Int64

from mets_ray.cluster.nodes import live_nodes
from mets_ray.cluster.shares import TrainShares, check_lm_fits
from mets_ray.config.settings import Config
from mets_ray.console import say
from mets_ray.dataset.folds import Selection
from mets_ray.dataset.prepared import PreparedDataset
from mets_ray.errors import ConfigError
from mets_ray.model.anchor_statements import AnchorStatements, name_anchors
from mets_ray.pipelines.lm_actors import EmbeddedTexts, embed_missing, look_up_texts, store_uri
from mets_ray.pipelines.texts import ReportsOfPatients, report_statements, report_texts
from mets_ray.text.reports import text_id
from mets_ray.text.sides import sides_of
from mets_ray.text.statements import ReportStatements, one_spelling
from mets_ray.training.categories import kinds_said, with_kinds
from mets_ray.training.retimed import retimed_reports
from mets_ray.training.statement_leads import StatementLeads
from mets_ray.training.texts import Texts

MOST_ANCHORS = 4096
"""The most statements whose LM features a bundle keeps: 6 MB at 768 features. The 12SL program has a few hundred."""

_FEW_TEXTS = 1000
"""These are embedded while the workers start. More would let the workers, and their GPUs, wait."""


class TextStage:
    """All texts of a run, looked up in the store; `embed` gives their vectors.

    prompts: of all prompt sets. identity: from `lm_actors.ask_identity`. Raises ConfigError if the LM is not found.
    """

    def __init__(
        self,
        config: Config,
        dataset: PreparedDataset,
        prompts: list[str],
        identity: Any,
        *,
        train: Selection,
        validation: Selection,
    ) -> None:
        template = config.text.template
        self._of_reports: dict[str, tuple[str, ...]] = {}
        self._kinds: dict[str, dict[str, tuple[str, ...]]] = {}  # of `_of_reports`
        self._distinct: list[str] = []  # statements of `_of_reports`
        self._trained: ReportsOfPatients | None = None
        self._named_from = config.text.named_from_patients
        self._leads = dataset.card.leads
        if config.text.unit == "statement":
            self._of_reports = one_spelling(report_statements(dataset, template, dataset.all_folds))
            self._trained = ReportsOfPatients.read(dataset, template, train)
            kind = f"distinct statements of {len(self._of_reports)} reports"
            if config.augment.retimed:
                trained = {report: self._of_reports[report] for report in self._trained.texts}
                self._of_reports |= retimed_reports(trained)
            self._kinds = kinds_said(self._of_reports)
            self._of_reports = with_kinds(self._of_reports, self._kinds)
            texts = self._distinct = sorted({part for parts in self._of_reports.values() for part in parts})
        else:
            # In streaming mode the stream embeds the train reports; validation needs its reports once in either mode.
            wanted = dataset.all_folds if config.text.mode == "cached" else validation
            # Without any text, embed the template: the LM's number of features must be known.
            texts = report_texts(dataset, template, wanted) or [template]
            kind = "distinct reports"
        say(f"text: {len(texts)} {kind} and {len(prompts)} prompts, LM `{config.text.model}`")
        self._stored = look_up_texts(config.text, store_uri(config, dataset), identity, reports=texts, prompts=prompts)
        self.revision = self._stored.text.revision
        if self.revision and not config.text.revision:
            say(f"text: the LM is not pinned; set text.revision={self.revision} to get the same one in other runs")

    def fits_beside_workers(self, config: Config, shares: TrainShares) -> bool:
        """Whether the workers may start before the vectors are there: few are missing, and the LM has room."""
        workers, lm = config.train.most_workers, config.text
        try:
            check_lm_fits(
                live_nodes(),
                shares,
                num_workers=workers,
                worker_resources=config.train.resources,
                actors_per_worker=-(-lm.min_actors // workers),
                actor={"CPU": lm.num_cpus_per_actor, "GPU": lm.num_gpus_per_actor, **lm.resources},
            )
        except ConfigError:
            return not self._stored.missing
        return len(self._stored.missing) <= _FEW_TEXTS

    def embed(self) -> tuple[Any, EmbeddedTexts]:
        """A reference to the run's `Texts` in Ray's object store, and how many of them the LM had to embed.

        Raises ConfigError if the model cannot be loaded.
        """
        embedded = embed_missing(self._stored)
        say(f"text: {embedded.reports_embedded} reports and {embedded.prompts_embedded} prompts went through the LM")
        texts = Texts(embedded.table, embedded.fingerprint, revision=embedded.revision)
        if self._trained is not None:
            trained = {report: self._of_reports[report] for report in self._trained.texts}
            of_trained = ReportStatements.build(trained)
            ids = of_trained.most_frequent(MOST_ANCHORS)
            by_id = {text_id(part): part for part in self._distinct}
            anchors = [by_id[one] for one in ids.tolist()]
            texts = replace(
                texts,
                statements=ReportStatements.build(self._of_reports),
                statement_leads=StatementLeads.build(by_id, self._leads, self._kinds),
                anchors=embedded.table.lookup(ids),
                anchor_sides=sides_of(anchors),
                anchor_ids=ids,
                named=None if self._named_from is None else self._name(of_trained, ids, by_id, self._named_from),
            )
        return ray.put(texts), embedded

    def _name(
        self,
        of_trained: ReportStatements,
        anchor_ids: Int64[np.ndarray, " anchor"],
        texts: Mapping[int, str],
        least_patients: int,
    ) -> AnchorStatements:
        assert self._trained is not None
        patients = of_trained.count_patients(self._trained.report_ids, self._trained.patients)
        named = name_anchors(anchor_ids.tolist(), texts, patients, least_patients=least_patients)
        say(
            f"text: the bundle names {len(named.statements)} of {len(anchor_ids)} statements, those of at least "
            f"{least_patients} patients"
        )
        return named

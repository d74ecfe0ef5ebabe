"""Quality by set of leads: the same test records, scored with the leads that smaller devices record."""

from dataclasses import replace

from mets_ray.ecg.ecg import LEADS
from mets_ray.ecg.lead_sets import LEAD_SETS, fewer_leads
from mets_ray.evaluation.inputs import EvaluationInputs, similarities_by_task
from mets_ray.metrics.lead_set_scores import LeadSetScore, score_lead_sets
from mets_ray.model.bundle import Bundle


def sets_to_score(bundle: Bundle) -> dict[str, tuple[str, ...]]:
    """The sets of fewer leads that a bundle is to be scored with; none for one that needs every lead."""
    return fewer_leads(LEADS) if bundle.takes_fewer_leads and set(bundle.facts.leads) == set(LEADS) else {}


def score_fewer_leads(inputs: EvaluationInputs) -> tuple[LeadSetScore, ...]:
    """Scores with all leads and with each set of fewer.

    None if the bundle needs every lead, or if the data set has records that lack some: they are in no set.
    """
    records = inputs.records
    if not records.with_fewer_leads or records.partial:
        return ()
    found = {
        name: similarities_by_task(
            inputs.predictor,
            inputs.questions,
            replace(records, embeddings=records.with_fewer_leads.get(name, records.embeddings)),
        )
        for name in LEAD_SETS
    }
    return score_lead_sets(
        found,
        LEAD_SETS,
        samples=inputs.config.evaluate.bootstrap_samples,
        seed=inputs.config.seed,
        drawn_from=records.patients,
    )

"""The whole way in one command: synthetic ECGs → shards → cached text → two workers train → zero-shot table.

python jobs/quickstart.py --config jobs/configs/quickstart.yaml
"""

from typing import Any

from mets_ray.config.settings import Config
from mets_ray.console import say
from mets_ray.dataset.prepared import PreparedDataset
from mets_ray.evaluation.evaluate import evaluate, figures
from mets_ray.job import run_job
from mets_ray.pipelines.prepare import draw_first_record, find_or_make_dataset
from mets_ray.training.fit import fit


def main(config: Config, command: str) -> dict[str, Any]:
    dataset_uri = find_or_make_dataset(config, command)
    trained = fit(config, dataset_uri)
    scored = figures([evaluate(config, dataset_uri, trained.bundle_uri, command)])
    record_uri = draw_first_record(PreparedDataset.open(dataset_uri))
    say(
        f"\nbundle    {trained.bundle_uri}\nreport    {scored['report_uri']}\ntable     {scored['table_uri']}\n"
        f"pictures  {trained.picture_uri}\n          {record_uri}\n"
        + "".join(f"          {uri}\n" for uri in scored["picture_uris"])
    )
    return scored | {"dataset_uri": dataset_uri, "bundle_uri": trained.bundle_uri}


if __name__ == "__main__":
    run_job("quickstart", __doc__, main)

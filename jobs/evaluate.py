"""Score a bundle zero-shot on the test folds of a prepared data set: tables, ROC pictures, metrics.json.

python jobs/evaluate.py --config jobs/configs/ptbxl_100hz.yaml dataset_uri=… evaluate.bundle_uri=…
"""

from typing import Any

from mets_ray import storage
from mets_ray.config.settings import Config
from mets_ray.errors import ConfigError
from mets_ray.evaluation.evaluate import evaluate_all, figures
from mets_ray.job import run_job
from mets_ray.pipelines.prepare import find_or_make_dataset


def main(config: Config, command: str) -> dict[str, Any]:
    if config.evaluate.bundle_uri is None:
        raise ConfigError("`evaluate.bundle_uri` is not set", hint="give the bundle_uri that pretrain printed")
    dataset_uri = find_or_make_dataset(config, command)
    return figures(evaluate_all(config, dataset_uri, storage.absolute(config.evaluate.bundle_uri), command))


if __name__ == "__main__":
    run_job("evaluate", __doc__, main)

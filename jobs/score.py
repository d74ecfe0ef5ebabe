"""Zero-shot scores and embeddings of every record of a prepared data set, labelled or not, as Parquet.

python jobs/score.py dataset_uri=… score.bundle_uri=…     # the same command goes on where it was killed
"""

from typing import Any

from mets_ray import storage
from mets_ray.config.settings import Config
from mets_ray.errors import ConfigError
from mets_ray.job import run_job
from mets_ray.pipelines.prepare import find_or_make_dataset
from mets_ray.pipelines.score import figures, score


def main(config: Config, command: str) -> dict[str, Any]:
    if config.score.bundle_uri is None:
        raise ConfigError("`score.bundle_uri` is not set", hint="give the bundle_uri that pretrain printed")
    dataset_uri = find_or_make_dataset(config, command)
    return {"dataset_uri": dataset_uri} | figures(score(config, dataset_uri, storage.absolute(config.score.bundle_uri)))


if __name__ == "__main__":
    run_job("score", __doc__, main)

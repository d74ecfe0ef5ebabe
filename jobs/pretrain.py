"""Pretrain an ECG encoder against frozen text embeddings, and publish the last epoch (or the best) as a bundle.

python jobs/pretrain.py                                                     # synthetic data, made first
python jobs/pretrain.py --config jobs/configs/ptbxl_100hz.yaml dataset_uri=…
ray job submit --working-dir . -- python jobs/pretrain.py run_uri=$PWD/.runs
"""

from typing import Any

from mets_ray.config.settings import Config
from mets_ray.job import run_job
from mets_ray.pipelines.prepare import find_or_make_dataset
from mets_ray.training.fit import figures, fit


def main(config: Config, command: str) -> dict[str, Any]:
    dataset_uri = find_or_make_dataset(config, command)
    return {"dataset_uri": dataset_uri} | figures(fit(config, dataset_uri))


if __name__ == "__main__":
    run_job("pretrain", __doc__, main)

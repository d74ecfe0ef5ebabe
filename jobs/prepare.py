"""Read WFDB records and reports, check and convert every one, write Parquet shards and a card.

python jobs/prepare.py --config jobs/configs/ptbxl_100hz.yaml prepare.source_uri=… dataset_uri=…
"""

from typing import Any

from mets_ray.config.settings import Config
from mets_ray.job import run_job
from mets_ray.pipelines.prepare import draw_first_record, prepare, prepare_uri, show_card


def main(config: Config, command: str) -> dict[str, Any]:
    dataset_uri = prepare_uri(config)
    dataset = prepare(config, dataset_uri, command)
    card = dataset.card
    show_card(card)
    return {
        "dataset_uri": dataset_uri,
        "picture_uri": draw_first_record(dataset),
        "records_in": card.records_in,
        "records_out": card.records_out,
        "rejected": card.rejected,
        "synthetic": card.synthetic,
    }


if __name__ == "__main__":
    run_job("prepare", __doc__, main)

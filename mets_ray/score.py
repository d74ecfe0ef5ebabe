"""Score a whole prepared data set: encoder actors, one file per shard, and a restart that skips finished shards."""

import json
import math
import time
from dataclasses import dataclass
from typing import Any

import ray
from ray.data import ActorPoolStrategy

from mets_ray import storage, text
from mets_ray.checkpoint import Bundle, load_bundle
from mets_ray.cluster import own_errors, plain, reachable_nodes
from mets_ray.config import Config
from mets_ray.console import progress_bar, say
from mets_ray.errors import ConfigError, DatasetError
from mets_ray.report import LabelSet, PromptSet
from mets_ray.resources import check_actor_fits
from mets_ray.schema import DatasetCard, Shard, fingerprint
from mets_ray.scorer import ScoreTask, ShardScorer, score_uri
from mets_ray.shard_reader import read_card
from mets_ray.tables import number_json
from mets_ray.tasks import check_signal, class_vectors, dataset_tasks, read_prompt_set

MANIFEST_NAME = "scores.json"


@dataclass(frozen=True)
class Scored:
    """What a scoring leaves behind.

    `records` were scored now and `skipped` before; `records_per_s` counts from the job's first request for an actor,
    `steady_records_per_s` from when every actor had delivered a shard (nan where nothing came after that).
    """

    output_uri: str
    records: int
    skipped: int
    shards: int
    records_per_s: float
    steady_records_per_s: float


def score(config: Config, dataset_uri: str, bundle_uri: str) -> Scored:
    """Write similarities, scores and embeddings of every record, all folds, with or without labels.

    A shard that has its file is skipped. The default folder is named after everything that the values depend on, so
    the same command goes on where it was killed, and another bundle or prompt set gets a folder of its own.

    Raises CheckpointError where bundle and data set do not fit, ConfigError for unknown tasks or prompts, DatasetError
    where `score.output_uri` holds other scores.
    """
    card, bundle, settings = read_card(dataset_uri), load_bundle(bundle_uri), config.score
    check_signal(card, bundle.facts)
    prompt_set = read_prompt_set(settings.prompt_set)
    names = _choose_tasks(settings.tasks, prompt_set, card.source, bundle.facts.dataset_source)
    gpus = settings.num_gpus_per_actor
    check_actor_fits(reachable_nodes(), key="score", cpus=1.0, gpus=gpus, resources={})
    metadata = _metadata(card, bundle, bundle_uri, prompt_set, names, settings.embeddings)
    output_uri = _claim(config, metadata)
    finished = set(storage.list_files(output_uri, suffix=".parquet"))
    todo = [shard for shard in card.shards if score_uri(output_uri, shard.path) not in finished]
    total = sum(map(_rows, card.shards))
    skipped = total - sum(map(_rows, todo))
    if skipped:
        say(f"{skipped:,} of {total:,} records were scored before, in `{output_uri}`")
    if not todo:
        return _finish(Scored(output_uri, 0, skipped, len(card.shards), 0.0, math.nan), metadata)

    tasks = _score_tasks(config, bundle, prompt_set, names, dataset_uri)
    items = [{"shard": shard.model_dump_json()} for shard in todo]
    dataset = ray.data.from_items(items, override_num_blocks=len(items)).map_batches(
        ShardScorer,
        fn_constructor_args=(bundle_uri, tasks),
        fn_constructor_kwargs={
            "dataset_uri": dataset_uri,
            "output_uri": output_uri,
            "metadata": metadata,
            "embeddings": settings.embeddings,
            "focus": card.focus,
            "batch_size": settings.batch_size,
            "device": "cuda" if gpus else "cpu",
        },
        batch_size=None,
        # No more than the next shard waits at an actor: the last ones are then shared evenly.
        compute=ActorPoolStrategy(
            min_size=1, max_size=min(settings.max_actors, len(todo)), max_tasks_in_flight_per_actor=2
        ),
        num_cpus=1,
        num_gpus=gpus or None,
    )
    began, arrivals = time.monotonic(), []
    with own_errors(), progress_bar(total=total, unit="ECG", description="score") as bar:
        bar.update(skipped)
        # Nothing prefetched: the iterator would keep each answer back until the next shard is finished.
        for batch in plain(dataset).iter_batches(batch_size=None, batch_format="numpy", prefetch_batches=0):
            for records, actor in zip(batch["records"].tolist(), batch["actor"].tolist(), strict=True):
                arrivals.append((time.monotonic() - began, str(actor), int(records)))
                bar.update(int(records))
    records = sum(count for _, _, count in arrivals)
    result = Scored(output_uri, records, skipped, len(card.shards), records / arrivals[-1][0], steady_rate(arrivals))
    return _finish(result, metadata)


def figures(result: Scored) -> dict[str, Any]:
    """The machine-readable end of a job."""
    return {
        "output_uri": result.output_uri,
        "records": result.records,
        "skipped": result.skipped,
        "shards": result.shards,
        "records_per_s": round(result.records_per_s, 1),
        "steady_records_per_s": number_json(round(result.steady_records_per_s, 1)),
    }


def steady_rate(arrivals: list[tuple[float, str, int]]) -> float:
    """Records per second after every actor has delivered its first shard: (seconds, actor, records) by time."""
    seen: set[str] = set()
    last_first = 0
    for position, (_, actor, _) in enumerate(arrivals):
        if actor not in seen:
            seen.add(actor)
            last_first = position
    after = arrivals[last_first + 1 :]
    seconds = arrivals[-1][0] - arrivals[last_first][0]
    return sum(records for _, _, records in after) / seconds if after and seconds > 0 else math.nan


def _choose_tasks(
    named: tuple[str, ...] | None, prompt_set: PromptSet, source: str, bundle_source: str
) -> tuple[str, ...]:
    known = tuple(prompt_set.tasks)
    unknown = [name for name in named or () if name not in known]
    if unknown:
        raise ConfigError(
            f"`score.tasks` names `{unknown[0]}`, which prompt set `{prompt_set.name}` has no prompts for",
            hint=f"choose from {', '.join(known)}",
        )
    if named is not None:
        return named
    for family in (dataset_tasks(source), dataset_tasks(bundle_source)):
        if chosen := tuple(name for name in known if name in family):
            return chosen
    return known


def _score_tasks(
    config: Config, bundle: Bundle, prompt_set: PromptSet, names: tuple[str, ...], dataset_uri: str
) -> tuple[ScoreTask, ...]:
    table = text.prompt_table(config, bundle, prompt_set, names, dataset_uri)
    found = []
    for name in names:
        classes = tuple(prompt_set.tasks[name])
        label_set = LabelSet(name, dict.fromkeys(classes, ()))  # scoring needs no labels, only names in their order
        vectors = class_vectors(bundle.model, prompt_set, label_set, table)
        found.append(ScoreTask(name, classes, vectors.float().numpy()))
    return tuple(found)


def _metadata(
    card: DatasetCard, bundle: Bundle, bundle_uri: str, prompt_set: PromptSet, names: tuple[str, ...], embeddings: bool
) -> dict[str, Any]:
    """What each file says about its values; `fingerprint` is of everything that they depend on."""
    facts = bundle.facts
    identity = {
        "model_sha256": facts.files["model.safetensors"],
        "text_fingerprint": facts.text_fingerprint,
        "prompt_set": {"name": prompt_set.name, "version": prompt_set.version, "sha256": prompt_set.sha256},
        "tasks": list(names),
        "embeddings": embeddings,
        "dataset_sha256": card.content_sha256,
    }
    return identity | {
        "fingerprint": fingerprint(identity),
        "bundle_uri": bundle_uri,
        "run": facts.run,
        "logit_scale": float(bundle.model.logit_scale.detach()),
        "synthetic": card.synthetic or facts.synthetic,
        "notices": [
            "similarity is a cosine, score its softmax over the classes of a task: not calibrated, so no probability.",
            "Research software, not a medical device.",
        ],
    }


def _claim(config: Config, metadata: dict[str, Any]) -> str:
    """The output folder, marked as these scores'. Raises DatasetError where it is another's."""
    name = f"scores-{metadata['run']}-{metadata['prompt_set']['name']}-{metadata['fingerprint'][:8]}"
    default = storage.join(storage.absolute(config.run_uri), name)
    output_uri = storage.absolute(config.score.output_uri) if config.score.output_uri else default
    manifest_uri = storage.join(output_uri, MANIFEST_NAME)
    if not storage.exists(manifest_uri):
        storage.write_bytes(manifest_uri, json.dumps(metadata | {"finished": False}, indent=1).encode())
        return output_uri
    before = json.loads(storage.read_bytes(manifest_uri))
    changed = sorted(key for key in metadata if key != "bundle_uri" and before.get(key) != metadata[key])
    if before["fingerprint"] != metadata["fingerprint"]:
        raise DatasetError(
            f"`{output_uri}` holds other scores: {', '.join(f'`{key}`' for key in changed if key != 'fingerprint')} "
            "differ",
            hint="choose another score.output_uri, or leave it out: the default folder is named after these",
        )
    return output_uri


def _finish(result: Scored, metadata: dict[str, Any]) -> Scored:
    facts = metadata | {"finished": True, "records": result.records + result.skipped, "shards": result.shards}
    storage.write_bytes(storage.join(result.output_uri, MANIFEST_NAME), json.dumps(facts, indent=1).encode())
    say(f"scores of {result.records + result.skipped:,} records in `{result.output_uri}`")
    return result


def _rows(shard: Shard) -> int:
    return sum(shard.row_group_rows)

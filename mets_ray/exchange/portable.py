"""A bundle under a name of its own, without what only the machine that trained it needs to know."""

from dataclasses import replace
from pathlib import Path

from mets_ray.config.kinds import places
from mets_ray.config.settings import AdaptConfig, Config, EvaluateConfig, IndexConfig, ScoreConfig
from mets_ray.model.bundle import Bundle
from mets_ray.storage import is_local

# Of the machine and the moment, not of the model: with them no two trainings would give the same bytes.
_OF_THE_RUN = ("ecg_per_s", "data_wait_share", "data_wait_ms_per_step", "lm_texts_embedded")


def local_places(config: Config) -> list[str]:
    """Settings that name a path of the machine that a bundle was trained on, in words; `run_uri=.runs` is no secret."""
    usual = {(place.key, place.uri) for place in places(Config())}
    found = [place for place in places(config) if is_local(place.uri) and (place.key, place.uri) not in usual]
    return [f"{place.key}={place.uri}" for place in found]


def portable(bundle: Bundle, name: str) -> Bundle:
    """The same model as a bundle called `name`, without URIs of data and runs, and without timings.

    It has another digest than `bundle`; the same weights give the same bytes wherever they were trained. A language
    model in a folder keeps the folder's last name: its fingerprint says which it is. A prompt file is named as the set
    that it holds.
    """
    config, facts = bundle.config, bundle.facts
    validated_with = facts.prompt_sets.get(config.train.validation_prompt_set)
    train = config.train.model_copy(
        update={
            "init_from": None,
            "resume": None,
            "validation_prompt_set": validated_with.name if validated_with else config.train.validation_prompt_set,
        }
    )
    text = config.text.model_copy(update={"store_uri": None, "model": _without_folder(config.text.model)})
    source = config.prepare.source
    source = source.model_copy(update={place.key: None for place in places(source)})
    config = config.model_copy(
        update={
            "dataset_uri": None,
            "run_uri": Config().run_uri,
            "prepare": config.prepare.model_copy(update={"source": source}),
            "text": text,
            "train": train,
            "evaluate": EvaluateConfig(),
            "adapt": AdaptConfig(),
            "score": ScoreConfig(),
            "index": IndexConfig(),
        }
    )
    facts = facts.model_copy(
        update={
            "run": name,
            "text_model": _without_folder(facts.text_model),
            "prompt_sets": {prompt_set.name: prompt_set for prompt_set in facts.prompt_sets.values()},
            "metrics": _of_the_model(facts.metrics),
            "history": tuple(_of_the_model(figures) for figures in facts.history),
        }
    )
    return replace(bundle, config=config, facts=facts, digest="")


def _without_folder(model: str) -> str:
    return Path(model).name if model.startswith(("/", "./", "~")) or Path(model).is_dir() else model


def _of_the_model(figures: dict[str, float | None]) -> dict[str, float | None]:
    return {key: value for key, value in figures.items() if key not in _OF_THE_RUN}

"""What a setting is: the walk over URIs, and what a resumed run may change."""

import pytest

from mets_ray.config.kinds import free_at_resume, places, with_places
from mets_ray.config.load import load_config
from mets_ray.config.settings import Config


def test_every_uri_is_found_with_its_key_and_names_are_not():
    words = [
        "dataset_uri=data",
        "prepare.source=ptbxl",
        "prepare.source.uri=ptb",
        "prepare.source.statements_uri=plus",
        "train.init_from=old",
        "train.resume=run",
        "evaluate.bundle_uri=bundle",
        "evaluate.also=[a,b]",
        "evaluate.compare_to=other",
        "evaluate.prompt_set=mine.yaml",
        "score.bundle_uri=scored",
        "score.output_uri=out",
    ]
    found = {place.key: (place.uri, place.written) for place in places(load_config(None, words))}
    assert found == {
        "dataset_uri": ("data", True),
        "run_uri": (".runs", True),
        "prepare.source.uri": ("ptb", False),
        "prepare.source.statements_uri": ("plus", False),
        "train.init_from": ("old", False),
        "train.resume": ("run", False),
        "evaluate.bundle_uri": ("bundle", False),
        "evaluate.also[0]": ("a", False),
        "evaluate.also[1]": ("b", False),
        "evaluate.compare_to": ("other", False),
        "evaluate.prompt_set": ("mine.yaml", False),
        "score.bundle_uri": ("scored", False),
        "score.output_uri": ("out", True),
    }


def test_uris_are_changed_and_names_stay(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lm").mkdir()
    words = [
        "text.model=lm",
        "evaluate.also=a,b",
        "prepare.source=wfdb",
        "prepare.source.uri=w",
        "score.prompt_set=p.csv",
    ]
    config = with_places(load_config(None, words), str.upper)
    assert (config.text.model, config.evaluate.also, config.prepare.source.uri) == ("LM", ("A", "B"), "W")
    assert (config.score.prompt_set, config.evaluate.prompt_set) == ("P.CSV", "descriptive")
    assert with_places(load_config(None, ["text.model=emily/bert"]), str.upper).text.model == "emily/bert"


@pytest.mark.parametrize("section", ["train", "evaluate", "score", "prepare", "text"])
def test_every_setting_whose_name_says_uri_is_marked_as_one(section):
    settings = Config.model_fields[section].annotation
    for name, field in settings.model_fields.items():
        if name.endswith("_uri"):
            probe = settings.model_construct(**{name: "x"})
            assert [place.uri for place in places(probe) if place.key == name] == ["x"], (name, field)


def test_what_a_resumed_run_may_change_says_so_itself():
    free = set(free_at_resume(Config))
    assert {
        "run_uri",
        "encoder_runtime",
        "evaluate",
        "adapt",
        "score",
        "train.resume",
        "train.num_workers",
        "text.resources",
    } <= free
    assert not free & {
        "seed",
        "dataset_uri",
        "train.batch_size",
        "train.precision",
        "text.model",
        "encoder.width",
        "loss",
    }
    assert len(free) == 29

"""What `serve run serve_configs/local.yaml` does first: it looks for a bundle."""

import pytest
import yaml

from mets_ray.errors import CheckpointError, ConfigError
from mets_ray.serve.deployments import build
from mets_ray.serve.settings import ServeConfig
from tests.conftest import ROOT
from tests.support.serving import make_bundle


def test_a_folder_without_a_bundle_says_what_to_do(tmp_path, monkeypatch):
    (application,) = yaml.safe_load((ROOT / "serve_configs" / "local.yaml").read_text())["applications"]
    module, _, name = application["import_path"].partition(":")
    assert (module, name) == ("mets_ray.serve", build.__name__)
    config = ServeConfig(**application["args"])
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".runs").mkdir()
    with pytest.raises(CheckpointError, match=rf"{tmp_path}/\.runs` is not a bundle") as caught:
        build(config)
    assert caught.value.hint.startswith("run `make quickstart`, or give the bundle_uri of a pretrain run")


def test_a_default_prompt_set_that_no_request_could_use_is_refused_at_the_start(tmp_path):
    bundle = str(make_bundle(tmp_path))
    for name, why in (
        ("descriptive:synthetik", "is not one of the bundle's prompt sets"),
        ("descriptive:synthetic@9", "is not one of the bundle's prompt sets"),
        ("descriptive", r"has \d+ tasks"),
    ):
        for state in (None, str(tmp_path / "state")):
            with pytest.raises(ConfigError, match=f"`prompt_set` is `{name}`, which {why}") as caught:
                build(ServeConfig(bundle_uri=bundle, prompt_set=name, state_uri=state))
            assert "descriptive:synthetic@" in caught.value.hint
    with pytest.raises(ConfigError, match="`prompt_set` is `ward`"):
        build(ServeConfig(bundle_uri=bundle, prompt_set="ward"))
    build(ServeConfig(bundle_uri=bundle, prompt_set="ward", state_uri=str(tmp_path / "state")))  # may be registered
    build(ServeConfig(bundle_uri=bundle, prompt_set="descriptive:synthetic"))

"""What `serve run serve_configs/local.yaml` does first: it looks for a bundle."""

import pytest
import yaml

from mets_ray.errors import CheckpointError
from mets_ray.serve.deployments import build
from mets_ray.serve.settings import ServeConfig
from tests.conftest import ROOT


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

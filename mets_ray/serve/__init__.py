"""Serving: `mets-ray serve`, or `serve run mets_ray.serve:build bundle_uri=…`; serve_configs/ has whole files.

`build` is loaded when it is first asked for: it brings Ray and torch, which `mets-ray serve --help` does not need.
"""

from typing import TYPE_CHECKING, Any

from mets_ray.serve.settings import ServeConfig

if TYPE_CHECKING:
    from mets_ray.serve.deployments import build

__all__ = ["ServeConfig", "build"]


def __getattr__(name: str) -> Any:
    if name != "build":
        raise AttributeError(f"module 'mets_ray.serve' has no attribute {name!r}")
    from mets_ray.serve.deployments import build

    return build

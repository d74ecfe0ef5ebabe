"""Serving: `mets-ray serve`, or `serve run mets_ray.serve:build bundle_uri=…`; see also serve_configs/.

`build` is imported on first access: it needs Ray and torch, which `mets-ray serve --help` does not.
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

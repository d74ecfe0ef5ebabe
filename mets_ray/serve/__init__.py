"""Serving: `serve run mets_ray.serve:build bundle_uri=…`. See serve_configs/ for whole configurations."""

from mets_ray.serve.deployments import build
from mets_ray.serve.settings import ServeConfig

__all__ = ["ServeConfig", "build"]

"""What forked jobs have in common; see `tests.support.jobs`. Importing this module imports all of it."""

import importlib

from tests.support.warm_workers import import_ray

WITHOUT_RAY = ["torch", "torch.utils.tensorboard", "s3fs", "scipy.stats", "sklearn.linear_model", "sklearn.manifold"]
WITHOUT_RAY += ["matplotlib.figure", "mets_ray.cli"]
WITH_RAY = ["ray.data", "ray.train.torch", "mets_ray.pipelines.prepare", "mets_ray.pipelines.quality"]
WITH_RAY += ["mets_ray.training.fit", "mets_ray.evaluation.evaluate", "mets_ray.adaptation.adapt"]
WITH_RAY += ["mets_ray.pipelines.score"]

for name in WITHOUT_RAY:
    importlib.import_module(name)
import_ray(WITH_RAY)

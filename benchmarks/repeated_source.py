"""As many records as wanted, for `growth.py`: 64 synthetic ECGs, repeated, each with noise of its own."""

import functools
from dataclasses import replace
from typing import ClassVar

import numpy as np
from pydantic import Field

from mets_ray.config.kinds import PositiveInt
from mets_ray.ecg.ecg import Ecg
from mets_ray.ecg.preprocess import SignalConfig
from mets_ray.sources.manifest import Manifest
from mets_ray.sources.source import Source
from mets_ray.sources.synthetic import render_synthetic, synthetic_manifest

TEMPLATES = 64
_render = functools.cache(render_synthetic)


class Repeated(Source):
    """`prepare.source=repeated_source:Repeated`."""

    synthetic: ClassVar[bool] = True
    records: PositiveInt = Field(2000, description="number of records")

    def manifest(self, signal: SignalConfig, *, seed: int) -> Manifest:
        drawn = synthetic_manifest(TEMPLATES, seed, signal.sampling_rate_hz, signal.duration_s)
        rows = tuple(
            replace(
                drawn.rows[number % TEMPLATES],
                record_id=f"r{number:07d}",
                patient_id=f"p{number // 2:07d}",
                record_uri=f"{drawn.rows[number % TEMPLATES].record_uri}#{number}",
            )
            for number in range(self.records)
        )
        return replace(drawn, rows=rows)

    def read(self, record_uri: str) -> Ecg:
        uri, _, number = record_uri.partition("#")
        ecg = _render(uri)
        noise_mv = np.random.default_rng(int(number)).integers(-3, 4, ecg.signal_mv.shape) / 1000
        return replace(ecg, signal_mv=ecg.signal_mv + noise_mv)

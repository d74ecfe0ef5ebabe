"""Every setting of the serving application: flat and scalar, so YAML `args:` and `key=value` words are one thing."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Count = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(gt=0.0)]

MIB = 1024 * 1024
WORDINGS_PER_CLASS = 8
"""On average at most, over the classes of a request."""


class ServeConfig(BaseModel):
    """What `mets_ray.serve:build` takes. Facts of the model (rate, leads, LM) are the bundle's."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bundle_uri: str = Field(description="a bundle, or a folder of runs of which the newest bundle is taken")
    state_uri: str | None = Field(
        None, description="where class lists that are registered at run time are kept; without it PUT is refused"
    )
    prompt_set: str | None = Field(
        None, description="classes of a request that names none, for example descriptive:ptbxl_super"
    )
    text_model: str | None = Field(
        None, description="folder or hub id of the LM's weights; default: the bundle's; the fingerprint must agree"
    )

    batch_size: Count = Field(16, description="windows in a forward pass at most")
    batch_wait_s: Annotated[float, Field(ge=0.0)] = Field(
        0.0, description="how long a batch waits to fill up; while one is computed the next fills anyway"
    )
    encoder_min_replicas: Count = Field(1, description="ZeroShot replicas at least")
    encoder_max_replicas: Count = Field(1, description="ZeroShot replicas at most; above the minimum it autoscales")
    encoder_cpus: Annotated[float, Field(ge=0.0)] = Field(1.0, description="CPUs that one ZeroShot replica holds")
    encoder_gpus: Annotated[float, Field(ge=0.0)] = Field(0.0, description="GPUs, or a part of one, of a replica")
    encoder_threads: Count | None = Field(
        None, description="CPU threads that compute, each a forward pass of its own; default: the replica's CPUs"
    )
    text_min_replicas: Annotated[int, Field(ge=0)] = Field(
        1, description="TextEncoder replicas at least; 0 with a maximum of 0 serves stored texts only"
    )
    text_max_replicas: Annotated[int, Field(ge=0)] = Field(1, description="TextEncoder replicas at most")
    text_cpus: Annotated[float, Field(ge=0.0)] = Field(1.0, description="CPUs that one TextEncoder replica holds")
    text_gpus: Annotated[float, Field(ge=0.0)] = Field(0.0, description="GPUs, or a part of one, of a replica")
    text_cache_texts: Count = Field(100_000, description="text features that each replica keeps")

    max_body_bytes: Count = Field(8 * MIB, description="larger bodies are refused before they are parsed")
    max_ecgs: Count = Field(64, description="ECGs in one batch request")
    max_duration_s: Seconds = Field(120.0, description="longer recordings are refused")
    max_classes: Count = Field(256, description="classes in one request or prompt set")
    max_label_chars: Count = Field(512, description="characters of a class or of one of its wordings")
    max_ongoing_requests: Count = Field(64, description="requests in one ZeroShot replica at a time")
    max_queued_requests: Count = Field(128, description="requests that wait for a replica; more are answered with 429")
    deadline_s: Seconds = Field(10.0, description="a request that takes longer is answered with 503")
    retry_after_s: Count = Field(1, description="what 429 and 503 answers ask a client to wait")
    prompt_set_refresh_s: Seconds = Field(5.0, description="age at which a replica looks for a newer version of a set")

    auth: Literal["bearer", "none"] = Field(
        "bearer", description="bearer: every /v1 call needs the token; none: for a server that listens on 127.0.0.1"
    )
    token_env: str = Field("METS_RAY_TOKEN", description="environment variable of the replicas that holds the token")

    @model_validator(mode="after")
    def _ranges_are_ranges(self) -> "ServeConfig":
        for kind in ("encoder", "text"):
            low, high = getattr(self, f"{kind}_min_replicas"), getattr(self, f"{kind}_max_replicas")
            if low > high:
                raise ValueError(f"`{kind}_min_replicas` is {low}, above `{kind}_max_replicas` {high}")
        if self.max_ongoing_requests < self.batch_size:
            raise ValueError(
                f"`max_ongoing_requests` is {self.max_ongoing_requests}, so no batch of {self.batch_size} "
                "(`batch_size`) could ever fill"
            )
        if self.text_cache_texts < WORDINGS_PER_CLASS * self.max_classes:
            raise ValueError(
                f"`text_cache_texts` is {self.text_cache_texts}, below the {WORDINGS_PER_CLASS * self.max_classes} "
                f"wordings that one request may hold ({WORDINGS_PER_CLASS} x `max_classes`)"
            )
        return self

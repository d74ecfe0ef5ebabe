"""Every setting of the serving application: flat and scalar, so YAML `args:` and `key=value` words are equivalent."""

import os
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from mets_ray.config.kinds import EncoderRuntime

Count = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(gt=0.0)]

MIB = 1024 * 1024
WORDINGS_PER_CLASS = 8
"""Highest average number of wordings per class in a request."""


class ServeConfig(BaseModel):
    """Settings of `mets_ray.serve:build`. Facts about the model (rate, leads, LM) come from the bundle."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bundle_uri: str = Field(
        description="a bundle, the name of a packaged one, hf://user/name@COMMIT, or a folder of runs: its newest "
        "bundle is used"
    )
    state_uri: str | None = Field(
        None, description="where class lists registered at run time are stored; without it, PUT is refused"
    )
    prompt_set: str | None = Field(
        None, description="classes for requests that name none, for example descriptive:ptbxl_super"
    )
    calibration_uri: str | None = Field(
        None,
        description="calibration file that evaluate wrote, or a folder of them; default: those in the bundle's folder; "
        "one that cannot be used stops the start here, and is left out with a warning there",
    )
    reference_uri: str | None = Field(
        None,
        description="file with the reference of the bundle's inputs, which evaluate wrote, to compare recent requests "
        "with; default: the one in the bundle's folder; without one inputs are not compared",
    )
    text_model: str | None = Field(
        None, description="folder or hub id of the LM's weights; default: the bundle's; the fingerprint must match"
    )

    batch_size: Count = Field(16, description="maximum windows per forward pass")
    batch_wait_s: Annotated[float, Field(ge=0.0)] = Field(
        0.0, description="how long a batch waits to fill up; during a forward pass the next batch fills anyway"
    )
    encoder_min_replicas: Count = Field(1, description="minimum ZeroShot replicas")
    encoder_max_replicas: Count = Field(1, description="maximum ZeroShot replicas; autoscales if above the minimum")
    encoder_cpus: Annotated[float, Field(ge=0.0)] = Field(1.0, description="CPUs reserved per ZeroShot replica")
    encoder_gpus: Annotated[float, Field(ge=0.0)] = Field(0.0, description="GPUs, or a fraction of one, per replica")
    encoder_threads: Count | None = Field(
        None, description="CPU threads, each running its own forward passes; default: the replica's CPUs"
    )
    encoder_runtime: EncoderRuntime = Field(
        "auto",
        description="what computes the ECG encoder on CPUs; auto: the fastest that is installed (extra `fast`); values "
        "agree to 1e-5, those of openvino_bf16, for CPUs with bfloat16, to 0.01; GPUs use torch",
    )
    text_min_replicas: Annotated[int, Field(ge=0)] = Field(
        1, description="minimum TextEncoder replicas; 0 with a maximum of 0 serves stored texts only"
    )
    text_max_replicas: Annotated[int, Field(ge=0)] = Field(1, description="maximum TextEncoder replicas")
    text_cpus: Annotated[float, Field(ge=0.0)] = Field(1.0, description="CPUs reserved per TextEncoder replica")
    text_gpus: Annotated[float, Field(ge=0.0)] = Field(0.0, description="GPUs, or a fraction of one, per replica")
    text_cache_texts: Count = Field(100_000, description="text features cached per replica")

    max_body_bytes: Count = Field(8 * MIB, description="larger bodies are rejected before they are parsed")
    max_ecgs: Count = Field(64, description="maximum ECGs per batch request")
    max_duration_s: Seconds = Field(120.0, description="longer recordings are rejected")
    max_timeline_bytes: Count = Field(
        64 * MIB, description="/v1/timeline: larger bodies are rejected; JSON and CSV are still held to max_body_bytes"
    )
    max_timeline_duration_s: Seconds = Field(3600.0, description="/v1/timeline: longer recordings are rejected")
    max_timeline_windows: Count = Field(3600, description="/v1/timeline: maximum windows of a recording")
    max_timelines: Count = Field(
        4, description="/v1/timeline: recordings that a replica holds at once, each in a temporary file; more get 503"
    )
    max_classes: Count = Field(256, description="maximum classes per request or prompt set")
    max_label_chars: Count = Field(512, description="maximum characters of a class or of one of its wordings")
    max_ongoing_requests: Count = Field(64, description="maximum concurrent requests per ZeroShot replica")
    max_queued_requests: Count = Field(128, description="maximum requests waiting for a replica; any more get 429")
    deadline_s: Seconds = Field(10.0, description="a request that takes longer gets 503")
    timeline_deadline_s: Seconds = Field(
        120.0,
        description="/v1/timeline: takes the place of deadline_s; a recording that takes longer ends with an error",
    )
    retry_after_s: Count = Field(1, description="Retry-After of 429 and 503 responses")
    prompt_set_refresh_s: Seconds = Field(5.0, description="how often a replica checks for a newer version of a set")
    store_patience_s: Seconds = Field(
        3.0,
        description="how long a request waits for an answer of the store of prompt sets, at most half of deadline_s; "
        "then known lists are served with a warning, and others get 503",
    )
    prompt_set_cache_bytes: Count = Field(32 * MIB, description="registered class lists kept per replica, in bytes")
    max_prompt_sets: Count = Field(500, description="maximum names of registered class lists")
    max_prompt_set_versions: Count = Field(100, description="maximum versions per name")
    max_prompt_set_bytes: Count = Field(
        64 * MIB, description="maximum bytes per name in the store: its versions and the features of their texts"
    )
    max_state_bytes: Count = Field(
        4096 * MIB, description="maximum bytes of all names; each replica counts again every minute"
    )

    archive_uri: str | None = Field(
        None,
        description="index that mets-ray index wrote of this bundle's scores; without one, nothing can be searched",
    )
    archive_dataset_uri: str | None = Field(
        None, description="prepared data set that was scored, to show signals; default: the one the index names"
    )
    archive_reports: bool = Field(False, description="show reports to holders of the scope `search`")
    archive_cohort_uri: str | None = Field(
        None, description="folder that /v1/cohort writes Parquet files to; without it, it writes none"
    )
    archive_min_replicas: Count = Field(1, description="minimum Archive replicas")
    archive_max_replicas: Count = Field(1, description="maximum Archive replicas; autoscales if above the minimum")
    archive_cpus: Annotated[float, Field(ge=0.0)] = Field(1.0, description="CPUs reserved per Archive replica")
    archive_memory_bytes: Count = Field(
        2048 * MIB, description="memory reserved per Archive replica; one that holds more is replaced"
    )
    archive_signal_cache_bytes: Count = Field(64 * MIB, description="signals kept per Archive replica")
    archive_max_k: Count = Field(200, description="/v1/search: maximum records in one answer")
    archive_max_words: Count = Field(16, description="/v1/search, /v1/cohort: maximum texts in one query")
    archive_max_where_chars: Count = Field(500, description="/v1/search, /v1/cohort: maximum characters of `where`")
    archive_max_cohort: Count = Field(1_000_000, description="/v1/cohort: maximum records that are listed")
    archive_cohort_deadline_s: Seconds = Field(
        120.0, description="/v1/cohort: a list that takes longer ends with an error"
    )

    auth: Literal["bearer", "none"] = Field(
        "bearer",
        description="bearer: every route but the page, documentation and health needs a token; none: for one user on "
        "127.0.0.1",
    )
    token_env: str = Field(
        "METS_RAY_TOKEN", description="environment variable of the replicas that holds one token that may do everything"
    )
    tokens_env: str = Field(
        "METS_RAY_TOKENS", description="environment variable of the replicas with a list of tokens, as in tokens_file"
    )
    tokens_file: Annotated[str, AfterValidator(os.path.abspath)] | None = Field(
        None, description="YAML list of tokens with names and scopes on the replicas' disk; read again when it changes"
    )
    allowed_hosts: str | None = Field(
        None,
        description="host names beside localhost that are answered, with commas between them, or `*`; without it, any "
        "with auth=bearer and localhost only with auth=none",
    )

    @property
    def allowed_host_names(self) -> tuple[str, ...]:
        """The names of `allowed_hosts`."""
        names = (name.strip().lower() for name in (self.allowed_hosts or "").split(","))
        return tuple(name for name in names if name)

    @model_validator(mode="after")
    def _ranges_are_ranges(self) -> "ServeConfig":
        for kind in ("encoder", "text", "archive"):
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

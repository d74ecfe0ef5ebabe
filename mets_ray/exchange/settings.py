"""The settings of `mets-ray export`."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


class ExportConfig(BaseModel):
    """What is exported, where to, and under which name."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bundle_uri: str = Field(
        description="a bundle, the name of a packaged one, hf://user/name@COMMIT, or a folder of runs: its newest "
        "bundle is used"
    )
    output_uri: str = Field(description="the folder to write; one that is there must be an earlier export")
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w.-]*$")] | None = Field(
        None,
        description="a new name for the model. It becomes a bundle of its own with another digest, whose config.yaml "
        "names no folders of this machine; without it, the bundle's own files are copied",
    )
    onnx: bool = Field(
        True, description="also write the ECG side as ONNX, the class vectors, and zero_shot.py (extra `fast`)"
    )
    figures_uri: str | None = Field(
        None, description="JSON of benchmarks/recipe.py: its cross-validated figures go into the model card"
    )
    notes_uri: str | None = Field(None, description="Markdown that becomes the last sections of the model card")
    push_to_hub: Annotated[str, Field(pattern=r"^[\w.-]+/[\w.-]+$")] | None = Field(
        None, description="also upload the folder to this repository of the hub, user/name, with the token in HF_TOKEN"
    )
    private: bool = Field(True, description="push_to_hub: whether a repository that is made now is private")

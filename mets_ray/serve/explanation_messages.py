"""What an explanation is in an answer of /v1/zero-shot."""

from pydantic import BaseModel, Field


class StatementFacts(BaseModel):
    """A training statement. Only those that many patients share are named."""

    text: str
    patients: int = Field(description="training patients with this statement in a report")
    similarity: float = Field(description="cosine of ECG and statement")


class NoStatements(BaseModel):
    reason: str
    message: str


class ClassReasons(BaseModel):
    """What speaks for a class and against it."""

    class_name: str
    similarity: float
    near: list[StatementFacts] = Field(
        description="of the statements nearest to the class, those that the ECG is more similar to than to the average "
        "statement, best first"
    )
    far: list[StatementFacts] = Field(description="the others, least similar first")
    no_statements: NoStatements | None = Field(description="why `near` and `far` are empty")
    lead_drops: list[float] = Field(description="by lead: how far the similarity falls without it; below 0: it rises")
    segment_drops: list[float] = Field(description="by segment: without all leads for this time")
    drops: list[list[float]] = Field(description="by lead, then by segment: without this lead for this time")


class Explanation(BaseModel):
    """Why the classes have their similarities. The window and its segments are those of /v1/ecg."""

    leads: list[str] = Field(description="those that were recorded, in the order of `lead_drops` and `drops`")
    start_s: float = Field(description="where the window begins in the recording")
    segment_s: float = Field(description="segment i begins at start_s + i * segment_s of the recording")
    nearest: list[StatementFacts] = Field(
        description="the training statements nearest to the ECG, whatever the classes"
    )
    no_statements: NoStatements | None = Field(description="why no statement is named")
    classes: list[ClassReasons]
    windows_encoded: int = Field(description="what it cost, in windows that went through the encoder")

"""HTTP requests and responses, as OpenAPI shows them."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, FailFast, Field, model_validator

from mets_ray.model.explain import MOST_CLASSES
from mets_ray.serve.bodies import JsonEcg
from mets_ray.serve.explanation_messages import Explanation
from mets_ray.serve.request_id import current_request_id

_DEVICE = "Research software, not a medical device."
NOTICE_UNCALIBRATED = f"{_DEVICE} Scores are not calibrated probabilities."
NOTICE_CALIBRATED = f"{_DEVICE} `probability` is calibrated on validation records; `score` is not."

_MESSAGE_CHARS = 600
_MAX_COMMAS = 4096
_LABELS = "classes as plain text, for example `atrial fibrillation`; a single string is split at its commas"
_PROMPT_SET = "name of a prompt set, `name` or `name@version`; see /v1/model"
_TEMPLATE = (
    "text in which `{}` is replaced by each candidate label; default: the form of the bundle's training texts, "
    "which is `{}` for statements"
)

_EXPLAIN = (
    "/v1/zero-shot, ECGs of one window: also say why, by training statements, leads and seconds; up to 335 windows "
    "more go through the encoder"
)
_EXPLAIN_CLASSES = f"with `explain`: the names of at most {MOST_CLASSES} classes to explain; default: all classes"

_MULTI_LABEL = "true: each class on its own, sigmoid of the logit; false: softmax over the classes"


def _split_at_commas(labels: Any) -> Any:
    """`a, b` to [`a`, `b`], as Hugging Face's pipelines read labels that are one string; a list stays as it is."""
    if not isinstance(labels, str):
        return labels
    if labels.count(",") > _MAX_COMMAS:
        raise ValueError(f"there are more than {_MAX_COMMAS} commas")
    return [label.strip() for label in labels.split(",") if label.strip()]


def _split_if_alone(labels: Any) -> Any:
    """In a query string a value that stands alone is one string; with several values each is one label.

    So an empty second value keeps one label with commas whole.
    """
    if not isinstance(labels, list) or len(labels) > 2:
        return labels
    if len(labels) == 1:
        return _split_at_commas(labels[0])
    return labels[:1] if labels[1:] == [""] else labels


_Labels = Annotated[list[str] | None, Field(fail_fast=True), BeforeValidator(_split_at_commas)]


class Options(BaseModel):
    """The classes to choose between. Names are those of Hugging Face's zero-shot pipelines."""

    model_config = ConfigDict(extra="forbid")

    candidate_labels: _Labels = Field(None, description=_LABELS)
    prompt_set: str | None = Field(None, description=_PROMPT_SET)
    hypothesis_template: str | None = Field(None, description=_TEMPLATE)
    multi_label: bool = Field(False, description=_MULTI_LABEL)
    explain: bool = Field(False, description=_EXPLAIN)
    explain_classes: list[str] | None = Field(None, fail_fast=True, description=_EXPLAIN_CLASSES)


class SignalParameters(BaseModel):
    """Parameters for bodies that do not state them (npy, CSV)."""

    model_config = ConfigDict(extra="forbid")

    unit: str | None = Field(None, description="npy, CSV: unit of the samples, mV or uV; never guessed")
    sampling_rate_hz: float | None = Field(None, description="npy, CSV: samples per second; never guessed")
    leads: str | None = Field(None, description="npy: names of the rows, `I,II,III,aVR,...`; never guessed")


class ZeroShotQuery(Options, SignalParameters):
    """Query string of a request whose body is not JSON."""

    candidate_labels: Annotated[list[str] | None, BeforeValidator(_split_if_alone)] = Field(None, description=_LABELS)


class HeadOptions(BaseModel):
    """Which head of the bundle scores the ECG."""

    model_config = ConfigDict(extra="forbid")

    head: str | None = Field(None, description="name of a head; see `heads` in /v1/model")


class PredictQuery(HeadOptions, SignalParameters):
    """Query string of a request whose body is not JSON."""


class PredictRequest(HeadOptions):
    ecg: JsonEcg


class ZeroShotRequest(Options):
    ecg: JsonEcg


class BatchRequest(Options):
    ecgs: list[JsonEcg] = Field(min_length=1, fail_fast=True)


class TimelineOptions(Options):
    """The classes, and how a long recording is cut into windows."""

    stride_s: float | None = Field(
        None,
        ge=0.001,
        allow_inf_nan=False,
        description="from one window's start to the next; default: a window's length",
    )
    above: float = Field(
        0.5, ge=0.0, le=1.0, description="the summary counts the windows in which a class scores above this"
    )
    signals: bool = Field(
        False,
        description="also give each window as the model sees it: base64 of int16 µV [lead, sample], little-endian",
    )


class TimelineQuery(ZeroShotQuery, TimelineOptions):  # in this order: pydantic takes a field of both from the first
    """Query string of a long recording whose body is not JSON."""


class TimelineRequest(TimelineOptions):
    ecg: JsonEcg


class EmbedRequest(BaseModel):
    """An ECG or texts: exactly one of the two."""

    model_config = ConfigDict(extra="forbid")

    ecg: JsonEcg | None = None
    texts: list[str] | None = Field(None, fail_fast=True, description="texts, embedded as given, without a template")

    @model_validator(mode="after")
    def _one_of_two(self) -> "EmbedRequest":
        if (self.ecg is None) == (self.texts is None):
            raise ValueError("give exactly one of `ecg` and `texts`")
        return self


class PromptSetRequest(BaseModel):
    """A class list: plain labels, or classes with one or more wordings each."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {"candidate_labels": ["atrial fibrillation", "sinus rhythm"]},
                {"classes": {"AFIB": ["atrial fibrillation", "a-fib, no p waves"], "SR": ["sinus rhythm"]}},
            ]
        },
    )

    candidate_labels: _Labels = Field(None, description=_LABELS)
    classes: dict[str, Annotated[list[str], FailFast()]] | None = Field(
        None, description="wordings by class; their vectors are averaged"
    )
    hypothesis_template: str | None = Field(None, description=_TEMPLATE)

    @model_validator(mode="after")
    def _one_of_two(self) -> "PromptSetRequest":
        if (self.candidate_labels is None) == (self.classes is None):
            raise ValueError("give exactly one of `candidate_labels` and `classes`")
        return self


class Warned(BaseModel):
    reason: str
    message: str


class ErrorFacts(BaseModel):
    reason: str = Field(description="stable identifier: missing_unit, missing_leads, too_large, ...")
    # Errors quote their input, which can be as long as a body.
    message: Annotated[str, AfterValidator(lambda message: message[:_MESSAGE_CHARS])]
    hint: str | None = None
    request_id: str | None = Field(
        default_factory=current_request_id, description="the answer's X-Request-ID; the server's log names it"
    )


class ErrorAnswer(BaseModel):
    error: ErrorFacts


class ClassScore(BaseModel):
    """One class. What is calibrated is null where there is no calibration for this class and its words."""

    class_name: str
    score: float = Field(description="softmax over the classes, or sigmoid with `multi_label`; not calibrated")
    similarity: float = Field(description="cosine of ECG and class embedding")
    rank: int = Field(description="1 is the highest score")
    z_score: float | None = Field(
        None,
        description="standard deviations of the similarity above its mean over the ECGs of the bundle's reference: "
        "unlike similarities, they can be compared between classes, and any words have one; null for a recording of "
        "several windows or without some leads, and where the bundle has no reference",
    )
    probability: float | None = Field(None, description="calibrated on validation records; not that of `score`")
    probability_interval: tuple[float, float] | None = Field(
        None, description="95% interval of the probability, by the number of validation patients: low, high"
    )
    present: bool | None = Field(None, description="whether the probability reaches `threshold`")
    threshold: float | None = Field(None, description="the probability from which the class is reported as present")
    not_calibrated: Warned | None = Field(None, description="why this class has no probability, where others have one")


class Scored(BaseModel):
    """One ECG's scores, in the order of the requested classes."""

    classes: list[ClassScore]
    calibrated: bool = Field(description="whether at least one class has a probability")
    not_calibrated: Warned | None = Field(description="why no class has one")
    windows: int = Field(description="windows of the model's length whose embeddings were averaged")
    warnings: list[Warned]


class _Facts(BaseModel):
    model_config = ConfigDict(protected_namespaces=())

    multi_label: bool
    hypothesis_template: str | None
    prompt_set: str | None = Field(description="`name@version` of the prompt set that was used")
    model_version: str
    timings_ms: dict[str, float]
    notice: str = Field(NOTICE_UNCALIBRATED, description="what the numbers of this answer are, and are not")


class ZeroShotAnswer(_Facts, Scored):
    explanation: Explanation | None = Field(None, description="where `explain` asks for it")


class HeadScore(BaseModel):
    """One class of a head."""

    class_name: str
    score: float = Field(description="sigmoid of the logit, for each class alone; not calibrated")
    logit: float
    rank: int = Field(description="1 is the highest score")


class PredictAnswer(BaseModel):
    """One ECG's scores by a head, in the order of its classes."""

    model_config = ConfigDict(protected_namespaces=())

    head: str
    task: str
    classes: list[HeadScore]
    windows: int = Field(description="windows of the model's length whose logits were averaged")
    warnings: list[Warned]
    model_version: str
    timings_ms: dict[str, float]
    notice: str = NOTICE_UNCALIBRATED


class TimelineSignal(BaseModel):
    """What the `signal_uv` of the windows holds."""

    leads: list[str]
    sampling_rate_hz: int
    highpass_hz: float | None
    samples: int


class TimelineHead(BaseModel):
    """The first line: what is scored, and how."""

    model_config = ConfigDict(protected_namespaces=())

    line: Literal["head"] = "head"
    classes: list[str] = Field(description="the order of each window's scores")
    windows: int
    window_s: float
    stride_s: float
    duration_s: float
    multi_label: bool
    hypothesis_template: str | None
    prompt_set: str | None = Field(description="`name@version` of the prompt set that was used")
    model_version: str
    not_calibrated: Warned = Field(description="why no window has probabilities")
    signal: TimelineSignal | None = None
    warnings: list[Warned]
    notice: str = NOTICE_UNCALIBRATED


class TimelineWindow(BaseModel):
    """A window: its scores, or why it was left out."""

    line: Literal["window"] = "window"
    start_s: float
    end_s: float
    scores: list[float] | None = Field(None, description="by class as in the head, rounded to 6 decimals")
    similarities: list[float] | None = None
    signal_uv: str | None = None
    left_out: str | None = Field(None, description="the reason: flat_lead, non_finite, amplitude_too_large, ...")
    message: str | None = None


class TimelineClass(BaseModel):
    """One class over all scored windows."""

    class_name: str
    mean_score: float
    highest_score: float
    highest_at_s: float
    share_above: float = Field(description="share of the windows in which the score is above `above`")
    share_first: float = Field(description="share of the windows in which no class scores higher")


class TimelineSummary(BaseModel):
    """The last line. An answer without it is not complete."""

    line: Literal["summary"] = "summary"
    windows: int
    scored: int
    left_out: dict[str, int] = Field(description="windows by reason")
    above: float
    classes: list[TimelineClass] = Field(description="empty if no window was scored")
    warnings: list[Warned]
    timings_ms: dict[str, float]


class TimelineError(BaseModel):
    """The last line of an answer that could not be completed."""

    line: Literal["error"] = "error"
    error: ErrorFacts


class BatchAnswer(_Facts):
    results: list[Scored | ErrorAnswer]


class EcgAnswer(BaseModel):
    """The first usable window as the model sees it."""

    leads: list[str]
    sampling_rate_hz: int
    duration_s: float
    start_s: float = Field(
        description="where in the recording the window begins; above 0 if those before it cannot be used"
    )
    highpass_hz: float | None = Field(description="cut-off of the filter that it has passed; null: none")
    signal_uv: list[list[int]]
    windows: int
    warnings: list[Warned]


class EmbedAnswer(BaseModel):
    model_config = ConfigDict(protected_namespaces=())

    embeddings: list[list[float]] = Field(description="unit vectors [row, dimension]; ECGs and texts share the space")
    dimension: int
    model_version: str
    windows: int | None = None
    warnings: list[Warned] = []


class PromptSetAnswer(BaseModel):
    name: str
    version: int
    prompt_set: str = Field(description="`name@version`, for use in requests")
    classes: list[str]
    hypothesis_template: str | None


class RetiredAnswer(BaseModel):
    name: str
    retired_through_version: int = Field(description="no version up to this one resolves any more")


class KnownPromptSet(BaseModel):
    name: str
    version: int
    classes: list[str]
    origin: str = Field(description="bundle or registered")


class PromptSetPage(BaseModel):
    """Query string of a page of prompt sets."""

    model_config = ConfigDict(extra="forbid")

    after: str = Field("", description="`next_after` of the page before")
    limit: int = Field(100, ge=1, le=500, description="registered prompt sets per page")


class PromptSetsAnswer(BaseModel):
    prompt_sets: list[KnownPromptSet] = Field(description="the newest readable version of each name")
    next_after: str | None = Field(description="`after` of the next page, if there is one")
    warnings: list[Warned] = Field(description="what cannot be read, and whether the store answers")


class SignalFacts(BaseModel):
    sampling_rate_hz: int
    duration_s: float
    leads: list[str]
    highpass_hz: float | None
    takes_fewer_leads: bool = Field(description="whether an ECG with some of the leads is scored, or refused")


class LeadSetFacts(BaseModel):
    """Quality with one set of leads, on validation records that are part of no test."""

    name: str
    leads: list[str]
    macro_auroc: float | None = Field(description="mean of the tasks' macro AUROC")
    low: float | None = Field(description="of its 95% interval")
    high: float | None
    tasks: dict[str, float | None] = Field(description="macro AUROC of each task")
    records: int


class TextModelFacts(BaseModel):
    name: str
    pooling: str
    max_length: int
    fingerprint: str


class CalibrationFacts(BaseModel):
    """A calibration that this server uses, and the data whose validation records it was fitted on."""

    prompt_set: str = Field(description="`set:task@version`: the words that it is for")
    source: str
    dataset_sha256: str
    synthetic: bool
    folds: str
    records: int = Field(description="those with a label of the task, and so the kind of ECG that it is for")
    records_in_folds: int = Field(description="all of them")
    patients: int
    threshold_rule: str = Field(description="best_f1, sensitivity:SHARE or specificity:SHARE")
    classes: list[str] = Field(description="the classes that get a probability")
    not_calibrated: dict[str, str] = Field(description="the others, with the reason")


class HeadFacts(BaseModel):
    """A head that `adapt` learnt from labels, for `/v1/predict`."""

    name: str
    task: str
    classes: list[str]
    method: str = Field(description="linear, text (began at zero-shot) or finetune (has an encoder of its own)")
    prompt_set: str | None = Field(description="`set@version` of the words that it began with")
    labels_per_class: int | None = Field(description="how many were asked for; null: all")
    labels: dict[str, int] = Field(description="training ECGs with each class")
    records: int
    patients: int
    dataset_source: str
    dataset_sha256: str
    synthetic: bool
    validation_macro_auroc: float | None = Field(description="of the records that chose the head: optimistic")
    zero_shot_macro_auroc: float | None = Field(description="of the same records without labels")


class TrainingFacts(BaseModel):
    source: str
    dataset_sha256: str
    synthetic: bool
    train_folds: list[int]
    metrics: dict[str, float | None]


class ModelAnswer(BaseModel):
    model_config = ConfigDict(protected_namespaces=())

    model_version: str
    package_version: str = Field(description="of mets_ray on this server")
    bundle_uri: str
    signal: SignalFacts
    text_model: TextModelFacts
    hypothesis_template: str = Field(description="used when a request gives labels but no template")
    prompt_sets: list[KnownPromptSet] = Field(description="the bundle's, and the first of those registered")
    next_after: str | None = Field(description="`after` of /v1/prompt-sets for the rest of them, if there are more")
    warnings: list[Warned] = Field(
        description="what cannot be read or used, and whether the store of prompt sets answers"
    )
    default_prompt_set: str | None
    training_data: TrainingFacts
    lead_sets: list[LeadSetFacts] = Field(description="quality with fewer leads; empty where it was not measured")
    calibrations: list[CalibrationFacts] = Field(description="empty where the bundle has none; see `warnings`")
    heads: list[HeadFacts] = Field(description="for /v1/predict; empty where the bundle has none")
    intended_use: str
    device: str
    auth: str
    limits: dict[str, float]
    archive: bool = Field(False, description="whether an archive can be searched: see /v1/archive")


class Example(BaseModel):
    name: str
    title: str
    candidate_labels: list[str]
    credit: str | None = Field(None, description="whose real ECG it is, and its licence; null: it is synthetic")


class ExamplesAnswer(BaseModel):
    examples: list[Example]


class Health(BaseModel):
    status: str = Field(description="ok")


PartState = Literal["ok", "failing", "none"]


class Readiness(BaseModel):
    """ok: all parts answer; degraded: stored classes are scored, but not all else; failing: the replica is replaced."""

    status: Literal["ok", "degraded", "failing"]
    model: PartState = Field(description="failing: the last forward passes failed")
    language_model: PartState = Field(description="none: this server embeds no new texts")
    store: PartState = Field(description="none: this server has no `state_uri`")

"""Every setting of every job, in one tree of frozen models.

Properties of a prepared data set (sampling rate, leads, length) are set only under `prepare`. Pretraining and
evaluation read them from the data set's card and the bundle, so two jobs cannot disagree.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, field_validator, model_validator

from mets_ray.config.kinds import (
    FREE_AT_RESUME,
    EncoderArchitecture,
    EncoderRuntime,
    Fraction,
    NameOrBundle,
    NameOrFile,
    NameOrFolder,
    OutputUri,
    PositiveInt,
    Section,
    ThresholdKind,
    Uri,
)
from mets_ray.config.source import AnySource, as_source


class WindowConfig(Section):
    """Which part of each record is written; its length is `prepare.duration_s`."""

    at: Literal["start", "every", "annotation"] | None = Field(
        None,
        description="start: the first duration_s of each record; every: all of it, a row for each window, named "
        "<record>@<start_s>; annotation: around each annotated beat; default: annotation for mitbih, otherwise start",
    )
    stride_s: Annotated[float, Field(gt=0.0)] | None = Field(
        None, description="at=every: from one window's start to the next; default: duration_s"
    )
    records_per_shard: PositiveInt = Field(
        8, description="at=every: records that a task holds at once with all their windows; 1 for recordings of a day"
    )

    @model_validator(mode="after")
    def _stride_is_of_every(self) -> "WindowConfig":
        if self.stride_s is not None and self.at != "every":
            raise ValueError("`stride_s` is for at=every: with any other there is one window for each row")
        return self


class PrepareConfig(Section):
    """From WFDB records and reports to Parquet shards and a card."""

    source: AnySource = Field(
        default_factory=lambda: as_source("synthetic"),
        description="where ECGs and reports come from: a kind, with its settings under prepare.source",
    )
    sampling_rate_hz: Annotated[int, Field(ge=50, le=1000)] = Field(
        100, description="sampling rate of the written shards"
    )
    duration_s: Annotated[float, Field(gt=0.0, le=60.0)] = Field(
        10.0, description="length of each ECG in the written shards"
    )
    highpass_hz: Annotated[float, Field(gt=0.0, le=5.0)] | None = Field(
        0.5, description="cut-off of the zero-phase filter that removes baseline wander; null: no filter, as in METS"
    )
    missing_leads: Literal["reject", "zero"] = Field(
        "reject",
        description="records that lack leads: reject them, or keep them with zeros in place of these, which bundles "
        "trained with augment.lead_dropout take",
    )
    measured_statements: bool = Field(
        False,
        description="add to each report what is measured on its ECG by the limits of guidelines: flat T waves, ST "
        "depression, high voltage, Q waves, irregular intervals; not to shuffled reports",
    )
    window: WindowConfig = WindowConfig()
    shuffle_reports: bool = Field(
        False,
        description="give each record another record's report, as a control: a bundle trained on it scores at chance",
    )
    patient_folds: Annotated[int, Field(ge=2, le=1000)] | None = Field(
        None,
        description="assign patients to this many folds by a hash of their ids, in place of the source's own folds: "
        "for cross-validation, or where those are too uneven",
    )
    deidentify: Literal["keep", "mask", "refuse"] = Field(
        "mask",
        description="what becomes of names, dates, times, numbers and addresses that are found in a report: mask "
        "writes `[date]` in their place, refuse rejects the record, keep leaves them; the card counts them",
    )
    pseudonymise: bool = Field(
        False,
        description="replace the ids of records and patients by an HMAC with the key in METS_RAY_PSEUDONYM_KEY",
    )
    reads_in_flight: PositiveInt = Field(32, description="records that each read task fetches concurrently")
    max_rejected_fraction: Fraction = Field(0.1, description="the job fails if a larger share of records is rejected")


class FoldsConfig(Section):
    """Which folds are for training, for validation during training, and for the final test."""

    train: tuple[int, ...] = Field((1, 2, 3, 4, 5, 6, 7, 8), description="folds to train on")
    validation: tuple[int, ...] | str = Field(
        (9,),
        description="folds for validation during training, which select the epoch with train.choose=best; `hash:0.1` "
        "holds out 10% of the train folds' patients; [] for none",
    )
    test: tuple[int, ...] | None = Field(
        (10,), description="folds that evaluate scores, null for all folds; never used to select a checkpoint"
    )

    @field_validator("validation")
    @classmethod
    def _validation_is_known(cls, value: tuple[int, ...] | str) -> tuple[int, ...] | str:
        parse_validation(value)
        return value


class TextConfig(Section):
    """The frozen language model and the actors that run it."""

    model: NameOrFolder = Field(
        "packaged-minilm",
        description="folder or hub id of a Hugging Face encoder; for real use emilyalsentzer/Bio_ClinicalBERT; "
        "packaged-minilm is the MiniLM of the extra `quickstart`",
    )
    revision: Annotated[str, Field(pattern="^[0-9a-f]{40}$")] | None = Field(
        None,
        description="commit of a hub model, 40 hexadecimal digits; without it the newest is taken, and the job says "
        "which that is; folders and packaged-minilm have none",
    )
    pooling: Literal["mean", "cls"] = Field("mean", description="how token vectors become one text vector")
    max_length: PositiveInt = Field(128, description="maximum tokens; longer texts are truncated")
    template: str = Field(
        "The report of the ECG is that {}", description="training text for unit=report; {} is the report"
    )
    unit: Literal["report", "statement"] = Field(
        "statement",
        description="statement: each statement of a report is a separate text, so an ECG has several, and each is a "
        "yes or no (sigmoid loss); report: as published, one text per ECG",
    )
    named_from_patients: Annotated[PositiveInt | None, FREE_AT_RESUME] = Field(
        10,
        description="unit=statement: the bundle names a statement of the training reports, for explanations, if the "
        "reports of at least this many patients contain it; null: it names none",
    )
    mode: Literal["cached", "streaming"] = Field(
        "cached",
        description="cached: embed each distinct text once and keep it; streaming: run the LM in the training stream",
    )
    store_uri: OutputUri | None = Field(None, description="text embeddings; default <dataset_uri>/text_embeddings")
    batch_size: PositiveInt = Field(64, description="texts per LM forward pass")
    num_cpus_per_actor: Annotated[float, Field(gt=0.0), FREE_AT_RESUME] = Field(
        1.0, description="CPUs reserved per LM actor"
    )
    num_gpus_per_actor: Annotated[float, Field(ge=0.0), FREE_AT_RESUME] = Field(
        0.0, description="GPUs reserved per LM actor"
    )
    min_actors: Annotated[PositiveInt, FREE_AT_RESUME] = Field(1, description="LM actors to start with")
    max_actors: Annotated[PositiveInt, FREE_AT_RESUME] = Field(2, description="maximum LM actors")
    resources: Annotated[dict[str, float], FREE_AT_RESUME] = Field(
        default_factory=dict, description="custom resources of one LM actor, to pin it to a node type: {lm_gpu: 1}"
    )


class EncoderConfig(Section):
    """The ECG side."""

    width: PositiveInt = Field(64, description="channels of the first stage; 64 as in the paper (3.85 M parameters)")
    norm: Literal["batch", "sync", "group"] = Field(
        "batch", description="batch: per worker; sync: over all workers, GPU only; group: independent of the batch"
    )
    embedding_dimension: PositiveInt = Field(128, description="length of the shared ECG and text embedding")
    lead_mask: bool = Field(
        True,
        description="whether the encoder knows which leads were not recorded; false: they are zeros, as in the paper",
    )
    architecture: EncoderArchitecture = Field(
        "seresnet1d_18",
        description="resnet1d_18 as in the paper; seresnet1d_18 weighs its channels by the whole ECG, and smooths "
        "before it drops samples, so that a shift of the ECG changes its embedding less",
    )
    activation_checkpointing: Annotated[bool, FREE_AT_RESUME] = Field(
        False, description="recompute each stage in the backward pass: less memory, a third more compute time"
    )


class AugmentConfig(Section):
    """Random augmentation of training ECGs. Removed parts are set to zero, as leads that were not recorded are."""

    lead_dropout: Fraction = Field(
        0.5, description="share of ECGs that keep only a random number of leads, at least one; 0 is off"
    )
    usual_leads: Fraction = Field(
        0.5,
        description="share of the ECGs that lose leads which keep a set that devices record (limb leads; I, II; II; "
        "V1, II, V5) in place of random ones",
    )
    cropping: Fraction = Field(
        0.5, description="share of ECGs that keep only one segment, at least a quarter of their length; 0 is off"
    )
    gain: Annotated[float, Field(ge=0.0, le=0.3)] = Field(
        0.1, description="standard deviation of the gain, which is limited to 0.7 to 1.3; 0 is off"
    )
    retimed: Fraction = Field(
        0.3,
        description="share of the ECGs in regular sinus rhythm that get premature atrial beats or a long PR interval, "
        "and the statements that say so (text.unit=statement); 0 is off",
    )


class TrainConfig(Section):
    """Contrastive pretraining."""

    num_workers: Annotated[PositiveInt | tuple[PositiveInt, PositiveInt], FREE_AT_RESUME] = Field(
        1, description="training processes; [least, most]: the group grows and shrinks with the cluster"
    )
    resize_every_s: Annotated[float, Field(gt=0.0), FREE_AT_RESUME] = Field(
        60.0, description="[least, most]: how often the group checks whether it can change its size"
    )
    resources: Annotated[dict[str, float], FREE_AT_RESUME] = Field(
        default_factory=dict,
        description="custom resources of one training worker, to pin it to a node type: {train_gpu: 1}",
    )
    device: Annotated[Literal["auto", "cpu", "gpu"], FREE_AT_RESUME] = Field(
        "auto", description="auto: GPUs if the cluster has enough of them"
    )
    precision: Literal["auto", "float32", "bf16", "fp16", "float64"] = Field(
        "auto",
        description="auto: bf16 (otherwise fp16) on a GPU, float32 on a CPU, where bf16 is faster only with AMX; "
        "float64 is for tests",
    )
    batch_size: PositiveInt = Field(32, description="ECGs in a global batch, whatever the number of workers")
    micro_batch_size: PositiveInt | None = Field(
        None,
        description="rows per forward pass of one worker; if smaller than its share: two passes, exact global "
        "negatives; with encoder.norm=batch, statistics are those of the micro-batch",
    )
    compile: bool = Field(
        False, description="use torch.compile for the ECG encoder; the first steps take a minute longer"
    )
    lanes: PositiveInt = Field(16, description="equal parts of an epoch; divides batch_size, at least num_workers")
    block_rows: PositiveInt = Field(256, description="rows of one lane that are read and shuffled together")
    epochs: PositiveInt = Field(30, description="passes over the train folds")
    optimizer: Literal["adam", "adamw"] = Field("adamw", description="adam as in the paper")
    learning_rate: Annotated[float, Field(gt=0.0)] = Field(1e-3, description="peak learning rate")
    weight_decay: Annotated[float, Field(ge=0.0)] = Field(1e-3, description="adamw: decoupled; adam: in the gradient")
    schedule: Literal["cosine", "constant"] = Field("cosine", description="after the warm-up; constant as in the paper")
    warmup_fraction: Fraction = Field(0.05, description="share of all steps in which the rate rises from 0")
    gradient_clip_norm: Annotated[float, Field(ge=0.0)] = Field(1.0, description="maximum gradient norm; 0 is off")
    keep_checkpoints: Annotated[PositiveInt, FREE_AT_RESUME] = Field(
        2, description="checkpoints to keep, newest or best"
    )
    checkpoint_every_steps: Annotated[PositiveInt | None, FREE_AT_RESUME] = Field(
        None, description="also save a checkpoint every N steps within an epoch"
    )
    checkpoint_every_minutes: Annotated[Annotated[float, Field(gt=0.0)] | None, FREE_AT_RESUME] = Field(
        10.0, description="also save a checkpoint every N minutes within an epoch"
    )
    choose: Literal["last", "best"] = Field(
        "last",
        description="which epoch becomes the bundle: the last one, or the best by AUROC (recall@10 if there are no "
        "labels) on folds.validation; best uses labels, and is noisy on few records",
    )
    validation_prompt_set: NameOrFile = Field(
        "descriptive", description="prompts for the validation AUROC: descriptive, mets, a URI"
    )
    max_failures: Annotated[int, Field(ge=0), FREE_AT_RESUME] = Field(
        3,
        description="how often training continues after a lost worker or an error; machines that the cloud takes away "
        "with notice do not count",
    )
    step_timeout_s: Annotated[float, Field(gt=0.0), FREE_AT_RESUME] = Field(
        900.0,
        description="a worker that takes longer for one step is stopped, and training continues from the checkpoint",
    )
    hang_detector: Annotated[Literal["off", "observe", "fail"], FREE_AT_RESUME] = Field(
        "off",
        description="GPU: Ray's detector of collectives that hang; observe logs them with the workers' stacks, fail "
        "restarts the group as well; needs `ncclras` of NCCL 2.28 or later on the workers' PATH",
    )
    stop_within_s: Annotated[Annotated[float, Field(ge=0.0)], FREE_AT_RESUME] = Field(
        60.0, description="SIGTERM, Ctrl-C: how long the job waits for its workers' last checkpoint"
    )
    log_batches: Annotated[bool, FREE_AT_RESUME] = Field(
        False, description="keep the record ids of every step under <run>/batches"
    )
    init_from: NameOrBundle | None = Field(
        None,
        description="bundle whose weights initialize a new run: as evaluate.bundle_uri; a resumed run continues from "
        "its own",
    )
    resume: Annotated[Uri | None, FREE_AT_RESUME] = Field(
        None, description="run folder to continue, with its data position: of pretrain, or of adapt.method=finetune"
    )
    mlflow: Annotated[bool, FREE_AT_RESUME] = Field(
        False, description="also log to MLflow (extra `mlflow`, MLFLOW_TRACKING_URI)"
    )
    wandb: Annotated[bool, FREE_AT_RESUME] = Field(
        False, description="also log to Weights & Biases (extra `wandb`, WANDB_API_KEY)"
    )

    @property
    def least_workers(self) -> int:
        return self.num_workers[0] if isinstance(self.num_workers, tuple) else self.num_workers

    @property
    def most_workers(self) -> int:
        return self.num_workers[1] if isinstance(self.num_workers, tuple) else self.num_workers


Loss = Literal["sigmoid", "one_hot", "same_report"]

Baseline = Literal["random_encoder", "class_names", "permuted_labels", "linear_probe", "text_head", "supervised"]


class EvaluateConfig(Section):
    """Zero-shot scores of a bundle over a prepared data set."""

    bundle_uri: NameOrBundle | None = Field(
        None, description="bundle that pretrain or export wrote, the name of a packaged one, or hf://user/name@COMMIT"
    )
    prompt_set: NameOrFile = Field(
        "descriptive", description="class prompts: descriptive, mets, or the URI of a YAML, JSON or CSV file"
    )
    tasks: tuple[str, ...] | None = Field(
        None, description="label sets to score; default: all those of the data set's source"
    )
    bootstrap_samples: PositiveInt = Field(1000, description="bootstrap resamples of patients for each 95% interval")
    balanced_per_class: PositiveInt = Field(
        200, description="records per class in METS's balanced tables; fewer if a class has fewer"
    )
    baselines: tuple[Baseline, ...] = Field(
        (),
        description="what to score besides the bundle: random_encoder, class_names (prompts without a sentence), "
        "permuted_labels (the chance interval), linear_probe, text_head (a probe that begins at zero-shot) and "
        "supervised (on folds.train and folds.validation; these three also give the curve by labels per class)",
    )
    label_shares: tuple[Annotated[float, Field(gt=0.0, le=1.0)], ...] = Field(
        (0.01, 0.1, 1.0),
        description="shares of the train patients that linear_probe, text_head and supervised learn from",
    )
    supervised_epochs: PositiveInt = Field(
        50, description="epochs of the baseline `supervised`, with the augmentation of `augment`"
    )
    threshold: str = Field(
        "best_f1",
        description="from where on a class is reported as present: best_f1, or sensitivity:0.9 or specificity:0.9 for "
        "at least that share on folds.validation",
    )
    calibration_uri: OutputUri | None = Field(
        None,
        description="folder for the calibration file; default: `calibration` in the bundle's folder, or in the "
        "result's where the bundle cannot be written to",
    )
    also: tuple[Uri, ...] = Field(
        (),
        description="more prepared data sets to score, on all folds: CPSC2018 and CSN complete the six test sets",
    )
    compare_to: NameOrBundle | None = Field(
        None, description="another bundle, or the result folder of an earlier evaluation: paired differences"
    )
    allow_patient_overlap: bool = Field(
        False, description="also score patients that the bundle was trained on; the result says so in red"
    )
    batch_size: PositiveInt = Field(256, description="ECGs per forward pass")
    max_actors: PositiveInt = Field(2, description="maximum encoder actors")
    num_gpus_per_actor: Annotated[float, Field(ge=0.0)] = Field(0.0, description="GPUs that one encoder actor holds")

    @field_validator("threshold")
    @classmethod
    def _threshold_is_known(cls, value: str) -> str:
        parse_threshold(value)
        return value


AdaptMethod = Literal["linear", "text", "finetune"]


class AdaptConfig(Section):
    """A head for one task, learnt from labels on the features of a bundle, and a new version of that bundle."""

    bundle_uri: NameOrBundle | None = Field(None, description="the bundle: as evaluate.bundle_uri")
    name: Annotated[str, Field(pattern="^[a-z0-9][a-z0-9_-]{0,63}$")] | None = Field(
        None, description="what the head is asked for by; default: <task>-<method>"
    )
    task: str | None = Field(
        None,
        description="label set of the data set's source, or task of the prompt set; default: the only one, or the name "
        "of labels_uri",
    )
    labels_uri: Uri | None = Field(
        None,
        description="CSV or Parquet with the columns record_id and labels (separated by `;`), in place of the data "
        "set's own labels; its labels are the classes",
    )
    method: AdaptMethod = Field(
        "text",
        description="linear: logistic regression on the frozen features; text: the same, but beginning at the class "
        "words, so that without labels it is zero-shot; finetune: trains a copy of the encoder from there",
    )
    prompt_set: NameOrFile = Field(
        "descriptive", description="words of the classes for text and finetune: as evaluate.prompt_set"
    )
    labels_per_class: Annotated[int, Field(ge=0)] | None = Field(
        None, description="labels of each class to learn from, drawn by `seed`; default: all of folds.train"
    )
    learning_rate: Annotated[float, Field(gt=0.0)] = Field(
        3e-4, description="finetune: peak learning rate of the class vectors and the projection"
    )
    layer_decay: Annotated[float, Field(gt=0.0, le=1.0)] = Field(
        0.7, description="finetune: each stage of the encoder learns at this share of the rate of the one behind it"
    )
    epochs: PositiveInt = Field(20, description="finetune: passes over the labelled ECGs; the best epoch is kept")


class ScoreConfig(Section):
    """Zero-shot scores and embeddings of every record of a prepared data set, with or without labels."""

    bundle_uri: NameOrBundle | None = Field(None, description="the bundle: as evaluate.bundle_uri")
    prompt_set: NameOrFile = Field(
        "descriptive", description="class prompts: descriptive, mets, or the URI of a YAML, JSON or CSV file"
    )
    tasks: tuple[str, ...] | None = Field(
        None, description="tasks of the prompt set; default: those of the data set's source, otherwise the bundle's"
    )
    calibration_uri: Uri | None = Field(
        None, description="calibration file, or a folder of them; default: those in the bundle's folder"
    )
    reference_uri: Uri | None = Field(
        None,
        description="file with the reference of the bundle's inputs, which evaluate wrote; default: the one in the "
        "bundle's folder",
    )
    embeddings: bool = Field(True, description="also write the ECG embeddings")
    rows: Literal["window", "recording"] = Field(
        "window",
        description="of a data set of windows (prepare.window.at=every): window: a row for each window, with its "
        "start_s; recording: one row, from the mean of its windows' embeddings",
    )
    output_uri: OutputUri | None = Field(
        None, description="folder of the scores; default: <run_uri>/scores-… named after bundle, prompts and data"
    )
    batch_size: Annotated[int, Field(ge=1, le=256)] = Field(256, description="ECGs per forward pass")
    max_actors: PositiveInt = Field(2, description="maximum encoder actors")
    num_gpus_per_actor: Annotated[float, Field(ge=0.0)] = Field(0.0, description="GPUs that one encoder actor holds")


class IndexConfig(Section):
    """What `score` wrote becomes an index that is searched in words."""

    scores_uri: Uri | None = Field(None, description="folder of finished scores of dataset_uri: output_uri of score")
    output_uri: OutputUri | None = Field(
        None,
        description="folder of the index, or a bucket; data sets of one bundle may share it; default: "
        "<run_uri>/archive-… named after the bundle",
    )
    reports: bool = Field(
        False, description="keep the reports in the index, so that those of similar ECGs can be shown"
    )


class Config(Section):
    """The whole configuration: one file describes prepare, pretrain, evaluate and score together."""

    seed: Annotated[int, Field(ge=0)] = Field(
        0, description="seeds the synthetic data, the weights, the training order and the bootstrap"
    )
    dataset_uri: OutputUri | None = Field(
        None, description="prepared data set; default: the synthetic one under run_uri, which pretrain makes"
    )
    run_uri: Annotated[OutputUri, FREE_AT_RESUME] = Field(
        ".runs", description="where runs, bundles, tables and figures are written"
    )
    lease_timeout_s: Annotated[Annotated[float, Field(ge=1.0)], FREE_AT_RESUME] = Field(
        60.0,
        description="a job that gives no sign of life for this long is taken for dead, and another may write to its "
        "folder",
    )
    encoder_runtime: Annotated[EncoderRuntime, FREE_AT_RESUME] = Field(
        "auto",
        description="evaluate and score: what computes the ECG encoder on CPUs; auto: the fastest that is installed "
        "(extra `fast`); values agree to 1e-5, those of openvino_bf16, for CPUs with bfloat16, to 0.01; training and "
        "GPUs use torch",
    )
    prepare: PrepareConfig = Field(default_factory=PrepareConfig)
    folds: FoldsConfig = FoldsConfig()
    text: TextConfig = TextConfig()
    encoder: EncoderConfig = EncoderConfig()
    augment: AugmentConfig = AugmentConfig()
    loss: Loss = Field(
        "sigmoid",
        description="sigmoid: each statement is a match or not (text.unit=statement); softmax over the reports of the "
        "batch (text.unit=report) with one_hot targets, as published, or same_report: equal reports share the target; "
        "default: the one that fits text.unit",
    )
    train: TrainConfig = TrainConfig()
    evaluate: Annotated[EvaluateConfig, FREE_AT_RESUME] = EvaluateConfig()
    adapt: Annotated[AdaptConfig, FREE_AT_RESUME] = AdaptConfig()
    score: Annotated[ScoreConfig, FREE_AT_RESUME] = ScoreConfig()
    index: Annotated[IndexConfig, FREE_AT_RESUME] = IndexConfig()

    @model_validator(mode="before")
    @classmethod
    def _the_loss_fits_the_unit(cls, tree: Any) -> Any:
        if not isinstance(tree, Mapping) or tree.get("loss") is not None:
            return tree
        text = tree.get("text")
        unit = text.get("unit") if isinstance(text, Mapping) else getattr(text, "unit", None)
        return {**tree, "loss": "one_hot" if unit == "report" else "sigmoid"}


HASH_PREFIX = "hash:"


def parse_validation(validation: tuple[int, ...] | str) -> float | None:
    """The share of `hash:SHARE`, or None where folds are listed. Raises ValueError for anything else."""
    if not isinstance(validation, str):
        return None
    try:
        share = float(validation.removeprefix(HASH_PREFIX)) if validation.startswith(HASH_PREFIX) else None
    except ValueError:
        share = None
    if share is None or not 0.0 < share < 1.0:
        raise ValueError("give a list of folds, or `hash:0.1` for a tenth of the train folds' patients")
    return share


def parse_threshold(threshold: str) -> tuple[ThresholdKind, float]:
    """The rule and the share of `best_f1`, `sensitivity:SHARE` or `specificity:SHARE`. Raises ValueError otherwise."""
    word, colon, share = threshold.partition(":")
    kind = next((kind for kind in get_args(ThresholdKind) if kind == word), None)
    try:
        wanted = float(share) if colon else 1.0
    except ValueError:
        wanted = 0.0
    if kind is None or (kind == "best_f1") == bool(colon) or not 0.0 < wanted <= 1.0:
        raise ValueError("give best_f1, or sensitivity:0.9 or specificity:0.9 with a share above 0 and at most 1")
    return kind, wanted

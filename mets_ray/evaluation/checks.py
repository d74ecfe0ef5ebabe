"""Whether a bundle may be scored on a data set, and the notices that a reader of the scores needs."""

from mets_ray.config.settings import Config
from mets_ray.dataset.card import DatasetCard
from mets_ray.dataset.folds import Selection, listed, selections
from mets_ray.dataset.prepared import PreparedDataset
from mets_ray.errors import ConfigError, MetsError
from mets_ray.evaluation.inputs import EvaluationInputs
from mets_ray.evaluation.lead_sets import sets_to_score
from mets_ray.model.bundle import Bundle, BundleFacts, check_signal
from mets_ray.model.heads import HeadFacts
from mets_ray.pipelines.embed import Part
from mets_ray.pipelines.input_reference import reference_parts
from mets_ray.sources.cinc import OF_CHALLENGES
from mets_ray.tasks.class_warnings import verbatim_warnings
from mets_ray.tasks.prompt_files import is_prompt_file
from mets_ray.tasks.questions import labelled_sources, unknown_labels

_PUBLISHED_TEST_FOLD = 10
_GATHERED = {"cinc", "cinc2021"}  # sources that may hold records of the others


def check_fit(config: Config, dataset: PreparedDataset, facts: BundleFacts, test: Selection) -> list[str]:
    """Alarms of a bundle that may be scored all the same. Raises where it must not be."""
    card = dataset.card
    if card.synthetic and not facts.synthetic:
        raise ConfigError(
            f"the bundle was trained on real ECGs of `{facts.dataset_source}`, the data set to score is synthetic",
            hint="set dataset_uri to a prepared data set of real ECGs",
        )
    check_signal(card.signal, facts)
    alarms = ["The bundle was trained on SHUFFLED reports: it must know nothing."] if facts.shuffled_reports else []
    if card.source != facts.dataset_source:
        return [*alarms, *_shared_records(card.source, facts.dataset_source)]
    if not _has_the_folds_of(facts, card):
        alarms.append(
            f"The bundle was trained on another data set that was also prepared from `{card.source}`. Whether they "
            "share patients is unknown."
        )
        return alarms
    overlap = sorted(set(facts.seen_folds) & set(test.folds))
    try:
        if overlap:
            raise ConfigError(
                f"`folds.test` holds fold {listed(tuple(overlap))}, which trained the bundle or chose its checkpoint",
                hint=f"train folds were {listed(facts.train_folds)}, validation {facts.validation}, earlier "
                f"{listed(facts.earlier_folds) or 'none'}; evaluate.allow_patient_overlap=true scores them anyway",
            )
        dataset.check_patients(Selection(facts.seen_folds), test, names=("train or validation", "test"))
    except MetsError as error:
        if not config.evaluate.allow_patient_overlap:
            raise
        alarms.append(f"The bundle has seen patients of this test, so its scores are too high: {error.fact}.")
    return alarms


def choose_test(folds: tuple[int, ...] | None, dataset: PreparedDataset) -> tuple[Selection, list[str]]:
    """The test records of `folds.test` (null is every fold), and a notice of folds that the data set lacks.

    Raises ConfigError where it has none of them.
    """
    if folds is None:
        return dataset.all_folds, []
    present = tuple(fold for fold in folds if fold in dataset.card.folds)
    absent = tuple(fold for fold in folds if fold not in present)
    known = listed(tuple(dataset.card.folds))
    if not present:
        raise ConfigError(
            f"`folds.test` is {list(folds)}, and the data set has folds {known}",
            hint="choose from these, or set folds.test=null for every fold",
        )
    notices = [f"`folds.test` names fold {listed(absent)}, which the data set lacks: it has {known}."] if absent else []
    return Selection(present), notices


def choose_parts(
    config: Config, dataset: PreparedDataset, bundle: Bundle, test: Selection
) -> tuple[dict[str, Part], str]:
    """What to embed, by the setting that chose the folds, and why nothing is calibrated ("" if it is).

    Raises ConfigError and DatasetError as `learning_folds`, if a baseline learns from frozen features.
    """
    baselines = config.evaluate.baselines
    probe = "linear_probe" in baselines
    parts = {
        "folds.test": Part(
            test,
            fewer_leads=bool(sets_to_score(bundle)),
            untrained=probe or "random_encoder" in baselines,
            heads=True,
        )
    }
    learns = [name for name in baselines if name in ("linear_probe", "text_head")]
    if learns:
        learning = learning_folds(config, dataset, test, f"the baseline `{learns[0]}`")
        parts |= {key: Part(selection, untrained=probe) for key, selection in learning.items()}
    parts |= reference_parts(dataset, bundle)
    try:
        validation = calibration_folds(config, dataset, bundle.facts, test)
    except MetsError as error:
        return parts, error.fact
    return {"folds.validation": Part(validation)} | parts, ""


def learning_folds(config: Config, dataset: PreparedDataset, test: Selection, who: str) -> dict[str, Selection]:
    """The records that `who` learns from, by setting: `folds.train` and `folds.validation`.

    Raises ConfigError if there are none, DatasetError if their patients are also in the test folds.
    """
    folds = config.folds
    train, validation, _ = selections(folds.train, folds.validation, folds.test)
    found = {"folds.train": train, "folds.validation": validation}
    for key, selection in found.items():
        if not dataset.patients_of(selection):
            raise ConfigError(
                f"{who} needs records in `{key}`, which is {list(selection.folds)}",
                hint="name folds of this data set; folds.validation=hash:0.1 selects some of the train folds' patients",
            )
        dataset.check_patients(selection, test, names=(key, "test"))
    return found


def calibration_folds(config: Config, dataset: PreparedDataset, facts: BundleFacts, test: Selection) -> Selection:
    """The records to calibrate on. Raises MetsError if there are none, or patients among them trained or are tested."""
    if dataset.card.window_stride_s is not None:
        raise MetsError("calibrations are for ECGs of one window, and this data set has windows of recordings")
    _, validation, _ = selections(config.folds.train, config.folds.validation, config.folds.test)
    if not dataset.patients_of(validation):
        raise MetsError(f"`folds.validation` is {config.folds.validation} and selects no record of this data set")
    dataset.check_patients(validation, test, names=("validation", "test"))
    if dataset.card.source == facts.dataset_source and _has_the_folds_of(facts, dataset.card):
        trained, chosen, _ = selections(facts.train_folds, facts.validation, ())
        dataset.check_patients(validation, trained, names=("validation", "bundle's train"))
        # It is known what the folds of its own split were for; any other fold that it began with may have trained it.
        before = tuple(sorted({*facts.earlier_folds} - {*trained.folds, *chosen.folds}))
        dataset.check_patients(validation, Selection(before), names=("validation", "bundle's earlier train"))
    return validation


def heads_to_score(inputs: EvaluationInputs) -> tuple[list[str], list[str]]:
    """The bundle's heads for the tasks that are scored, and notices of those that are left out.

    A head that was trained or chosen on a test patient is scored only with `evaluate.allow_patient_overlap`.
    """
    config, card, names, notices = inputs.config, inputs.dataset.card, [], []
    for name, head in inputs.predictor.heads.items():
        label_set = inputs.questions.tasks.get(head.task)
        if head.task not in inputs.scores or label_set is None or not set(head.classes) <= set(label_set.classes):
            continue
        if card.source == head.dataset_source:
            learnt, chosen, _ = selections(head.train_folds, head.validation, ())
            seen = inputs.dataset.patients_of(learnt) | inputs.dataset.patients_of(chosen)
            if not _has_the_folds_of(head, card):
                notices.append(
                    f"The head `{name}` learnt from another data set of `{card.source}`; it may know patients."
                )
            elif seen & inputs.dataset.patients_of(inputs.test):
                notices.append(f"The head `{name}` has seen patients of this test.")
                if not config.evaluate.allow_patient_overlap:
                    notices[-1] += " It is not scored."
                    continue
        names.append(name)
    return names, notices


def _shared_records(tested: str, trained: str) -> list[str]:
    """An alarm where two sources hold records of each other: the challenge of 2021 gathered several databases."""
    both = {tested, trained}
    if both <= OF_CHALLENGES | {"ptbxl"} and both & _GATHERED:
        return [
            f"The bundle was trained on `{trained}`, which may hold records of `{tested}`: the challenge of 2021 "
            "gathered PTB-XL, CPSC2018, Chapman-Shaoxing, Ningbo and others. Whether they share patients is unknown."
        ]
    return []


def _has_the_folds_of(facts: BundleFacts | HeadFacts, card: DatasetCard) -> bool:
    """Whether a fold means the same patients in this data set as in the one that trained the bundle or the head.

    Both are of one source. A public one has one division into folds, however it was cut or prepared, unless its
    patients were divided anew. A folder of records is a kind of source and no data set: only the same files have the
    same folds.
    """
    return facts.patient_folds == card.patient_folds and (
        card.source in labelled_sources()
        or card.content_sha256 == facts.dataset_sha256
        or card.source_sha256 == facts.dataset_source_sha256
    )


def notices_of(inputs: EvaluationInputs) -> list[str]:
    card, facts, test = inputs.dataset.card, inputs.predictor.facts, inputs.test
    validation = facts.validation if isinstance(facts.validation, str) else listed(facts.validation) or "none"
    lines = [
        f"Trained on folds {listed(facts.train_folds)} of {facts.dataset_source} (validation: {validation}), "
        f"tested on folds {listed(test.folds)} of {card.source}."
    ]
    if card.synthetic or facts.synthetic:
        lines.append("SYNTHETIC data: these scores say nothing about real ECGs.")
    elif card.source == "ptbxl" and not (card.patient_folds is None and _is_published_split(facts, test)):
        lines.append("This is not the published split of PTB-XL (train 1-8, validate 9, test 10): do not compare.")
    began = inputs.predictor.bundle.config.train.init_from
    if began and (card.source != facts.dataset_source or not facts.earlier_folds):
        lines.append(f"The weights began as those of `{began}`. Whether it has seen patients of this test is unknown.")
    if partial := inputs.records.partial:
        beside = (
            "" if inputs.predictor.bundle.takes_fewer_leads else ", and this bundle was trained on whole ECGs alone"
        )
        rows = f"{partial:,} of {inputs.records.rows:,} rows"
        lines.append(f"Leads that were not recorded are zeros, in {rows}{beside}.")
    lines += heads_to_score(inputs)[1]
    unknown = unknown_labels(inputs.questions.tasks, inputs.records.labels)
    if card.source not in labelled_sources() and unknown:  # a packaged source has codes that no benchmark scores
        lines.append(
            f"Labels that the prompt set has no class for: {', '.join(unknown[:20])}"
            f"{f' and {len(unknown) - 20} more' if len(unknown) > 20 else ''}."
        )
    if is_prompt_file(inputs.config.evaluate.prompt_set):
        prompts = inputs.questions.texts()
        lines += [f"{message[:1].upper()}{message[1:]}." for _, message in verbatim_warnings(prompts)]
    lines.append("Research software, not a medical device.")
    return lines


def _is_published_split(facts: BundleFacts, test: Selection) -> bool:
    published = tuple(range(1, 9)), (9,), (_PUBLISHED_TEST_FOLD,)
    return facts.patient_folds is None and (facts.train_folds, facts.validation, test.folds) == published

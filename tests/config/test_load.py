"""Settings: strict keys, all faults at once, the order of precedence, the shipped files."""

from pathlib import Path

import pytest
import yaml

from mets_ray.config.load import describe_settings, dump_changes, dump_config, load_config
from mets_ray.config.older import from_older
from mets_ray.config.settings import Config, parse_threshold
from mets_ray.errors import ConfigError
from mets_ray.sources.catalogue import source_of

CONFIGS = sorted((Path(__file__).parents[2] / "jobs" / "configs").glob("*.yaml"))


def test_words_win_over_the_file_which_wins_over_defaults(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("train: {epochs: 7, batch_size: 64, learning_rate: 1e-4}\n")
    config = load_config(path, ["train.epochs=9", "folds.validation=hash:0.2", "text.resources={lm_gpu: 1}"])
    assert (config.train.epochs, config.train.batch_size, config.train.lanes) == (9, 64, 16)
    assert config.train.learning_rate == 1e-4  # PyYAML reads 1e-4 as text
    assert config.folds.validation == "hash:0.2"
    assert config.text.resources == {"lm_gpu": 1.0}


@pytest.mark.parametrize(
    ("word", "rule"),
    [("best_f1", ("best_f1", 1.0)), ("sensitivity:0.9", ("sensitivity", 0.9)), ("specificity:1", ("specificity", 1.0))],
)
def test_a_threshold_is_a_rule_with_its_share(word, rule):
    assert parse_threshold(load_config(None, [f"evaluate.threshold={word}"]).evaluate.threshold) == rule


@pytest.mark.parametrize("word", ["f1", "best_f1:0.9", "sensitivity", "sensitivity:", "specificity:0", "sensitivity:2"])
def test_a_threshold_by_no_rule_is_refused(word):
    with pytest.raises(ConfigError, match=r"sensitivity:0\.9 or specificity:0\.9"):
        load_config(None, [f"evaluate.threshold={word}"])


def test_a_dump_reads_back_to_the_same_settings():
    config = load_config(None, ["folds.validation=hash:0.1", "train.precision=float64"])
    assert Config.model_validate(yaml.safe_load(dump_config(config))) == config


def test_all_faults_come_at_once_with_what_was_meant():
    with pytest.raises(ConfigError) as error:
        load_config(None, ["train.batch_sise=3", "train.epochs=0", "folds.validation=half"])
    text = str(error.value)
    assert "`train.batch_sise` is not a setting; did you mean `train.batch_size`?" in text
    assert "`train.epochs` is 0" in text
    assert "`folds.validation` is 'half'" in text


@pytest.mark.parametrize(
    ("words", "fact", "hint"),
    [
        (["train.batch_size=100"], "`train.batch_size` is 100, which 16 lanes cannot share equally", "96 or 112"),
        (["train.num_workers=32"], "`train.lanes` is 16, fewer than the 32", "at least 32"),
        (["folds.test=[8]"], "fold 8 is in both `folds.train` and `folds.test`", "hash:0.1"),
        (["text.template=no place"], "without exactly one {}", "put {}"),
        (["text.min_actors=4"], "below `text.min_actors` 4", "at least 4"),
        (["prepare.source=files", "prepare.source.unit=kV"], "`kV` is not a unit of a signal; give one of V, mV", ""),
        (["prepare.source=files", "prepare.source.sampling_rate_hz=5"], "the sampling rate is 5 Hz, outside", ""),
    ],
)
def test_settings_that_cannot_work_together_are_refused(words, fact, hint):
    with pytest.raises(ConfigError) as error:
        load_config(None, words)
    assert fact in error.value.fact
    assert hint in error.value.hint


@pytest.mark.parametrize(
    ("words", "fact"),
    [
        (["prepare.source=ptbxl"], "`prepare.source.uri` is not set"),
        (["prepare.source=wfdb"], "`prepare.source` is files, but `prepare.source.uri` is not set"),
        (
            ["prepare.source.uri=x", "prepare.source=ptbxl", "prepare.source.report=12sl"],
            "source.statements_uri` is not",
        ),
    ],
)
def test_only_prepare_needs_what_its_source_needs(words, fact):
    config = load_config(None, words)
    with pytest.raises(ConfigError, match=fact):
        source_of(config).check()


@pytest.mark.parametrize(
    "word", ["train.epochs", "=3", "train.epochs.more=3", "seed=[1", "folds.test=[1", "prepare.source=ptb"]
)
def test_words_that_are_no_setting_are_refused(word):
    with pytest.raises(ConfigError):
        load_config(None, ["train.epochs=3", word])


def test_a_missing_or_broken_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(tmp_path / "absent.yaml")
    broken = tmp_path / "broken.yaml"
    broken.write_text("train: [1\n")
    with pytest.raises(ConfigError, match="is not YAML"):
        load_config(broken)
    broken.write_text("train: {epochs: 1}\nseed: 3\ntrain: {epochs: 2}\n")
    with pytest.raises(ConfigError, match="`train` appears twice") as caught:
        load_config(broken)
    assert "line 3" in caught.value.where


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_the_shipped_files_are_right(path):
    assert load_config(path, ["prepare.source.uri=s3://bucket/x"]).prepare.source.uri == "s3://bucket/x"


def test_the_paper_s_setting_is_the_paper_s():
    config = load_config(CONFIGS[0].parent / "mets_paper.yaml", ["prepare.source.uri=x"])
    train = config.train
    assert (train.optimizer, train.learning_rate, train.weight_decay) == ("adam", 1e-3, 1e-3)
    assert (train.batch_size, train.epochs, config.loss) == (32, 50, "one_hot")
    assert (config.encoder.width, config.encoder.norm, config.encoder.embedding_dimension) == (64, "batch", 128)
    assert config.text.template == "The report of the ECG is that {}"
    assert config.text.model == "emilyalsentzer/Bio_ClinicalBERT"


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_the_shipped_files_pin_the_hub_model_that_they_name(path):
    text = load_config(path, ["prepare.source.uri=s3://bucket/x"]).text
    assert (text.revision is None) == (text.model == "packaged-minilm")


@pytest.mark.parametrize("revision", ["main", "v1.0", "d5892b3", "D5892B39A4ADAED74B92212A44081509DB72F87B", "''"])
def test_a_revision_is_a_commit_and_no_name_that_may_move(revision):
    with pytest.raises(ConfigError, match=r"`text\.revision` is"):
        load_config(None, ["text.model=org/bert", f"text.revision={revision}"])
    assert load_config(None, ["text.model=org/bert", f"text.revision={'0' * 40}"]).text.revision == "0" * 40


def test_help_names_every_key_with_default_and_meaning():
    text = describe_settings()
    assert "train.batch_size = 32\n      ECGs in a global batch" in text
    lines = text.splitlines()
    assert all(meaning.strip() for meaning in lines[1::2])
    assert len(lines) == 2 * text.count(" = ")


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("dataset_uri=/data/Study #2", "/data/Study #2"),
        ("dataset_uri=[x", "[x"),
        ("dataset_uri=null", None),
        ("run_uri=2024-01-01", "2024-01-01"),
        ("run_uri=null", "null"),
        ("seed=010", 10),
        ("train.learning_rate=1e-4", 1e-4),
        ("train.mlflow=true", True),
        ("train.num_workers=4", 4),
        ("train.num_workers=[1,4]", (1, 4)),
        ("folds.train=[1, 2]", (1, 2)),
        ("folds.train=1,2", (1, 2)),
        ("folds.train=[]", ()),
        ("folds.test=null", None),
        ("folds.validation=hash:0.2", "hash:0.2"),
        ("folds.validation=[9]", (9,)),
        ("evaluate.tasks=[no]", ("no",)),
        ("evaluate.also=/data/a b,s3://c", ("/data/a b", "s3://c")),
        ("text.template=no: {} #1", "no: {} #1"),
        ("prepare.highpass_hz=null", None),
    ],
)
def test_a_word_is_what_the_shell_hands_over(word, value):
    found = load_config(None, [word])
    for name in word.partition("=")[0].split("."):
        found = getattr(found, name)
    assert found == value


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("train.lr", "train.learning_rate"),
        ("lr", "train.learning_rate"),
        ("batch_size", "train.batch_size"),
        ("epochs", "train.epochs"),
        ("data", "dataset_uri"),
        ("train.batch_sise", "train.batch_size"),
        ("evaluate.batchsize", "evaluate.batch_size"),
        ("prepare.source_uri", "prepare.source.uri"),
        ("synthetic.records", "prepare.source.records"),
        ("output_dir", "run_uri"),
    ],
)
def test_did_you_mean_knows_the_words_of_other_tools(typed, meant):
    with pytest.raises(ConfigError, match=f"`{typed}` is not a setting\\D+did you mean `{meant}`"):
        load_config(None, [f"{typed}=1"])


def test_what_differs_from_the_defaults_reads_back_to_the_same_settings(tmp_path):
    assert dump_changes(load_config()) == ""
    config = load_config(
        None, ["prepare.source=ptbxl", "prepare.source.uri=/a", "text.resources={lm_gpu: 1}", "seed=3"]
    )
    changed = tmp_path / "changed.yaml"
    changed.write_text(dump_changes(config))
    assert load_config(changed) == config
    assert set(shown := yaml.safe_load(changed.read_text())) == {"seed", "prepare", "text"}
    assert shown["prepare"] == {"source": {"kind": "ptbxl", "uri": "/a"}}


def test_the_loss_is_one_key_that_fits_the_unit_of_text():
    assert load_config().loss == "sigmoid"
    assert load_config(None, ["text.unit=report"]).loss == "one_hot"
    assert load_config(None, ["text.unit=report", "loss=same_report"]).loss == "same_report"
    for words in (["loss=one_hot"], ["text.unit=report", "loss=sigmoid"]):
        with pytest.raises(ConfigError, match=r"`text\.unit`"):
            load_config(None, words)


def test_the_kind_of_source_may_stand_anywhere_and_keeps_the_file_s_settings_of_the_same_kind(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("prepare: {source: {kind: cinc, uri: /cinc, database: csn}}\n")
    assert load_config(path, ["prepare.source=cinc"]).prepare.source.database == "csn"
    other = load_config(path, ["prepare.source.uri=/ptb", "prepare.source=ptbxl"]).prepare.source
    assert (other.kind, other.uri, other.records) == ("ptbxl", "/ptb", 100)
    with pytest.raises(ConfigError, match=r"`prepare\.source\.database` is not a setting of this `prepare\.source`"):
        load_config(path, ["prepare.source=ptbxl", "prepare.source.database=csn"])
    path.write_text("prepare: {source: mitbih}\n")
    assert load_config(path, ["prepare.source.uri=/mit"]).prepare.source.uri == "/mit"


def test_settings_of_version_0_1_are_read_in_today_s_form():
    old = yaml.safe_load(
        "{synthetic: {records: 7}, loss: {targets: same_report}, text: {unit: report}, prepare: {source: ptbxl, "
        "source_uri: /a, ptbxl_records: 500, report_source: both, statements_uri: /b, manifest_uri: null, "
        "mitbih_beats: null, cinc_database: any, cinc_stretch: start, duration_s: 5.0}}"
    )
    config = Config.model_validate(from_older(old))
    assert config.prepare.source.model_dump() == {
        "kind": "ptbxl",
        "uri": "/a",
        "records": 500,
        "report": "both",
        "statements_uri": "/b",
    }
    assert (config.prepare.duration_s, config.loss) == (5.0, "same_report")
    made_up = Config.model_validate(from_older({"prepare": {"source": "synthetic"}, "synthetic": {"records": 7}}))
    assert made_up.prepare.source.records == 7
    assert from_older(config.model_dump(mode="json")) == config.model_dump(mode="json")

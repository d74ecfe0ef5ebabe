"""Settings: strict keys, all faults at once, the order of precedence, the shipped files."""

from pathlib import Path

import pytest
import yaml

from mets_ray.config.load import describe_settings, dump_config, load_config
from mets_ray.config.settings import Config
from mets_ray.errors import ConfigError
from mets_ray.sources.catalogue import check_source

CONFIGS = sorted((Path(__file__).parents[2] / "jobs" / "configs").glob("*.yaml"))


def test_words_win_over_the_file_which_wins_over_defaults(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("train: {epochs: 7, batch_size: 64, learning_rate: 1e-4}\n")
    config = load_config(path, ["train.epochs=9", "folds.validation=hash:0.2", "text.resources={lm_gpu: 1}"])
    assert (config.train.epochs, config.train.batch_size, config.train.lanes) == (9, 64, 16)
    assert config.train.learning_rate == 1e-4  # PyYAML reads 1e-4 as text
    assert config.folds.validation == "hash:0.2"
    assert config.text.resources == {"lm_gpu": 1.0}


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
        (["folds.test=[8]"], "fold 8 stands in `folds.train` and in `folds.test`", "hash:0.1"),
        (["text.template=no place"], "without exactly one {}", "put {}"),
        (["text.min_actors=4"], "below `text.min_actors` 4", "at least 4"),
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
        (["prepare.source=ptbxl"], "`prepare.source_uri` is not set"),
        (["prepare.source=wfdb", "prepare.source_uri=x"], "`prepare.manifest_uri` is not set"),
        (["prepare.source=ptbxl", "prepare.source_uri=x", "prepare.report_source=12sl"], "`prepare.statements_uri` is"),
    ],
)
def test_only_prepare_needs_what_its_source_needs(words, fact):
    config = load_config(None, words)
    with pytest.raises(ConfigError, match=fact):
        check_source(config.prepare)


@pytest.mark.parametrize("word", ["train.epochs", "=3", "train.epochs.more=3", "seed=[1"])
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


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_the_shipped_files_are_right(path):
    source = ["prepare.source_uri=s3://bucket/ptb-xl", "prepare.statements_uri=s3://bucket/labels"]
    load_config(path, [] if path.stem == "quickstart" else source)


def test_the_paper_s_setting_is_the_paper_s():
    config = load_config(CONFIGS[0].parent / "mets_paper.yaml", ["prepare.source_uri=x"])
    train = config.train
    assert (train.optimizer, train.learning_rate, train.weight_decay) == ("adam", 1e-3, 1e-3)
    assert (train.batch_size, train.epochs, config.loss.targets) == (32, 50, "one_hot")
    assert (config.encoder.width, config.encoder.norm, config.encoder.embedding_dimension) == (64, "batch", 128)
    assert config.text.template == "The report of the ECG is that {}"
    assert config.text.model == "emilyalsentzer/Bio_ClinicalBERT"


def test_help_names_every_key_with_default_and_meaning():
    text = describe_settings()
    assert "train.batch_size = 32\n      ECGs in a global batch" in text
    lines = text.splitlines()
    assert all(meaning.strip() for meaning in lines[1::2])
    assert len(lines) == 2 * text.count(" = ")

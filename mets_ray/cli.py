"""The commands of `mets-ray`, and what jobs/*.py run.

Each command imports what it needs when it runs: `--help` and a typing error in the settings load neither torch nor Ray.
"""

import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mets_ray import bundles
from mets_ray.config.settings import Config
from mets_ray.console import say
from mets_ray.errors import ConfigError
from mets_ray.job import Command, run_command
from mets_ray.sources.catalogue import dataset_uri_of, source_of


def prepare(config: Config, line: str) -> dict[str, Any]:
    """Read ECGs and reports, check and convert every one, write Parquet shards and a card.

    mets-ray prepare --config jobs/configs/ptbxl_100hz.yaml prepare.source.uri=… dataset_uri=…
    """
    from mets_ray.pipelines.prepare import draw_first_record, show_card
    from mets_ray.pipelines.prepare import prepare as write_dataset
    from mets_ray.pipelines.quality import write_quality

    dataset = write_dataset(config, dataset_uri_of(config), line)
    card = dataset.card
    show_card(card)
    written = write_quality(dataset)
    return {
        "dataset_uri": dataset.uri,
        "picture_uri": draw_first_record(dataset),
        **asdict(written),
        "records_in": card.records_in,
        "records_out": card.records_out,
        "rejected": card.rejected,
        "synthetic": card.synthetic,
    }


def quality(config: Config, line: str) -> dict[str, Any]:
    """Look at a prepared data set: quality.html and croissant.json beside its card, as `prepare` writes them.

    mets-ray quality dataset_uri=…    # also for a data set of an earlier version, or whose source is gone
    """
    from mets_ray.dataset.prepared import PreparedDataset
    from mets_ray.pipelines.quality import write_quality

    dataset = PreparedDataset.open(dataset_uri_of(config))
    return {"dataset_uri": dataset.uri} | asdict(write_quality(dataset))


def pretrain(config: Config, line: str) -> dict[str, Any]:
    """Pretrain an ECG encoder against frozen text embeddings; the last epoch (or the best) becomes a bundle.

    mets-ray pretrain                                            # synthetic data, made first
    mets-ray pretrain --config jobs/configs/ptbxl_100hz.yaml dataset_uri=…
    ray job submit --working-dir . -- python jobs/pretrain.py run_uri=$PWD/.runs
    """
    from mets_ray.pipelines.prepare import find_or_make_dataset
    from mets_ray.training.fit import figures, fit

    dataset_uri = find_or_make_dataset(config, line)
    return {"dataset_uri": dataset_uri} | figures(fit(config, dataset_uri))


def evaluate(config: Config, line: str) -> dict[str, Any]:
    """Score a bundle zero-shot on the test folds of a prepared data set: report.html, tables, metrics.json.

    mets-ray evaluate --config jobs/configs/ptbxl_100hz.yaml dataset_uri=… evaluate.bundle_uri=…
    """
    from mets_ray.evaluation.evaluate import evaluate_all, figures
    from mets_ray.pipelines.prepare import find_dataset

    assert config.evaluate.bundle_uri is not None
    dataset_uri = find_dataset(config)
    return figures(evaluate_all(config, dataset_uri, config.evaluate.bundle_uri, line))


def calibrate(config: Config, line: str) -> dict[str, Any]:
    """Fit probabilities on the validation records alone and write them beside a bundle, where none are left for a test.

    mets-ray calibrate --config jobs/configs/ptbxl_demo.yaml dataset_uri=… evaluate.bundle_uri=…
    """
    from mets_ray.evaluation.calibrate_only import calibrate as fit_and_write
    from mets_ray.evaluation.calibrate_only import figures
    from mets_ray.pipelines.prepare import find_dataset

    assert config.evaluate.bundle_uri is not None
    dataset_uri = find_dataset(config)
    return {"dataset_uri": dataset_uri} | figures(fit_and_write(config, dataset_uri, config.evaluate.bundle_uri))


def score(config: Config, line: str) -> dict[str, Any]:
    """Zero-shot scores and embeddings of every record of a prepared data set, labelled or not, as Parquet.

    mets-ray score dataset_uri=… score.bundle_uri=…     # a killed run is finished by the same command
    """
    from mets_ray.pipelines.prepare import find_dataset
    from mets_ray.pipelines.score import figures
    from mets_ray.pipelines.score import score as write_scores

    assert config.score.bundle_uri is not None
    dataset_uri = find_dataset(config)
    return {"dataset_uri": dataset_uri} | figures(write_scores(config, dataset_uri, config.score.bundle_uri))


def index(config: Config, line: str) -> dict[str, Any]:
    """An index of what `score` wrote, so that an archive can be searched in words with `mets-ray search`.

    mets-ray index dataset_uri=… index.scores_uri=…     # a killed run is finished by the same command
    """
    from mets_ray.pipelines.index import figures
    from mets_ray.pipelines.index import index as write_index

    dataset_uri = dataset_uri_of(config)
    return {"dataset_uri": dataset_uri} | figures(write_index(config, dataset_uri))


def adapt(config: Config, line: str) -> dict[str, Any]:
    """Learn from few labels on a bundle: a head beside zero-shot, in a new version of the bundle.

    mets-ray adapt dataset_uri=… adapt.bundle_uri=… adapt.task=ptbxl_super adapt.labels_per_class=32
    mets-ray adapt … adapt.method=finetune train.resume=…        # goes on with a run that was killed
    """
    from mets_ray.adaptation.adapt import adapt as learn_head
    from mets_ray.adaptation.adapt import figures
    from mets_ray.pipelines.prepare import find_dataset

    assert config.adapt.bundle_uri is not None
    dataset_uri = find_dataset(config)
    return {"dataset_uri": dataset_uri} | figures(learn_head(config, dataset_uri, config.adapt.bundle_uri))


def quickstart(config: Config, line: str) -> dict[str, Any]:
    """The whole way in one command: synthetic ECGs → shards → cached text → two workers train → zero-shot table.

    mets-ray quickstart
    """
    from mets_ray.dataset.prepared import PreparedDataset
    from mets_ray.evaluation.evaluate import evaluate as score_test_folds
    from mets_ray.evaluation.evaluate import figures
    from mets_ray.pipelines.prepare import draw_first_record, find_or_make_dataset
    from mets_ray.training.fit import fit

    dataset_uri = find_or_make_dataset(config, line)
    trained = fit(config, dataset_uri)
    scored = figures([score_test_folds(config, dataset_uri, trained.bundle_uri, line)])
    record_uri = draw_first_record(PreparedDataset.open(dataset_uri))
    say(
        f"\nbundle    {trained.bundle_uri}\nreport    {scored['report_uri']}\ntable     {scored['table_uri']}\n"
        f"pictures  {trained.picture_uri}\n          {record_uri}\n"
        + "".join(f"          {uri}\n" for uri in scored["picture_uris"])
    )
    return scored | {"dataset_uri": dataset_uri, "bundle_uri": trained.bundle_uri}


def _needs_bundle(section: str) -> Callable[[Config], None]:
    def check(config: Config) -> None:
        bundle_uri = getattr(config, section).bundle_uri
        if bundle_uri is None:
            raise ConfigError(
                f"`{section}.bundle_uri` is not set",
                hint=f"give the bundle_uri that pretrain printed; {bundles.what_is_packaged()}",
            )
        bundles.check_uri(bundle_uri)
        dataset_uri_of(config)

    return check


def _needs_scores(config: Config) -> None:
    if config.index.scores_uri is None:
        raise ConfigError("`index.scores_uri` is not set", hint="give the output_uri that score printed")
    dataset_uri_of(config)


def _may_start_from_bundle(config: Config) -> None:
    if config.train.init_from is not None:
        bundles.check_uri(config.train.init_from)
    dataset_uri_of(config)


def _needs_source(config: Config) -> None:
    source_of(config).check()
    dataset_uri_of(config)


def _command(
    run: Callable[[Config, str], dict[str, Any]],
    check: Callable[[Config], object],
    sections: tuple[str, ...],
    more_sections: tuple[str, ...] = (),
    libraries: tuple[str, ...] = (),
    config_path: Path | None = None,
) -> Command:
    return Command(run.__name__, run.__doc__ or "", run, check, sections, more_sections, libraries, config_path)


_MODEL = ("folds", "encoder", "augment")  # evaluate trains its supervised baseline by them
_SCORING = ("torch", "scipy.stats", "sklearn.linear_model", "sklearn.manifold", "matplotlib.figure")
_QUICKSTART = Path(__file__).parent / "config" / "quickstart.yaml"
COMMANDS = {
    command.name: command
    for command in (
        _command(prepare, _needs_source, ("prepare",)),
        _command(quality, dataset_uri_of, ()),
        _command(pretrain, _may_start_from_bundle, ("text", "train"), (*_MODEL, "prepare", "evaluate"), ("torch",)),
        _command(evaluate, _needs_bundle("evaluate"), ("text", "evaluate"), _MODEL, _SCORING),
        _command(calibrate, _needs_bundle("evaluate"), ("text", "evaluate"), ("folds",), ("torch", "scipy.stats")),
        _command(
            adapt, _needs_bundle("adapt"), ("text", "train", "adapt"), ("folds",), ("torch", "sklearn.linear_model")
        ),
        _command(score, _needs_bundle("score"), ("text", "score"), (), ("torch",)),
        _command(index, _needs_scores, ("index",)),
        _command(
            quickstart, dataset_uri_of, ("text", "train", "evaluate"), (*_MODEL, "prepare"), ("torch",), _QUICKSTART
        ),
    )
}

_USAGE = """usage: mets-ray COMMAND [--config FILE] [key=value ...]

Zero-shot ECG recognition from reports, on Ray. Research software, not a medical device.

{commands}
  search      Find ECGs of an archive by words, by an ECG of it, or by a report.
  serve       Answer zero-shot requests over HTTP, with a page.
  export      Write a bundle as a Hugging Face folder, with ONNX of the ECG side.

mets-ray COMMAND --help lists the command's settings.
"""


def main(name: str | None = None) -> None:
    """Run the command `name`, or the one that the first word of the command line names. Ends the process."""
    # A source of one's own lies in the folder that the command is run in: a console script does not look there.
    sys.path.insert(0, str(Path.cwd()))
    words = sys.argv[1:] if name else sys.argv[2:]
    name = name or (sys.argv[1] if len(sys.argv) > 1 else "--help")
    if name == "serve":
        from mets_ray.serve.run import run_server

        run_server(words)
    elif name == "search":
        from mets_ray.archive.command import run_search

        run_search(words)
    elif name == "export":
        from mets_ray.exchange.command import run_export

        run_export(words)
    elif name in COMMANDS:
        run_command(COMMANDS[name], words)
    elif name in ("-h", "--help", "--version"):
        print(_version() if name == "--version" else _usage())
    else:
        say(f"mets-ray: there is no command `{name}`\n\n{_usage()}")
        raise SystemExit(2)


def _usage() -> str:
    first_lines = ((command.name, command.description.splitlines()[0]) for command in COMMANDS.values())
    return _USAGE.format(commands="\n".join(f"  {name:<10}  {line}" for name, line in first_lines))


def _version() -> str:
    from mets_ray import __version__

    return f"mets-ray {__version__}"


if __name__ == "__main__":
    main()

"""The pictures of README and docs, from the bundle in the package: `make gallery`.

    python docs/gallery.py DATASET [--bundle ptbxl-demo] [--only page explanation roc label_curve]

DATASET: prepared as `make demo-bundle` prepares it. The ROC and the curve by labels per class are of the patients that
the bundle held out; the labels are of those that trained it. The page is that of `mets-ray serve` in a headless
Chromium.
"""

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from mets_ray import bundles, load_bundle, read_ecg
from mets_ray.bundles.examples import read_examples
from mets_ray.config.load import load_config
from mets_ray.console import say
from mets_ray.dataset.folds import Selection, selections
from mets_ray.dataset.prepared import PreparedDataset
from mets_ray.evaluation.baselines import score_baselines
from mets_ray.evaluation.inputs import EvaluationInputs, similarities_by_task
from mets_ray.evaluation.label_curve import label_curve
from mets_ray.metrics.task_scores import score_task
from mets_ray.model.predictor import load_predictor
from mets_ray.pictures.curves import roc_picture
from mets_ray.pictures.ecg import Shading, draw_ecg
from mets_ray.pictures.figure import palette_png
from mets_ray.pictures.label_curve import draw_label_curve
from mets_ray.pipelines.embed import Part, embed_parts
from mets_ray.tasks.questions import Questions

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
from server_process import free_port, server_process

IMAGES = Path(__file__).parent / "images"
TASK = "ptbxl_super"
FINDING = "complete left bundle branch block"
WORDS = (
    FINDING,
    "atrial fibrillation",
    "sinus rhythm",
    "first degree AV block",
    "premature ventricular complexes",
    "left ventricular hypertrophy",
    "inferior infarct",
)
PENALTY_SHARE = 0.15  # of the patients that trained the bundle: they choose the penalties of heads
WIDTH_PX, HEIGHT_PX = 1400, 900
MOST_BYTES = 200_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset")
    parser.add_argument("--bundle", default=bundles.DEMO_NAME)
    parser.add_argument("--only", nargs="+", choices=["page", "explanation", "roc", "label_curve"])
    arguments = parser.parse_args()
    wanted = arguments.only or ["page", "explanation", "roc", "label_curve"]
    if {"roc", "label_curve"} & set(wanted):
        draw_curves(arguments.dataset, arguments.bundle, wanted)
    if "explanation" in wanted:
        draw_explanation(arguments.bundle)
    if "page" in wanted:
        take_page(arguments.bundle)


def draw_curves(dataset_uri: str, bundle_uri: str, wanted: list[str]) -> None:
    """ROC of the held-out patients, and what labels of the others add there."""
    import ray

    ray.init(address="local", logging_level="warning", include_dashboard=False)
    inputs = held_out_inputs(dataset_uri, bundle_uri)
    of = inputs.scores[TASK]
    about = f"{len(of.record_ids)} held-out ECGs of {len(set(of.patients.tolist()))} patients"
    if "roc" in wanted:
        scored = score_task(of, samples=inputs.config.evaluate.bootstrap_samples, seed=inputs.config.seed)
        keep("roc.png", roc_picture(scored, of, synthetic=False))
    if "label_curve" in wanted:
        points = label_curve(inputs, tuple(score_baselines(inputs)))
        keep("label_curve.png", draw_label_curve(points, f"Zero-shot and few labels, {about}"))
    ray.shutdown()


def held_out_inputs(dataset_uri: str, bundle_uri: str) -> EvaluationInputs:
    """An evaluation of the patients that the bundle held out, with labels of those that trained it."""
    config = load_config(None, [f"evaluate.tasks=[{TASK}]", "evaluate.baselines=[text_head,linear_probe]",
                                "evaluate.label_shares=[1.0]"])  # fmt: skip
    dataset, predictor = PreparedDataset.open(dataset_uri), load_predictor(bundle_uri)
    facts = predictor.facts
    trained, held_out, _ = selections(facts.train_folds, facts.validation, ())
    cut = trained.low + PENALTY_SHARE * (trained.high - trained.low)
    parts = {
        "folds.test": held_out,
        "folds.validation": Selection(trained.folds, low=trained.low, high=cut),
        "folds.train": Selection(trained.folds, low=cut),
    }
    wanted = {key: Part(selection, untrained=True) for key, selection in parts.items()}
    embedded = embed_parts(config, dataset, wanted, bundle_uri)
    questions = Questions.read(config.evaluate.prompt_set, dataset.card.source, config.evaluate.tasks)
    scores = similarities_by_task(predictor, questions, embedded.bundle["folds.test"])
    return EvaluationInputs(config, dataset, held_out, bundle_uri, predictor, questions, embedded, scores)


def draw_explanation(bundle_uri: str) -> None:
    """The example ECG of `FINDING` on paper, shaded by what carries these words."""
    folder, examples = read_examples(bundle_uri)
    assert examples is not None, f"`{bundle_uri}` has no examples"
    (example,) = [one for one in examples.examples if one.finding == FINDING]
    predictor = load_bundle(bundle_uri)
    ecg = read_ecg(f"{folder}/{example.record}.hea")
    found = predictor.explain(ecg, list(WORDS), classes=[FINDING])
    shading = Shading(dict(zip(found.leads, found.classes[0].drops, strict=True)), found.segment_s)
    (window,) = predictor.windows(ecg).signal_uv
    title = f"{example.title}: blue supports these words, orange counts against them"
    signal = predictor.signal
    keep(
        "explanation.png",
        draw_ecg(window, signal.leads, signal.sampling_rate_hz, title, pixels_per_mm=5, shading=shading),
    )


def take_page(bundle_uri: str) -> None:
    """The page with the example ECG of `FINDING`, scores of words, and why."""
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import Select, WebDriverWait

    with served(bundle_uri) as url, browser() as driver:

        def until(is_there: Callable[[], object]) -> None:
            WebDriverWait(driver, 60, poll_frequency=0.1).until(lambda _: is_there())

        def find(css: str) -> list:
            return driver.find_elements(By.CSS_SELECTOR, css)

        driver.get(url)
        until(lambda: len(find("#example option")) > 1 and find("#model-facts dd"))
        find("#labels")[0].send_keys("\n".join(WORDS))
        choice = Select(find("#example")[0])
        name = next(option.text for option in choice.options if option.text.lower().startswith(FINDING))
        choice.select_by_visible_text(name)
        until(lambda: len(find("#scores:not(.stale) #bars li")) == len(WORDS))
        row = next(row for row in find("#bars li") if row.get_attribute("data-class-name") == FINDING)
        row.find_element(By.CSS_SELECTOR, ".ask-why").click()
        until(lambda: find("#why-found:not([hidden])"))
        driver.execute_script("document.activeElement.blur(); scrollTo(0, 0)")
        height = driver.execute_script("return document.querySelector('footer').getBoundingClientRect().top")
        size = {"width": WIDTH_PX, "height": int(height), "deviceScaleFactor": 1, "mobile": False}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        time.sleep(1)  # bars grow, and the paper is drawn again
        keep("page.png", driver.get_screenshot_as_png())


@contextmanager
def served(bundle_uri: str) -> Iterator[str]:
    """`mets-ray serve` in a process of its own: its URL, once it answers."""
    port = free_port()
    command = [sys.executable, "-c", "from mets_ray.cli import main; main()", "serve", "--port", str(port)]
    with tempfile.TemporaryDirectory() as state:
        words = [f"bundle_uri={bundle_uri}", f"state_uri={state}/state"]
        with server_process([*command, *words], port):
            yield f"http://127.0.0.1:{port}"


@contextmanager
def browser() -> Iterator:
    """A headless Chromium of this machine."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None or shutil.which("chromedriver") is None:
        raise SystemExit("the page needs chromium and chromedriver: install both, or name other pictures with --only")
    options.binary_location = found
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
                 "--hide-scrollbars", f"--window-size={WIDTH_PX},{HEIGHT_PX}"):  # fmt: skip
        options.add_argument(flag)
    driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    try:
        yield driver
    finally:
        driver.quit()


def keep(name: str, png: bytes) -> None:
    """Write a picture, in few colours where it would be large otherwise."""
    content = min(png, palette_png(png), key=len)
    if len(content) > MOST_BYTES:
        raise SystemExit(f"{name} has {len(content):,} bytes, more than {MOST_BYTES:,}")
    (IMAGES / name).write_bytes(content)
    say(f"docs/images/{name}: {len(content):,} bytes")


if __name__ == "__main__":
    main()

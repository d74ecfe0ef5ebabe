"""What `check.py` counts: one WFDB record, a shard, a manifest, an epoch's plan, a request, `--help`, a run's texts."""

import asyncio
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import wfdb
from counting import StoreCounts, calls_of
from noisy import write_noisy
from random_models import write_random_bundle

from mets_ray import storage
from mets_ray.dataset.plan import plan_epoch, worker_blocks, worker_lanes
from mets_ray.dataset.planned_rows import plan_delivery, planned_batches
from mets_ray.dataset.prepared import PreparedDataset
from mets_ray.dataset.privacy import Privacy
from mets_ray.dataset.record_reader import ShardTask
from mets_ray.dataset.shard_writer import write_shard
from mets_ray.ecg.ecg import LEADS, Ecg
from mets_ray.ecg.preprocess import SignalConfig
from mets_ray.ecg.wfdb import read_wfdb
from mets_ray.model.bundle import load_bundle
from mets_ray.model.predictor import Predictor
from mets_ray.serve.app import create_app
from mets_ray.serve.service import Service
from mets_ray.serve.settings import ServeConfig
from mets_ray.sources.ptbxl import ptbxl_manifest
from mets_ray.sources.synthetic import Synthetic, render_synthetic, synthetic_manifest
from mets_ray.text.statements import one_spelling

SIGNAL = SignalConfig(100, 10.0, highpass_hz=0.5)
STORE = "memory://bench-check"
TASK = "synthetic"
SHARD_RECORDS = 32
MANIFEST_ROWS = 500
EPOCH_RECORDS = 2048
LANES, BLOCK_ROWS, BATCH_SIZE = 16, 32, 64
ANY_URI = "synthetic:?seed=0&index={}&sampling_rate_hz=100&duration_s=10"

Counts = dict[str, int]


def count_all() -> Counts:
    """Every count, by name. Each subject is run once before, so that what is loaded once does not count."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        return {
            **_wfdb_record(folder),
            **_shard(folder),
            **_manifest(folder),
            **_epoch(),
            **_request(folder),
            **_help(),
        }


def _wfdb_record(folder: Path) -> Counts:
    ecg = render_synthetic(ANY_URI.format(1))
    digital = np.rint(1000 * ecg.signal_mv).astype(np.int64).T
    wfdb.wrsamp(
        "one", fs=100, units=["mV"] * len(LEADS), sig_name=list(LEADS), d_signal=digital, fmt=["16"] * len(LEADS),
        adc_gain=[1000.0] * len(LEADS), baseline=[0] * len(LEADS), write_dir=str(folder),
    )  # fmt: skip
    for suffix in ("hea", "dat"):
        storage.write_bytes(f"{STORE}/one.{suffix}", (folder / f"one.{suffix}").read_bytes())
    read_wfdb(str(folder / "one"))
    with StoreCounts().watching() as store:
        read_wfdb(f"{STORE}/one")
    return {
        "wfdb_record.calls": calls_of(lambda: read_wfdb(str(folder / "one"))),
        "wfdb_record.requests": store.requests,
        "wfdb_record.bytes": store.bytes_read,
    }


class _Rendered(Synthetic):
    """Synthetic ECGs that are rendered once: what is counted is what `prepare` does with a record it has read."""

    _ecgs: ClassVar[dict[str, Ecg]] = {}

    def read(self, record_uri: str) -> Ecg:
        if record_uri not in self._ecgs:
            self._ecgs[record_uri] = render_synthetic(record_uri)
        return self._ecgs[record_uri]


def _shard(folder: Path) -> Counts:
    rows = synthetic_manifest(SHARD_RECORDS, 0, SIGNAL.sampling_rate_hz, SIGNAL.duration_s).rows
    source = _Rendered(kind="synthetic")

    def write(name: str) -> object:
        return write_shard(
            ShardTask(name, rows, frozenset()), source, signal=SIGNAL, dataset_uri=str(folder / "shards"),
            reads_in_flight=1, privacy=Privacy(),
        )  # fmt: skip

    write("warm-up")
    return {"shard.calls": calls_of(lambda: write("counted"))}


def _manifest(folder: Path) -> Counts:
    """PTB-XL's table with German reports and the table of 12SL statements."""

    def read(name: str) -> object:
        return ptbxl_manifest(
            str(folder / name), records=100, report_source="both", statements_uri=str(folder / name / "labels")
        )

    _write_ptbxl(folder / "warm-up", rows=2, first=MANIFEST_ROWS)
    _write_ptbxl(folder / "ptbxl", rows=MANIFEST_ROWS, first=0)
    read("warm-up")
    return {"manifest.calls": calls_of(lambda: read("ptbxl"))}


def _write_ptbxl(folder: Path, *, rows: int, first: int) -> None:
    rhythms = ("sinusrhythmus", "sinusbradykardie", "sinustachykardie", "vorhofflimmern/-flattern", "sinus rhythm")
    axes = ("lagetyp normal", "linkstyp", "überdrehter linkstyp", "rechtstyp", "normal axis")
    ends = ("normales ekg", "linkshypertrophie", "unspezifische st-t veränderung", "t abnormal", "alter infarkt")
    acronyms = ("SRTH", "SBRAD", "LVH", "NML", "AFIB")
    (folder / "labels/mapping").mkdir(parents=True)
    mapping = "".join(f"{acronym},Statement {acronym.lower()}\n" for acronym in acronyms)
    (folder / "labels/mapping/12slv23ToSNOMED.csv").write_text(f"Acronym,FullText\n{mapping}")
    columns = "ecg_id,patient_id,age,sex,report,scp_codes,strat_fold,filename_lr"
    lines, statements = [columns], ["ecg_id,statements,statements_cat"]
    for number in range(first, first + rows):
        choice = [words[number // 5**place % 5] for place, words in enumerate((rhythms, axes, ends))]
        report = " ".join(choice) + ("" if number % 4 else "  4.46 unbestätigter bericht")
        codes = "\"{'NORM': 100.0, 'SR': 0.0}\""
        person = f"{number}.0,{20 + number % 60}.0,{number % 2}"
        lines.append(f"{number},{person},{report},{codes},{1 + number % 10},r/{number}")
        names = f"['{acronyms[number % 5]}', '{acronyms[number // 5 % 5]}']"
        statements.append(f'{number},"{names}","{names}"')
    (folder / "ptbxl_database.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / "labels/12sl_statements.csv").write_text("\n".join(statements) + "\n", encoding="utf-8")


def _epoch() -> Counts:
    """All blocks of one epoch in the planned order, and the texts of the data set that the LM must embed."""
    uri = f"{STORE}/epoch"
    write_noisy(uri, SIGNAL, records=EPOCH_RECORDS, templates=64, noise_uv=3)
    dataset = PreparedDataset.open(uri)
    groups = dataset.row_groups(dataset.all_folds)
    plan = plan_epoch(groups, seed=0, epoch=0, batch_size=BATCH_SIZE, lanes=LANES, block_rows=BLOCK_ROWS)
    blocks = worker_blocks(plan, worker_lanes(LANES, 1, 0))

    def read() -> None:
        delivery = plan_delivery(blocks)
        rows = (dataset.read_rows(one, dataset.all_folds, "{}") for one in delivery.reads)
        assert sum(1 for _ in planned_batches(delivery, rows, first_step=0)) == plan.steps

    read()
    with StoreCounts().watching() as store:
        read()
    statements: dict[str, list[str]] = {}
    for of_shard in dataset.distinct_statements(dataset.all_folds):
        statements |= of_shard
    spelt = one_spelling({report: tuple(parts) for report, parts in statements.items()})
    return {
        "epoch.calls": calls_of(read),
        "epoch.requests": store.requests,
        "epoch.bytes": store.bytes_read,
        "epoch.row_groups": store.row_groups,
        "text.lm_texts": len({part for parts in spelt.values() for part in parts}),
    }


class _Uncounted:
    """Telemetry of a server that nobody watches."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *values, **named: None


class _Encode:
    """Forward passes of one window, without a queue."""

    failed_in_a_row = 0

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor

    async def __call__(self, window: np.ndarray, place: int = 0) -> np.ndarray:
        vector: np.ndarray = self._predictor.embed_windows(window[None])[0]
        return vector


def _request(folder: Path) -> Counts:
    """An int16 npy body, from the first byte to the last of the answer."""
    config = ServeConfig(
        bundle_uri=write_random_bundle(folder / "bundle", TASK, width=4), auth="none",
        prompt_set=f"descriptive:{TASK}", text_min_replicas=0, text_max_replicas=0,
    )  # fmt: skip
    predictor = Predictor(load_bundle(config.bundle_uri), device="cpu")
    telemetry: Any = _Uncounted()
    service = Service(
        predictor, config, bundle_uri=config.bundle_uri, encode=_Encode(predictor), ask_lm=None, telemetry=telemetry
    )
    app = create_app(service, telemetry)
    path = folder / "ecg.npy"
    np.save(path, np.rint(1000 * render_synthetic(ANY_URI.format(1)).signal_mv).astype(np.int16))

    async def ask() -> None:
        status = await _asked(app, path.read_bytes())
        assert status == 200, f"the answer has status {status}"

    asyncio.run(ask())
    return {"request.calls": calls_of(lambda: asyncio.run(ask()))}


async def _asked(app: Any, body: bytes) -> int:
    """The status of one request, handed to the application as a server does."""
    query = f"unit=uV&sampling_rate_hz=100&leads={','.join(LEADS)}"
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "scheme": "http",
        "path": "/v1/zero-shot", "raw_path": b"/v1/zero-shot", "query_string": query.encode(), "root_path": "",
        "headers": [(b"host", b"127.0.0.1"), (b"content-type", b"application/x-npy")],
        "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 8000),
    }  # fmt: skip
    messages = iter([{"type": "http.request", "body": body, "more_body": False}])
    told: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        message = next(messages, None)
        if message is None:
            await asyncio.sleep(60)
        return message or {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        told.append(message)

    await app(scope, receive, send)
    return int(told[0]["status"])


def _help() -> Counts:
    code = (
        "import sys\nfrom mets_ray.cli import main\nsys.argv = ['mets-ray', 'pretrain', '--help']\n"
        "try: main()\nfinally: print(len(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, env=os.environ | {"COLUMNS": "120"}
    )
    return {"help.modules": int(done.stderr.split()[-1])}

"""Console output of a training run: a bar, and one line per epoch and per restart. Feeds the trackers as well."""

import sys
import threading
from types import TracebackType
from typing import Any

import ray
from ray.exceptions import RayError

from mets_ray.console import progress_bar
from mets_ray.training.job import TrainJob
from mets_ray.training.state import Figures
from mets_ray.training.tracking import Tracker


class TrainConsole:
    """A context manager that shows what rank 0 and Ray Train's controller tell.

    `restarts` counts how often the group of workers was restarted.
    """

    def __init__(self, job: TrainJob) -> None:
        self.restarts = 0
        self._job = job
        self._steps = job.plan(0).steps
        self._tracker = Tracker(job.config, job.run_uri)
        self._logged: set[int] = set()
        self._workers: int | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._show, name="progress", daemon=True)

    def __enter__(self) -> "TrainConsole":
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join(timeout=10.0)
        self._tracker.close()
        ray.kill(self._job.messages)

    def _show(self) -> None:
        epochs, stepped = self._job.config.train.epochs, False
        with progress_bar(total=self._steps * epochs, unit="step", description="training") as bar:
            while True:
                try:
                    told = ray.get(self._job.messages.next.remote())
                except RayError:  # the cluster is gone
                    return
                if told is None:
                    if self._stop.is_set():
                        return
                elif "step" in told:
                    bar.set_postfix_str(f"loss {told['loss']:.3f}", refresh=False)
                    bar.update(told["step"] - bar.n)
                    if not stepped:  # at once: the bar of a log file is next written after ten seconds
                        stepped = True
                        bar.refresh()
                elif "figures" in told:
                    self._epoch(told["figures"], bar)
                elif "failed" in told:
                    failed = "; ".join(f"worker {rank}: {what}" for rank, what in told["failed"].items())
                    bar.write(f"training was interrupted: {failed}", file=sys.stderr)
                elif "stopped" in told:
                    at = told["stopped"]
                    bar.write(f"training stopped at epoch {at['epoch'] + 1}, step {at['step']}", file=sys.stderr)
                else:
                    self._started(told["started"], bar)

    def _started(self, at: dict[str, int], bar: Any) -> None:
        if self._workers is not None:
            self.restarts += 1
            instead = "" if at["workers"] == self._workers else f" instead of {self._workers}"
            group = f"{at['workers']} workers{instead} (restart {self.restarts})"
            line = f"training continues from epoch {at['epoch'] + 1}, step {at['step']}, with {group}"
            bar.write(line, file=sys.stderr)
        self._workers = at["workers"]
        bar.update(self._steps * at["epoch"] + at["step"] - bar.n)

    def _epoch(self, figures: Figures, bar: Any) -> None:
        epochs = self._job.config.train.epochs
        epoch = int(figures["epoch"] or 0)
        bar.update(self._steps * epoch - bar.n)
        bar.write(epoch_line(figures, epochs), file=sys.stderr)
        if epoch not in self._logged:  # a restarted worker may report an epoch again
            self._logged.add(epoch)
            try:
                self._tracker.log(epoch, figures)
            except Exception as error:  # a tracker that is down must not end the run
                bar.write(f"epoch {epoch} was not logged: {error}", file=sys.stderr)


def epoch_line(figures: dict[str, float | None], epochs: int) -> str:
    """One epoch in one line: loss, logit scale, recall@1/5/10 both ways, AUROC, ECG/s, time share waiting for data."""

    def recall(way: str) -> str:
        return "/".join(_shown_number(figures.get(f"{way}_recall_at_{k}")) for k in (1, 5, 10))

    return (
        f"epoch {int(figures['epoch'] or 0)}/{epochs}  loss {_shown_number(figures['loss'])}  "
        f"logit scale {figures['logit_scale']:.1f}  recall@1/5/10 ecg→text {recall('ecg_to_text')} "
        f"text→ecg {recall('text_to_ecg')}  validation AUROC {_shown_number(figures['validation_macro_auroc'])}  "
        f"{figures['ecg_per_s']:.0f} ECG/s  data wait {figures['data_wait_share']:.0%}"
    )


def _shown_number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"

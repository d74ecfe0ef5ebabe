"""Nodes that come, get notice and die while training runs, as real raylets; see `nodes_come_and_go`."""

import json
import subprocess
import sys
from collections import Counter

import pytest

from mets_ray.training.batch_log import read_batches
from tests.support.nodes_come_and_go import EPOCHS

pytestmark = pytest.mark.timeout(1200)


def run(scenario, folder):
    command = [sys.executable, "-m", "tests.support.nodes_come_and_go", scenario, str(folder)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=1100)
    assert done.returncode == 0, done.stderr[-5000:]
    return json.loads(done.stdout.splitlines()[-1]), done.stderr


def test_the_group_grows_and_shrinks_with_the_cluster_and_the_losses_do_not_notice(tmp_path):
    told, shown = run("elastic", tmp_path)
    assert told["grew_to"] == 2
    assert told["restarts"] >= 2, shown[-3000:]
    assert "with 2 workers instead of 1" in shown
    assert "with 1 workers instead of 2" in shown
    assert told["losses"] == pytest.approx(told["undisturbed"], abs=1e-6)
    batches = read_batches(told["run"])
    assert batches == read_batches(told["undisturbed_run"])
    for epoch in range(EPOCHS):
        counts = Counter(name for (of, _), ids in batches.items() if of == epoch for name in ids)
        assert set(counts.values()) == {1}


def test_a_preemption_notice_saves_at_once_and_training_goes_on_elsewhere(tmp_path):
    told, shown = run("preemption", tmp_path)
    assert told["saved_after_s"] < 12, "within the time that the cloud gives"
    assert told["restarts"] == 1
    assert len(told["losses"]) == 12
    assert "training continues from epoch" in shown

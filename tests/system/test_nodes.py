"""Nodes that come, get notice and die while training runs, as real raylets; see `nodes_come_and_go`."""

import json
import subprocess
import sys
from collections import Counter

import pytest

from mets_ray.training.batch_log import read_batches
from tests.support.nodes_come_and_go import DEADLINE_S, EPOCHS, NOTICED_EPOCHS

pytestmark = pytest.mark.timeout(1200)


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """What both runs told, and what was shown meanwhile: one cluster, because its start takes longest."""
    folder = tmp_path_factory.mktemp("nodes")
    command = [sys.executable, "-m", "tests.support.nodes_come_and_go", str(folder)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=1100)
    assert done.returncode == 0, done.stderr[-5000:]
    return json.loads(done.stdout.splitlines()[-1]) | {"shown": done.stderr}


def test_the_group_grows_and_shrinks_with_the_cluster_and_the_losses_do_not_notice(told):
    elastic, shown = told["elastic"], told["shown"]
    assert elastic["grew_to"] == 2
    assert elastic["restarts"] >= 2, shown[-3000:]
    assert "with 2 workers instead of 1" in shown
    assert "with 1 workers instead of 2" in shown
    assert elastic["losses"] == pytest.approx(elastic["undisturbed"], abs=1e-6)
    batches = read_batches(elastic["run"])
    assert batches == read_batches(elastic["undisturbed_run"])
    for epoch in range(EPOCHS):
        counts = Counter(name for (of, _), ids in batches.items() if of == epoch for name in ids)
        assert set(counts.values()) == {1}


def test_a_preemption_notice_saves_at_once_and_training_goes_on_elsewhere(told):
    preemption = told["preemption"]
    assert preemption["saved_after_s"] < DEADLINE_S, "within the time that the cloud gives"
    assert preemption["restarts"] == 1
    assert len(preemption["losses"]) == NOTICED_EPOCHS
    assert "training continues from epoch" in told["shown"]

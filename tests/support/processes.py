"""Ray's processes below this one, by the titles that Ray gives them."""

import socket
import time

import psutil

# For the nodes of a Ray beside which others run, as in two lanes. Ray Train asks the State API whether its controller
# lives, and asks the Ray that `ray start` or a `Cluster` announced last on this machine. Where that is another one, it
# knows no such controller, and Train ends its own workers. With an address at which nobody answers it goes on.
NO_STATE_API = {"RAY_API_SERVER_ADDRESS": "http://127.0.0.1:9"}


def wait_for_port(port, process):
    """Until the head of a Ray, which is `process`, answers at a port of this machine: cheaper than asking it."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert process.poll() is None, "the head ended"
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.3)
    raise AssertionError("the head did not start")


def train_workers():
    """Training workers of this test's Ray, by the time they were started."""
    family = psutil.Process().children(recursive=True)
    found = []
    for process in family:
        try:
            if "RayTrainWorker" in " ".join(process.cmdline()):
                found.append(process)
        except psutil.Error:
            continue
    return sorted(found, key=lambda process: process.create_time())

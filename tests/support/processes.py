"""Ray's processes below this one, by the titles that Ray gives them."""

import psutil

# For the nodes of a Ray beside which others run, as in two lanes. Ray Train asks the State API whether its controller
# lives, and asks whichever Ray was started last on the machine; where that one knows no such controller, Train takes it
# for dead and ends its workers. With an address at which nobody answers it goes on.
NO_STATE_API = {"RAY_API_SERVER_ADDRESS": "http://127.0.0.1:9"}


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

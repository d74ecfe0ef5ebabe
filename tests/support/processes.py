"""Ray's processes below this one, by the titles that Ray gives them."""

import psutil


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

"""Whatever lies in this folder is slow: kills, browsers, whole jobs and clusters."""

from pathlib import Path

import pytest

FOLDER = Path(__file__).parent
# For two lanes: what is short fills the end. A file that is not named here comes after those that are.
LONGEST_FIRST = ["survival", "serve_robust", "nodes", "s3", "jobs", "evaluation", "training_ways", "autoscaling",
                 "learning", "documented_commands", "wheel", "compiled_encoder", "page_in_a_browser"]  # fmt: skip


def pytest_itemcollected(item):
    """Before `-m` selects by marker."""
    item.add_marker(pytest.mark.slow)
    if item.get_closest_marker("timeout") is None:
        item.add_marker(pytest.mark.timeout(600))


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items):
    order = {FOLDER / f"test_{name}.py": place for place, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: order.get(item.path, len(order)))

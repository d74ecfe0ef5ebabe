"""What workers wait for: the run's texts, or the end."""

import asyncio

import pytest

from mets_ray.training.messages import Messages


@pytest.mark.parametrize("stopped", [False, True])
def test_workers_wait_for_texts_until_they_are_given_or_the_run_stops(stopped):
    async def run() -> tuple[bool, list[str], list[str]]:
        messages = Messages()
        waiting = asyncio.create_task(messages.texts())
        await asyncio.sleep(0)
        waited = not waiting.done()
        await (messages.stop("leave") if stopped else messages.give_texts(["reference"]))
        return waited, await waiting, await messages.texts()  # a restarted group asks again

    given = [] if stopped else ["reference"]
    assert asyncio.run(run()) == (True, given, given)


def test_texts_that_were_given_outlast_a_stop():
    async def run() -> list[str]:
        messages = Messages()
        await messages.give_texts(["reference"])
        await messages.stop("save")
        return await messages.texts()

    assert asyncio.run(run()) == ["reference"]

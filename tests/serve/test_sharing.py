"""What requests share: none of them makes the others wait for its own length."""

import asyncio
import threading

import numpy as np
import pytest

from mets_ray.errors import RequestError
from mets_ray.serve.decoders import SMALL_BYTES, Decoders
from tests.support.serving import Counts, make_bundle, make_service


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return make_bundle(tmp_path_factory.mktemp("bundle"))


class SlowLm:
    """Answers one call after the other, when it is told to."""

    def __init__(self, features):
        self.calls = []
        self._features = features
        self._turn = asyncio.Semaphore(0)

    async def __call__(self, texts):
        self.calls.append(len(texts))
        await self._turn.acquire()
        return np.ones((len(texts), self._features), dtype=np.float16)

    async def answer(self, count=1):
        for _ in range(count):
            self._turn.release()
            for _ in range(5):
                await asyncio.sleep(0)


def service_with(bundle, **settings):
    service = make_service(bundle, Counts(), **settings)
    service._ask_lm = SlowLm(service.predictor.facts.text_features)
    return service, service._ask_lm


def test_a_few_new_texts_do_not_wait_for_thousands(bundle):
    async def run():
        service, lm = service_with(bundle)
        long = [asyncio.ensure_future(service.learn([f"{name} {n}" for n in range(2000)])) for name in "abcd"]
        await asyncio.sleep(0)
        short = asyncio.ensure_future(service.learn(["new 1", "new 2"]))
        await lm.answer(3)
        assert lm.calls[:3] == [32, 32, 2]  # two of the long ones, of which one slice each
        await asyncio.wait_for(short, 1)
        for one in long:
            one.cancel()
        await asyncio.gather(*long, return_exceptions=True)
        before = len(lm.calls)
        await lm.answer(100)
        assert len(lm.calls) <= before + 2  # nobody waits for the rest, so it is not asked for
        # what was computed before they gave up is kept
        assert len(service.predictor.missing_texts([f"a {n}" for n in range(2000)])) < 2000

    asyncio.run(run())


def test_a_silent_language_model_is_given_up(bundle):
    async def run():
        service, _ = service_with(bundle, deadline_s=0.05)
        with pytest.raises(RequestError) as caught:
            await service.learn(["new"])
        assert (caught.value.status, caught.value.reason) == (503, "no_language_model")
        assert not service._asked

    asyncio.run(run())


def test_small_bodies_do_not_wait_for_large_ones():
    go = threading.Event()

    async def run():
        decoders = Decoders(8 * 2**20)
        large = [
            asyncio.ensure_future(decoders.run(lambda body: go.wait(10), bytes(SMALL_BYTES + 1))) for _ in range(20)
        ]
        assert await asyncio.wait_for(decoders.run(len, bytes(SMALL_BYTES)), 5) == SMALL_BYTES
        done = []
        late = asyncio.ensure_future(decoders.run(done.append, bytes(SMALL_BYTES + 1)))
        await asyncio.sleep(0)
        late.cancel()
        await asyncio.wait({late})
        go.set()
        await asyncio.gather(*large)
        assert await decoders.run(len, bytes(2 * SMALL_BYTES)) == 2 * SMALL_BYTES
        assert not done  # given up before its turn

    asyncio.run(run())


def test_large_bodies_are_refused_when_there_is_no_more_room():
    decoders = Decoders(2**20)
    with decoders.room() as first:
        for _ in range(16):
            first.take(2**20)
        with decoders.room() as second:
            second.take(SMALL_BYTES)  # small ones are always read
            with pytest.raises(RequestError) as caught:
                second.take(1)
            assert (caught.value.status, caught.value.reason) == (503, "busy")
    with decoders.room() as third:
        third.take(16 * 2**20)

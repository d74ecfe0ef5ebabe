"""Windows of several requests in one forward pass: whose turn it is, and what a pass that fails does."""

import asyncio
import threading

import numpy as np
import pytest
import torch

from mets_ray.serve.batching import Batches


def window(number):
    return np.full((12, 10), number, dtype=np.int16)


class Passes:
    """A forward pass that records which windows it got, and waits until it may go on."""

    def __init__(self):
        self.batches = []
        self.go = threading.Event()

    def __call__(self, windows):
        self.batches.append(windows[:, 0, 0].tolist())
        self.go.wait(timeout=10)
        return windows[:, 0, :4].astype(np.float32)


def batches_of(embed, *, batch_size=4):
    return Batches(embed, batch_size=batch_size, wait_s=0.0, threads=1, counted=lambda windows: None)


def request(batches, first, count):
    return asyncio.gather(*(batches(window(first + place), place) for place in range(count)))


def test_a_request_of_one_window_does_not_wait_for_all_of_a_long_one():
    passes = Passes()

    async def run():
        batches = batches_of(passes)
        long, other = (asyncio.ensure_future(request(batches, first, 40)) for first in (100, 200))
        await asyncio.sleep(0.05)
        short = asyncio.ensure_future(batches(window(7), 0))
        await asyncio.sleep(0.05)
        passes.go.set()
        np.testing.assert_array_equal(await short, [7] * 4)
        assert [vector[0] for vector in await long] == list(range(100, 140))
        await other

    asyncio.run(run())
    assert passes.batches[0][0] == 100
    assert 7 in passes.batches[1]
    # The two long ones took turns from the beginning.
    order = [number for batch in passes.batches for number in batch if number != 7]
    for done in range(8, 80, 8):
        assert abs(sum(number < 200 for number in order[:done]) - done / 2) <= 4, order


def test_a_long_request_goes_on_while_short_ones_fill_every_pass():
    passes = Passes()
    passes.go.set()

    async def run():
        batches = batches_of(passes, batch_size=2)
        long = asyncio.ensure_future(request(batches, 100, 6))

        async def client(number):
            while not long.done():
                await batches(window(number), 0)

        await asyncio.wait_for(asyncio.gather(long, *map(client, range(8))), 10)

    asyncio.run(run())
    assert sum(number >= 100 for batch in passes.batches for number in batch) == 6
    assert len(passes.batches) < 200


def test_each_thread_that_computes_passes_is_prepared_for_its_largest():
    batches = Batches(lambda windows: windows, batch_size=16, wait_s=0.0, threads=3, counted=lambda windows: None)
    seen = []
    batches.on_every_thread(lambda windows: seen.append((threading.get_ident(), torch.get_num_threads(), windows)))
    assert sorted(fact[1:] for fact in seen) == [(1, 16), (1, 16), (1, 16), (3, 1)]
    assert len({thread for thread, _, _ in seen}) == 4
    assert batches.on_a_thread(threading.get_ident) in {thread for thread, count, _ in seen if count == 1}


@pytest.mark.parametrize("fault", ["raises", "not a number"])
def test_passes_that_fail_are_counted_until_one_succeeds(fault):
    fails = True

    def embed(windows):
        if fails and fault == "raises":
            raise RuntimeError("CUDA error")
        return np.full((len(windows), 4), np.nan if fails else 1.0, dtype=np.float32)

    async def run():
        nonlocal fails
        batches = batches_of(embed)
        for number in (1, 2, 3):
            with pytest.raises((RuntimeError, FloatingPointError)):
                await batches(window(0))
            assert batches.failed_in_a_row == number
        fails = False
        np.testing.assert_array_equal(await batches.probe(window(0)), [1.0] * 4)
        assert batches.failed_in_a_row == 3  # the probe is no request
        await batches(window(0))
        assert batches.failed_in_a_row == 0

    asyncio.run(run())

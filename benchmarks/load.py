"""Generate a load of ECG requests from a separate process; prints the results as one JSON object.

    python benchmarks/load.py URL BODY_FILE --clients 32 --duration-s 8     each sends again after each response
    python benchmarks/load.py URL BODY_FILE --beds 400 --duration-s 30      each bed sends every 10 s

BODY_FILE holds the request body; --content-type is its media type.
"""

import argparse
import asyncio
import collections
import json
import random
import time
from pathlib import Path

import aiohttp

BED_PERIOD_S = 10.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("body_file")
    parser.add_argument("--content-type", default="application/x-npy")
    parser.add_argument("--clients", type=int, default=1)
    parser.add_argument("--beds", type=int, default=0)
    parser.add_argument("--duration-s", type=float, default=8.0)
    parser.add_argument("--warm-up-s", type=float, default=2.0)
    print(json.dumps(asyncio.run(_run(parser.parse_args()))))


async def _run(arguments: argparse.Namespace) -> dict[str, object]:
    body = Path(arguments.body_file).read_bytes()
    headers = {"Content-Type": arguments.content_type}
    latencies: list[float] = []
    statuses: collections.Counter[str] = collections.Counter()
    began = time.perf_counter()
    counts_from = began + arguments.warm_up_s
    ends = counts_from + arguments.duration_s

    async def send(session: aiohttp.ClientSession, since: float) -> None:
        try:
            async with session.post(arguments.url, data=body, headers=headers) as answer:
                await answer.read()
                status = str(answer.status)
        except aiohttp.ClientError as error:
            status = type(error).__name__
        now = time.perf_counter()
        if since >= counts_from and (now <= ends or arguments.beds):
            latencies.append(1000 * (now - since))
            statuses[status] += 1

    async def client(session: aiohttp.ClientSession) -> None:
        while time.perf_counter() < ends:
            await send(session, time.perf_counter())

    async def bed(session: aiohttp.ClientSession, phase_s: float) -> None:
        due = began + phase_s
        while due < ends:
            await asyncio.sleep(due - time.perf_counter())
            # Measured from when it was due: if this process sends late, that counts as latency too.
            await send(session, due)
            due += BED_PERIOD_S

    draw = random.Random(0)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=60)) as session:
        if arguments.beds:
            await asyncio.gather(*(bed(session, draw.uniform(0, BED_PERIOD_S)) for _ in range(arguments.beds)))
        else:
            await asyncio.gather(*(client(session) for _ in range(arguments.clients)))
    latencies.sort()
    return {
        "per_s": len(latencies) / arguments.duration_s,
        "p50_ms": latencies[len(latencies) // 2] if latencies else None,
        "p95_ms": latencies[int(0.95 * len(latencies))] if latencies else None,
        "statuses": dict(statuses),
    }


if __name__ == "__main__":
    main()

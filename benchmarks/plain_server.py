"""The benchmark's baseline without Ray: FastAPI, one queue, and one thread that computes batches.

It reads int16 microvolts, scores them against fixed classes, and does no checks. The encoder is computed as `serve`
computes it, by the same runtime.
"""

import asyncio
import io
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

import numpy as np
import torch
import uvicorn
from fastapi import FastAPI, Request

from mets_ray.config.kinds import EncoderRuntime
from mets_ray.model.bundle import load_bundle
from mets_ray.model.ecg_runtime import RuntimeEncoder, choose_runtime
from mets_ray.text.reports import text_id


def main(bundle_uri: str, port: int, threads: int, batch_size: int, runtime: EncoderRuntime) -> None:
    bundle = load_bundle(bundle_uri)
    model = bundle.model.eval()
    encode = RuntimeEncoder(model.ecg_encoder, choose_runtime(runtime))
    classes = next(iter(bundle.facts.prompt_sets["descriptive"].tasks.values()))
    with torch.inference_mode():
        vectors = torch.stack(
            [
                model.embed_text(
                    torch.from_numpy(bundle.prompts.lookup(np.asarray([text_id(text) for text in texts])))
                ).mean(0)
                for texts in classes.values()
            ]
        )
    thread = ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(threads,))
    queue: asyncio.Queue[tuple[np.ndarray, asyncio.Future]] = asyncio.Queue()

    def compute(signals_uv: list[np.ndarray]) -> list[list[float]]:
        with torch.inference_mode():
            embedding = model.project_ecg(encode(torch.from_numpy(np.stack(signals_uv)).float() / 1000))
            return (model.logit_scale * embedding @ vectors.T).softmax(-1).tolist()

    async def work() -> None:
        while True:
            waiting = [await queue.get()]
            while len(waiting) < batch_size and not queue.empty():
                waiting.append(queue.get_nowait())
            signals_uv = [signal for signal, _ in waiting]
            scores = await asyncio.get_running_loop().run_in_executor(thread, compute, signals_uv)
            for (_, future), row in zip(waiting, scores, strict=True):
                if not future.done():
                    future.set_result(row)

    @asynccontextmanager
    async def lifespan(app: FastAPI):
        worker = asyncio.create_task(work())
        yield
        worker.cancel()

    app = FastAPI(lifespan=lifespan)

    @app.get("/readyz")
    async def readyz() -> str:
        return "ok"

    @app.post("/v1/zero-shot")
    async def zero_shot(request: Request) -> dict[str, float]:
        signal_uv = np.load(io.BytesIO(await request.body()), allow_pickle=False)
        future = asyncio.get_running_loop().create_future()
        queue.put_nowait((signal_uv, future))
        return dict(zip(classes, await future, strict=True))

    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning", access_log=False)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), sys.argv[5])  # type: ignore[arg-type]

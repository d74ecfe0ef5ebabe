"""Ray's worker processes, forked from one that has imported once: importing torch and Ray takes most of a test's CPU.

A raylet starts each worker as `python default_worker.py …`. Raylets that are started inside `warm_workers()` name this
file instead. It passes what it was started with to a server and ends. The server forks the worker, which runs Ray's own
`default_worker.py`. Workers whose runtime environment asks for another start (a working folder, another Python) get it.

Ray's library reads its environment when it is loaded, and the id of the job stands there. So the server has imported
everything but Ray, and forks a server for each job that imports Ray too; that one forks the workers.

Its generator of random ids must not have been used before the fork: two workers would name different objects alike.
"""

import contextlib
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from unittest import mock

ADDRESS = "TESTS_WARM_WORKERS"
RUN_FIRST = "TESTS_RUN_FIRST"
"""A variable of a runtime environment: a file that the worker runs before it is one, as Python does `sitecustomize`."""
KEY_BYTES = 64
BEFORE_RAY = ["torch", "torch.distributed", "transformers", "pandas", "pyarrow.parquet", "pyarrow.dataset"]
BEFORE_RAY += ["sklearn.linear_model", "fastapi", "s3fs", "mets_ray.model.predictor", "mets_ray.sources"]
BEFORE_RAY += ["torch._dynamo"]  # which the first optimizer imports, for a second
BEFORE_RAY += ["sklearn.manifold", "scipy.stats", "matplotlib.figure", "mets_ray.serve.app"]
BEFORE_RAY += ["grpc.aio", "requests", "uvicorn", "opentelemetry.exporter.prometheus"]  # Ray's own: each job imports it
WITH_RAY = ["ray.data", "ray.train.torch", "mets_ray.training.fit", "mets_ray.pipelines.prepare"]
WITH_RAY += ["mets_ray.evaluation.evaluate", "mets_ray.pipelines.score", "mets_ray.serve.deployments"]


@contextlib.contextmanager
def warm_server():
    """The server, for all clusters of this process and of those that it starts."""
    with tempfile.TemporaryDirectory(prefix="warm_") as folder:
        address = {ADDRESS: f"{folder}/socket"}
        command = [sys.executable, "-m", "tests.support.warm_workers"]
        # One thread, as Ray asks of a worker with one CPU: the libraries read this when they are loaded.
        environment = os.environ | address | {"OMP_NUM_THREADS": "1"}
        server = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        try:
            assert server.stdout.read(1), "the server ended"
            with mock.patch.dict(os.environ, address):
                yield
        finally:
            server.kill()
            server.wait()


@contextlib.contextmanager
def warm_workers():
    """Raylets that this process starts inside have the server fork their workers."""
    from ray._private.parameter import RayParams

    update = RayParams.update_if_absent

    def name_this_file(self, **kwargs):
        update(self, **kwargs | {key: __file__ for key in ("worker_path", "setup_worker_path") if key in kwargs})

    with mock.patch.object(RayParams, "update_if_absent", name_this_file):
        yield


def ray_command(*words):
    """The command `ray …`; a raylet that it starts has the server fork its workers."""
    return [sys.executable, "-m", "tests.support.warm_workers", "ray", *words]


def serve():
    """Pass each caller on to the server of its job."""
    gc.disable()  # here nothing is thrown away; a worker's collector leaves alone what it did not make itself
    for name in BEFORE_RAY:
        importlib.import_module(name)
    assert "ray" not in sys.modules
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for what is forked here
    servers = {}
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(os.environ[ADDRESS])
        listening.listen(64)
        print("listening", flush=True)
        while sys.stdin not in select.select([listening, sys.stdin], [], [])[0]:  # until the tests have ended
            caller, _ = listening.accept()
            with caller:
                key = caller.recv(KEY_BYTES, socket.MSG_WAITALL)
                if key not in servers:
                    servers[key], callers = socket.socketpair()
                    if os.fork() == 0:
                        listening.close()
                        for other in servers.values():
                            other.close()
                        serve_job(callers, first=caller)
                    callers.close()
                else:
                    socket.send_fds(servers[key], [b"."], [caller.fileno()])


def serve_job(callers, first):
    """Fork a worker for each caller, until the server that passes them on has ended."""
    start, connections = received(first)
    os.environ.clear()
    os.environ.update(start["environment"])
    import_ray()
    while True:
        if os.fork() == 0:
            callers.close()
            become_worker(start, connections)
        for connection in connections:
            os.close(connection)
        data, descriptors, _, _ = socket.recv_fds(callers, 1, 1)
        if not data:
            os._exit(0)
        start, connections = received(socket.socket(fileno=descriptors[0]))


def import_ray(names=WITH_RAY):
    """Import what needs Ray, without a random id: its classes of actors get theirs from the system."""
    from ray import ActorClassID, NodeID, actor

    class ClassID:
        @staticmethod
        def from_random():
            return ActorClassID(os.urandom(ActorClassID.size()))

    actor.ActorClassID = ClassID
    for name in names:
        importlib.import_module(name)
    read, write = os.pipe()
    for _ in range(2):
        if os.fork() == 0:
            os.write(write, NodeID.from_random().binary())
            os._exit(0)
    ids = {os.read(read, NodeID.size()) for _ in range(2)}
    assert len(ids) == 2, "an import has used Ray's generator of random ids"
    os.close(read)
    os.close(write)


def received(caller):
    """What a worker was started with: arguments, environment and folder, and its three streams."""
    with caller:
        first, streams, _, _ = socket.recv_fds(caller, 1, 3)
        return json.loads(first + caller.makefile("rb").read()), streams


def become_worker(start, streams):
    """Be the worker that a raylet has started."""
    gc.freeze()
    gc.enable()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setsid()
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.environ.clear()
    os.environ.update(start["environment"])
    os.chdir(start["folder"])
    import numpy as np
    import ray

    np.random.seed()  # the system's, as in a process of its own; `random` does so itself
    script = str(Path(ray.__file__).parent / "_private" / "workers" / "default_worker.py")
    sys.argv = [script, *with_runtime_environment(script, start["arguments"])]
    sys.path[0] = str(Path(script).parent)
    if first := os.environ.get(RUN_FIRST):
        runpy.run_path(first)
    runpy.run_path(script, run_name="__main__")
    os._exit(0)


def with_runtime_environment(script, arguments):
    """Do what Ray's `setup_worker.py` does. Returns the worker's arguments, unless another start is asked for."""
    from ray._private.runtime_env.context import RuntimeEnvContext
    from ray._private.utils import update_envs
    from ray._private.workers.setup_worker import parser
    from ray.core.generated.common_pb2 import Language

    known, arguments = parser.parse_known_args(arguments)
    if known.serialized_runtime_env_context is None:
        return arguments
    context = RuntimeEnvContext.deserialize(known.serialized_runtime_env_context)
    own_python = context.py_executable != sys.executable or any(name.startswith("PYTHON") for name in context.env_vars)
    if own_python or context.command_prefix or context.override_worker_entrypoint:
        context.exec_worker([script, *arguments], Language.Value(known.language))
    update_envs(context.env_vars)
    return arguments


def hand_over():
    """What a raylet starts: tell the server how, and end."""
    arguments = [word for word in sys.argv[1:] if word != __file__]
    start = {"arguments": arguments, "environment": dict(os.environ), "folder": str(Path.cwd())}
    with socket.socket(socket.AF_UNIX) as server:
        server.connect(os.environ[ADDRESS])
        key = "{RAY_JOB_ID} {RAY_RAYLET_PID}".format_map(os.environ)
        server.sendall(key.encode().ljust(KEY_BYTES))
        data = json.dumps(start).encode()
        socket.send_fds(server, [data[:1]], [0, 1, 2])
        server.sendall(data[1:])


def main():
    if len(sys.argv) == 1:
        serve()
    elif sys.argv[1] == "ray":
        from ray.scripts.scripts import main as ray

        del sys.argv[0]
        with warm_workers():
            ray()
    else:
        hand_over()


if __name__ == "__main__":
    main()

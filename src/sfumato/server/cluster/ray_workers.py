"""Workers that are replicas of a deployment of Ray Serve, started and ended by its load."""

import asyncio
import hashlib
import logging
import os
import socket
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from threading import Thread
from time import monotonic, sleep
from typing import Any

import ray
from ray import serve
from ray.serve.config import AutoscalingConfig
from ray.serve.schema import LoggingConfig

from sfumato.server.cluster.replica import DrawingReplica
from sfumato.server.cluster.replicas import Replica, ReplicaLeftError, listen
from sfumato.server.settings import MEBI, ServerSettings
from sfumato.server.worker import messages
from sfumato.server.worker.answering import Answer, Question
from sfumato.server.workers import CRASHED, JOBS_AT_ONCE, UNSTORED_AT_ONCE, Hear, HeldWorker, Workers

log = logging.getLogger("sfumato.server")

MESSAGES_AT_ONCE = 64
"""Requests that a replica takes beside its jobs, those that pass messages on."""
UP_SECONDS = 2.0
"""How long there must be many jobs until workers are added."""
DOWN_SECONDS = 300.0
"""How long there must be few jobs until workers are ended: loading a model again takes long."""
LEAVE_SECONDS = 600.0
"""How long a worker that is ended may draw what it has begun."""
HEALTH_SECONDS = 2.0
LOOK_SECONDS = 0.2
"""How often a question looks for a worker while there is none."""
REACH_SECONDS = 2.0
"""In which a machine that is there takes up a connection."""
ROUTER = "sfumato.server.cluster.routing.NamedReplicaRouter"
LOST = "the machine that drew it was lost"
LEFT = "its worker was ended before it was done"


class _RayWorker(HeldWorker):
    def __init__(self, workers: "RayWorkers", replica: Replica) -> None:
        super().__init__(f"worker {replica.name}", workers.settings)
        self.workers, self.replica = workers, replica
        self.drawings: dict[str, asyncio.Task[None]] = {}
        self.left = False
        """Whether Ray Serve ends it."""
        self.over = False

    def send(self, message: messages.ToWorker) -> None:
        self.workers.send(self, message)


class RayWorkers(Workers):
    """One worker a replica: between `workers` and `max_workers`, so that each has `jobs_per_worker` jobs.

    The process must be in a cluster already. The deployment's name is that of the folder of the server's
    data, so that a server that was killed finds what is left of it and ends it.
    """

    def __init__(self, settings: ServerSettings) -> None:
        self.settings = settings
        place = f"{socket.gethostname()}:{settings.data.absolute()}"
        self.name = f"sfumato-{hashlib.sha256(place.encode()).hexdigest()[:12]}"
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._loop.run_forever, name="ray", daemon=True)
        self._workers: dict[str, _RayWorker] = {}
        self._ended: set[str] = set()
        """Replicas that are no more, which Ray Serve may not know yet."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._hear: Hear
        self._handle: Any
        """Of the deployment."""

    def start(self, hear: Hear) -> None:
        self._hear = hear
        self._thread.start()
        self._do(self._deploy())

    def answered(self, question: Question, seconds: float) -> Answer | None:
        """The answer of the first worker, while it is there."""
        end = monotonic() + seconds
        while (left := end - monotonic()) > 0:
            worker = next(iter(self._workers.values()), None)
            if worker is not None:
                asked = asyncio.run_coroutine_threadsafe(self._ask(worker, question), self._loop)
                with suppress(Exception):  # it ended: the next one is asked
                    return asked.result(left)
            sleep(min(LOOK_SECONDS, left))
        return None

    def retire(self) -> None:
        return  # Ray Serve starts others; no jobs are given to them

    def stop(self) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        ray.shutdown()

    def send(self, worker: _RayWorker, message: messages.ToWorker) -> None:
        """Pass a message on, in order with the others to this worker."""
        self._loop.call_soon_threadsafe(self._post, worker, message)

    # -- in the thread of the loop

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        """Have something done, and say what failed."""

        async def done() -> None:
            try:
                await work
            except Exception:
                log.exception("the workers on Ray failed")

        asyncio.run_coroutine_threadsafe(done(), self._loop)

    async def _deploy(self) -> None:
        def deploy() -> Any:
            serve.start(proxy_location="Disabled", logging_config=LoggingConfig(log_level="WARNING"))
            if self.name in serve.status().applications:
                serve.delete(self.name)
            target = serve.RunTarget(self._application(), name=self.name, route_prefix=None)
            (handle,) = serve.run_many([target], wait_for_applications_running=False)
            return handle

        def changed(found: Sequence[Replica]) -> None:
            self._loop.call_soon_threadsafe(self._see, found)

        listen(self.name, changed)
        self._handle = (await asyncio.to_thread(deploy)).options(stream=True)

    def _application(self) -> Any:
        settings = self.settings
        gpus = settings.devices == ("cuda",) or (not settings.devices and "GPU" in ray.cluster_resources())
        threads = os.environ.get("OMP_NUM_THREADS", "")
        deployment: Any = serve.deployment
        return deployment(
            name="worker",
            ray_actor_options={"num_cpus": 1, "num_gpus": int(gpus)},
            # on a CPU a worker computes with all cores of its node
            **({} if gpus else {"max_replicas_per_node": 1}),
            max_ongoing_requests=JOBS_AT_ONCE + UNSTORED_AT_ONCE + MESSAGES_AT_ONCE,
            autoscaling_config=AutoscalingConfig(
                min_replicas=settings.workers,
                max_replicas=settings.max_workers or settings.workers,
                target_ongoing_requests=settings.jobs_per_worker,
                upscale_delay_s=UP_SECONDS,
                downscale_delay_s=DOWN_SECONDS,
                look_back_period_s=UP_SECONDS,
            ),
            graceful_shutdown_timeout_s=LEAVE_SECONDS,
            health_check_period_s=HEALTH_SECONDS,
            request_router_config={"request_router_class": ROUTER},
            logging_config=LoggingConfig(log_level="WARNING", enable_access_log=False),
        )(DrawingReplica).bind(
            settings.models[0],
            "cuda" if gpus else (settings.devices or (None,))[0],
            int(threads) if threads.isdigit() else None,
            None if settings.memory is None else settings.memory * MEBI,
            settings.rows,
            settings.safety,
        )

    def _see(self, found: Sequence[Replica]) -> None:
        """Ray Serve has these replicas now."""
        names = {each.name for each in found}
        for name in self._workers.keys() - names:
            worker = self._workers.pop(name)
            worker.left = True
            self._ended.add(name)
            self._hear(worker, messages.Leaving())
        for each in found:
            if each.name not in self._workers and each.name not in self._ended:
                self._workers[each.name] = _RayWorker(self, each)
                log.info("%s is ready", self._workers[each.name].name)
                self._hear(self._workers[each.name], messages.Ready())

    def _post(self, worker: _RayWorker, message: messages.ToWorker) -> None:
        if isinstance(message, messages.Draw):
            task = worker.drawings[message.job] = self._loop.create_task(self._draw(worker, message))
            self._keep(task)
        elif isinstance(message, messages.Cancel):
            if message.job in worker.drawings:
                worker.drawings.pop(message.job).cancel()
        else:
            self._keep(self._loop.create_task(self._tell(worker, message)))

    def _keep(self, task: asyncio.Task[None]) -> None:
        """A task that nobody keeps may be collected before it is done."""
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _draw(self, worker: _RayWorker, draw: messages.Draw) -> None:
        stream = self._handle.draw.remote(worker.replica.name, draw)
        try:
            async for said in stream:
                for message in said:
                    self._hear(worker, message)
        except asyncio.CancelledError:
            stream.cancel()
        except Exception as error:
            await self._lose(worker, error)
        finally:
            worker.drawings.pop(draw.job, None)

    async def _tell(self, worker: _RayWorker, message: messages.ToWorker) -> None:
        with suppress(Exception):  # that it is gone is heard where it draws
            await self._handle.options(stream=False).tell.remote(worker.replica.name, message)

    async def _ask(self, worker: _RayWorker, question: Question) -> Answer:
        handle = self._handle.options(stream=False)
        found: Answer = await handle.answer.remote(worker.replica.name, question)
        return found

    async def _lose(self, worker: _RayWorker, error: Exception) -> None:
        """A stream of a worker broke: it is taken as ended, and is."""
        if worker.over:
            return
        worker.over = True
        self._ended.add(worker.replica.name)
        self._workers.pop(worker.replica.name, None)
        reason = CRASHED
        if worker.left or isinstance(error, ReplicaLeftError):
            reason = LEFT
        elif await asyncio.to_thread(self._node_lost, worker.replica):
            reason = LOST
        self._hear(worker, messages.Gone(reason, crashed=reason == CRASHED))
        await asyncio.to_thread(self._kill, worker.replica)

    def _node_lost(self, replica: Replica) -> bool:
        """Whether the machine is gone, or Ray there; the cluster itself sees that many seconds later."""
        for node in ray.nodes():
            if node["NodeID"] == replica.node and node["Alive"]:
                address = (node["NodeManagerAddress"], node["NodeManagerPort"])
                with suppress(OSError), socket.create_connection(address, REACH_SECONDS):
                    return False
        return True

    def _kill(self, replica: Replica) -> None:
        with suppress(ValueError):  # it is dead
            ray.kill(ray.get_actor(replica.actor, namespace="serve"))

    async def _end(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.to_thread(serve.delete, self.name, _blocking=False)

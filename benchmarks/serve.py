"""How many requests a server draws and how long each waits, beside diffusers behind the same HTTP front.

    python benchmarks/serve.py [--requests 60] [--rate 1.0] [--write docs/serving.md]

The same Poisson arrivals of mixed requests (4 to 50 steps, guidance 1 to 12) go to three servers in turn:
ours, diffusers drawing one request at a time, and diffusers drawing those together that wait with equal steps
and guidance. Throughput is requests a second from the first arrival to the last answer. Needs the `test`
extra, and a machine that does nothing else.
"""

import argparse
import asyncio
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Condition, Thread
from typing import Any

import httpx2
from measuring import LOAD, Table, load, machine

from sfumato import devices

SIZES = (("≤ 8 steps", 0, 8), ("9 to 20 steps", 9, 20), ("21 to 50 steps", 21, 50))
STEPS = (4, 4, 6, 8, 8, 12, 20, 20, 30, 50)
GUIDANCE = (1.0, 2.5, 4.0, 7.0, 12.0)
PROMPTS = ("a red apple, 3d render", "castle on a hill, flat emoji", "a blue cat", "rocket, flat emoji")
TOGETHER = 4
"""Requests that diffusers draws in one batch, at most."""


@dataclass(frozen=True)
class Arrival:
    """One request: when it comes, in seconds, and what it asks for."""

    at: float
    steps: int
    guidance: float
    prompt: str
    seed: int


def arrivals(count: int, rate: float, seed: int = 0) -> list[Arrival]:
    """A Poisson process of `rate` requests a second."""
    chance, at, found = random.Random(seed), 0.0, []
    for number in range(count):
        at += chance.expovariate(rate)
        found.append(
            Arrival(at, chance.choice(STEPS), chance.choice(GUIDANCE), chance.choice(PROMPTS), number)
        )
    return found


async def _ask(client: httpx2.AsyncClient, arrival: Arrival, began: float) -> float:
    """Send one request when it is due; how long its answer took."""
    await asyncio.sleep(max(began + arrival.at - time.perf_counter(), 0))
    body = {
        "prompt": arrival.prompt,
        "steps": arrival.steps,
        "guidance": arrival.guidance,
        "seed": arrival.seed,
    }
    sent = time.perf_counter()
    answer = await client.post("/v1/images/generations", json=body)
    answer.raise_for_status()
    return time.perf_counter() - sent


async def _drive(url: str, requests: Sequence[Arrival]) -> tuple[float, list[float]]:
    limits = httpx2.Limits(max_connections=None)
    async with httpx2.AsyncClient(base_url=url, timeout=None, limits=limits) as client:
        began = time.perf_counter()
        waits = await asyncio.gather(*(_ask(client, each, began) for each in requests))
        return time.perf_counter() - began, list(waits)


def measured(command: Sequence[str], requests: Sequence[Arrival]) -> tuple[float, list[float]]:
    """Seconds from the first arrival to the last answer of a server, and how long each answer took."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("serving at "), line
        url = line.removeprefix("serving at ").strip()
        while httpx2.get(f"{url}/readyz").status_code != 200:
            time.sleep(0.2)
        warm = [Arrival(0, 2, guidance, PROMPTS[0], 0) for guidance in (1.0, 4.0)]
        asyncio.run(_drive(url, warm))
        return asyncio.run(_drive(url, requests))
    finally:
        process.terminate()
        process.wait()


class Diffusers:
    """One pipeline of diffusers, behind a queue."""

    def __init__(self, together: int) -> None:
        import torch
        from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline

        from sfumato.checkpoint.source import embedded

        device = devices.pick_device(None)
        dtype = devices.pick_dtype(device)
        self.pipe = StableDiffusionPipeline.from_pretrained(embedded(), torch_dtype=dtype).to(device)
        self.pipe.unet.to(memory_format=torch.channels_last)
        self.pipe.vae.to(memory_format=torch.channels_last)
        self.pipe.scheduler = DPMSolverMultistepScheduler.from_config(self.pipe.scheduler.config)
        self.pipe.set_progress_bar_config(disable=True)
        self.together, self._waiting, self._change = together, [], Condition()
        Thread(target=self._run, daemon=True).start()

    def draw(self, body: dict[str, Any]) -> Any:
        """The picture of one request, when its turn has come."""
        job: dict[str, Any] = {"body": body}
        with self._change:
            self._waiting.append(job)
            self._change.notify_all()
            self._change.wait_for(lambda: "image" in job)
        return job["image"]

    def _run(self) -> None:
        import torch

        while True:
            with self._change:
                self._change.wait_for(lambda: self._waiting)
                first = self._waiting[0]["body"]
                alike = [job for job in self._waiting if self._kind(job["body"]) == self._kind(first)]
                batch = alike[: self.together]
                self._waiting = [job for job in self._waiting if job not in batch]
            bodies = [job["body"] for job in batch]
            generators = [torch.Generator().manual_seed(body["seed"]) for body in bodies]
            images = self.pipe(
                [body["prompt"] for body in bodies],
                num_inference_steps=first["steps"],
                guidance_scale=first["guidance"],
                generator=generators,
            ).images
            with self._change:
                for job, image in zip(batch, images, strict=True):
                    job["image"] = image
                self._change.notify_all()

    @staticmethod
    def _kind(body: dict[str, Any]) -> tuple[int, float]:
        return body["steps"], body["guidance"]


def serve_diffusers(together: int) -> None:
    """diffusers behind the same front as ours: FastAPI and uvicorn, a PNG in base64 as the answer."""
    import base64
    import io
    import socket

    import uvicorn
    from fastapi import FastAPI

    app, pipeline = FastAPI(), Diffusers(together)

    @app.get("/readyz")
    def ready() -> dict[str, str]:
        return {}

    # a thread for every request that waits
    pool = ThreadPoolExecutor(1000)

    @app.post("/v1/images/generations")
    async def generate(body: dict[str, Any]) -> dict[str, Any]:
        image = await asyncio.get_running_loop().run_in_executor(pool, pipeline.draw, body)
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        return {"data": [{"b64_json": base64.b64encode(buffer.getvalue()).decode()}]}

    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    print(f"serving at http://127.0.0.1:{sock.getsockname()[1]}", flush=True)
    uvicorn.Server(uvicorn.Config(app, log_level="error")).run(sockets=[sock])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--requests", type=int, default=60)
    parser.add_argument("--rate", type=float, default=1.0, help="arrivals a second")
    parser.add_argument("--write", type=Path, help="the page to write the table into")
    parser.add_argument("--peer", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peer:
        serve_diffusers(options.peer)
        return
    requests = arrivals(options.requests, options.rate)
    where = machine(devices.pick_device(None).type)
    here = [sys.executable, os.path.abspath(__file__), "--peer"]
    with tempfile.TemporaryDirectory() as folder:
        ours = [sys.executable, "-m", "sfumato", "serve", "--port", "0", "--data", folder]
        servers = {
            "diffusers, one at a time": [*here, "1"],
            "diffusers, equal requests together": [*here, str(TOGETHER)],
            "Sfumato": ours,
        }
        head = " | ".join(f"{name}: median, p99" for name, *_ in SIZES)
        table = Table(
            "serve",
            [
                f"{where}. {options.requests} requests, {options.rate:g} a second.",
                "",
                f"| server | requests a second | {head} | {LOAD} |",
                f"|---|---|{'---|' * len(SIZES)}---|",
            ],
            options.write,
        )
        for name, command in servers.items():
            seconds, waits = measured(command, requests)
            cells = []
            for _, low, high in SIZES:
                own = sorted(
                    wait for wait, each in zip(waits, requests, strict=True) if low <= each.steps <= high
                )
                cells.append(f"{statistics.median(own):.2f} s, {own[int(0.99 * (len(own) - 1))]:.2f} s")
            table.add(f"| {name} | {len(requests) / seconds:.3f} | {' | '.join(cells)} | {load()} |")


if __name__ == "__main__":
    main()

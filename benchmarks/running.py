"""`sfumato serve` in a process of its own, as the tests and the benchmarks of serving drive it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx2
import psutil

ENDED = ("done", "failed", "cancelled")
TINY = {"prompt": "a red apple", "steps": 1, "sampler": "euler", "width": 64, "height": 64, "guidance": 1}
"""A request that is drawn in milliseconds."""


class RunningServer:
    """A server that keeps its jobs in the folder `data`, and its log beside it."""

    def __init__(self, data: Path, *options: str, env: Mapping[str, str] | None = None) -> None:
        self.data = data
        command = [sys.executable, "-m", "sfumato", "serve", "--port", "0", "--data", str(data), *options]
        self.log = open(data.parent / f"{data.name}.log", "ab")  # noqa: SIM115
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
            env={**os.environ, **(env or {})},
            start_new_session=True,
        )
        line = self.process.stdout.readline()
        assert line.startswith("serving at "), (line, self.read_log())
        self.url = line.removeprefix("serving at ").strip()
        self.port = int(self.url.rpartition(":")[2])
        self.http = httpx2.Client(base_url=self.url, timeout=300)

    def read_log(self) -> str:
        return (self.data.parent / f"{self.data.name}.log").read_text()

    def wait_ready(self) -> None:
        while self.http.get("/readyz").status_code != 200:
            assert self.process.poll() is None, self.read_log()
            time.sleep(0.2)

    def submit(self, headers: Mapping[str, str] | None = None, **fields: Any) -> dict[str, Any]:
        options = {name: fields.pop(name) for name in ("priority", "on_crash") if name in fields}
        answer = self.http.post("/api/v1/jobs", json={"request": fields, **options}, headers=headers)
        assert answer.status_code == 202, answer.text
        return answer.json()

    def job(self, identifier: str) -> dict[str, Any]:
        return self.http.get(f"/api/v1/jobs/{identifier}").json()

    def jobs(self) -> list[dict[str, Any]]:
        """All jobs, the newest first."""
        found: list[dict[str, Any]] = []
        while page := self.http.get(
            "/api/v1/jobs", params={"limit": 200, **({"before": found[-1]["id"]} if found else {})}
        ).json():
            found += page
        return found

    def wait(self, identifier: str, *states: str) -> dict[str, Any]:
        while (job := self.job(identifier))["state"] not in (states or ENDED):
            time.sleep(0.05)
        return job

    def workers(self) -> list[int]:
        """Process ids of the processes that draw."""
        children = psutil.Process(self.process.pid).children(recursive=True)
        return [each.pid for each in children if "spawn_main" in " ".join(each.cmdline())]

    def kill(self) -> None:
        """As by a power cut: the server and its workers at once."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait()
        self.http.close()
        self.process.stdout.close()
        self.log.close()


def quick_model(folder: Path) -> Path:
    """The embedded model with other defaults: one step of 64 × 64 without guidance."""
    from dataclasses import replace

    from sfumato import checkpoint

    own = {"native_size": [64, 64], "steps": 1, "guidance": 1.0}
    checkpoint.save(replace(checkpoint.load("embedded"), own=own), folder)
    return folder


def tiny_model(folder: Path, size: int = 32) -> Path:
    """The embedded model's text encoder, with a random UNet and autoencoder so small that training them takes
    milliseconds a step.
    """
    from dataclasses import replace

    import torch

    from sfumato import checkpoint
    from sfumato.config import UNetConfig, VAEConfig
    from sfumato.nets.unet import UNet
    from sfumato.nets.vae import AutoencoderKL

    model = checkpoint.load("embedded", dtype=torch.float32)
    torch.manual_seed(0)
    unet = UNetConfig(
        block_out_channels=(16, 16),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        norm_num_groups=4,
        cross_attention_dim=256,
        attention_head_dim=2,
        use_linear_projection=True,
        sample_size=8,
    )
    vae = VAEConfig(
        block_out_channels=(8, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        norm_num_groups=4,
        mid_block_add_attention=False,
        sample_size=size,
        scaling_factor=0.3,
    )
    tiny = replace(
        model,
        unet=UNet(unet).requires_grad_(False).eval(),
        vae=AutoencoderKL(vae).requires_grad_(False).eval(),
        tiny=None,
        fast=None,
        own={"native_size": [size, size], "steps": 4, "guidance": 2.0},
    )
    checkpoint.save(tiny, folder)
    return folder


def resident(pid: int) -> float:
    """MiB of main memory that a process holds."""
    return psutil.Process(pid).memory_info().rss / (1 << 20)

"""The promise of a record: same version, same processor, same request, the same bytes, in every process."""

import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from sfumato.image import Image

DRAW = """
import sys
import torch
import sfumato

small = {"width": 128, "height": 128, "steps": 3, "seed": 3}
for dtype in ("float32", "bfloat16"):
    studio = sfumato.load(device="cpu", dtype=dtype)
    images = [
        *studio.generate_batch("a red apple", negative="blue", sampler="dpmpp-2m-sde", count=2, **small),
        studio.generate("a cat", regions=[{"prompt": "a dog", "box": (0, 0, 0.5, 1)}], **small),
        studio.generate("a red apple", fast=True, decoder="tiny", **small),
    ]
    for number, image in enumerate(images):
        image.save(f"{sys.argv[1]}/{dtype}-{number}.png")
print(torch.get_num_threads())
"""
SPIN = "x = bytearray(1 << 26)\nwhile True: x.count(1)"


@contextmanager
def busy():
    """Other processes that want half of the cores and much of the memory's bandwidth."""
    others = [subprocess.Popen([sys.executable, "-c", SPIN]) for _ in range((os.cpu_count() or 1) // 2 or 1)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def processes(threads, *commands):
    """What fresh processes of so many threads print, all at the same time."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONWARNINGS": "ignore"}
    options = {"env": environment, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    running = [subprocess.Popen([sys.executable, *map(str, words)], **options) for words in commands]
    done = [process.communicate() for process in running]
    assert all(process.returncode == 0 for process in running), done
    return [out for out, _ in done]


def pictures(folder: Path):
    return {path.name: Image.open(path) for path in sorted(folder.iterdir())}


@pytest.mark.parametrize("threads", [1, 2])
def test_a_request_draws_the_same_bytes_in_another_process_on_a_busy_machine(threads, tmp_path):
    folders = [tmp_path / "first", tmp_path / "second"]
    for folder in folders:
        folder.mkdir()
    with busy():
        told = processes(threads, *(("-c", DRAW, folder) for folder in folders))
    assert told == [f"{threads}\n"] * 2
    first, second = map(pictures, folders)
    assert list(first) == list(second)
    assert len(first) == 8
    assert {name: image.differs(second[name]) for name, image in first.items()} == dict.fromkeys(first)

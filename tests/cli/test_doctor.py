"""`sfumato doctor` on this machine, and on machines that miss something."""

import importlib.metadata
import json

import pytest
import torch

from sfumato import checkpoint, devices, machine


def test_the_doctor_names_versions_machine_and_what_is_drawn_with(here):
    status, out, err = here("doctor", "--json")
    found = json.loads(out)
    assert (status, err) == (0, "")
    assert found["ready"] is True
    assert found["versions"]["torch"] == torch.__version__.partition("+")[0] or found["versions"]["torch"]
    assert found["torch"]["threads"] == torch.get_num_threads()
    assert found["machine"]["memory"] > found["machine"]["memory_available"] > 0
    assert found["cache"]["free"] > 0
    assert found["drawing"]["dtype"] in devices.DTYPES
    assert found["embedded"]["parameters"] > 20_000_000
    assert set(found["torch"]["cpu_fast_dtypes"]) <= {"bfloat16", "float32"}


def test_what_people_read_says_the_same_by_topic(here):
    status, out, _ = here("doctor")
    assert status == 0
    for line in ("sfumato", "versions", "machine", "torch", "cache", "embedded", "drawing"):
        assert line in out.splitlines()
    assert "ready              yes" in out.splitlines()


def test_offline_flags_and_cache_folders_are_shown(here, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "cache" / "models--org--name").mkdir(parents=True)
    found = json.loads(here("doctor", "--json")[1])
    assert found["cache"]["folder"] == str(tmp_path / "cache")
    assert found["cache"]["models"] == 1
    assert found["cache"]["offline"] is True
    assert found["environment"]["HF_HUB_OFFLINE"] == "1"


def test_a_missing_package_is_named_with_its_remedy(here, monkeypatch):
    real = importlib.metadata.version

    def version(name):
        if name == "tokenizers":
            raise importlib.metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    assert "missing            package tokenizers: pip install tokenizers\n" in here("doctor")[1]


def test_a_damaged_embedded_model_means_not_ready(here, monkeypatch):
    def inspect(_source):
        raise OSError("gone")

    monkeypatch.setattr(checkpoint, "inspect", inspect)
    status, out, _ = here("doctor")
    assert status == 1
    assert "missing            the embedded model: gone; reinstall sfumato\n" in out
    assert "ready              no\n" in out


def test_a_slow_cpu_without_a_gpu_is_told(here, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(devices, "pick_device", lambda: torch.device("cpu"))
    monkeypatch.setattr(devices, "cpu_has_bfloat16", lambda: False)
    found = json.loads(here("doctor", "--json")[1])
    assert found["torch"]["cpu_fast_dtypes"] == ["float32"]
    assert any("faster than float32 on this CPU" in line for line in found["missing"])
    assert found["drawing"] == {"device": "cpu", "dtype": "float32"}


@pytest.mark.parametrize(
    ("limit", "used", "seen"),
    [("1073741824", "1000", (1 << 30, (1 << 30) - 1000)), ("max", "1000", (8 << 30, 4 << 30))],
)
def test_the_memory_limit_of_a_container_counts(limit, used, seen, monkeypatch):
    files = {
        "/proc/meminfo": ["MemTotal: 8388608 kB", "MemAvailable: 4194304 kB", "HugePages_Total: 0"],
        "/sys/fs/cgroup/memory.max": [limit],
        "/sys/fs/cgroup/memory.current": [used],
    }
    monkeypatch.setattr(machine, "lines", files.get)
    assert machine.memory() == {"memory": seen[0], "memory_available": seen[1]}

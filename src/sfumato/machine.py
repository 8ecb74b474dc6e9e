"""The processor, how many of its cores are ours, and the memory. No torch here."""

import os
import platform
from pathlib import Path


def processor() -> str:
    """The processor's name, as "Intel(R) Xeon(R) Processor"."""
    cpuinfo = lines("/proc/cpuinfo")
    names = (line.partition(":")[2].strip() for line in cpuinfo if line.startswith("model name"))
    return next(names, "") or platform.processor() or platform.machine()


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory() -> dict[str, int]:
    """Bytes of main memory in all and available, within the limit of a container; empty if unknown."""
    kilobytes = {line.split(":")[0]: int(line.split()[1]) for line in lines("/proc/meminfo") if " kB" in line}
    if "MemTotal" not in kilobytes:
        return {}
    total, available = kilobytes["MemTotal"] << 10, kilobytes["MemAvailable"] << 10
    limit, used = (lines(f"/sys/fs/cgroup/memory.{name}") for name in ("max", "current"))
    if limit and used and limit[0].isdigit():
        total, available = min(total, int(limit[0])), min(available, int(limit[0]) - int(used[0]))
    return {"memory": total, "memory_available": available}


def lines(path: str) -> list[str]:
    """The lines of one of the system's own files; none where it cannot be read."""
    try:
        return Path(path).read_text(errors="replace").splitlines()
    except OSError:
        return []

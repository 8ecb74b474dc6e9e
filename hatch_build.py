"""Compiles what is written in C++, where there is a compiler for it; without one, torch's own is used."""

import os
import platform
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SOURCES = [
    Path("src/sfumato/nets", f"{name}.cpp")
    for name in ("flash_attention", "normalisation", "quantization", "winograd")
]
LIBRARY = Path("src/sfumato/nets/libkernels.so")
OPTIONS = [
    *("-O3", "-std=c++17", "-fno-math-errno", "-fno-trapping-math", "-Wno-psabi"),
    *("-fopenmp", "-fPIC", "-shared", "-static-libgcc", "-static-libstdc++"),
]


class CompiledLibrary(BuildHookInterface):
    """Adds the compiled library to a wheel, or puts it beside its source for an editable installation."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Before a wheel is put together."""
        root = Path(self.root)
        sources, library = [str(root / source) for source in SOURCES], root / LIBRARY
        library.unlink(missing_ok=True)
        compiler = shlex.split(os.environ.get("CXX", "g++"))
        if sys.platform != "linux" or platform.machine() != "x86_64" or not shutil.which(compiler[0]):
            self.app.display_warning(f"{LIBRARY.name} is not compiled: there is no {compiler[0]} for it here")
            return
        command = [*compiler, *OPTIONS, "-o", str(library), *sources]
        try:
            subprocess.run(command, check=True, capture_output=True, text=True)
        except subprocess.CalledProcessError as error:
            self.app.display_warning(f"{LIBRARY.name} is not compiled: {error.stderr}")
            return
        build_data["artifacts"].append(LIBRARY.as_posix())
        build_data["pure_python"] = False
        build_data["tag"] = "py3-none-linux_x86_64"

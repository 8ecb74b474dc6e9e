"""Draw with one model after another where memory holds only one; see what the process that draws keeps.

python benchmarks/serve_switches.py [--switches 100] [--write docs/serving.md]
"""

import argparse
import tempfile
from pathlib import Path

from measuring import LOAD, Table, load, machine, say
from running import TINY, RunningServer, quick_model, resident

MODELS = 3
WARM = 10 * MODELS
"""Switches after which memory is what it stays at: libraries are loaded, and the allocator has its arenas."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--switches", type=int, default=100)
    parser.add_argument("--write", type=Path, help="the page to write the table into")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        models = [str(quick_model(Path(folder) / f"model-{number}")) for number in range(MODELS)]
        served = [part for model in models for part in ("--model", model)]
        server = RunningServer(Path(folder) / "data", *served, env={"SFUMATO_SERVE_MEMORY": "1"})
        try:
            server.wait_ready()
            held: list[float] = []
            for number in range(WARM + options.switches):
                identifier = server.submit(**TINY, seed=number, model=models[number % MODELS])["id"]
                job = server.wait(identifier)
                assert job["state"] == "done", job
                (worker,) = server.workers()
                held.append(resident(worker))
                if number % 10 == 0:
                    say(f"  switch {number}: {held[-1]:.0f} MiB")
            table = Table(
                "serve_switches",
                [
                    f"{machine('cpu')}. {MODELS} copies of the embedded model in turn, memory for one.",
                    "",
                    f"| switches | memory before | after | most | {LOAD} |",
                    "|---|---|---|---|---|",
                ],
                options.write,
            )
            table.add(
                f"| {options.switches} | {held[WARM - 1]:.0f} MiB | {held[-1]:.0f} MiB | {max(held):.0f} MiB "
                f"| {load()} |"
            )
        finally:
            server.stop()


if __name__ == "__main__":
    main()

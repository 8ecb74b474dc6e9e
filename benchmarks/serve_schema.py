"""Walk a server's OpenAPI document with schemathesis: values that it allows, and values that it does not.

    python benchmarks/serve_schema.py [--cases 10000] [--write docs/serving.md]

Fails for an answer of 5xx that the document does not name, for any status, type of content or body that it
does not describe, and for an error that only the server's log tells of. The model's defaults are one step of
64 × 64, and requests are limited, so that little time goes into drawing. Needs the `test` extra.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from measuring import LOAD, Table, load, machine, say
from running import RunningServer, quick_model

SMALL = {
    "SFUMATO_SERVE_MAX_STEPS": "2",
    "SFUMATO_SERVE_MAX_FRAMES": "2",
    "SFUMATO_SERVE_MAX_PICTURES": "2",
    "SFUMATO_SERVE_MAX_PIXELS": "4096",
    "SFUMATO_SERVE_QUEUE": "50",
}
"""Environment of a server that has little to draw."""
ENDLESS = "/api/v1/events"
"""A stream without an end, which schemathesis would wait for."""
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
)


@dataclass
class Walk:
    """What walks of a document found."""

    cases: int = 0
    failures: list[Any] = field(default_factory=list)
    told: str = ""
    """What schemathesis printed of walks that found something."""

    def add(self, server: RunningServer, phases: Sequence[str], examples: int, seed: int) -> None:
        """Walk once, with so many examples of each operation at most."""
        report = server.data.parent / f"schema-{seed}.json"
        command = [sys.executable, "-m", "schemathesis.cli", "run", f"{server.url}/openapi.json"]
        options = {
            "--phases": ",".join(phases),
            "--max-examples": str(examples),
            "--seed": str(seed),
            "--checks": ",".join(CHECKS),
            "--workers": "1",
            "--exclude-path": ENDLESS,
            "--request-timeout": "120",
            "--report": "json",
            "--report-json-path": str(report),
        }
        command += [part for option in options.items() for part in option]
        done = subprocess.run(
            [*command, "--continue-on-failure", "--no-shrink"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=server.data.parent,  # where it leaves a cache
        )
        if not report.is_file():
            raise SystemExit(f"schemathesis failed:\n{done.stdout[-3000:]}")
        found = json.loads(report.read_text())
        self.cases += found["test_cases"]["generated"]
        if found["failures"] or found["errors"]:
            self.failures += found["failures"] + found["errors"]
            self.told += done.stdout


def statuses(server: RunningServer) -> Counter[str]:
    """How often each status was answered, as the server's log says."""
    return Counter(re.findall(r'"status": (\d+)', server.read_log()))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--write", type=Path, help="the page to write the table into")
    options = parser.parse_args()
    walk, seed = Walk(), 0
    with tempfile.TemporaryDirectory() as folder:
        model = quick_model(Path(folder) / "model")
        server = RunningServer(Path(folder) / "data", "--model", str(model), env=SMALL)
        try:
            server.wait_ready()
            while walk.cases < options.cases:
                phases = ("coverage", "fuzzing", "stateful") if seed == 0 else ("fuzzing", "stateful")
                walk.add(server, phases, 100, seed)
                seed += 1
                say(f"{walk.cases:,} cases, {len(walk.failures)} failures, {LOAD} {load()}")
        finally:
            server.stop()
        found, traced = statuses(server), server.read_log().count("Traceback")
    table = Table(
        "serve_schema",
        [
            f"{machine('cpu')}.",
            "",
            f"| cases | answered 2xx | 4xx | 5xx as documented | not as documented | {LOAD} |",
            "|---|---|---|---|---|---|",
        ],
        options.write,
    )
    kinds = Counter(status[0] for status in found.elements())
    table.add(
        f"| {walk.cases:,} | {kinds['2']:,} | {kinds['4']:,} | {found['503']:,} | {len(walk.failures)} | "
        f"{load()} |"
    )
    say(f"by status: {dict(sorted(found.items()))}")
    if walk.failures or traced or kinds["5"] != found["503"]:
        raise SystemExit(f"FAILED: {traced} tracebacks\n{walk.told[:9000]}")


if __name__ == "__main__":
    main()

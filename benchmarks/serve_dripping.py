"""Open hundreds of connections that send byte by byte; see how long each is kept while others are answered.

    python benchmarks/serve_dripping.py [--sockets 500] [--write docs/serving.md]

A quarter each: one that sends nothing, one that drips its headers, one that drips its body, one that drips a
second request on a connection that was answered before. All with the server's default deadline. A new
connection submits a small job every half second meanwhile.
"""

import argparse
import json
import select
import socket
import statistics
import tempfile
import time
from pathlib import Path

import httpx2
from measuring import LOAD, Table, load, machine, say
from running import TINY, RunningServer

KINDS = ("silent", "headers", "body", "second request")
MOST_SECONDS = 15
HEAD = "POST /api/v1/jobs HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
FIRST = "GET /healthz HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n"


class Dripping:
    """One connection, and what it has still to send."""

    def __init__(self, port: int, kind: str) -> None:
        self.kind, self.began, self.closed = kind, time.monotonic(), 0.0
        self.socket = socket.create_connection(("127.0.0.1", port))
        head = HEAD.format(port=port)
        if kind == "body":
            self.socket.sendall(f"{head}Content-Length: 100000\r\n\r\n".encode())
        elif kind == "second request":
            self.socket.sendall(FIRST.format(port=port).encode())
            assert self.socket.recv(4096).startswith(b"HTTP/1.1 200")
        self.socket.setblocking(False)
        self.rest = b"" if kind == "silent" else b"{" * 100_000 if kind == "body" else head.encode() * 100

    def drip(self) -> None:
        """Send a byte; see whether the server has closed."""
        if self.closed:
            return
        try:
            self.socket.send(self.rest[:1])
            self.rest = self.rest[1:]
            if select.select([self.socket], [], [], 0)[0] and not self.socket.recv(4096):
                raise ConnectionError
        except BlockingIOError:
            return
        except OSError:
            self.closed = time.monotonic()
            self.socket.close()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sockets", type=int, default=500)
    parser.add_argument("--write", type=Path, help="the page to write the table into")
    options = parser.parse_args()
    answers = []
    with tempfile.TemporaryDirectory() as folder:
        server = RunningServer(Path(folder) / "data")
        try:
            server.wait_ready()
            drips = [Dripping(server.port, KINDS[each % len(KINDS)]) for each in range(options.sockets)]
            say(f"{len(drips)} connections, {LOAD} {load()}")
            while (kept := [each for each in drips if not each.closed]) and (
                time.monotonic() - drips[-1].began < 4 * MOST_SECONDS
            ):
                for each in kept:
                    each.drip()
                began = time.monotonic()
                answer = httpx2.post(f"{server.url}/api/v1/jobs", json={"request": TINY}, timeout=60)
                assert answer.status_code == 202, answer.text
                answers.append(time.monotonic() - began)
                say(f"{len(kept)} are open, another client was answered in {1000 * answers[-1]:.0f} ms")
                time.sleep(0.5)
        finally:
            server.stop()
    lengths = {
        kind: [(each.closed or float("inf")) - each.began for each in drips if each.kind == kind]
        for kind in KINDS
    }
    table = Table(
        "serve_dripping",
        [
            f"{machine('cpu')}. {len(drips)} connections.",
            "",
            f"| seconds until closed, longest: {' | '.join(KINDS)} | others answered: median, longest | "
            f"{LOAD} |",
            f"|{'---|' * (len(KINDS) + 2)}",
        ],
        options.write,
    )
    table.add(
        f"| {' | '.join(f'{max(lengths[kind]):.1f}' for kind in KINDS)} | "
        f"{1000 * statistics.median(answers):.0f}, {1000 * max(answers):.0f} ms | {load()} |"
    )
    if max(map(max, lengths.values())) > MOST_SECONDS:
        raise SystemExit(f"FAILED: not all were closed within {MOST_SECONDS} s: {json.dumps(lengths)}")


if __name__ == "__main__":
    main()

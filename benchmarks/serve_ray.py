"""Kill one of two nodes of a Ray cluster under load, and see that every accepted job ends once.

    python benchmarks/serve_ray.py [200] [--write docs/serving.md]

The real `sfumato serve --ray` on a cluster of two nodes on this machine, one worker each. Jobs of one or two
pictures are submitted until both workers draw and all are accepted; then all processes of the node that the
server is not on end by SIGKILL.
"""

import argparse
import os
import re
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from measuring import LOAD, Table, load, machine, say
from ray.cluster_utils import Cluster
from running import TINY, RunningServer

NODE = {"num_cpus": 1, "num_gpus": 0, "object_store_memory": 100 << 20, "include_dashboard": False}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("submissions", type=int, nargs="?", default=200)
    parser.add_argument("--write", type=Path, help="the page to write the table into")
    options = parser.parse_args()
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    cluster = Cluster(initialize_head=True, head_node_args=NODE)
    try:
        node = cluster.add_node(**NODE)
        with tempfile.TemporaryDirectory() as folder:
            environment = {"RAY_ADDRESS": cluster.address}
            server = RunningServer(Path(folder) / "data", "--ray", "--workers", "2", env=environment)
            try:
                measure(server, lambda: cluster.remove_node(node, allow_graceful=False), options)
            finally:
                server.stop()
    finally:
        cluster.shutdown()


def measure(server: RunningServer, kill: Callable[[], object], options: argparse.Namespace) -> None:
    while server.read_log().count("is ready") < 2:
        time.sleep(0.5)
    began = time.monotonic()
    jobs = {}
    for number in range(options.submissions):
        job = server.submit(**{**TINY, "steps": 40}, count=1 + number % 2, seed=1000 * number)
        jobs[job["id"]] = job
    accepted = time.monotonic() - began
    kill()
    killed = time.monotonic()
    say(f"{len(jobs)} accepted in {accepted:.1f} s, and a node killed, {LOAD} {load()}")
    found = [server.wait(identifier) for identifier in jobs]
    seconds = time.monotonic() - killed
    wrong = [
        f"{job['id']}: {job['state']}, {len(job['pictures'])} pictures of {job['count']}, {job['error']}"
        for job in found
        if job["state"] != "done" or [each["number"] for each in job["pictures"]] != [*range(job["count"])]
    ]
    figures = server.http.get("/metrics").text
    ended = re.findall(r'^sfumato_jobs_ended_total\{state="(\w+)"\} (\S+)', figures, re.MULTILINE)
    if ended != [("done", str(float(len(jobs))))]:
        wrong.append(f"jobs ended as {ended}")
    held = re.findall(r"is gone, with (\d+) jobs: the machine", server.read_log())
    table = Table(
        "serve_ray",
        [
            f"{machine('cpu')}. Two nodes of one machine, a worker each.",
            "",
            "| accepted | held by the lost node | done once | lost or doubled | seconds to the last | "
            f"{LOAD} |",
            "|---|---|---|---|---|---|",
        ],
        options.write,
    )
    table.add(
        f"| {len(jobs)} | {' + '.join(held)} | {sum(job['state'] == 'done' for job in found)} | "
        f"{len(wrong) or 'none'} | {seconds:.0f} | {load()} |"
    )
    if wrong or not held:
        raise SystemExit("FAILED:\n" + "\n".join(wrong or ["the node was lost with no job"]))


if __name__ == "__main__":
    main()

"""Workers on a Ray cluster of two nodes on this machine, one of which is lost."""

import asyncio
import base64
import hashlib
import json
import os
import re
import signal
import time
from contextlib import suppress
from pathlib import Path

import httpx2
import psutil
import pytest
from running import ENDED, TINY, RunningServer, quick_model

from sfumato.errors import UsageError
from sfumato.server.cluster.connecting import connect
from sfumato.server.cluster.replica import DrawingReplica
from sfumato.server.settings import server_settings
from sfumato.server.worker import messages

pytest.importorskip("ray")
LONG = {**TINY, "steps": 60}
NODE = {
    "num_cpus": 1,
    "num_gpus": 0,
    "object_store_memory": 100 << 20,
    "include_dashboard": False,
    "include_log_monitor": False,
    "no_monitor": True,
}


@pytest.fixture(scope="module")
def cluster():
    """A cluster of one node, to which others can be added."""
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        found = Cluster(initialize_head=True, head_node_args=NODE)
        yield found
        found.shutdown()


@pytest.fixture(scope="module")
def clustered(cluster, tmp_path_factory):
    """A server of two models with a worker on the cluster, and a second one where there is work; it batches
    nothing.
    """
    env = {"RAY_ADDRESS": cluster.address, "SFUMATO_SERVE_JOBS_PER_WORKER": "2", "SFUMATO_SERVE_ROWS": "0"}
    folder = tmp_path_factory.mktemp("clustered")
    models = ["--model", "embedded", "--model", str(quick_model(folder / "quick"))]
    found = RunningServer(folder / "data", "--ray", "--max-workers", "2", *models, env=env)
    found.wait_ready()
    yield found
    found.stop()


def replicas(cluster):
    """The processes that draw."""
    raylets = [
        process.process.pid for node in cluster.list_all_nodes() for process in node.all_processes["raylet"]
    ]
    drawing = []
    for each in (child for pid in raylets for child in psutil.Process(pid).children()):
        with suppress(psutil.NoSuchProcess):  # it ended while it was looked at
            if "ServeReplica:sfumato" in " ".join(each.cmdline()):
                drawing.append(each)
    return drawing


def test_a_picture_has_the_bytes_that_a_server_without_ray_draws(clustered, server):
    drawn = [
        each.wait(each.submit(**{**TINY, "steps": 4}, seed=5)["id"])["pictures"][0]["sha256"]
        for each in (clustered, server)
    ]
    assert drawn[0] == drawn[1]


def test_progress_and_previews_come_through(clustered):
    job = clustered.submit(**LONG, count=2, seed=6)["id"]
    with clustered.http.stream("GET", f"/api/v1/jobs/{job}/events?previews=true") as events:
        text = "".join(events.iter_text())
    assert "event: progress" in text
    assert "event: picture" in text
    assert '"preview"' in text


def test_prompts_and_models_are_read_by_a_worker(clustered):
    assert clustered.http.get("/api/v1/models").json()[0]["defaults"]["width"] == 256
    answer = clustered.http.post("/api/v1/prompt", json={"prompt": "a (red apple"})
    assert (answer.status_code, answer.json()["error"]["position"]) == (400, 2)


def test_each_job_is_drawn_with_the_model_that_it_names(clustered):
    served = [each["name"] for each in clustered.http.get("/api/v1/models").json()]
    assert [Path(name).name for name in served] == ["embedded", "quick"]
    jobs = [clustered.submit(prompt="a cat", seed=3, steps=2, model=name)["id"] for name in served * 2]
    pictures = [clustered.wait(job)["pictures"][0] for job in jobs]
    assert [(each["model"], each["width"]) for each in pictures] == [("embedded", 256), ("quick", 64)] * 2
    assert pictures[0]["sha256"] == pictures[2]["sha256"]


def events_of_drawing(server, **fields):
    """What a drawing that is not stored tells, each as (kind, data)."""
    with server.http.stream("POST", "/api/v1/draw", json={"request": fields}) as answer:
        for event in httpx2.EventSource(answer):
            yield event.event, json.loads(event.data)


def test_a_picture_that_is_not_stored_comes_with_the_answer(clustered):
    stored = clustered.wait(clustered.submit(**LONG, seed=11)["id"])["pictures"][0]
    before = [job["id"] for job in clustered.jobs()]
    told = list(events_of_drawing(clustered, **LONG, seed=11))
    assert {"progress", "picture"} <= {kind for kind, _ in told}
    (picture,) = (data["picture"] for kind, data in told if kind == "picture")
    assert hashlib.sha256(base64.b64decode(picture["content"])).hexdigest() == stored["sha256"]
    assert told[-1][1]["state"] == "done"
    assert [job["id"] for job in clustered.jobs()] == before


def test_who_leaves_a_drawing_that_is_not_stored_cancels_it(clustered):
    def points():
        (found,) = re.findall(r"^sfumato_batch_points_sum (\S+)", clustered.http.get("/metrics").text, re.M)
        return float(found)

    before = points()
    told = events_of_drawing(clustered, **LONG, count=50, seed=12)
    next(kind for kind, _ in told if kind == "progress")
    told.close()
    # one that was not dropped would be drawn before this one
    assert clustered.wait(clustered.submit(**TINY, seed=13)["id"])["state"] == "done"
    assert points() - before < 50 * LONG["steps"]


def test_a_job_that_is_cancelled_is_dropped_by_its_worker(clustered):
    job = clustered.submit(**LONG, count=50, seed=7, priority=1)["id"]
    clustered.wait(job, "running")
    assert clustered.http.delete(f"/api/v1/jobs/{job}").status_code == 200
    # one that was not dropped would be drawn before this one
    assert clustered.wait(clustered.submit(**TINY, seed=8)["id"])["state"] == "done"
    (points,) = re.findall(r"^sfumato_batch_points_sum (\S+)", clustered.http.get("/metrics").text, re.M)
    assert float(points) < 50 * LONG["steps"]


def test_more_jobs_bring_a_second_worker_and_a_lost_node_loses_none_of_them(clustered, cluster):
    node = cluster.add_node(**NODE)
    jobs = []
    while clustered.read_log().count("is ready") < 2:
        time.sleep(0.1)
        if sum(job["state"] not in ENDED for job in clustered.jobs()) < 6:
            jobs.append(clustered.submit(**LONG, seed=6)["id"])
    assert len(replicas(cluster)) == 2
    jobs += [clustered.submit(**LONG, seed=6)["id"] for _ in range(6)]
    cluster.remove_node(node, allow_graceful=False)
    done = [clustered.wait(job) for job in jobs]
    assert {(job["state"], job["crashes"], len(job["pictures"])) for job in done} == {("done", 0, 1)}
    assert len({job["pictures"][0]["sha256"] for job in done}) == 1
    assert "the machine that drew it was lost" in clustered.read_log()


def test_a_worker_that_is_killed_costs_its_jobs_a_crash_and_is_replaced(clustered, cluster):
    retried = clustered.submit(**LONG, seed=9)["id"]
    failed = clustered.submit(**LONG, seed=10, on_crash="fail")["id"]
    for job in (retried, failed):
        clustered.wait(job, "running")
    for each in replicas(cluster):
        os.kill(each.pid, signal.SIGKILL)
    assert (clustered.wait(retried)["state"], clustered.job(retried)["crashes"]) == ("done", 1)
    assert clustered.wait(failed)["error"] == "the process that drew it ended"


def test_a_server_that_stops_leaves_nothing_in_the_cluster(clustered, cluster):
    clustered.stop()
    assert clustered.process.returncode == 0
    while replicas(cluster):
        time.sleep(0.1)


def test_a_cluster_that_the_server_starts_ends_with_it(start):
    server = start("--ray", env={"RAY_ADDRESS": "local"})
    server.wait_ready()
    job = server.submit(**TINY, seed=1)["id"]
    begun = psutil.Process(server.process.pid).children(recursive=True)
    os.killpg(server.process.pid, signal.SIGINT)
    assert server.process.wait() == 0
    assert begun
    assert psutil.wait_procs(begun, 60)[1] == []
    assert start().wait(job)["state"] == "done"


def test_a_stream_that_is_closed_drops_its_job():
    async def drawings():
        replica = DrawingReplica("embedded", "cpu", 1, None, 0, False)
        request = {**LONG, "seed": 1, "model": "embedded"}
        stream = replica.draw("", messages.Draw("one", {**request, "count": 50}, priority=1))
        await anext(stream)
        await stream.aclose()
        said = [each async for part in replica.draw("", messages.Draw("two", request)) for each in part]
        return said[-1], list(replica._worker._drawings)

    assert asyncio.run(drawings()) == (messages.JobFinished("two"), [])


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"max_workers": 2}, "max_workers needs Ray"),
        ({"ray": True, "workers": 3, "max_workers": 2}, "max_workers is 2: must be at least workers, 3"),
        ({"ray": True, "devices": ["cuda:1"]}, "with Ray it is one kind"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(given, text):
    with pytest.raises(UsageError, match=text):
        server_settings(**given)


def test_an_address_of_rays_client_is_refused(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "ray://host:10001")
    with pytest.raises(UsageError, match="must run on a node of the cluster"):
        connect()

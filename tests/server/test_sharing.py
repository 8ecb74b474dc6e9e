"""Several servers on one database, and a database that goes away."""

import io
from concurrent.futures import ThreadPoolExecutor

import PIL.Image
import pytest
from running import TINY

from sfumato.server.jobs import JobState
from sfumato.server.limits import Limits
from sfumato.server.store import NewJob, Store
from sfumato.server.store import store as storing

SLOW = {"prompt": "a red apple", "steps": 30, "sampler": "euler", "width": 64, "height": 64, "guidance": 1}


@pytest.fixture
def stores(tmp_path, postgresql):
    """Two stores of one database and one folder."""
    url = postgresql.create()
    with ThreadPoolExecutor(2) as pool:  # both find an empty database
        both = list(pool.map(lambda _: Store(tmp_path, url), range(2)))
    for each in both:
        each.beat()
    yield both
    for each in both:
        each.close()


def submit(store, **options):
    return store.submit(NewJob({"model": "m"}), **{"owner": "me", "limits": Limits(1000), **options})


def test_no_job_is_taken_up_by_two_servers(stores):
    jobs = {submit(stores[0])[0].id for _ in range(60)}

    def taken(store):
        return [*store.begin([job.id for job in store.waiting(60)])]

    with ThreadPoolExecutor(8) as pool:
        found = [job for part in pool.map(taken, stores * 4) for job in part]
    assert sorted(found) == sorted(jobs)
    assert stores[0].running() | stores[1].running() == jobs
    assert not stores[0].running() & stores[1].running()


def test_two_servers_accept_a_job_of_one_key_once(stores):
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda number: submit(stores[number % 2], idempotency_key="k"), range(16)))
    assert len({job.id for job, _ in answers}) == 1
    assert sum(new for _, new in answers) == 1


def test_only_the_jobs_of_a_server_that_is_heard_of_no_more_are_lost(stores, monkeypatch):
    first, second = stores
    job = submit(first)[0]
    first.begin([job.id])
    assert second.lost() == set()
    monkeypatch.setattr(storing, "LEASE_SECONDS", 0)
    second.beat()
    assert second.lost() == {job.id}
    second.give_up(second.lost(), "it ended")
    assert second.begin([job.id])
    assert not first.end(job.id, JobState.FAILED, "too late", drawn=True)
    assert second.end(job.id, JobState.DONE, drawn=True)


def test_a_server_that_lost_its_job_adds_no_picture_to_it(stores):
    first, second = stores
    job = submit(first)[0]
    second.begin([job.id])
    buffer = io.BytesIO()
    PIL.Image.new("RGB", (8, 8)).save(buffer, "PNG")
    facts = {"width": 8, "height": 8, "seed": 0, "prompt": "", "negative": "", "model": "m", "record": "{}"}
    assert first.add_picture(job.id, 0, buffer.getvalue(), facts) is None
    assert second.add_picture(job.id, 0, buffer.getvalue(), facts) is not None


def test_two_servers_draw_from_one_queue_and_tell_of_each_others_jobs(start, postgresql):
    database = {"SFUMATO_SERVE_DATABASE": postgresql.create()}
    first, second = start(env=database), start(env=database)
    first.wait_ready()
    second.wait_ready()
    jobs = [first.submit(**SLOW, seed=seed) for seed in range(12)]
    with second.http.stream("GET", f"/api/v1/jobs/{jobs[0]['id']}/events") as events:
        followed = "".join(events.iter_text())
    assert "event: picture" in followed
    assert '"done"' in followed
    assert {second.wait(job["id"])["state"] for job in jobs} == {"done"}
    assert len(first.http.get("/api/v1/pictures").json()) == 12
    first.kill()
    assert second.wait(second.submit(**TINY)["id"])["state"] == "done"


def test_a_server_outlives_a_restart_of_its_database(start, postgresql):
    server = start(env={"SFUMATO_SERVE_DATABASE": postgresql.create()})
    server.wait_ready()
    jobs = [server.submit(**SLOW, seed=seed) for seed in range(8)]
    postgresql.stop()
    refused = server.http.post("/api/v1/jobs", json={"request": TINY})
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
    assert "password" not in refused.text
    postgresql.start()
    done = [server.wait(job["id"]) for job in jobs]
    assert [(each["state"], len(each["pictures"])) for each in done] == [("done", 1)] * 8

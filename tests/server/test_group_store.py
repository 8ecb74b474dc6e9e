"""Jobs that were submitted together, and what else the server remembers: whose, in which order, how long."""

import hashlib
import io
import time

import PIL.Image
import pytest

from sfumato.errors import PictureError
from sfumato.server.jobs import JobState
from sfumato.server.limits import Limits
from sfumato.server.store import GroupStore, NewJob
from sfumato.server.store import quota as quotas
from sfumato.server.store.quota import BusyError

FACTS = {"width": 8, "height": 8, "seed": 3, "prompt": "", "negative": "", "model": "m", "record": "{}"}


@pytest.fixture
def store(tmp_path, database):
    store = GroupStore(tmp_path, database)
    yield store
    store.close()


def new(prompt="a cat", **options):
    return NewJob({"model": "m", "prompt": prompt}, **options)


def grouped(store, *jobs, owner="me", limits=None, **options):
    return store.submit_group(
        "grid", {"title": "é"}, jobs or (new("one"), new("two")), owner=owner,
        limits=limits or Limits(9), **options,
    )  # fmt: skip


def png(colour="red"):
    buffer = io.BytesIO()
    PIL.Image.new("RGB", (8, 8), colour).save(buffer, "PNG")
    return buffer.getvalue()


def drawn(store, colour="red", owner="me", **facts):
    job, _ = store.submit(new(), owner=owner, limits=Limits(99))
    store.begin([job.id])
    return store.add_picture(job.id, 0, png(colour), {**FACTS, **facts})


def test_a_group_holds_its_jobs_in_their_places_for_its_owner_alone(store):
    group, is_new = grouped(store)
    assert is_new
    assert (group.kind, group.facts) == ("grid", {"title": "é"})
    assert store.group(group.id, "me") == group
    assert store.group(group.id, "you") is None
    assert store.group("none", "me") is None
    jobs = store.group_jobs(group.id)
    assert {place: job.request["prompt"] for place, job in jobs.items()} == {0: "one", 1: "two"}
    assert {(job.group, job.place) for job in jobs.values()} == {(group.id, 0), (group.id, 1)}


def test_the_same_idempotency_key_is_the_same_group(store):
    first, _ = grouped(store, idempotency_key="k")
    assert grouped(store, idempotency_key="k") == (first, False)
    assert grouped(store, owner="you", idempotency_key="k")[1]
    assert grouped(store)[1]
    assert store.counts()[JobState.QUEUED] == 6


def test_of_a_group_that_does_not_fit_into_the_queue_no_job_is_accepted(store):
    with pytest.raises(BusyError, match="waiting"):
        grouped(store, limits=Limits(1))
    with pytest.raises(BusyError, match="of 3 that may be"):
        grouped(store, new(count=2), new(count=2), limits=Limits(9, pictures_per_hour=3))
    assert store.counts()[JobState.QUEUED] == 0


def test_a_job_that_is_asked_for_again_takes_the_place_of_the_old_one(store):
    start = b"start"
    digest = hashlib.sha256(start).hexdigest()
    first = NewJob(
        {"model": "m", "image": {"sha256": digest, "data": None}}, 2, 5, "fail", 40, {digest: start}
    )
    group, _ = grouped(store, first, new("two"))
    old = store.group_jobs(group.id)
    store.end(old[0].id, JobState.FAILED, "it failed")
    for _ in range(100):
        store.evaluated()
    store.submit_again([old[0].id], limits=Limits(9))
    now = store.group_jobs(group.id)
    assert now[1] == old[1]
    again = now[0]
    assert again.id != old[0].id
    assert (again.state, again.error) == (JobState.QUEUED, None)
    same = ("request", "count", "priority", "on_crash", "group", "place")
    assert all(getattr(again, name) == getattr(old[0], name) for name in same)
    assert store.whole(again.request)["image"]["data"] == start
    # it is as much work as it was, and came later
    assert again.rank == pytest.approx(old[0].rank + 0.05 * 100)
    store.end(again.id, JobState.CANCELLED)
    store.forget(input_seconds=-1)
    with pytest.raises(PictureError, match="no longer there"):
        store.submit_again([old[0].id], limits=Limits(9))


def test_a_group_is_forgotten_with_the_last_of_its_jobs(store):
    group, _ = grouped(store)
    first, second = store.group_jobs(group.id).values()
    store.end(first.id, JobState.CANCELLED)
    store.forget(history_seconds=-1)
    assert store.group(group.id, "me") == group
    assert list(store.group_jobs(group.id)) == [1]
    store.end(second.id, JobState.CANCELLED)
    store.forget(history_seconds=60)
    assert store.group(group.id, "me") == group
    store.forget(history_seconds=-1)
    assert store.group(group.id, "me") is None


def test_jobs_are_listed_from_the_newest_by_owner_and_state(store):
    mine = [store.submit(new(str(number)), owner="me", limits=Limits(9))[0].id for number in range(4)]
    yours = store.submit(new(), owner="you", limits=Limits(9), idempotency_key="k")[0].id
    store.begin(mine[:1])

    def listed(**which):
        return [job.id for job in store.list_jobs(**{"limit": 9, **which})]

    assert listed() == [yours, *reversed(mine)]
    assert listed(owner="me") == [*reversed(mine)]
    assert listed(owner="me", limit=2) == [mine[3], mine[2]]
    assert listed(owner="me", before=mine[2]) == [mine[1], mine[0]]
    assert listed(states=[JobState.RUNNING]) == mine[:1]
    assert listed(states=[JobState.DONE]) == []
    assert store.owns("me", mine[0])
    assert not store.owns("you", mine[0])
    assert store.submitted("you", "k").id == yours
    assert store.submitted("me", "k") is None


def test_pictures_are_found_by_what_drew_them_and_when(store):
    before = time.time()
    styled = '{"request": {"sampler": "euler", "origin": {"style": ["noir", "oil"]}}}'
    first = drawn(store, "red", model="one", seed=5, record=styled)
    second = drawn(store, "blue", owner="you", record='{"request": {"sampler": "ddim"}}')

    def found(**which):
        return [each.id for each in store.search(limit=9, **which)]

    assert found() == [second.id, first.id]
    assert found(model="one") == found(seed=5) == found(sampler="euler") == found(owner="me") == [first.id]
    assert found(style="oil") == found(style="noir") == [first.id]
    assert found(style="euler") == found(seed=6) == found(sampler="heun") == found(model="two") == []
    assert found(since=before) == [second.id, first.id]
    assert found(since=second.created) == [second.id]
    assert found(until=second.created) == [first.id]
    assert found(until=before) == []
    store.delete_picture(first.id)
    assert found() == [second.id]
    assert found(deleted=True) == [first.id]
    assert store.record(first.id) == styled


def test_deleted_pictures_go_before_older_ones_where_the_disk_is_full(store):
    old, deleted = drawn(store, "red"), drawn(store, "blue")
    store.delete_picture(deleted.id)
    assert store.tidy(Limits(9, disk=old.bytes)) == 1
    assert store.picture(deleted.id) is None
    assert store.picture(old.id) is not None


def test_jobs_that_are_not_stored_count_for_the_quota_until_an_hour_has_passed(store, monkeypatch):
    limits = Limits(2, pictures_per_hour=5)
    now = time.time()

    class Clock:
        at = now

        def time(self):
            return self.at

    clock = Clock()
    monkeypatch.setattr(quotas, "time", clock)
    store.admit(owner="me", count=3, limits=limits)
    clock.at = now + 600
    store.admit(owner="me", count=2, limits=limits)
    store.admit(owner="you", count=5, limits=limits)
    with pytest.raises(
        BusyError, match=r"^5 pictures were asked for within an hour, of 5 that may be$"
    ) as busy:
        store.admit(owner="me", count=1, limits=limits)
    assert busy.value.seconds == 3001
    clock.at = now + 3601
    store.admit(owner="me", count=3, limits=limits)
    with pytest.raises(BusyError):
        store.admit(owner="me", count=1, limits=limits)
    with pytest.raises(BusyError, match="2 jobs are waiting") as busy:
        store.admit(owner="them", count=1, limits=limits, others=2)
    assert busy.value.seconds == 5

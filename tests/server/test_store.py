import hashlib
import io
import json
import time
from concurrent.futures import ThreadPoolExecutor

import alembic.command
import PIL.Image
import pytest
import sqlalchemy

from sfumato.errors import OutputError, PictureError, UsageError
from sfumato.server.jobs import MAX_CRASHES, JobState
from sfumato.server.limits import Limits
from sfumato.server.store import NewJob, Store, tables
from sfumato.server.store import database as databases
from sfumato.server.store.quota import BusyError

FACTS = {"width": 8, "height": 8, "seed": 2**62, "negative": "", "model": "embedded", "record": "{}"}


def png(colour="red"):
    buffer = io.BytesIO()
    PIL.Image.new("RGB", (8, 8), colour).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def store(tmp_path, database):
    store = Store(tmp_path, database)
    yield store
    store.close()


def clip():
    buffer = io.BytesIO()
    frames = [PIL.Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    frames[0].save(buffer, "WEBP", save_all=True, append_images=frames[1:])
    return buffer.getvalue()


def submitted(store, prompt="a cat", **options):
    own = {name: options.pop(name) for name in ("count", "priority", "on_crash", "work") if name in options}
    new = NewJob({"model": "embedded", "prompt": prompt}, **own)
    return store.submit(new, **{"owner": "me", "limits": Limits(100), **options})[0]


def drawn(store, prompt="a cat", colour="red", number=0):
    job = submitted(store, prompt)
    store.begin([job.id])
    return store.add_picture(job.id, number, png(colour), {**FACTS, "prompt": prompt})


def test_a_job_is_there_after_the_database_is_opened_again(store, tmp_path, database):
    job = submitted(store, "a café")
    again = Store(tmp_path, database)
    assert again.job(job.id) == job
    assert again.job(job.id).request["prompt"] == "a café"
    again.close()


def test_the_same_idempotency_key_of_an_owner_is_the_same_job(store):
    first, new = store.submit(NewJob({"model": "m"}), owner="me", limits=Limits(9), idempotency_key="k")
    again, again_new = store.submit(NewJob({"model": "m"}), owner="me", limits=Limits(9), idempotency_key="k")
    other, other_new = store.submit(
        NewJob({"model": "m"}), owner="you", limits=Limits(9), idempotency_key="k"
    )
    assert (new, again_new, other_new) == (True, False, True)
    assert first.id == again.id != other.id


def test_a_full_queue_takes_no_more(store):
    submitted(store, limits=Limits(1))
    with pytest.raises(BusyError, match="1 jobs are waiting"):
        submitted(store, limits=Limits(1))
    assert store.counts()[JobState.QUEUED] == 1


def test_a_key_that_asked_for_its_quota_waits_for_the_hour_to_pass(store):
    submitted(store, count=3, limits=Limits(100, 5))
    submitted(store, count=5, limits=Limits(100, 5), owner="you")
    with pytest.raises(BusyError, match="3 pictures were asked for within an hour, of 5") as refused:
        submitted(store, count=3, limits=Limits(100, 5))
    assert 3590 <= refused.value.seconds <= 3601
    submitted(store, count=2, limits=Limits(100, 5))


def test_jobs_wait_by_priority_then_by_their_work_then_by_their_order(store):
    given = [(0, 9), (5, 9), (0, 9), (5, 7), (-1, 1)]
    names = [submitted(store, priority=priority, work=work).id for priority, work in given]
    assert [job.id for job in store.waiting(9)] == [names[index] for index in (3, 1, 0, 2, 4)]
    assert store.prioritise({names[4]: 5, "none": 1}, "me") == {names[4]: "queued"}
    assert [job.id for job in store.waiting(2)] == [names[4], names[3]]


def test_jobs_of_another_owner_and_those_that_are_over_keep_their_priority(store):
    mine, over = submitted(store), submitted(store)
    yours = submitted(store, owner="you")
    store.begin([over.id])
    store.end(over.id, JobState.DONE)
    assert store.prioritise({mine.id: 1, over.id: 1, yours.id: 1}, "me") == {mine.id: JobState.QUEUED}
    assert [store.job(each.id).priority for each in (mine, over, yours)] == [1, 0, 0]


def test_a_job_of_much_work_waits_behind_shorter_ones_but_not_for_ever(store, tmp_path, database):
    long = submitted(store, work=100)
    for _ in range(1900):
        store.evaluated()
    first = submitted(store, work=1)
    assert [(job.id, job.waited) for job in store.waiting(9)] == [(first.id, 0), (long.id, 1900)]
    again = Store(tmp_path, database)  # the clock goes on
    for _ in range(200):
        again.evaluated()
    second = submitted(again, work=1)
    assert [job.id for job in again.waiting(9)] == [first.id, long.id, second.id]
    again.close()


def begun(store, *contents, owner="me"):
    """A job that began from these pictures and has ended."""
    hashes = [hashlib.sha256(each).hexdigest() for each in contents]
    request = {"model": "m", "controls": [{"image": {"sha256": each, "data": None}} for each in hashes]}
    new = NewJob(request, contents=dict(zip(hashes, contents, strict=True)))
    job, _ = store.submit(new, owner=owner, limits=Limits(9))
    store.begin([job.id])
    store.end(job.id, JobState.DONE)
    return job, hashes


def test_a_picture_that_requests_begin_from_is_one_file_until_the_last_job_of_it_is_over(store):
    _, [digest] = begun(store, b"same")
    job, digests = begun(store, b"same", b"other")
    assert digests[0] == digest
    assert sorted(store.inputs.digests()) == sorted(digests)
    assert [each["image"]["data"] for each in store.whole(job.request)["controls"]] == [b"same", b"other"]
    store.forget()
    assert store.input(digest, "me") == b"same"
    other = NewJob({"model": "m"}, contents={digests[1]: b"other"})
    waiting, _ = store.submit(other, owner="you", limits=Limits(9))
    store.forget(input_seconds=-1)
    assert list(store.inputs.digests()) == [digests[1]]
    with pytest.raises(PictureError, match="no longer there"):
        store.whole(job.request)
    assert store.job(waiting.id) == waiting


def test_a_picture_that_another_owner_sent_is_not_found_by_its_hash(store):
    _, [digest] = begun(store, b"mine")
    assert store.input(digest, "me") == b"mine"
    assert store.input(digest, "you") is None
    assert store.input("0" * 64, "me") is None


def test_what_a_job_with_a_picture_began_from_is_kept_with_it(store):
    picture = drawn(store)
    new = NewJob({"model": "m"}, contents={hashlib.sha256(b"start").hexdigest(): b"start"})
    with_input, _ = store.submit(new, owner="me", limits=Limits(9))
    store.begin([with_input.id])
    kept = store.add_picture(with_input.id, 0, png("blue"), {**FACTS, "prompt": ""})
    for job in (picture.job, with_input.id):
        store.end(job, JobState.DONE)
    store.forget(input_seconds=-1, history_seconds=-1)
    assert len(list(store.inputs.digests())) == 1
    store.delete_picture(kept.id)
    store.tidy(undo_seconds=-1)
    store.forget(input_seconds=-1)
    assert list(store.inputs.digests()) == []
    assert store.job(with_input.id) is not None
    store.forget(history_seconds=-1)
    assert store.job(with_input.id) is None
    assert store.job(picture.job) is not None


def test_a_file_of_a_submission_that_was_cut_off_goes_at_the_next_start(store, tmp_path, database):
    _, [digest] = begun(store, b"named")
    store.inputs.add(b"nobody's")
    again = Store(tmp_path, database)
    assert list(again.inputs.digests()) == [digest]
    again.close()


def test_the_database_does_not_grow_with_the_jobs_that_are_over(tmp_path):
    store = Store(tmp_path)
    sizes = []
    for turn in range(3):
        for number in range(6):
            begun(store, f"{turn} {number}".encode() * 50_000)
        store.forget(input_seconds=-1, history_seconds=-1)
        with store._engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
        sizes.append((tmp_path / "sfumato.db").stat().st_size)
    assert len(set(sizes[1:])) == 1
    assert list(store.inputs.digests()) == []
    store.close()


def test_a_job_begins_once_and_ends_once_however_many_try(store):
    job = submitted(store)
    with ThreadPoolExecutor(8) as pool:
        assert sum(map(len, pool.map(lambda _: store.begin([job.id]), range(16)))) == 1
        states = [JobState.DONE, JobState.FAILED, JobState.CANCELLED, JobState.DONE]
        assert sum(pool.map(lambda state: store.end(job.id, state), states * 4)) == 1


def test_lost_jobs_wait_again_or_fail_as_they_declared(store):
    again, never = submitted(store), submitted(store, on_crash="fail")
    waiting = submitted(store)
    store.begin([again.id])
    store.begin([never.id])
    store.give_up(store.running(), "the server ended")
    states = [store.job(each.id).state for each in (again, never, waiting)]
    assert states == [JobState.QUEUED, JobState.FAILED, JobState.QUEUED]
    assert store.job(never.id).error == "the server ended"


def test_a_job_that_ends_its_worker_each_time_fails(store):
    job = submitted(store)
    for _ in range(MAX_CRASHES):
        assert store.begin([job.id])
        store.give_up([job.id], "the process ended", crashed=True)
    assert store.job(job.id).state is JobState.FAILED
    assert store.job(job.id).error == f"the process ended {MAX_CRASHES} times"


def test_restarts_of_the_server_are_no_crashes_of_a_job(store):
    job = submitted(store)
    for _ in range(2 * MAX_CRASHES):
        assert store.begin([job.id])
        store.give_up(store.running(), "the server ended")
    assert store.job(job.id).state is JobState.QUEUED


def test_a_picture_of_a_job_is_kept_once(store):
    job = submitted(store)
    store.begin([job.id])
    facts = {**FACTS, "prompt": "a cat"}
    assert store.add_picture(job.id, 0, png(), facts) is not None
    assert store.add_picture(job.id, 0, png("blue"), facts) is None
    assert len(store.job(job.id).pictures) == 1


def test_a_job_that_is_over_gets_no_picture(store):
    job = submitted(store)
    store.begin([job.id])
    store.end(job.id, JobState.CANCELLED)
    assert store.add_picture(job.id, 0, png(), {**FACTS, "prompt": ""}) is None


def test_equal_content_is_one_file_until_the_last_picture_of_it_goes(store):
    first, second = drawn(store), drawn(store)
    path = store.files(None).path(first.sha256)
    assert first.sha256 == second.sha256
    assert path.read_bytes() == png()
    store.delete_picture(first.id)
    assert store.tidy(undo_seconds=-1) == 1
    assert path.exists()
    store.delete_picture(second.id)
    assert store.tidy(undo_seconds=-1) == 1
    assert not path.exists()
    assert not store.files(None).thumbnail(first.sha256).exists()


def test_the_file_and_the_thumbnail_of_a_clip_go_with_it(store, tmp_path):
    job = submitted(store)
    store.begin([job.id])
    found = store.add_picture(job.id, 0, clip(), {**FACTS, "prompt": "", "frames": 2})
    assert (found.frames, store.picture(found.id).frames) == (2, 2)
    assert store.files(2).path(found.sha256).read_bytes() == clip()
    with PIL.Image.open(store.files(2).thumbnail(found.sha256)) as thumbnail:
        assert (thumbnail.format, thumbnail.n_frames) == ("WEBP", 1)
        assert thumbnail.convert("RGB").getpixel((4, 4))[0] > 200
    store.delete_picture(found.id)
    assert store.tidy(undo_seconds=-1) == 1
    assert not list(tmp_path.rglob(f"{found.sha256}*"))


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("apple", ["a red apple", "Äpfel and an apple"]),
        ("APP red", ["a red apple"]),
        ("äpf", ["Äpfel and an apple"]),
        ("APFEL", ["Äpfel and an apple"]),
        ("an-apple", ["Äpfel and an apple"]),
        ("red 'apple' & | ! \\ :*", ["a red apple"]),
        ("dog", []),
        ('"', []),
        ("apple OR", []),
        ("", ["a red apple", "a blue cat", "Äpfel and an apple"]),
    ],
)
def test_search_finds_prompts_that_hold_every_word(store, words, found):
    for prompt in ("Äpfel and an apple", "a blue cat", "a red apple"):
        drawn(store, prompt)
    assert [each.prompt for each in store.search(words, limit=9)] == found


def test_the_gallery_goes_on_after_a_picture(store):
    pictures = [drawn(store, str(number)) for number in range(5)]
    page = store.search(limit=2)
    after = store.search(before=page[-1].id, limit=9)
    assert [each.id for each in [*page, *after]] == [each.id for each in reversed(pictures)]


def test_tags_and_favourites_are_kept_and_searched(store):
    picture, other = drawn(store), drawn(store)
    store.change_picture(picture.id, favourite=True, names=["b", "a", "b"])
    assert store.picture(picture.id).tags == ("a", "b")
    assert [each.id for each in store.search(tag="a", favourite=True, limit=9)] == [picture.id]
    assert [each.id for each in store.search(favourite=False, limit=9)] == [other.id]


def test_what_is_deleted_can_be_brought_back_until_it_is_tidied_away(store):
    picture = drawn(store)
    store.delete_picture(picture.id)
    assert store.search(limit=9) == []
    assert store.tidy() == 0
    store.restore_picture(picture.id)
    assert [each.id for each in store.search(limit=9)] == [picture.id]


def test_the_oldest_go_where_the_disk_budget_is_passed_but_favourites_stay(store):
    first, second, third = drawn(store, "1"), drawn(store, "2", "blue"), drawn(store, "3", "green")
    store.change_picture(first.id, favourite=True)
    assert store.tidy(Limits(9, disk=first.bytes + third.bytes)) == 1
    assert [each.id for each in store.search(limit=9)] == [third.id, first.id]
    assert not store.files(None).path(second.sha256).exists()


def test_each_key_has_a_disk_budget_of_its_own(store):
    start = b"x" * 1000
    mine = [drawn(store, "1"), drawn(store, "2", "blue"), drawn(store, "3", "green")]
    new = NewJob({"model": "m"}, contents={hashlib.sha256(start).hexdigest(): start})
    job, _ = store.submit(new, owner="you", limits=Limits(9))
    store.begin([job.id])
    yours = store.add_picture(job.id, 0, png(), {**FACTS, "prompt": ""})
    store.end(job.id, JobState.DONE)
    store.change_picture(mine[0].id, favourite=True)
    assert store.tidy(Limits(9, disk_per_key=yours.bytes + 1000)) == 0
    assert store.tidy(Limits(9, disk_per_key=mine[0].bytes + mine[2].bytes)) == 2
    assert [each.id for each in store.search(limit=9)] == [mine[2].id, mine[0].id]
    assert list(store.inputs.digests()) == []
    with pytest.raises(BusyError, match="would take 1,000 bytes, of 999"):
        store.submit(new, owner="you", limits=Limits(9, disk_per_key=999))


def test_pictures_that_requests_begin_from_count_for_the_disk_budget(store):
    start = b"x" * 1000
    begun(store, start)
    picture = drawn(store)
    assert store.tidy(Limits(9, disk=picture.bytes + 1000)) == 0
    assert len(list(store.inputs.digests())) == 1
    assert store.tidy(Limits(9, disk=picture.bytes + 999)) == 0
    assert list(store.inputs.digests()) == []
    new = NewJob({"model": "m"}, contents={hashlib.sha256(start).hexdigest(): start})
    job, _ = store.submit(new, owner="me", limits=Limits(9))
    store.begin([job.id])
    last = store.add_picture(job.id, 0, png("blue"), {**FACTS, "prompt": ""})
    store.change_picture(picture.id, favourite=True)
    store.end(job.id, JobState.DONE)
    assert store.tidy(Limits(9, disk=picture.bytes + last.bytes + 999)) == 1
    assert list(store.inputs.digests()) == []
    assert [each.id for each in store.search(limit=9)] == [picture.id]


def test_pictures_that_waiting_jobs_begin_from_are_bounded_by_the_disk_budget(store):
    def submit(content):
        new = NewJob({"model": "m"}, contents={hashlib.sha256(content).hexdigest(): content})
        return store.submit(new, owner="me", limits=Limits(9, disk=1000))[0]

    first = submit(b"a" * 600)
    again = submit(b"a" * 600)
    with pytest.raises(BusyError, match="would take 1,200 bytes, of 1,000"):
        submit(b"b" * 600)
    assert len(list(store.inputs.digests())) == 1
    assert [job.id for job in store.waiting(9)] == [first.id, again.id]
    for job in store.waiting(9):
        store.end(job.id, JobState.CANCELLED)
    submit(b"b" * 600)


def test_a_picture_that_is_left_out_is_not_kept_and_stays_so(store):
    job = submitted(store, count=3)
    store.begin([job.id])
    facts = {**FACTS, "prompt": ""}
    assert store.skip(job.id) == 0
    assert store.add_picture(job.id, 0, png(), facts) is None
    assert store.add_picture(job.id, 1, png(), facts) is not None
    store.give_up([job.id], "it crashed", crashed=True)
    assert [each.skipped for each in store.waiting(9)] == [(0,)]
    assert store.skip(job.id) == 2
    assert store.skip(job.id) is None
    assert store.job(job.id).skipped == (0, 2)
    store.end(job.id, JobState.DONE)
    assert store.skip(job.id) is None


def test_another_owner_sees_nothing(store):
    picture = drawn(store)
    assert store.picture(picture.id, "you") is None
    assert store.job(picture.job, "you") is None
    assert store.search(owner="you", limit=9) == []


def test_a_picture_goes_though_its_files_are_gone_already(store):
    picture = drawn(store)
    store.files(None).path(picture.sha256).unlink()
    store.files(None).thumbnail(picture.sha256).unlink()
    store.delete_picture(picture.id)
    assert store.tidy(undo_seconds=-1) == 1
    assert store.picture(picture.id) is None


def test_the_password_of_a_database_that_cannot_be_opened_is_not_told(tmp_path):
    with pytest.raises(OutputError, match=r"postgresql.*://me:\*\*\*@127.0.0.1:1/none") as refused:
        Store(tmp_path, "postgresql://me:secret@127.0.0.1:1/none")
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("url", ["mysql://host/name", "no url"])
def test_an_unsupported_database_is_refused(tmp_path, url):
    with pytest.raises(UsageError, match="postgresql"):
        Store(tmp_path, url)


def test_a_database_of_the_first_version_is_brought_up_to_date(tmp_path, database, monkeypatch):
    with monkeypatch.context() as patch:
        upgrade = alembic.command.upgrade
        patch.setattr(alembic.command, "upgrade", lambda config, _: upgrade(config, "0001"))
        old = databases.opened(database, tmp_path)
    job = {"id": "j", "state": "running", "owner": "me", "priority": 0, "on_crash": "retry", "crashes": 0}
    job |= {"model": "m", "request": json.dumps({"model": "m"}), "count": 1, "created": 1.5}
    held = {"name": "", "sha256": hashlib.sha256(b"start").hexdigest()}
    job["request"] = json.dumps({"model": "m", "image": {**held, "data": "c3RhcnQ="}})
    picture = {**FACTS, "id": "p", "job": "j", "number": 0, "sha256": "0" * 64, "bytes": 1, "created": 2.5}
    picture |= {"prompt": "Ärger", "favourite": True}
    with old.begin() as connection:
        for name, row in (("jobs", job), ("pictures", picture)):
            names, values = ", ".join(row), ", ".join(f":{each}" for each in row)
            connection.execute(sqlalchemy.text(f"INSERT INTO {name} ({names}) VALUES ({values})"), row)
    old.dispose()
    store = Store(tmp_path, database)
    assert [each.id for each in store.search("arg", owner="me", favourite=True, limit=9)] == ["p"]
    assert store.lost() == {"j"}
    assert store.job("j").request["image"] == {**held, "data": None}
    assert store.input(held["sha256"], "me") == b"start"
    store.close()


@pytest.mark.parametrize("kind", ["jobs", "pictures", "tags", "servers", "inputs"])
def test_the_migrations_make_the_tables_that_the_code_describes(store, kind):
    found = sqlalchemy.inspect(store._engine)
    table = tables.metadata.tables[kind]
    assert {each["name"] for each in found.get_columns(kind)} == {column.name for column in table.columns}
    made = {each["name"]: each["column_names"] for each in found.get_indexes(kind)}
    assert {name: [column.name for column in index.columns] for name, index in described(table)} == {
        name: columns for name, columns in made.items() if name in dict(described(table))
    }


def described(table):
    return [(index.name, index) for index in table.indexes]


def test_times_are_of_now_whatever_zone_the_database_is_in(store):
    before = time.time()
    job = submitted(store)
    assert before <= job.created <= time.time()


def test_pictures_are_found_by_their_sampler_and_style(store):
    def added(prompt, request):
        job = submitted(store, prompt)
        store.begin([job.id])
        facts = {**FACTS, "prompt": prompt, "record": json.dumps({"request": request})}
        return store.add_picture(job.id, 0, png(), facts).id

    plain = added("a cat", {"sampler": "euler", "origin": None})
    styled = added("a dog", {"sampler": "heun", "origin": {"style": ["emoji-flat", "it's"]}})
    drawn(store)  # a record that says nothing
    assert [each.id for each in store.search(sampler="euler", limit=9)] == [plain]
    assert [each.id for each in store.search(style="it's", limit=9)] == [styled]
    assert store.search(style="it's", sampler="euler", limit=9) == []
    assert [each.id for each in store.search("dog", style="emoji-flat", limit=9)] == [styled]

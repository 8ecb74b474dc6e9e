"""Grids and contact sheets over HTTP, as the page asks for them."""

import io

import numpy as np
import PIL.Image
import pytest

from sfumato.request import Request
from sfumato.series import record
from sfumato.series.grid import Axis, Grid

APPLE = {"prompt": "a red apple, 3d render", "seed": 7, "width": 64, "height": 64}
AXES = [{"field": "steps", "values": "1-3 (+2)"}, {"field": "sampler", "values": ["ddim", "euler"]}]


def planned(server, request, *axes):
    answer = server.http.post("/api/v1/grids/plan", json={"request": request, "axes": axes})
    assert answer.status_code == 200, answer.text
    return answer.json()


def submitted(server, request=APPLE, axes=AXES, **headers):
    answer = server.http.post("/api/v1/grids", json={"request": request, "axes": axes}, headers=headers)
    assert answer.status_code == 202, answer.text
    return answer.json()


def drawn(server, grid):
    """The grid when all of its jobs are over."""
    for cell in grid["cells"]:
        server.wait(cell["job"])
    return server.http.get(f"/api/v1/grids/{grid['id']}").json()


def opened(content):
    return PIL.Image.open(io.BytesIO(content))


def test_a_grid_is_drawn_as_jobs_and_its_file_is_the_one_that_the_command_makes(server, tmp_path):
    grid = drawn(server, submitted(server))
    assert [axis["labels"] for axis in grid["axes"]] == [["steps 1", "steps 3"], ["ddim", "euler"]]
    requests = [server.job(cell["job"])["request"] for cell in grid["cells"]]
    assert [(each["sampler"], each["steps"]) for each in requests] == [
        ("ddim", 1), ("ddim", 3), ("euler", 1), ("euler", 3),
    ]  # fmt: skip
    content = server.http.get(f"/api/v1/grids/{grid['id']}/file").content
    files = [
        opened(server.http.get(f"/api/v1/pictures/{cell['picture']['id']}/file").content)
        for cell in grid["cells"]
    ]
    plan = Grid.of(Request(**APPLE), Axis.of("steps", "1-3 (+2)"), Axis.of("sampler", ["ddim", "euler"]))
    assert (np.asarray(opened(content)) == np.asarray(plan.page(files))).all()
    (tmp_path / "grid.png").write_bytes(content)
    found = record.read(tmp_path / "grid.png")
    assert found.axes == {"steps": ("1", "3"), "sampler": ("ddim", "euler")}
    assert [each.request.steps for each in found.records] == [1, 3, 1, 3]


def test_a_plan_says_how_many_pictures_and_about_how_long(server):
    server.wait(server.submit(**APPLE, steps=2)["id"])
    found = planned(server, APPLE, {"field": "guidance", "values": "1-2 [3]"}, AXES[0])
    assert found["axes"][0]["values"] == ["1", "1.5", "2"]
    assert (found["pictures"], found["problem"]) == (6, None)
    twice = planned(server, APPLE, {"field": "guidance", "values": "1-2 [6]"}, AXES[0])
    assert 0 < found["seconds"] < twice["seconds"]


@pytest.mark.parametrize(
    ("request_", "axis", "problem"),
    [
        (APPLE, ("sampler", ["ddim", "eulr"]), "'eulr': unknown sampler 'eulr'; did you mean 'euler'?"),
        (APPLE, ("steps", "1-4, many"), "'many': steps is 'many'"),
        (APPLE, ("guidance", "0-1.5"), "needs a step"),
        (APPLE, ("model", "embedded, other"), "model 'other' is not served"),
        (APPLE, ("prompt~pear", "plum, apple"), "'pear' is not in the prompt"),
        (APPLE, ("camera", "leica"), "unknown field 'camera'"),
        (APPLE, ("count", "1, 2"), "count cannot be an axis"),
        (APPLE, ("image", ["/etc/passwd"]), "image"),
        (APPLE, ("steps", ["300"]), "at most 200 here"),
    ],
)
def test_what_cannot_be_is_told_at_its_axis(server, request_, axis, problem):
    found = planned(server, request_, AXES[0], {"field": axis[0], "values": axis[1]})
    if axis[0] != "steps":
        assert found["axes"][0]["problem"] is None
    assert problem in found["axes"][1]["problem"]
    body = {"request": request_, "axes": [{"field": axis[0], "values": axis[1]}]}
    assert server.http.post("/api/v1/grids", json=body).status_code == 400


def test_what_no_one_axis_is_at_fault_for_is_told_of_the_grid(server):
    found = planned(server, APPLE, AXES[0], {"field": "steps", "values": "5"})
    assert found["problem"] == "two axes are steps; a field can be one"
    found = planned(server, APPLE, {"field": "seed", "values": "1-40"}, {"field": "steps", "values": "1-40"})
    assert (found["pictures"], "at most 1,000" in found["problem"]) == (1600, True)
    found = planned(server, {**APPLE, "count": 4}, AXES[0])
    assert "it would be 4 pictures" in found["problem"] or "it would be 4" in found["axes"][0]["problem"]
    assert server.http.post("/api/v1/grids/plan", json={"request": {}, "axes": AXES}).status_code == 400


def test_a_grid_is_cancelled_at_once_and_what_is_missing_is_drawn_again(server):
    slow = {**APPLE, "sampler": "ddim"}
    grid = submitted(server, slow, [{"field": "steps", "values": "190-200 (+2)"}])
    grid = server.http.delete(f"/api/v1/grids/{grid['id']}").json()
    assert {cell["state"] for cell in grid["cells"]} <= {"cancelled", "done"}
    first = grid["cells"][5]["job"]
    answer = server.http.post(f"/api/v1/grids/{grid['id']}/again", params={"cell": 5})
    assert answer.status_code == 202
    cells = answer.json()["cells"]
    assert cells[5]["job"] != first
    assert [cell["job"] for cell in cells[:5]] == [cell["job"] for cell in grid["cells"][:5]]
    assert server.wait(cells[5]["job"])["request"]["steps"] == 200
    file = server.http.get(f"/api/v1/grids/{grid['id']}/file")
    assert opened(file.content).width == 6 * 64


def test_a_cell_that_only_the_model_refuses_fails_alone_and_says_why(server, tmp_path):
    grid = drawn(server, submitted(server, axes=[{"field": "width", "values": "64, 100"}]))
    assert [cell["state"] for cell in grid["cells"]] == ["done", "failed"]
    assert "multiple of 8" in grid["cells"][1]["error"]
    content = server.http.get(f"/api/v1/grids/{grid['id']}/file").content
    (tmp_path / "grid.png").write_bytes(content)
    assert record.read(tmp_path / "grid.png").axes == {}


def test_the_same_idempotency_key_is_the_same_grid(server):
    one = submitted(server, **{"idempotency-key": "grid"})
    other = submitted(server, **{"idempotency-key": "grid"})
    assert one["id"] == other["id"]
    assert [cell["job"] for cell in one["cells"]] == [cell["job"] for cell in other["cells"]]
    body = {"request": APPLE, "axes": [{"field": "seed", "values": "1"}]}
    answer = server.http.post("/api/v1/grids", json=body, headers={"idempotency-key": "grid"})
    assert answer.status_code == 409
    assert "axes differed" in answer.json()["error"]["message"]


def test_a_grid_that_does_not_fit_into_the_queue_is_refused_whole_and_one_that_does_survives(start):
    server = start("--queue", "3")
    body = {"request": {**APPLE, "steps": 60}, "axes": [{"field": "seed", "values": "1-3"}]}
    grid = submitted(server, **body)
    server.kill()
    server = start("--queue", "3")
    server.wait_ready()
    assert drawn(server, grid)["cells"][2]["picture"]["seed"] == 3
    server.http.post("/api/v1/jobs", json={"request": {"prompt": "a", "steps": 200, "count": 50}})
    body["axes"][0]["values"] = "1-4"
    assert (
        "at most 3 may wait here" in server.http.post("/api/v1/grids", json=body).json()["error"]["message"]
    )


def test_a_contact_sheet_has_the_pictures_that_are_named(server):
    job = server.wait(server.submit(**APPLE, steps=1, count=3)["id"])
    names = [picture["id"] for picture in job["pictures"]]
    body = {"pictures": names, "columns": 3, "captions": False}
    sheet = opened(server.http.post("/api/v1/pictures/sheet", json=body).content)
    assert sheet.size == (192, 64)
    file = opened(server.http.get(f"/api/v1/pictures/{names[1]}/file").content)
    assert sheet.crop((64, 0, 128, 64)).tobytes() == file.tobytes()
    captioned = opened(server.http.post("/api/v1/pictures/sheet", json={"pictures": names}).content)
    assert captioned.width == 128
    assert captioned.height > 128
    answer = server.http.post("/api/v1/pictures/sheet", json={"pictures": [names[0], "none"]})
    assert (answer.status_code, "'none'" in answer.text) == (404, True)

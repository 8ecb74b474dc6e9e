"""How prompts and pictures are read over HTTP, before anything is drawn."""

import base64
import io
import json
import multiprocessing
import operator
import os
import signal
from itertools import pairwise
from pathlib import Path
from threading import Thread

import PIL.Image
import pytest
from PIL.PngImagePlugin import PngInfo

import sfumato
from sfumato.server import questions as asking
from sfumato.server.questions import QuestionPipe, Questions
from sfumato.server.store.quota import BusyError
from sfumato.server.worker.answering import answer_all


def read(server, prompt, **fields):
    answer = server.http.post("/api/v1/prompt", json={"prompt": prompt, **fields})
    assert answer.status_code == 200, answer.text
    return answer.json()


def tokens(view, term=0, content=0):
    chunks = [c for phrase in view["terms"][term]["contents"][content]["phrases"] for c in phrase["chunks"]]
    return [token for chunk in chunks for token in chunk["tokens"]]


def test_every_token_of_a_prompt_has_its_weight_and_its_place(server):
    text = "a (Red:1.3) apple, <lora:ink:0.5> 3d"
    found = read(server, text)
    assert [(t["text"], t["weight"], text[t["start"] : t["end"]]) for t in tokens(found)] == [
        ("a", 1, "a"),
        ("red", 1.3, "Red"),
        ("apple", 1, "apple"),
        (",", 1, ","),
        ("3", 1, "3"),
        ("d", 1, "d"),
    ]
    assert found["adapters"] == [{"name": "ink", "weight": 0.5, "text_weight": None, "available": False}]


def test_the_terms_of_a_prompt_say_what_each_step_reads(server):
    text = "[cat:dog:0.5] AND cat :0.5"
    found = read(server, text, steps=4)
    first, second = found["terms"]
    assert (first["at"], second["weight"]) == ([0, 0, 1, 1], 0.5)
    assert [(t["text"], t["start"]) for t in tokens(found, content=1)] == [("dog", text.index("dog"))]
    assert tokens(found, term=1)[0]["start"] == text.rindex("cat")


def test_a_token_of_several_in_a_word_has_its_part_of_it(server):
    (phrase,) = read(server, "sfumatoish")["terms"][0]["contents"][0]["phrases"]
    spans = [(t["start"], t["end"]) for t in phrase["chunks"][0]["tokens"]]
    assert spans[0][0] == 0
    assert spans[-1][1] == len("sfumatoish")
    assert all(one[1] == other[0] for one, other in pairwise(spans))


def test_a_template_is_told_with_what_it_expands_to(server):
    found = read(server, "a {red|blue} apple", templates="combinatorial")
    assert found["expansions"] == ["a red apple", "a blue apple"]
    assert found["pictures"] == 2
    assert read(server, "an apple")["expansions"] == []


@pytest.mark.parametrize(
    ("prompt", "position"),
    [("a (red apple", 2), ("a red) apple", 5), ("{a|b", None), ("ok [a:b:7.5]", 7)],
)
def test_a_prompt_that_cannot_be_read_is_refused_with_the_place(server, prompt, position):
    answer = server.http.post("/api/v1/prompt", json={"prompt": prompt})
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (400, "prompt")
    if position is not None:
        assert error["position"] == position


def test_models_are_listed_with_what_they_draw_by_themselves(server):
    model, editor = server.http.get("/api/v1/models").json()
    assert (model["name"], editor["name"]) == ("embedded", "embedded-instruct")
    assert model["defaults"]["width"] == 256
    assert model["few_steps"] is True
    assert model["problem"] is None
    styles = server.http.get("/api/v1/styles").json()
    assert all("prompt" in style for style in styles)


def test_the_server_itself_stays_without_torch(server):
    for path in ("models", "samplers", "styles", "adapters", "embeddings", "controls", "motion", "wildcards"):
        assert server.http.get(f"/api/v1/{path}").status_code == 200
    read(server, "a (red:1.2) apple")
    inspect(server, encoded(PIL.Image.new("RGB", (8, 8))))
    assert server.http.get("/controlnet/model_list").json() == {"model_list": ["edges"]}
    assert "libtorch" not in Path(f"/proc/{server.process.pid}/maps").read_text()


def test_a_prompt_is_read_by_the_next_worker_where_one_ends(server):
    os.kill(server.workers()[0], signal.SIGKILL)
    assert read(server, "an apple")["text"] == "an apple"


def test_an_error_of_a_worker_that_nobody_foresaw_is_told_and_the_next_question_answered():
    ours, theirs = multiprocessing.Pipe()
    Thread(target=answer_all, args=(theirs,), daemon=True).start()
    pipe = QuestionPipe()
    pipe.connect(ours)
    questions = Questions(pipe.answered)
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        questions.ask(operator.truediv, 1, 0)
    assert questions.ask(operator.truediv, 1, 4) == 0.25


def test_who_asks_where_no_worker_answers_is_told_to_come_again(monkeypatch):
    monkeypatch.setattr(asking, "PATIENCE_SECONDS", 0.01)
    with pytest.raises(BusyError, match="no process that draws answers yet"):
        Questions(QuestionPipe().answered).ask(operator.truediv, 1, 4)


def encoded(image, **save):
    buffer = io.BytesIO()
    image.save(buffer, "PNG", **save)
    return base64.b64encode(buffer.getvalue()).decode()


def inspect(server, image):
    answer = server.http.post("/api/v1/inspect", json={"image": image})
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_a_picture_of_ours_gives_the_request_that_draws_it_again(server):
    drawn = sfumato.load().generate("a red apple", seed=5, steps=2, width=64, height=64)
    found = inspect(server, base64.b64encode(drawn.png()).decode())
    assert (found["program"], found["left_out"]) == ("Sfumato", [])
    job = server.wait(server.submit(**found["request"])["id"])
    record = server.http.get(f"/api/v1/pictures/{job['pictures'][0]['id']}/record").json()
    assert record["request"] == drawn.request.model_dump(mode="json")


def test_a_picture_of_another_program_gives_what_can_be_taken_over(server):
    info = PngInfo()
    info.add_text(
        "parameters",
        "a cat <lora:ink:0.7>\nNegative prompt: dog\nSteps: 9, Sampler: Euler a, CFG scale: 5, Seed: 3, "
        "Size: 64x64, Model: dreamy, Hires upscaler: 4x-Ultra",
    )
    found = inspect(server, encoded(PIL.Image.new("RGB", (64, 64)), pnginfo=info))
    assert (found["program"], found["model"]) == ("A1111", "dreamy")
    request = found["request"]
    assert (request["negative"], request["steps"], request["sampler"]) == ("dog", 9, "euler-a")
    assert request["model"] == "embedded"
    assert "the model dreamy: it is not served; drawn with embedded" in found["left_out"]
    assert any("4x-Ultra" in note for note in found["left_out"])


def test_a_picture_keeps_the_controls_that_are_here_and_names_the_others(server):
    lines = PIL.Image.new("RGB", (8, 8), "white")
    near, far = ({"model": model, "image": lines, "weight": 0.5} for model in ("edges", "depth-of-mine"))
    drawn = sfumato.load().generate("an apple", seed=5, steps=1, width=64, height=64, controls=near)
    record = PngInfo()
    for name, text in PIL.Image.open(io.BytesIO(drawn.png())).text.items():
        request = sfumato.Request("an apple", controls=[near, far]).model_dump(mode="json")
        own = json.loads(text) if text.startswith("{") else None
        record.add_text(name, json.dumps({**own, "request": {**own["request"], **request}}) if own else text)
    found = inspect(server, encoded(PIL.Image.new("RGB", (64, 64)), pnginfo=record))
    assert [each["model"] for each in found["request"]["controls"]] == ["edges"]
    assert found["left_out"] == ["the control depth-of-mine: it is not in the server's folder"]


def test_a_picture_that_a_job_began_from_is_seen_small_by_its_owner(server):
    given = PIL.Image.effect_mandelbrot((800, 400), (-2, -1, 1, 1), 50)
    asked = {"prompt": "an apple", "steps": 1, "width": 64, "height": 64}
    image = encoded(given)
    job = server.submit(**asked, controls=[{"model": "edges", "image": image}])
    digest = job["request"]["controls"][0]["image"]["sha256"]
    small = server.http.get(f"/api/v1/inputs/{digest}/thumbnail")
    assert small.headers["content-type"] == "image/webp"
    assert PIL.Image.open(io.BytesIO(small.content)).size == (320, 160)
    assert server.http.get(f"/api/v1/inputs/{'0' * 64}/thumbnail").status_code == 404
    assert server.http.get("/api/v1/inputs/passwd/thumbnail").status_code == 422


def test_a_picture_that_says_nothing_is_a_picture_all_the_same(server):
    found = inspect(server, encoded(PIL.Image.new("RGB", (64, 32))))
    assert (found["width"], found["height"], found["program"], found["request"]) == (64, 32, None, None)
    answer = server.http.post("/api/v1/inspect", json={"image": "AAAA"})
    assert answer.status_code == 400

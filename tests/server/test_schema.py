"""The OpenAPI document, walked by schemathesis as a stranger; `benchmarks/serve_schema.py` walks further."""

from running import quick_model
from serve_schema import SMALL, Walk


def test_every_answer_is_as_the_document_says(start, tmp_path):
    server, walk = start("--model", str(quick_model(tmp_path / "model")), env=SMALL), Walk()
    server.wait_ready()
    walk.add(server, ("fuzzing", "stateful"), 4, seed=1)
    assert walk.failures == [], walk.told
    assert walk.cases > 100
    assert "Traceback" not in server.read_log()

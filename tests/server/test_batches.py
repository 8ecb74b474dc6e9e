"""Jobs of different requests share batches on a CPU too."""

import numpy as np
import pytest

import sfumato
from sfumato import engine
from sfumato.request import Request


@pytest.fixture(scope="module")
def studio():
    with sfumato.load(device="cpu", dtype="float32") as found:
        yield found


def drawn(studio, rows):
    """Four requests in one engine: how many batches were evaluated, and the pictures."""
    requests = [
        Request.build(prompt=prompt, seed=seed, steps=3, guidance=1.0)
        for seed, prompt in enumerate(("a red apple", "a blue cat", "castle on a hill", "rocket"))
    ]
    pictures = [next(iter(studio.prepare(studio.resolve(each)))) for each in requests]
    running = studio.engine(rows=rows)
    for key, picture in enumerate(pictures):
        running.submit(studio.job(picture, key))
    batches, images = 0, {}
    while not running.idle:
        events = running.step()
        batches += any(isinstance(event, engine.Evaluated) for event in events)
        for event in events:
            if isinstance(event, engine.Finished):
                image = studio.image(event.pixels, pictures[event.key])
                images[event.key] = np.asarray(image.pixels, dtype=int)
    return batches, images


def test_jobs_that_share_batches_are_drawn_as_alone_but_for_rounding(studio):
    alone, single = drawn(studio, 0)
    together, shared = drawn(studio, 4)
    assert (alone, together) == (12, 3)
    assert max(np.abs(single[key] - shared[key]).max() for key in single) <= 2

"""The request: what is accepted, what is refused and in which words, and what it costs to import."""

import subprocess
import sys
from pathlib import Path

import PIL.Image
import pytest
from hypothesis import given
from hypothesis import strategies as st

import sfumato
from sfumato.errors import UsageError
from sfumato.names import SAMPLERS, SPACINGS
from sfumato.request import MAX_SEED, Request


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"steps": 0}, "steps is 0: must be at least 1 (allowed: 1 to 1000)"),
        ({"steps": 1001}, "steps is 1001: must be at most 1000 (allowed: 1 to 1000)"),
        ({"steps": "x"}, "steps is 'x': must be a valid integer (allowed: 1 to 1000)"),
        ({"width": 7}, "width is 7: must be at least 8 (allowed: 8 to 4096)"),
        ({"height": 4097}, "height is 4097: must be at most 4096 (allowed: 8 to 4096)"),
        ({"guidance": float("inf")}, "guidance is inf: must be a finite number (allowed: 0 to 100)"),
        ({"guidance": -1}, "guidance is -1: must be at least 0 (allowed: 0 to 100)"),
        ({"guidance_rescale": 1.5}, "guidance_rescale is 1.5: must be at most 1 (allowed: 0 to 1)"),
        ({"guidance_interval": (3, 2)}, "guidance_interval is 3 to 2; it must be 0 ≤ low < high < ∞"),
        (
            {"guidance_interval": (1, float("inf"))},
            "guidance_interval is 1 to inf",
        ),
        ({"guidance_interval": (float("nan"), 2)}, "guidance_interval"),
        ({"seed": -1}, f"seed is -1: must be at least 0 (allowed: 0 to {MAX_SEED})"),
        ({"count": 0}, "count is 0: must be at least 1 (allowed: 1 to 1000)"),
        ({"clip_skip": 12}, "clip_skip is 12: must be at most 11 (allowed: 0 to 11)"),
        ({"model": ""}, "model is ''"),
        ({"sampler": "eulr"}, "unknown sampler 'eulr'; did you mean 'euler'?"),
        ({"spacing": "karas"}, "unknown spacing 'karas'; did you mean 'karras'?"),
        ({"promt": "a"}, "unknown field 'promt'; did you mean 'prompt'?"),
        ({"prompt": "a" * 100_001}, "prompt is 'aaa"),
        ({"prompt": "a\ud83d"}, "holds half of a surrogate pair at character 1"),
        ({"negative": "\udcff"}, "holds half of a surrogate pair at character 0"),
        ({"prompt": 7}, "prompt is 7: must be a valid string"),
        ({"image": Path("none.png")}, "image is 'none.png': cannot read none.png: No such file"),
        (
            {"elements": [{"prompt": "a", "name": "a/b"}]},
            "elements.0.name is 'a/b': must be of letters, digits, spaces, - and _",
        ),
        ({"image": {"sha256": "beef"}}, "image.sha256 is 'beef': must be 64 digits, 0 to 9 and a to f"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_bad_field_is_refused_with_its_name_value_and_range(fields, told):
    with pytest.raises(UsageError) as refused:
        Request.build(**{"prompt": "a", **fields})
    assert told in str(refused.value)
    assert len(str(refused.value)) < 300
    assert "\n" not in str(refused.value)


def test_every_fault_of_a_request_is_told():
    with pytest.raises(UsageError, match=r"width is 1: .*; steps is 0: .*; seed is -5: "):
        Request.build(prompt="a", steps=0, width=1, seed=-5)


def test_labels_of_other_programs_become_our_names():
    request = Request.build(prompt="a", sampler="DPM++ 2M Karras")
    assert (request.sampler, request.spacing) == ("dpmpp-2m", "karras")
    assert Request.build(prompt="a", sampler="EulerAncestralDiscreteScheduler").sampler == "euler-a"
    assert Request.build(prompt="a", sampler="DPM++ 2M Karras", spacing="beta").spacing == "beta"


@given(
    prompt=st.text(st.characters(exclude_categories=["Cs"]), max_size=60),
    steps=st.integers(1, 1000) | st.none(),
    width=st.integers(8, 4096) | st.none(),
    guidance=st.floats(0, 100) | st.none(),
    sampler=st.sampled_from(sorted(SAMPLERS)) | st.none(),
    spacing=st.sampled_from(sorted(SPACINGS)) | st.none(),
    seed=st.integers(0, MAX_SEED) | st.none(),
    interval=st.none() | st.tuples(st.floats(0, 5), st.floats(6, 99)),
)
def test_any_request_survives_json(prompt, steps, width, guidance, sampler, spacing, seed, interval):
    request = Request.build(
        prompt=prompt,
        steps=steps,
        width=width,
        guidance=guidance,
        sampler=sampler,
        spacing=spacing,
        seed=seed,
        guidance_interval=interval,
    )
    assert Request.model_validate_json(request.model_dump_json()) == request


def test_a_changed_request_is_validated_anew_and_the_first_stays_as_it_was():
    request = Request.build(prompt="a", steps=4)
    assert request.changed(steps=5).steps == 5
    assert request.steps == 4
    with pytest.raises(UsageError, match="steps is 0"):
        request.changed(steps=0)
    with pytest.raises(UsageError, match="steps cannot be set: a Request is never changed; make another"):
        request.steps = 5


def test_everything_the_package_exports_is_there_and_nothing_else_is_pretended():
    for name in sfumato.__all__:
        assert getattr(sfumato, name) is not None
        assert name in dir(sfumato)
    assert sfumato.Request is Request
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = sfumato.nothing


def test_importing_the_package_and_its_request_costs_neither_torch_nor_numpy():
    code = (
        "import sys, sfumato; sfumato.Request.build(prompt='a'); sfumato.SfumatoError; "
        "print([name for name in ('torch', 'numpy', 'PIL', 'typer') if name in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "[]\n"


def test_without_inputs_every_picture_keeps_its_name_and_hash_and_loses_its_bytes(tmp_path):
    def picture(colour):
        PIL.Image.new("RGB", (8, 8), colour).save(tmp_path / f"{colour}.png")
        return tmp_path / f"{colour}.png"

    request = Request(
        prompt="a cat",
        image=picture("red"),
        mask=picture("white"),
        controls=[
            {"model": "edges", "image": picture("green")},
            {"model": "faces", "image": [picture("blue"), picture("gray")]},
        ],
        elements=[{"prompt": "a hat", "mask": picture("black")}],
    )
    whole, bare = request.inputs, request.without_inputs().inputs
    assert len(whole) == 6
    assert bare.keys() == whole.keys()
    assert all(each.data for each in whole.values())
    assert [each.data for each in bare.values()] == [None] * 6
    assert [(each.name, each.sha256) for each in bare.values()] == [
        (each.name, each.sha256) for each in whole.values()
    ]

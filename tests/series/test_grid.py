"""Grids over fields: what an axis may be, the requests of the cells, and the page."""

import numpy as np
import PIL.Image
import pytest
from pictures import drawn

from sfumato.cli.options import field_value
from sfumato.errors import UsageError
from sfumato.request import Request
from sfumato.series import record as records
from sfumato.series.grid import Axis, Grid

APPLE = Request("a red apple", seed=7)


def axis(text):
    return Axis.parse(text, field_value)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("steps=4,8,20", (4, 8, 20)),
        ("guidance=1, 4.5", (1, 4.5)),
        ("seed=1-4", (1, 2, 3, 4)),
        ("seed=9223372036854775806-9223372036854775807", (2**63 - 2, 2**63 - 1)),
        ("steps=4-20:8", (4, 12, 20)),
        ("steps=1-10 (+3), 30", (1, 4, 7, 10, 30)),
        ("guidance=0-1:0.25", (0, 0.25, 0.5, 0.75, 1)),
        ("guidance=1-2 [3]", (1, 1.5, 2)),
        ("guidance-scale=2", (2,)),
        ("sampler=ddim,DPM++ 2M", ("ddim", "DPM++ 2M")),
        ('negative=,"dark, blurry"', ("", "dark, blurry")),
        ("prompt~apple=pear,plum", ("pear", "plum")),
        ('"prompt~an apple"=a=b,"c, d"', ("a=b", "c, d")),
        ("lora~ink=0-1:0.5", ("0", "0.5", "1")),
        ("guidance-interval=0.1 8,none", ([0.1, 8], None)),
        ("style=none,emoji-3d", ((), ["emoji-3d"])),
    ],
)
def test_an_axis_is_read_from_its_text(text, values):
    assert axis(text).values == values


def test_cells_are_every_combination_page_by_page_and_row_by_row():
    grid = Grid.of(APPLE, axis("steps=4,8"), axis("guidance=1,2"), axis("seed=5-6"))
    assert [(each.seed, each.guidance, each.steps) for each in grid.requests] == [
        (5, 1, 4), (5, 1, 8), (5, 2, 4), (5, 2, 8), (6, 1, 4), (6, 1, 8), (6, 2, 4), (6, 2, 8),
    ]  # fmt: skip
    assert {each.prompt for each in grid.requests} == {"a red apple"}


def test_words_of_the_prompt_and_weights_of_adapters_are_axes():
    request = Request("an apple, apple green", seed=1, adapters=[{"name": "ink", "text_weight": 0.5}])
    grid = Grid.of(request, axis("prompt~apple=pear,plum"), axis("lora~ink=0.2,0.8"), axis("lora~wash=1"))
    assert [each.prompt for each in grid.requests[:2]] == ["an pear, pear green", "an plum, plum green"]
    assert [
        [(use.name, use.weight, use.text_weight) for use in each.adapters] for each in grid.requests[1:3]
    ] == [
        [("ink", 0.2, 0.5), ("wash", 1.0, None)],
        [("ink", 0.8, 0.5), ("wash", 1.0, None)],
    ]


def test_without_a_seed_all_cells_have_the_same_one():
    seeds = {each.seed for each in Grid.of(Request("a {red|blue} apple"), axis("steps=4,8")).requests}
    assert len(seeds) == 1
    assert seeds != {None}


def test_labels_are_words_alone_and_numbers_with_their_field():
    assert axis("steps=4,8").labels == ("steps 4", "steps 8")
    assert axis("sampler=ddim,lms").labels == ("ddim", "lms")
    assert axis("prompt~apple=pear").labels == ("pear",)
    assert axis("lora~ink=0.2").labels == ("ink 0.2",)
    assert Axis("guidance_rescale", (0.5,)).labels == ("guidance rescale 0.5",)


def test_a_page_has_each_picture_in_its_place():
    grid = Grid.of(APPLE, axis("steps=4,8,9"), axis("guidance=1,2"), axis("seed=5-6"))
    colours = [(20 * index, 90, 255 - 20 * index) for index in range(12)]
    page = grid.page([PIL.Image.new("RGB", (64, 64), colour) for colour in colours])
    pixels = np.asarray(page)
    places = []
    for colour in colours:
        rows, columns = np.nonzero((pixels == colour).all(-1))
        assert len(rows) == 64 * 64
        places.append((rows.min(), columns.min()))
    assert places == sorted(places)
    assert len({row for row, _ in places}) == 4
    assert len({column for _, column in places}) == 3


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("steps", "must be FIELD=VALUE,VALUE"),
        ("=4", "must be FIELD=VALUE,VALUE"),
        ("steps=", "must be FIELD=VALUE,VALUE"),
        ("prompt~=a", "must be FIELD=VALUE,VALUE"),
        ("steps~4=5", "before ~ stands prompt, negative or lora"),
        ("guidance=0.1-0.5", "needs a step, as in 0-1:0.25"),
        ("seed=9-1", "has 0 values"),
        ("seed=1-5000", "at most 1,000"),
    ],
)
def test_a_text_that_is_no_axis_is_told(text, words):
    with pytest.raises(UsageError, match=words):
        axis(text)


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (["steps=4,0"], "axis steps, value '0': steps is 0: must be at least 1"),
        (["step=4"], "axis step, value '4': unknown field 'step'; did you mean 'steps'"),
        (["cfg=4"], "axis cfg, value '4': unknown field 'cfg'; here it is guidance"),
        (["sampler=dim"], "axis sampler, value 'dim': .*did you mean 'ddim'"),
        (["prompt~pear=plum"], "axis prompt~pear, value 'plum': 'pear' is not in the prompt 'a red apple'"),
        (["lora~ink=much"], "axis lora~ink, value 'much': adapters.*weight is 'much'"),
        (["lora~ink=99"], "axis lora~ink, value '99': .*10"),
        (["count=2"], "axis count, value '2': count cannot be an axis"),
        (["prompt~red=(red"], r"the cell of \(red: "),
        (["steps=4", "steps=8"], "two axes are steps"),
        (["seed=1-100", "steps=1-100"], "the grid has 10,000 pictures; at most 1,000"),
        ([], "one to three axes, not 0"),
    ],
)
def test_what_is_wrong_of_a_grid_is_told_with_its_axis_and_value(texts, words):
    with pytest.raises(UsageError, match=words):
        Grid.of(APPLE, *map(axis, texts))


def test_a_request_for_several_pictures_is_told_how_to_be_an_axis():
    with pytest.raises(UsageError, match=r"the cell of steps 4: it would be 2 pictures: .*seed=1-4"):
        Grid.of(Request("a cat", count=2), axis("steps=4"))


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_the_file_of_a_page_says_that_it_is_a_grid_and_of_which_axes(tmp_path, kind):
    grid = Grid.of(APPLE, axis("steps=4,8"))
    cells = [drawn(steps=steps) for steps in (4, 8)]
    path = tmp_path / f"page.{kind.lower()}"
    path.write_bytes(grid.encoded([each.pil for each in cells], [each.record for each in cells], kind))
    found = records.read(path)
    assert (found.kind, found.records) == ("grid", tuple(each.record for each in cells))
    assert found.axes == grid.labels
    path.write_bytes(grid.encoded([cells[0].pil, None], [cells[0].record], kind))
    assert not records.read(path).axes


@pytest.mark.parametrize(
    ("field", "values", "told"),
    [
        ("steps", "", "steps="),
        ("steps", [], "steps="),
        ("", ["4", "8"], "=4,8"),
        ("prompt~", ["pear", "plum"], "prompt~=pear,plum"),
    ],
)
def test_an_axis_without_a_field_or_values_is_told_as_it_was_given(field, values, told):
    said = f"^the axis '{told}' must be FIELD=VALUE,VALUE, as steps=4,8,20 or prompt~apple=pear,plum$"
    with pytest.raises(UsageError, match=said):
        Axis.of(field, values)


def test_only_words_of_texts_and_adapters_stand_before_a_tilde():
    with pytest.raises(UsageError, match=r"^the axis 'steps~a=b': before ~ stands prompt, negative or lora$"):
        Axis.of("steps~a", "b")

"""Scenes: what a file may hold, how elements are put together, and which pixels stay when one changes."""

import numpy as np
import pytest
from PIL import Image

import sfumato
from sfumato.edit import composition
from sfumato.edit.composition import composed
from sfumato.element import Element
from sfumato.errors import UsageError
from sfumato.request import Request
from sfumato.studio.layers import LayerFolder

SMALL = {"width": 64, "height": 64, "steps": 1, "seed": 3}
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*far from the:sfumato.errors.SfumatoWarning"),
    pytest.mark.filterwarnings("ignore:.*is not plain:sfumato.errors.SfumatoWarning"),
]
FILE = """
width = 64
height = 64
steps = 1
seed = 3
harmonise = 0
[background]
prompt = "a table"
[[elements]]
name = "apple"
prompt = "a red apple"
box = [0, 0, 0.4, 1]
[[elements]]
name = "pear"
prompt = "a pear"
box = [0.6, 0, 1, 1]
guidance = 2
"""


@pytest.fixture
def studio(monkeypatch):
    studio = sfumato.load(device="cpu", dtype="float32")
    monkeypatch.setattr(type(studio), "native_size", (64, 64))
    return studio


@pytest.fixture
def read(tmp_path):
    def read(text):
        (tmp_path / "kitchen.toml").write_text(text)
        return sfumato.Scene.read(tmp_path / "kitchen.toml")

    return read


def square(colour, size=16):
    """An object (64, 64, 4): a square in the middle."""
    pixels = np.zeros((64, 64, 4), np.uint8)
    low = 32 - size // 2
    pixels[low : low + size, low : low + size] = (*colour, 255)
    return pixels


def put_together(elements, objects, size=(100, 80), **fields):
    """The pixels of a scene whose passes give a grey background and these objects, and the requests."""
    request = Request("a table", width=size[0], height=size[1], seed=1, steps=4, elements=elements, **fields)
    passes = composed(request.filled(harmonise=request.harmonise or 0.0), (64, 64))
    asked = next(passes)
    try:
        passes.send([np.full((size[1], size[0], 3), 128, np.uint8), *objects])
    except StopIteration as end:
        return end.value, [each.request for each in asked]
    raise AssertionError("there is another pass")


def test_an_element_is_as_large_as_its_box_has_room_for_and_stands_at_its_bottom():
    pixels, (_, one) = put_together([{"prompt": "a", "box": (0.1, 0.25, 0.5, 0.75)}], [square((255, 0, 0))])
    rows, columns = np.nonzero((pixels == (255, 0, 0)).all(axis=2))
    assert (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) == (10, 20, 50, 60)
    assert (one.transparent, one.size, one.prompt, one.seed) == (True, (64, 64), "a", 2)
    assert (pixels[:20] == 128).all()


def test_elements_of_larger_depth_are_in_front_whatever_their_order():
    box = (0, 0, 1, 1)
    objects = [square((255, 0, 0)), square((0, 255, 0))]
    for depths, front in (((0, 0), (0, 255, 0)), ((1, 0), (255, 0, 0))):
        elements = [{"prompt": "a", "box": box, "depth": depth} for depth in depths]
        assert tuple(put_together(elements, objects)[0][40, 50]) == front


def test_a_mask_says_where_an_element_stands_and_cuts_it_off():
    mask = np.zeros((80, 100), np.uint8)
    mask[20:60, 10:50] = 255
    mask[20:40, 10:30] = 0
    pixels, _ = put_together([{"prompt": "a", "mask": mask}], [square((255, 0, 0))])
    assert np.array_equal((pixels == (255, 0, 0)).all(axis=2), mask == 255)


def test_a_shadow_darkens_what_is_below_and_beside_an_element():
    element = {"prompt": "a", "box": (0.3, 0.2, 0.7, 0.7)}
    plain, _ = put_together([element], [square((255, 0, 0))])
    shaded, _ = put_together([element | {"shadow": 0.5}], [square((255, 0, 0))])
    inside = (plain == (255, 0, 0)).all(axis=2)
    assert np.array_equal(shaded[inside], plain[inside])
    assert shaded[57, 50, 0] < 128
    assert shaded.max() == 255


def test_when_one_element_changes_the_pixels_of_the_others_stay(studio, read):
    before = studio.generate(read(FILE).request)
    after = studio.generate(read(FILE.replace("guidance = 2", "guidance = 3\nseed = 9")).request)
    assert np.array_equal(before.pixels[:, :38], after.pixels[:, :38])
    assert not np.array_equal(before.pixels, after.pixels)


def test_layers_that_have_not_changed_are_taken_from_the_folder_and_others_drawn(studio, read, tmp_path):
    studio.layers = LayerFolder(tmp_path / "layers")
    first = list(studio.stream(read(FILE).request))
    assert sorted(path.name for path in (tmp_path / "layers").iterdir()) == [
        "apple.png", "background.png", "pear.png",
    ]  # fmt: skip
    (again,) = studio.stream(read(FILE).request)
    assert again.image.differs(first[-1].image) is None
    assert again.preview().size == (64, 64)
    changed = list(studio.stream(read(FILE.replace("a pear", "a plum")).request))
    assert (len(first), len(changed)) == (3, 1)
    assert [step.total for step in changed] == [1]
    layer = sfumato.Image.open(tmp_path / "layers" / "apple.png")
    assert layer.pixels.shape == (64, 64, 4)


def test_a_scene_is_harmonised_by_a_last_pass_over_all_of_it(studio, read):
    request = read(FILE.replace("harmonise = 0", "harmonise = 1")).request
    steps = list(studio.stream(request))
    assert [step.index for step in steps] == [1, 2, 3, 4]
    assert steps[-1].image.request.harmonise == 1
    assert studio.resolve(request.changed(harmonise=None)).harmonise == composition.HARMONISE


def test_a_picture_of_a_scene_carries_it_and_is_drawn_again(studio, read, tmp_path):
    mask = Image.new("L", (64, 64), "white")
    request = read(FILE).request
    elements = [*request.elements, Element(prompt="a cup", mask=mask, depth=-1)]
    drawn = studio.generate(request.changed(elements=elements))
    read_back = sfumato.Image.open(drawn.save(tmp_path / "kitchen.png"))
    assert [each.name for each in read_back.request.elements] == ["apple", "pear", ""]
    assert "elements.2" in read_back.request.inputs
    assert studio.generate(read_back.request).differs(drawn) is None
    bare = sfumato.Image.open(drawn.save(tmp_path / "bare.png", embed=False))
    assert bare.request.elements[2].mask.data is None


def test_a_scene_may_be_drawn_in_one_pass_with_a_prompt_for_each_box(read):
    request = read('method = "regions"\n' + FILE.replace("harmonise = 0\n", "")).request
    assert [(each.prompt, each.box[0]) for each in request.regions] == [("a red apple", 0), ("a pear", 0.6)]
    assert request.elements == ()


def test_what_is_said_of_the_scene_holds_for_elements_that_do_not_say_it(read):
    request = read("guidance = 5\n" + FILE).request
    assert [each.guidance for each in request.elements] == [5, 2]
    scene = sfumato.Scene(background="a table", elements=[{"prompt": "{a|b} cup"}], templates="combinatorial")
    assert scene.request.prompt == "a table"


def test_templates_of_elements_are_filled_in(studio):
    elements = [{"prompt": "a {red|green} cup"}]
    pictures = studio.prepare("a table", elements=elements, templates="combinatorial", **SMALL)
    prompts = [picture.request.elements[0].prompt for picture in pictures]
    assert prompts == ["a red cup", "a green cup"]
    assert pictures[1].parts[1].request.prompt == "a green cup"


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (
            ("box = [0, 0, 0.4, 1]", "box = [0, 0, 1.4, 1]"),
            "element 1 ('apple'): box.2 is 1.4: must be at most 1",
        ),
        (("box = [0.6, 0, 1, 1]", "box = [1, 0, 0.6, 1]"), "element 2 ('pear')"),
        (("guidance = 2", "guidence = 2"), "element 2 ('pear'): guidence is 2: no such key is known"),
        (('prompt = "a pear"\n', ""), "element 2 ('pear'): prompt is missing"),
        (("width = 64", "wdith = 64"), "unknown key 'wdith'; did you mean 'width'?"),
        (('[background]\nprompt = "a table"', ""), "background is missing"),
        (("harmonise = 0", "harmonise = 2"), "harmonise is 2: must be at most 1"),
        (("[background]", "[background"), "is not TOML"),
    ],
)
def test_a_file_that_is_wrong_is_told_by_element_and_key(read, wrong, told):
    with pytest.raises(UsageError) as raised:
        read(FILE.replace(*wrong))
    assert told in str(raised.value)
    assert "kitchen.toml" in str(raised.value)


def test_a_scene_that_is_not_there_is_told(tmp_path):
    with pytest.raises(UsageError, match="cannot read the scene"):
        sfumato.Scene.read(tmp_path / "none.toml")


def test_names_of_elements_are_their_layers_and_differ():
    for names in (("cup", "cup"), ("background",)):
        with pytest.raises(UsageError, match=f"two layers are called {names[0]!r}"):
            Request("a table", elements=[{"prompt": "a cup", "name": name} for name in names])


def test_harmonise_needs_elements():
    with pytest.raises(UsageError, match="harmonise is given without elements"):
        Request("a table", harmonise=0.2)


def test_the_last_pass_changes_only_what_is_near_the_edge_of_an_element():
    element = Element(prompt="a", box=(0.3, 0.2, 0.7, 0.7))
    request = Request(
        "a", width=100, height=80, seed=1, steps=4, guidance=1, elements=[element], harmonise=0.5
    )
    passes = composed(request, (64, 64))
    next(passes)
    (joint,) = passes.send([np.full((80, 100, 3), 128, np.uint8), square((255, 0, 0))])
    assert joint.request.strength == 0.5
    assert [each.prompt for each in joint.request.regions] == ["a"]
    with pytest.raises(StopIteration) as end:
        passes.send([np.zeros((80, 100, 3), np.uint8)])
    whole = end.value.value
    assert (whole[:8] == 128).all()
    assert whole[36, 50].tolist() == [255, 0, 0]
    assert whole[36, 30, 0] < 100


def test_the_mask_of_an_element_that_is_black_is_told_before_drawing(studio):
    black = {"prompt": "a pear", "mask": np.zeros((64, 64), np.uint8)}
    scene = sfumato.Scene(background="a table", elements=[black], **SMALL)
    with pytest.raises(UsageError, match="the mask of the element 'a pear' is black"):
        studio.prepare(scene.request)

"""From prompt to prompt and from seed to seed: the frames' requests, and where they are."""

import numpy as np
import PIL.Image
import pytest

import sfumato
from sfumato.errors import UsageError
from sfumato.prompt.language import parse
from sfumato.prompt.meaning import Blend
from sfumato.series.interpolation import Interpolation

APPLE, LEMON = "a red apple, 3d render", "a lemon, 3d render"
SMALL = {"steps": 2, "width": 64, "height": 64}
pytestmark = pytest.mark.filterwarnings("ignore:.*far from the:sfumato.errors.SfumatoWarning")


@pytest.fixture(scope="module")
def studio():
    return sfumato.load(device="cpu", dtype="float32")


def test_the_ends_are_the_prompts_as_they_are():
    way = Interpolation.of([APPLE, LEMON], 7)
    assert [way.at(place).prompt for place in (0, 1)] == [APPLE, LEMON]
    assert {way.at(place).seed for place in (0, 0.3, 1)} == {7}
    assert way.at(0).variation_amount == ()


def test_plain_prompts_are_blended_as_text_embeddings():
    request = Interpolation.of([APPLE, LEMON], 7, negative="dark").at(0.25)
    (term,) = parse(request.prompt, request.dialect).terms(1)
    assert isinstance(term.contents[0], Blend)
    assert term.contents[0].weights == (0.75, 0.25)
    texts = [part.parts[0].text for part in term.contents[0].parts]
    assert [text.replace(" ,", ",") for text in texts] == [APPLE, LEMON]  # the same tokens
    assert request.negative == "dark"


@pytest.mark.parametrize(
    ("prompts", "fields"),
    [
        (["a (red:1.2) apple", LEMON], {}),
        ([APPLE, "a [lemon:pear:0.5]"], {}),
        ([APPLE, LEMON], {"negative": "(dark:1.3)"}),
        ([APPLE, LEMON], {"regions": [{"prompt": "a worm", "box": (0, 0, 0.5, 1)}]}),
        ([APPLE, "a well--known + lemon"], {}),
    ],
)
def test_prompts_that_cannot_be_blended_are_composed_by_their_predictions(prompts, fields):
    request = Interpolation.of(prompts, 7, **fields).at(0.25)
    terms = parse(request.prompt, request.dialect).terms(4)
    assert [term.weight for term in terms] == [0.75, 0.25]
    assert request.dialect == "sfumato"
    assert request.negative == fields.get("negative", "")


def test_several_seeds_are_mixed_as_variations_at_equal_angles():
    way = Interpolation.of(APPLE, [1, 2, 3])
    requests = [way.at(place) for place in (0, 0.125, 0.5, 0.75, 1)]
    assert [(each.seed, each.variation_seed, each.variation_amount) for each in requests] == [
        (1, (), ()),
        (1, (2,), (0.25,)),
        (2, (), ()),
        (2, (3,), (0.5,)),
        (3, (), ()),
    ]


def test_a_loop_leads_back_and_its_last_frame_is_not_the_first_again():
    way = Interpolation.of([APPLE, LEMON], [1, 2], loop=True)
    assert way.places(4) == [0, 0.25, 0.5, 0.75]
    assert Interpolation.of([APPLE, LEMON], 1).places(5) == [0, 0.25, 0.5, 0.75, 1]
    assert (way.at(1).prompt, way.at(1).seed) == (APPLE, 1)
    assert way.at(0.75).prompt == f'("{LEMON}", "{APPLE}").blend(0.5000, 0.5000)'


def test_styles_and_templates_are_expanded_before_prompts_are_mixed():
    way = Interpolation.of(["a {red} apple", "a lemon"], 7, style="emoji-3d")
    assert way.at(0).prompt == "a red apple, 3d render"
    assert '"a red apple, 3d render", "a lemon, 3d render"' in way.at(0.5).prompt
    assert (way.at(0.5).style, way.at(0.5).templates) == ((), "off")


def picture(shade):
    return PIL.Image.new("RGB", (64, 64), (round(shade), 0, 0))


def test_places_at_constant_speed_are_at_equal_distances_of_the_pictures():
    way = Interpolation.of([APPLE, LEMON], 7)

    def shade(request):
        """Nothing changes up to 0.5, and all of it up to 0.75."""
        weight = parse(request.prompt, request.dialect).terms(1)[0].contents[0]
        share = weight.weights[1] if isinstance(weight, Blend) else float(request.prompt == LEMON)
        return 200 * min(max((share - 0.5) * 4, 0), 1)

    asked = []

    def draw(requests):
        asked.extend(requests)
        return [picture(shade(request)) for request in requests]

    places = way.even_places(9, draw)
    shades = [shade(way.at(place)) for place in places]
    assert (places[0], places[-1]) == (0, 1)
    assert np.abs(np.diff(shades) - 25).max() < 6
    assert np.abs(np.diff([shade(way.at(place)) for place in way.places(9)]) - 25).max() == 75
    assert {request.steps for request in asked} == {5}


def test_a_way_that_is_even_enough_has_equal_weights():
    way = Interpolation.of(APPLE, [1, 2])

    def draw(requests):
        amounts = [sum(each.variation_amount) or float(each.seed - 1) for each in requests]
        return [picture(200 * amount**1.2) for amount in amounts]

    assert way.even_places(9, draw) == way.places(9)


def test_pictures_that_do_not_change_are_spaced_by_their_weights():
    way = Interpolation.of([APPLE, LEMON], 7)
    assert way.even_places(5, lambda requests: [picture(9) for _ in requests]) == way.places(5)


def test_every_frame_is_drawn_again_by_its_own_record(studio, tmp_path):
    frames = studio.interpolate([APPLE, LEMON], [1, 2], frames=4, **SMALL)
    assert len(frames) == 4
    assert frames[0].differs(studio.generate(APPLE, seed=1, **SMALL)) is None
    assert frames[-1].differs(studio.generate(LEMON, seed=2, **SMALL)) is None
    saved = sfumato.Image.open(frames[2].save(tmp_path / "frame.png"))
    assert 0 < saved.request.variation_amount[0] < 1
    assert studio.generate(saved.request).differs(frames[2]) is None


@pytest.mark.parametrize(
    ("prompts", "seeds", "fields", "words"),
    [
        ([APPLE], 7, {}, "two prompts or more, or one and two seeds or more"),
        ([], [1, 2], {}, "two prompts or more"),
        (["a cat AND a dog", LEMON], 7, {}, "that hold AND cannot be mixed"),
        (["a cat <lora:ink>", LEMON], 7, {}, "cannot be mixed: give it to all frames with adapters"),
        (["a (cat:1.2)", LEMON], 7, {"dialect": "comfy"}, "of the dialect comfy cannot be mixed"),
        ([APPLE], [1, 2], {"variation_amount": 0.2}, "between which it is what changes"),
        ([APPLE, "a {dog|cat}"], 7, {"templates": "combinatorial"}, "is for 2 pictures; a frame is one"),
        ([APPLE, LEMON], 7, {"steps": 0}, "steps is 0"),
    ],
)
def test_what_cannot_be_interpolated_is_told(prompts, seeds, fields, words):
    with pytest.raises(UsageError, match=words):
        Interpolation.of(prompts, seeds, **fields)


@pytest.mark.parametrize("count", [1, 1001, "many"])
def test_a_number_of_frames_out_of_range_is_told(count):
    with pytest.raises(UsageError, match=r"frames is .*: must be 2 to 1000"):
        Interpolation.of([APPLE, LEMON], 7).places(count)

"""Prompts at work on the embedded model: what each step draws, what terms, regions and adapters do to it."""

import pytest
import torch
from safetensors.torch import load_file, save_file

import sfumato
from sfumato import checkpoint
from sfumato.adapt import attach_new, save_lora
from sfumato.errors import CheckpointError, SfumatoWarning, UsageError

SMALL = {"width": 128, "height": 128, "steps": 4, "seed": 3}
pytestmark = pytest.mark.filterwarnings("ignore:.*far from the 256")


@pytest.fixture(scope="module")
def studio():
    return sfumato.load(device="cpu", dtype="float32")


@pytest.fixture
def home(tmp_path, monkeypatch):
    """The user's own folders, empty."""
    monkeypatch.setenv("SFUMATO_HOME", str(tmp_path))
    for kind in ("adapters", "embeddings", "wildcards", "styles"):
        (tmp_path / kind).mkdir()
    return tmp_path


def estimates(studio, prompt, **fields):
    """What the network believed after each step."""
    return [step._estimate for step in studio.stream(prompt, **{**SMALL, **fields})]


def same(left, right):
    return left.differs(right) is None


def test_a_schedule_draws_its_first_text_until_it_switches(studio):
    # ddim takes each step from the one before alone, so that equal steps give equal estimates
    first = estimates(studio, "a red apple", sampler="ddim")
    both = estimates(studio, "[a red apple:a blue car:2]", sampler="ddim")
    assert torch.equal(both[0], first[0])
    assert torch.equal(both[1], first[1])
    assert not torch.allclose(both[2], first[2], atol=1e-2)


@pytest.mark.parametrize(
    ("scheduled", "plain"),
    [
        ("[a red apple:a blue car:1.0]", "a red apple"),
        ("[a red apple:a blue car:0.0]", "a blue car"),
        ("[a red apple|a red apple]", "a red apple"),
        ("a (red:1) apple", "a red apple"),
        ("a red apple AND a car :0", "a red apple"),
    ],
)
def test_what_changes_nothing_draws_the_same_picture(studio, scheduled, plain):
    assert same(studio.generate(scheduled, **SMALL), studio.generate(plain, **SMALL))


def test_an_alternation_draws_its_texts_in_turn(studio):
    turns = estimates(studio, "[a red apple|a blue car]", sampler="ddim", steps=3)
    first = estimates(studio, "a red apple", sampler="ddim", steps=3)
    assert torch.equal(turns[0], first[0])
    assert not torch.allclose(turns[1], first[1], atol=1e-2)


def test_terms_are_a_weighted_sum_of_what_each_alone_would_be(studio):
    fields = {"steps": 1, "sampler": "ddim", "negative": "a tree"}
    apple, car, tree = (
        estimates(studio, text, **{**fields, "guidance": 1})[0] for text in ("an apple", "a car", "a tree")
    )
    composed = estimates(studio, "an apple AND a car :0.5", **{**fields, "guidance": 4})[0]
    torch.testing.assert_close(composed, tree + 4 * (apple - tree) + 2 * (car - tree), rtol=1e-3, atol=1e-3)
    negative = estimates(studio, "an apple", **{**fields, "guidance": 4, "negative": "a tree AND a car"})[0]
    nothing = (tree + car) / 2
    torch.testing.assert_close(negative, nothing + 4 * (apple - nothing), rtol=1e-3, atol=1e-3)


def test_terms_whose_weights_do_not_sum_to_one_need_the_negative_prompt_even_unguided(studio):
    fields = {"steps": 1, "sampler": "ddim", "guidance": 1}
    apple, empty = (estimates(studio, text, **fields)[0] for text in ("an apple", ""))
    half = estimates(studio, "an apple :0.5", dialect="a1111", **fields)[0]
    torch.testing.assert_close(half, (apple + empty) / 2, rtol=1e-3, atol=1e-3)


def test_regions_draw_each_prompt_in_its_place(studio):
    fields = {"steps": 1, "sampler": "ddim"}
    base, other = (estimates(studio, text, **fields)[0] for text in ("an apple", "a blue car"))
    left = [{"prompt": "a blue car", "box": (0, 0, 0.5, 1)}]
    mixed = estimates(studio, "an apple", regions=left, **fields)[0]
    half = mixed.shape[-1] // 2
    torch.testing.assert_close(mixed[..., :half], other[..., :half], rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(mixed[..., half:], base[..., half:], rtol=1e-3, atol=1e-3)
    part = [{"prompt": "a blue car", "box": (0, 0, 1, 1), "weight": 0.25}]
    quarter = estimates(studio, "an apple", regions=part, **fields)[0]
    torch.testing.assert_close(quarter, 0.25 * other + 0.75 * base, rtol=1e-3, atol=1e-3)


def test_regions_that_overlap_share_their_place_by_their_weights(studio):
    fields = {"steps": 1, "sampler": "ddim"}
    base, car, tree = (estimates(studio, text, **fields)[0] for text in ("an apple", "a car", "a tree"))
    regions = [
        {"prompt": "a car", "box": (0, 0, 0.75, 1)},
        {"prompt": "a tree", "box": (0.25, 0, 1, 0.5), "weight": 0.5},
    ]
    mixed = estimates(studio, "an apple", regions=regions, **fields)[0]
    both = (2 * car + tree) / 3
    rows, columns = mixed.shape[2] // 2, mixed.shape[3] // 4
    quarters = [(car, car), (both, car), (both, car), ((base + tree) / 2, base)]
    for column, (upper, lower) in enumerate(quarters):
        at = slice(column * columns, (column + 1) * columns)
        close = {"rtol": 1e-3, "atol": 1e-3}
        torch.testing.assert_close(mixed[:, :, :rows, at], upper[:, :, :rows, at], **close)
        torch.testing.assert_close(mixed[:, :, rows:, at], lower[:, :, rows:, at], **close)


def test_a_long_prompt_is_drawn_to_its_end_beside_a_short_negative(studio):
    long = "apple, " * 40 + "car"
    drawn = studio.generate(long, negative="tree", **SMALL)
    assert drawn.differs(studio.generate("apple, " * 40, negative="tree", **SMALL))
    assert drawn.record.notes[1:] == ()
    assert same(drawn, studio.generate(drawn.request))


@pytest.mark.parametrize("dialect", ["a1111", "comfy", "compel"])
def test_every_dialect_draws_its_own_weights(studio, dialect):
    text = {"compel": "a (red)1.5 apple"}.get(dialect, "a (red:1.5) apple")
    drawn = studio.generate(text, dialect=dialect, **SMALL)
    assert drawn.differs(studio.generate("a red apple", dialect=dialect, **SMALL))
    assert drawn.differs(studio.generate(text, dialect="plain", **SMALL))
    assert same(drawn, studio.generate(drawn.request))


def test_a_template_makes_each_pictures_own_choices_and_its_record_holds_them(studio):
    images = studio.generate_batch("a {red|green|blue|yellow} {apple|car}", count=4, **SMALL)
    assert len({image.request.prompt for image in images}) > 1
    for image in images:
        assert "{" not in image.request.prompt
        assert image.request.origin.prompt == "a {red|green|blue|yellow} {apple|car}"
        assert same(image, studio.generate(image.request))
        assert same(image, studio.generate(image.request.prompt, **{**SMALL, "seed": image.request.seed}))


def test_combinations_are_drawn_one_after_another_with_the_same_seeds(studio):
    images = studio.generate_batch("a {red|blue} {apple|car}", templates="combinatorial", **SMALL)
    prompts = [image.request.prompt for image in images]
    assert prompts == ["a red apple", "a red car", "a blue apple", "a blue car"]
    assert {image.request.seed for image in images} == {3}
    with pytest.raises(UsageError, match="the request is for 4 pictures"):
        studio.generate("a {red|blue} {apple|car}", templates="combinatorial", **SMALL)
    with pytest.raises(UsageError, match="at most 1,000 are drawn at once"):
        studio.generate_batch("{a|b}" * 10, templates="combinatorial", **SMALL)


def test_a_style_is_put_around_the_prompt_and_recorded(studio, home):
    (home / "styles" / "own.toml").write_text('[icy]\nprompt = "{prompt}, made of ice"\nnegative = "fire"\n')
    image = studio.generate("an apple", style="icy", negative="smoke", **SMALL)
    assert (image.request.prompt, image.request.negative) == ("an apple, made of ice", "smoke, fire")
    assert image.request.origin.style == ("icy",)
    assert same(image, studio.generate(image.request))
    with pytest.warns(SfumatoWarning, match="the style 'watercolour' was made for Stable Diffusion"):
        studio.generate("an apple", style="watercolour", **SMALL)


@pytest.fixture(scope="module")
def look(tmp_path_factory):
    """A LoRA that changes every attention at random."""
    model = checkpoint.load("embedded", dtype=torch.float32)
    generator = torch.Generator().manual_seed(0)
    networks = {"unet": model.unet, "text_encoder": model.text_encoders[0]}
    for network in networks.values():
        for parameter in attach_new(network, rank=2, generator=generator):
            if not parameter.any():
                parameter.data.normal_(std=0.05, generator=generator)
    path = tmp_path_factory.mktemp("adapters") / "look.safetensors"
    save_lora(path, networks)
    return path


def test_an_adapter_is_used_by_name_in_prompt_or_request_and_leaves_no_trace(studio, home, look):
    (home / "adapters" / "look.safetensors").write_bytes(look.read_bytes())
    before = studio.generate("an apple", **SMALL)
    called = studio.generate("an apple<lora:look:0.8>", **SMALL)
    asked = studio.generate("an apple", adapters=[{"name": "look", "weight": 0.8}], **SMALL)
    assert before.differs(called)
    assert same(called, asked)
    assert called.record.adapters.keys() == {"look"}
    assert same(called, studio.generate(called.request))
    assert same(before, studio.generate("an apple", **SMALL))
    assert same(before, studio.generate("an apple<lora:look:0>", **SMALL))
    stronger = studio.generate("an apple<lora:look:0.8:0>", **SMALL)
    assert stronger.differs(called)
    assert studio.generate("an apple", **SMALL).record.adapters == {}


def test_templates_may_choose_adapters_and_each_picture_wears_its_own(studio, home, look):
    (home / "adapters" / "look.safetensors").write_bytes(look.read_bytes())
    fields = {**SMALL, "templates": "combinatorial"}
    plain, worn, half = studio.generate_batch("an apple{|<lora:look:1>|<lora:look:0.5>}", **fields)
    assert same(plain, studio.generate("an apple", **SMALL))
    assert same(worn, studio.generate("an apple<lora:look:1>", **SMALL))
    assert half.differs(worn)
    assert half.differs(plain)


def test_an_unknown_adapter_names_the_nearest(studio, home, look):
    (home / "adapters" / "look.safetensors").write_bytes(look.read_bytes())
    with pytest.raises(UsageError, match=r"there is no adapter 'lock'; did you mean 'look'"):
        studio.generate("an apple<lora:lock:1>", **SMALL)
    with pytest.raises(UsageError, match="wanted"):
        studio.generate("an apple", adapters=[{"name": "wanted"}], **SMALL)


def test_an_embedding_in_the_folder_is_read_where_a_prompt_names_it(studio, home):
    table = studio.model.text_encoders[0].embeddings.token_embedding.weight
    apple = studio.model.tokenizers[0].encode("a red apple")
    save_file({"<thing>": table[apple[1:]].clone()}, home / "embeddings" / "mything.safetensors")
    image = studio.generate("a mything", **SMALL)
    assert same(image, studio.generate("a red apple", **SMALL))
    assert image.record.embeddings.keys() == {"mything"}
    assert same(image, studio.generate("a embedding:mything", dialect="comfy", **SMALL))


def test_an_embedding_of_another_family_is_read_as_words_or_refused(studio, home):
    save_file({"emb_params": torch.zeros(1, 768)}, home / "embeddings" / "wide.safetensors")
    with pytest.warns(SfumatoWarning, match="'wide' is read as words.*768 wide"):
        image = studio.generate("a wide car", **SMALL)
    assert image.record.embeddings == {}
    with pytest.raises(CheckpointError, match="768 wide, made for Stable Diffusion 1"):
        studio.load_embedding("wide")


def test_an_adapter_that_cannot_be_read_leaves_the_studio_as_it_was(studio, home):
    (home / "adapters" / "broken.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0nonsense")
    before = studio.generate("an apple", **SMALL)
    with pytest.raises(CheckpointError, match="broken"):
        studio.generate("an apple<lora:broken:1>", **SMALL)
    assert same(before, studio.generate("an apple", **SMALL))


def test_an_adapter_that_fits_in_part_is_refused_unless_that_is_allowed(studio, home, look):
    tensors = load_file(look)
    tensors["unet.mid_block.nowhere.lora_A.weight"] = torch.zeros(2, 8)
    tensors["unet.mid_block.nowhere.lora_B.weight"] = torch.zeros(8, 2)
    save_file(tensors, home / "adapters" / "more.safetensors")
    with pytest.raises(CheckpointError, match="nowhere"):
        studio.generate("an apple<lora:more:1>", **SMALL)
    with pytest.warns(SfumatoWarning, match=r"more.safetensors fits in part: .*nowhere"):
        image = studio.generate("an apple<lora:more:1>", allow_partial=True, **SMALL)
    (home / "adapters" / "look.safetensors").write_bytes(look.read_bytes())
    assert same(image, studio.generate("an apple<lora:look:1>", **SMALL))


def test_an_embedding_that_the_request_brings_is_read_again_for_a_replay(studio, home, tmp_path):
    table = studio.model.text_encoders[0].embeddings.token_embedding.weight
    apple = studio.model.tokenizers[0].encode("a green apple")
    path = tmp_path / "elsewhere.safetensors"
    save_file({"emb_params": table[apple[1:]].clone()}, path)
    image = studio.generate("a elsewhere", embeddings=[str(path)], **SMALL)
    assert same(image, studio.generate("a green apple", **SMALL))
    fresh = sfumato.load(device="cpu", dtype="float32")
    assert same(image, fresh.generate(image.request))
    assert image.record.embeddings.keys() == {"elsewhere"}


def test_other_words_do_not_keep_the_origin_of_those_before(studio):
    image = studio.generate("a {red|blue} car", style="emoji-3d", **SMALL)
    assert image.request.origin.prompt == "a {red|blue} car"
    assert studio.resolve(image.request.changed(prompt="a dog")).origin is None
    assert image.request.changed(steps=3).origin == image.request.origin


def test_an_embedding_that_a_request_brings_stands_before_others_of_its_name_there_only(
    studio, home, tmp_path
):
    table = studio.model.text_encoders[0].embeddings.token_embedding.weight
    words = {home / "embeddings" / "fruit.safetensors": "green apple", tmp_path / "fruit.safetensors": "car"}
    for path, text in words.items():
        save_file({"emb_params": table[studio.model.tokenizers[0].encode(text)].clone()}, path)
    brought = [str(tmp_path / "fruit.safetensors")]
    for files, text in (([], "green apple"), (brought, "car"), ([], "green apple")):
        image = studio.generate("a fruit", embeddings=files, **SMALL)
        assert same(image, studio.generate(f"a {text}", **SMALL))


def test_an_adapter_that_has_changed_is_loaded_again_in_the_place_of_the_one_in_use(studio, home, look):
    path = home / "again.safetensors"
    save_file({key: 0 * each for key, each in load_file(look).items()}, path)
    studio.load_adapter(path)
    nothing = studio.generate("an apple<lora:again>", **SMALL)
    path.write_bytes(look.read_bytes())
    studio.load_adapter(path)
    assert studio.generate("an apple<lora:again>", **SMALL).differs(nothing)


def test_a_picture_says_that_its_adapter_fits_in_part_whoever_allowed_it(studio, home, look):
    path = home / "adapters" / "some.safetensors"
    save_file({**load_file(look), "unet.nowhere.lora_A.weight": torch.zeros(2, 8)}, path)
    with pytest.warns(SfumatoWarning, match="fits in part"):
        studio.load_adapter(path, allow_partial=True)
    image = studio.generate("an apple<lora:some>", **SMALL)
    fresh = sfumato.load(device="cpu", dtype="float32")
    with pytest.warns(SfumatoWarning, match="fits in part"):
        assert same(image, fresh.generate(image.request))


def test_a_picture_is_drawn_again_where_its_style_is_unknown(studio, home):
    (home / "styles" / "own.toml").write_text('[icy]\nprompt = "{prompt}, made of ice"\n')
    image = studio.generate("an apple", style="icy", **SMALL)
    (home / "styles" / "own.toml").unlink()
    assert same(image, studio.generate(image.request))


def test_drawings_that_take_turns_do_not_meet(studio, home, look):
    (home / "adapters" / "look.safetensors").write_bytes(look.read_bytes())
    texts = ("an apple", "a car<lora:look:1>", "a [cat|dog]<lora:look:0.3>")
    alone = [studio.generate(text, **SMALL) for text in texts]
    rounds = list(zip(*(studio.stream(text, **SMALL) for text in texts), strict=True))
    assert len(rounds) == 4
    for image, step in zip(alone, rounds[-1], strict=True):
        assert same(image, step.image)


def test_a_name_inside_another_word_calls_no_embedding(studio, home):
    (home / "embeddings" / "art.safetensors").write_bytes(b"broken")
    table = studio.model.text_encoders[0].embeddings.token_embedding.weight
    save_file({"emb_params": table[:1].clone()}, home / "embeddings" / "oon.safetensors")
    image = studio.generate("a cartoon", **SMALL)
    assert image.record.embeddings == {}
    with pytest.raises(CheckpointError, match=r"art\.safetensors"):
        studio.generate("some art", **SMALL)


def test_a_pickled_embedding_in_the_folder_is_read_as_words_with_a_warning(studio, home):
    (home / "embeddings" / "easynegative.pt").write_bytes(b"anything")
    with pytest.warns(SfumatoWarning, match=r"'easynegative' is read as words: .*--from-pickle"):
        studio.generate("an apple", negative="easynegative", **SMALL)

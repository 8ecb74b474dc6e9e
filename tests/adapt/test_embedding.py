"""Textual inversion: every published form gives its vectors, and diffusers reads the same ones."""

import pytest
import torch
from adapt_families import pipeline
from safetensors.torch import save_file
from transformers import CLIPTokenizer

from sfumato.adapt import embedding
from sfumato.checkpoint import embedded
from sfumato.errors import CheckpointError


def vectors(count, width, seed=0):
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


ONE, MANY, WIDE = vectors(1, 768), vectors(3, 768), vectors(3, 1280)
FORMS = {
    "a token's one vector": ({"<cat>": ONE[0]}, [ONE], "<cat>"),
    "a token's rows": ({"<cat>": MANY}, [MANY], "<cat>"),
    "numbered vectors": ({"cat_2": MANY[2], "cat": MANY[0], "cat_1": MANY[1]}, [MANY], "cat"),
    "kohya": ({"emb_params": MANY}, [MANY], None),
    "kohya, one": ({"emb_params": ONE}, [ONE], None),
    "SDXL": ({"clip_g": WIDE, "clip_l": MANY}, [MANY, WIDE], None),
    "SDXL, pivotal tuning": ({"text_encoders_0": MANY, "text_encoders_1": WIDE}, [MANY, WIDE], None),
}


@pytest.mark.parametrize(("tensors", "expected", "token"), FORMS.values(), ids=FORMS)
def test_every_published_form_gives_its_vectors(tensors, expected, token, tmp_path):
    save_file(tensors, tmp_path / "easynegative.safetensors")
    found = embedding.read(tmp_path / "easynegative.safetensors")
    assert (found.name, found.token, found.count) == ("easynegative", token, len(expected[0]))
    for index, own in enumerate(expected):
        assert torch.equal(found.for_width(index, own.shape[1]), own)
    assert embedding.read(tmp_path / "easynegative.safetensors", "other").name == "other"


@pytest.mark.parametrize("form", ["a token's one vector", "a token's rows"])
def test_diffusers_reads_the_same_vectors(form, tmp_path, pipe):
    tensors, (expected,), token = FORMS[form]
    tensors = {key: tensor[..., :24].contiguous() for key, tensor in tensors.items()}
    save_file(tensors, tmp_path / "learned_embeds.safetensors")
    pipe.load_textual_inversion(tmp_path / "learned_embeds.safetensors")
    words = [token, *(f"{token}_{i}" for i in range(1, len(expected)))]
    table = pipe.text_encoder.get_input_embeddings().weight
    rows = table[pipe.tokenizer.convert_tokens_to_ids(words)]
    found = embedding.read(tmp_path / "learned_embeds.safetensors")
    assert torch.equal(found.for_width(0, 24), rows)


@pytest.fixture
def pipe():
    made = pipeline("sd1")
    made.tokenizer = CLIPTokenizer.from_pretrained(embedded() / "tokenizer")
    made.text_encoder.resize_token_embeddings(len(made.tokenizer))
    return made


@pytest.mark.parametrize(
    ("form", "index", "width", "match"),
    [
        (
            "kohya",
            0,
            1024,
            "768 wide, made for Stable Diffusion 1.x; this model's text encoder 1 reads 1024",
        ),
        (
            "kohya",
            1,
            1280,
            "nothing for this model's text encoder 2: it was made for Stable Diffusion 1.x",
        ),
        ("SDXL", 0, 1280, "is 768 wide"),
    ],
)
def test_a_model_of_another_width_is_an_error_that_says_which(form, index, width, match, tmp_path):
    save_file(FORMS[form][0], tmp_path / "it.safetensors")
    with pytest.raises(CheckpointError, match=match):
        embedding.read(tmp_path / "it.safetensors").for_width(index, width)


@pytest.mark.parametrize(
    "tensors",
    [
        {},
        {"a": ONE, "b": MANY},
        {"cat": MANY[0], "cat_2": MANY[2]},
        {"cat": MANY[0], "cat_1": vectors(1, 4)[0]},
        {"clip_l": MANY, "clip_g": WIDE[:2]},
        {"emb_params": torch.ones(2, 2, 2)},
        {"emb_params": torch.ones(0, 768)},
        {"emb_params": torch.ones(3, 768).int()},
        {"emb_params": torch.ones(2000, 4)},
        {"x": torch.tensor(1.0)},
        {"cat": ONE[0], "cat_" + "9" * 900: MANY[0]},
    ],
    ids=range(11),
)
def test_what_is_no_embedding_is_refused(tensors, tmp_path):
    save_file(tensors, tmp_path / "it.safetensors")
    with pytest.raises(CheckpointError, match=r"it\.safetensors (is not an embedding|has \d)"):
        embedding.read(tmp_path / "it.safetensors")


@pytest.mark.parametrize("suffix", [".pt", ".bin"])
def test_a_pickle_is_refused_with_the_way_to_convert_it(suffix, tmp_path):
    torch.save({"string_to_param": {"*": MANY}}, tmp_path / f"it{suffix}")
    with pytest.raises(CheckpointError, match="sfumato convert --from-pickle"):
        embedding.read(tmp_path / f"it{suffix}")

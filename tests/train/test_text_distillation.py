"""The text encoder's objective and its teacher."""

import shutil

import pytest
import torch
from bert_models import saved_bert
from making import changed, made

from sfumato import checkpoint, weights
from sfumato.checkpoint.layout import FAST
from sfumato.data import pack
from sfumato.prompt.chunks import chunks
from sfumato.prompt.meaning import Phrase, WeightedText
from sfumato.train.loop import train
from sfumato.train.objectives import task
from sfumato.train.objectives.text import TARGETS, composed, tokenized
from sfumato.train.recipe import MODEL

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    """A tiny BERT and the folder that it was saved to."""
    return saved_bert(tmp_path_factory.mktemp("teacher"))


def test_ids_are_those_of_a_prompt_cut_short():
    tokenizer = checkpoint.load("embedded").tokenizers[0]
    ids = tokenized(["a red apple", "red " * 50], tokenizer, 12)
    (chunk,), _ = chunks(Phrase((WeightedText("a red apple"),)), tokenizer, "plain")
    assert ids[0].tolist() == chunk.ids(tokenizer)[:12]
    assert (ids[1, 0], ids[1, -1]) == (tokenizer.bos, tokenizer.eos)


def test_composed_texts_name_labels_and_are_those_of_their_seed():
    texts = composed(["cat", "dog"], ["flat emoji"], 50, seed=1)
    assert texts == composed(["cat", "dog"], ["flat emoji"], 50, seed=1) != composed(["cat"], ["x"], 50, 1)
    assert all("cat" in text or "dog" in text for text in texts)


def test_the_text_encoder_comes_closer_to_its_teacher_and_keeps_its_shape(
    bert, tiny_base, tiny_data, tmp_path
):
    data = shutil.copytree(tiny_data, tmp_path / "data")
    (data / "pack").mkdir()
    pack._write_xz(data / "pack" / pack.TEXTS, ["blue", "apple", "a green apple", "square of apple"])
    (shutil.copytree(tiny_base, tmp_path / "base") / FAST).write_bytes(b"a LoRA of the UNet")
    recipe = made(
        "text", folder=str(data), base=str(tmp_path / "base"), run=str(tmp_path / "run"), composed_texts=60,
        teacher=str(bert[1]), steps=12, batch_size=16, learning_rate=1e-3, warmup_steps=2, decay_steps=4,
        ema_decays=(0.5,), max_tokens=12,
    )  # fmt: skip
    first = train(task(recipe, CPU), recipe, CPU, seconds=1e-9)
    last = train(task(recipe, CPU), recipe, CPU)
    assert last.metrics["cosine_held_out"] > first.metrics["cosine_held_out"]
    model, base = checkpoint.load(f"{recipe.run}/{MODEL}"), checkpoint.load(tiny_base)
    assert model.text_encoders[0].config == base.text_encoders[0].config
    assert model.fast is None, "it knows the texts as they were"
    assert not torch.equal(model.encode("red").states, base.encode("red").states)
    said = weights.read(f"{recipe.run}/{TARGETS}")["vectors"]
    other = changed(recipe, teacher=str(shutil.copytree(bert[1], tmp_path / "other")))
    path = f"{other.objective.teacher}/model.safetensors"
    altered = weights.read(path)
    altered["embeddings.word_embeddings.weight"] += 1
    weights.write(path, altered)
    task(other, CPU)
    assert not torch.equal(weights.read(f"{recipe.run}/{TARGETS}")["vectors"], said), "another teacher's"

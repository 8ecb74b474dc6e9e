"""The sentence encoder against transformers, live."""

import json
import shutil

import pytest
import torch
from bert_models import saved_bert

from sfumato.errors import CheckpointError
from sfumato.nets.sentence_bert import MAX_TOKENS, SentenceBert

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    """A tiny BERT, its norms and biases random too, and the folder that it was saved to."""
    folder = tmp_path_factory.mktemp("bert")
    return saved_bert(folder, spread=0.2, layer_norm_eps=1e-3, initializer_range=0.5)


def test_its_vectors_are_the_unit_means_of_transformers_states(bert):
    model, folder = bert
    texts = ["red square", "a green apple and a blue square", "of"]
    ids = torch.tensor([[2, 5, 0, 0, 0, 0, 0], [7, 3, 6, 9, 7, 4, 5], [8, 0, 0, 0, 0, 0, 0]])
    there = torch.tensor([[1, 1, 0, 0, 0, 0, 0], [1] * 7, [1, 0, 0, 0, 0, 0, 0]])
    with torch.no_grad():
        states = model(input_ids=ids, attention_mask=there).last_hidden_state
    mean = (states * there[..., None]).sum(1) / there.sum(1, keepdim=True)
    known = torch.nn.functional.normalize(mean, dim=-1)
    found = SentenceBert.load(folder, CPU)
    torch.testing.assert_close(found.embed(texts), known, atol=1e-5, rtol=0)
    assert found.width == 24


def test_what_is_beyond_the_tokens_that_are_read_changes_nothing(bert):
    found = SentenceBert.load(bert[1], CPU)
    long, longer = "red " * MAX_TOKENS, "red " * MAX_TOKENS + "apple"
    assert torch.equal(found.embed([long]), found.embed([longer]))
    assert not torch.equal(found.embed(["red"]), found.embed(["red apple"]))


def test_models_of_other_weights_have_other_digests(bert):
    one, same = SentenceBert.load(bert[1], CPU), SentenceBert.load(bert[1], CPU)
    assert one.digest == same.digest
    changed = {name: tensor + (name == max(one.tensors)) for name, tensor in one.tensors.items()}
    assert SentenceBert(changed, one.tokenizer, one.layers, one.heads, one.eps).digest != one.digest


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model_type": "roberta"}, "bert is no BERT with GELU, the only one that can be read"),
        ({"hidden_act": "relu"}, "bert is no BERT with GELU, the only one that can be read"),
        ({"layer_norm_eps": None}, "config.json does not say 'layer_norm_eps'"),
    ],
)
def test_another_network_is_refused(bert, tmp_path, change, said):
    folder = shutil.copytree(bert[1], tmp_path / "bert")
    config = {**json.loads((folder / "config.json").read_text()), **change}
    kept = {name: value for name, value in config.items() if value is not None}
    (folder / "config.json").write_text(json.dumps(kept))
    with pytest.raises(CheckpointError, match=f"{said}$"):
        SentenceBert.load(folder, CPU)


def test_a_damaged_tokenizer_is_named(bert, tmp_path):
    folder = shutil.copytree(bert[1], tmp_path / "bert")
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"^cannot read .*tokenizer.json: "):
        SentenceBert.load(folder, CPU)

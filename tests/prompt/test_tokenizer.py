import json
import shutil

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer as Pieces
from tokenizers import pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from transformers import CLIPTokenizer

from sfumato.checkpoint import convert, embedded, load
from sfumato.errors import CheckpointError, UsageError
from sfumato.prompt.tokenizer import Tokenizer

TEXTS = [
    "",
    "   \t\n ",
    "a red apple, 3d render",
    "A CAT's  dog\n\tdoesn't I'M they'Ll we've",
    "wow!!! (really?) [no] {yes} #1 50% a_b c-d",
    "naïve café e\u0301 \u1e69\u0323 Å Å",
    "日本語のテスト 中文 한국어 עברית العربية हिन्दी",
    "😀👍🏽👩‍👩‍👧‍👦🇫🇷",
    "1234 ١٢٣ Ⅷ ½ x²",
    "İstanbul ß ﬁ ǅ Σίσυφος",
    "\u200b\u00a0\u2028\ufeff\x00\x01\x7f",
    "<|im_start|> <|end of text|> </w>",
    "x" * 5000,
    "word " * 500,
]


def train(folder, pad="<|endoftext|>"):
    """A small vocabulary in the old two-file form, as published checkpoints have it."""
    pieces = Pieces(BPE(unk_token="<|endoftext|>", end_of_word_suffix="</w>"))
    pieces.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = BpeTrainer(
        vocab_size=900,
        initial_alphabet=alphabet,
        special_tokens=["!", *(f"{letter}</w>" for letter in alphabet)],
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    pieces.train_from_iterator([text.lower() for text in TEXTS[:11]] * 3, trainer)
    model = json.loads(pieces.to_str())["model"]
    vocab = {piece: i for i, piece in enumerate(model["vocab"])}
    for special in ("<|startoftext|>", "<|endoftext|>"):
        vocab[special] = len(vocab)
    (folder / "vocab.json").write_text(json.dumps(vocab))
    merges = [" ".join(pair) for pair in model["merges"]]
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    special = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "pad_token": pad}
    (folder / "tokenizer_config.json").write_text(json.dumps(special | {"model_max_length": 77}))
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return train(tmp_path_factory.mktemp("trained"))


@pytest.fixture(scope="module")
def folders(trained):
    return {"tokenizer.json": embedded() / "tokenizer", "vocab.json and merges.txt": trained}


@pytest.fixture(scope="module")
def pairs(folders):
    return {
        name: (Tokenizer.load(path), CLIPTokenizer.from_pretrained(path)) for name, path in folders.items()
    }


def theirs(peer, text):
    return peer(text, add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize("files", ["tokenizer.json", "vocab.json and merges.txt"])
def test_tokens_equal_transformers_on_every_script(pairs, files):
    ours, peer = pairs[files]
    for text in TEXTS:
        assert ours.encode(text) == theirs(peer, text), text
    assert (ours.bos, ours.eos, ours.pad) == (peer.bos_token_id, peer.eos_token_id, peer.pad_token_id)
    assert ours.limit == peer.model_max_length


@settings(max_examples=200)
@given(st.text().filter(lambda text: "<|" not in text))
def test_tokens_equal_transformers_on_any_text(pairs, text):
    for ours, peer in pairs.values():
        assert ours.encode(text) == theirs(peer, text)


def test_the_names_of_special_tokens_are_ordinary_text(pairs):
    for ours, _ in pairs.values():
        for text in ("<|endoftext|>", "a <|startoftext|> b", "<|ENDOFTEXT|>x"):
            assert not {ours.bos, ours.eos} & set(ours.encode(text))
            assert len(ours.encode(text)) > 3


def test_an_exclamation_mark_is_text_also_where_it_pads_though_transformers_takes_it_for_padding(tmp_path):
    train(tmp_path, pad="!")
    ours, peer = Tokenizer.load(tmp_path), CLIPTokenizer.from_pretrained(tmp_path)
    assert ours.pad == peer.pad_token_id == 0
    assert theirs(peer, "!") == [0]
    assert ours.encode("!") == [ours.vocab["!</w>"]]
    assert ours.encode("an apple") == theirs(peer, "an apple")


def test_what_is_saved_is_read_back_by_us_and_by_transformers(pairs, tmp_path):
    for number, (ours, _) in enumerate(pairs.values()):
        folder = tmp_path / str(number)
        folder.mkdir()
        ours.save(folder)
        again, peer = Tokenizer.load(folder), CLIPTokenizer.from_pretrained(folder)
        for text in TEXTS:
            assert again.encode(text) == ours.encode(text) == theirs(peer, text)
        assert (again.bos, again.eos, again.pad, again.limit) == (ours.bos, ours.eos, ours.pad, ours.limit)
        assert (peer.bos_token_id, peer.pad_token_id, peer.model_max_length) == (
            ours.bos,
            ours.pad,
            ours.limit,
        )


def test_a_window_has_room_for_text(pairs):
    ours, _ = pairs["tokenizer.json"]
    with pytest.raises(ValueError, match="no room for text"):
        Tokenizer(ours.vocab, ours.merges, limit=2)


def test_text_that_is_half_a_character_or_endless_is_refused(pairs):
    ours, _ = pairs["tokenizer.json"]
    with pytest.raises(UsageError, match=r"lone surrogate.* at place 2"):
        ours.encode("ab\ud83dcd")
    with pytest.raises(UsageError, match="100,001 characters"):
        ours.encode("a" * 100_001)
    assert ours.encode("a" * 100_000)


def changed(folder, tmp_path, name, change):
    target = tmp_path / "changed"
    shutil.copytree(folder, target)
    content = json.loads((target / name).read_text())
    change(content)
    (target / name).write_text(json.dumps(content))
    return target


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c["model"].update(type="WordPiece"), "not a CLIP tokenizer: its model is 'WordPiece'"),
        (lambda c: c["model"].update(end_of_word_suffix=None), "not a CLIP tokenizer"),
        (lambda c: c.update(model=None), "not a CLIP tokenizer"),
        (lambda c: c.update(normalizer=None), "its normalizer is absent, not NFC"),
        (lambda c: c.update(pre_tokenizer={"type": "Whitespace"}), "its pre_tokenizer is absent"),
        (lambda c: c["model"].update(merges=[["a"]]), "is not a pair"),
        (lambda c: c["model"].update(merges=[["a", 7]]), "is not a pair"),
        (lambda c: c["model"].update(merges=[["qq", "zz"]]), "do not fit together"),
        (lambda c: c["model"].update(vocab=[]), "no vocabulary"),
        (lambda c: c["model"]["vocab"].update(a=-1), "whole number of its own"),
        (lambda c: c["model"]["vocab"].update(a=1), "whole number of its own"),
        (lambda c: c["model"]["vocab"].update(a="1"), "whole number of its own"),
        (lambda c: c.update(added_tokens=7), "added_tokens must be"),
    ],
)
def test_a_tokenizer_of_another_kind_is_refused(folders, tmp_path, change, words):
    folder = changed(folders["tokenizer.json"], tmp_path, "tokenizer.json", change)
    with pytest.raises(CheckpointError, match=words):
        Tokenizer.load(folder)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c.update(pad_token="<pad>"), "lacks the special token '<pad>'"),
        (lambda c: c.update(bos_token=7), "bos_token must be text"),
        (lambda c: c.update(model_max_length=2), "model_max_length = 2 must be"),
        (lambda c: c.update(model_max_length="77"), "must be a whole number"),
    ],
)
def test_settings_that_make_no_sense_are_refused(folders, tmp_path, change, words):
    folder = changed(folders["tokenizer.json"], tmp_path, "tokenizer_config.json", change)
    with pytest.raises(CheckpointError, match=words):
        Tokenizer.load(folder)


def test_special_tokens_may_be_objects_and_the_window_may_go_unstated(folders, tmp_path):
    def change(content):
        content["pad_token"] = {"content": "!", "lstrip": False}
        content["model_max_length"] = 10**30

    ours = Tokenizer.load(changed(folders["tokenizer.json"], tmp_path, "tokenizer_config.json", change))
    assert (ours.pad, ours.limit) == (0, 77)


@pytest.mark.parametrize("table", [False, True])
@pytest.mark.parametrize(("stated", "mapped"), [("<|endoftext|>", "!"), ("!", "<|endoftext|>")])
def test_of_settings_that_differ_those_count_that_transformers_goes_by(
    table, stated, mapped, folders, tmp_path
):
    def change(content):
        content["pad_token"] = stated
        if table:
            marks = {"lstrip": False, "rstrip": False, "single_word": False, "special": True}
            ids = {0: "!", peer.bos_token_id: peer.bos_token, peer.eos_token_id: peer.eos_token}
            content["added_tokens_decoder"] = {
                str(number): {"content": text, "normalized": False, **marks} for number, text in ids.items()
            }

    peer = CLIPTokenizer.from_pretrained(folders["vocab.json and merges.txt"])
    folder = changed(folders["vocab.json and merges.txt"], tmp_path, "tokenizer_config.json", change)
    special = {"bos_token": peer.bos_token, "eos_token": peer.eos_token, "pad_token": mapped}
    (folder / "special_tokens_map.json").write_text(json.dumps(special))
    theirs = CLIPTokenizer.from_pretrained(folder)
    assert Tokenizer.load(folder).pad == theirs.pad_token_id
    assert theirs.pad_token == (stated if table else mapped)


def test_missing_files_are_named(folders, tmp_path):
    with pytest.raises(CheckpointError, match=r"neither tokenizer\.json nor vocab\.json"):
        Tokenizer.load(tmp_path)
    shutil.copy(folders["vocab.json and merges.txt"] / "vocab.json", tmp_path)
    with pytest.raises(CheckpointError, match=r"merges\.txt is missing"):
        Tokenizer.load(tmp_path)
    with open(tmp_path / "merges.txt", "wb") as file:
        file.truncate(17 << 20)
    with pytest.raises(CheckpointError, match=r"merges\.txt: it is larger than"):
        Tokenizer.load(tmp_path)
    (tmp_path / "merges.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(CheckpointError, match=r"merges\.txt is not UTF-8 at byte 0"):
        Tokenizer.load(tmp_path)


LEARNED = ("a <cat-toy> here", "a sks dog, asks", "x<cat-toy>y", "<CAT-TOY>", "cat toy", "SKS!", "nothing")


@pytest.mark.parametrize("layout", ["as saved now", "as saved by earlier versions", "saved here"])
def test_learned_words_of_a_folders_own_tokenizer_equal_transformers(tmp_path, layout):
    peer = CLIPTokenizer.from_pretrained(embedded() / "tokenizer")
    peer.add_tokens(["<cat-toy>", "sks"])
    peer.save_pretrained(tmp_path / "now")
    ours = Tokenizer.load(tmp_path / "now")
    if layout == "as saved by earlier versions":
        content = json.loads((tmp_path / "now" / "tokenizer.json").read_text())["model"]
        old = tmp_path / "old"
        old.mkdir()
        (old / "vocab.json").write_text(json.dumps(content["vocab"]))
        lines = [" ".join(pair) if isinstance(pair, list) else pair for pair in content["merges"]]
        (old / "merges.txt").write_text("#version: 0.2\n" + "\n".join(lines))
        (old / "added_tokens.json").write_text(json.dumps({"<cat-toy>": 6332, "sks": 6333}))
        ours = Tokenizer.load(old)
    elif layout == "saved here":
        (tmp_path / "again").mkdir()
        ours.save(tmp_path / "again")
        ours = Tokenizer.load(tmp_path / "again")
    for text in LEARNED:
        assert ours.encode(text) == peer(text)["input_ids"][1:-1], text


def test_learned_words_stay_in_a_single_file(tmp_path):
    folder, file = tmp_path / "model", tmp_path / "model.safetensors"
    shutil.copytree(embedded(), folder)
    peer = CLIPTokenizer.from_pretrained(embedded() / "tokenizer")
    peer.add_tokens(["<cat-toy>"])
    config = json.loads((folder / "text_encoder" / "config.json").read_text())
    (folder / "text_encoder" / "config.json").write_text(json.dumps({**config, "vocab_size": 6333}))
    weights = folder / "text_encoder" / "model.safetensors"
    tensors = load_file(weights)
    (key,) = [name for name in tensors if name.endswith("token_embedding.weight")]
    tensors[key] = torch.cat([tensors[key], tensors[key][:1]])
    save_file(tensors, weights, {"format": "pt"})
    peer.save_pretrained(folder / "tokenizer")
    convert(folder, file)
    (ours,) = load(file).tokenizers
    assert ours.encode("a <cat-toy> here") == peer("a <cat-toy> here")["input_ids"][1:-1]

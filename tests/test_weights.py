import json
import os
import random
import re
import struct

import pytest
import safetensors.torch
import torch

from sfumato import weights
from sfumato.errors import CheckpointError

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


def raw(header, data=b"", padding=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) + len(padding)) + text + padding + data


def entry(dtype="F32", shape=(2, 3), begin=0, end=24):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


def state(dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    return {
        "a.weight": torch.randn(3, 5, generator=generator).to(dtype),
        "b.bias": torch.randn(7, generator=generator).to(dtype),
        "empty": torch.empty(0, 4, dtype=dtype),
        "scalar": torch.tensor(2.5, dtype=dtype),
    }


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.safetensors"


def refused(path, words):
    with pytest.raises(CheckpointError, match=words) as caught:
        weights.read(path)
    assert path.name in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("dtype", DTYPES)
def test_we_read_what_the_library_writes_and_it_reads_what_we_write(path, dtype):
    safetensors.torch.save_file(state(dtype), path, {"format": "pt", "note": "ü"})
    found = weights.read(path)
    assert found.keys() == state().keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in state(dtype).items())
    assert weights.metadata(path) == {"format": "pt", "note": "ü"}
    weights.write(path, state(dtype), {"format": "pt", "note": "ü"})
    theirs = safetensors.torch.load_file(path)
    assert all(torch.equal(theirs[name], tensor) for name, tensor in state(dtype).items())


def test_our_bytes_are_the_libraries_bytes(path):
    weights.write(path, state(), {"format": "pt"})
    assert path.read_bytes() == safetensors.torch.save(state(), {"format": "pt"})


def test_every_dtype_survives_the_way_to_the_disk_and_back(path):
    tensors = {name: torch.ones(3).to(dtype) for name, dtype in weights.DTYPES.items()}
    tensors["strided"] = torch.arange(6.0).reshape(2, 3).T
    weights.write(path, tensors)
    found = weights.read(path)
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name].float(), tensor.float())


def test_conversion_touches_only_floating_point(path):
    weights.write(path, {"a": torch.ones(2), "ids": torch.arange(2)})
    found = weights.read(path, dtype=torch.bfloat16)
    assert (found["a"].dtype, found["ids"].dtype) == (torch.bfloat16, torch.int64)


def test_a_file_can_be_written_over_the_one_its_tensors_come_from(path):
    weights.write(path, state())
    weights.write(path, {name: tensor for name, tensor in weights.read(path).items() if name != "scalar"})
    assert torch.equal(weights.read(path)["a.weight"], state()["a.weight"])


def test_what_reading_would_refuse_is_not_written(path):
    for name in ("__class__", "", "a\n", "a.__init__.b"):
        with pytest.raises(ValueError, match="cannot be named"):
            weights.write(path, {name: torch.ones(1)})
    with pytest.raises(ValueError, match="too many for one file"):
        weights.write(path, {str(i): torch.empty(0) for i in range(20_001)})
    assert not path.exists()


def test_a_header_counts_without_reading(path):
    weights.write(path, state())
    found = weights.header(path)
    assert found.parameters == 15 + 7 + 0 + 1
    assert found.file_bytes == path.stat().st_size
    assert found.tensors["a.weight"].shape == (3, 5)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (raw({"a": entry(), "b": entry(begin=24, end=47)}, bytes(48)), "takes 23 bytes"),
        (raw({"a": entry(), "b": entry(begin=20, end=44)}, bytes(48)), "'b' overlaps"),
        (raw({"a": entry(), "b": entry(begin=28, end=52)}, bytes(52)), "'b' leaves a gap"),
        (raw({"a": entry(begin=4, end=28)}, bytes(28)), "'a' leaves a gap"),
        (raw({"a": entry()}, bytes(23)), r"truncated: 97 bytes are expected, 96 found"),
        (raw({"a": entry()}, bytes(25)), r"goes on after.*97 bytes are expected, 98 found"),
        (raw({"a": entry("F12")}, bytes(24)), "unknown dtype 'F12'"),
        (raw({"a": entry(["F32"])}, bytes(24)), "unknown dtype"),
        (raw({"a": entry(shape=[2, -3])}, bytes(24)), "no shape"),
        (raw({"a": entry(shape=[2, True])}, bytes(24)), "no shape"),
        (raw({"a": entry(shape=[2, 3.0])}, bytes(24)), "no shape"),
        (raw({"a": entry(shape=[1] * 9)}, bytes(24)), "at most 8"),
        (raw({"a": entry(shape=[1 << 40, 1 << 40])}, bytes(24)), "takes 24 bytes"),
        (raw({"a": entry(begin=24, end=0)}, bytes(24)), "in order"),
        (raw({"a": entry(begin=-24, end=0)}, bytes(24)), "no data_offsets"),
        (raw({"a": {**entry(), "data_offsets": [24]}}, bytes(24)), "no data_offsets"),
        (raw({"a": {**entry(), "more": 1}}, bytes(24)), "and nothing else"),
        (raw({"a": {"dtype": "F32", "shape": [1]}}, bytes(24)), "must have dtype"),
        (raw({"a": [1, 2]}, bytes(24)), "must have dtype"),
        (raw({"__class__": entry()}, bytes(24)), "double underscores"),
        (raw({"a.__globals__.b": entry()}, bytes(24)), "double underscores"),
        (raw({"": entry()}, bytes(24)), "printable"),
        (raw({"a\x1b[31m": entry()}, bytes(24)), "printable"),
        (raw({"\ud800": entry()}, bytes(24)), "surrogates not allowed"),
        (raw({"a": entry(), "__metadata__": {"b": "\ud800"}}, bytes(24)), "surrogates not allowed"),
        (raw({"a" * 1001: entry()}, bytes(24)), "printable"),
        (raw(b'{"a":1,"a":2}'), "'a' stands twice"),
        (raw({"a": entry(), "__metadata__": {"b": 1}}, bytes(24)), "text to text"),
        (raw({"a": entry(), "__metadata__": ["b"]}, bytes(24)), "text to text"),
        (raw(b"{not json}"), "not valid JSON"),
        (raw(b"{" * 100_000), "not valid JSON"),
        (raw(b"[1, 2, 3, 4]"), "no header where one should begin"),
        (struct.pack("<Q", (16 << 20) + 1) + b"{" + bytes(100), "claims a header of 16,777,217 bytes"),
        (struct.pack("<Q", 200) + b"{}" + bytes(100), "truncated: its header alone takes 208 bytes"),
        (raw(b'{"a":[' + b"[]," * 900_000 + b"[]]}"), "lists far more than such a file may"),
        (raw({f"t{i}": entry(shape=[0], end=0) for i in range(20_001)}), "20,001 tensors; at most 20,000"),
    ],
)
def test_a_file_that_contradicts_itself_is_refused_before_a_tensor_is_read(path, monkeypatch, content, words):
    monkeypatch.setattr(weights, "_read_tensor", lambda *args, **options: pytest.fail("a tensor was read"))
    path.write_bytes(content)
    refused(path, words)


def test_a_large_header_text_is_no_reason_to_refuse(path):
    notes = {"tags": json.dumps({f"tag {i}": {"count": i} for i in range(50_000)})}
    weights.write(path, state(), notes)
    assert weights.metadata(path) == notes


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("model.ckpt", b"PK\x03\x04" + bytes(100), "zip archive, as PyTorch writes.*can run code"),
        ("model.safetensors", b"PK\x03\x04" + bytes(100), "zip archive.*not safetensors.*can run code"),
        ("model.safetensors", b"\x80\x02}q\x00(X\x04\x00\x00\x00", "pickled checkpoint.*can run code"),
        ("model.bin", bytes(100), "pickled checkpoint.*convert it to safetensors"),
        ("model.pt", bytes(9), "pickled checkpoint"),
        ("model.safetensors", b"version https://git-lfs.github.com/spec/v1\n", "git-lfs pointer"),
        ("model.safetensors", b"<!DOCTYPE html>", "a web page"),
        ("model.safetensors", b"GGUF" + bytes(100), "a GGUF file"),
        ("model.safetensors", b'{"a": "long enough to be"}', "a JSON file"),
        ("model.safetensors", b"", "truncated: 0 bytes"),
    ],
)
def test_what_is_not_safetensors_is_told_by_its_content(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    refused(tmp_path / name, words)


def test_a_header_whose_length_looks_like_a_pickle_is_read(path):
    text = json.dumps({"a": entry()}).encode()
    path.write_bytes(raw(text, bytes(24), padding=b" " * (0x0280 - len(text))))
    assert path.read_bytes()[:2] == b"\x80\x02"
    assert weights.read(path)["a"].shape == (2, 3)


def test_a_file_that_is_replaced_while_it_is_read_is_read_as_it_was(path, monkeypatch):
    weights.write(path, state())
    really = weights._read_tensor

    def replace_first(file, info):
        weights.write(path, {name: tensor.reshape(-1) for name, tensor in state().items()})
        return really(file, info)

    monkeypatch.setattr(weights, "_read_tensor", replace_first)
    read = weights.read(path)
    assert all(torch.equal(read[name], tensor) for name, tensor in state().items())


def test_a_file_that_is_cut_short_while_it_is_read_is_refused(path, monkeypatch):
    weights.write(path, {"a": torch.zeros(100_000)})
    really = weights._read_tensor

    def cut_first(file, info):
        os.truncate(path, 100)
        return really(file, info)

    monkeypatch.setattr(weights, "_read_tensor", cut_first)
    refused(path, "cut short while it was read")


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    refused(tmp_path / "none.safetensors", "is missing")
    (tmp_path / "folder.safetensors").mkdir()
    refused(tmp_path / "folder.safetensors", "cannot read")


def test_a_file_cut_anywhere_is_called_truncated(path):
    weights.write(path, state())
    whole = path.read_bytes()
    length = 8 + int.from_bytes(whole[:8], "little")
    for size in {*range(10), length // 2, length - 1, length, length + 1, len(whole) - 1}:
        path.write_bytes(whole[:size])
        refused(path, "truncated")


@pytest.mark.parametrize("dtype", [*DTYPES, torch.float8_e5m2])
@pytest.mark.parametrize(
    ("number", "words"),
    [
        (float("nan"), "'b.bias' holds NaN"),
        (-float("nan"), "'b.bias' holds NaN"),
        (float("inf"), "'b.bias' holds infinite"),
        (-float("inf"), "'b.bias' holds infinite"),
    ],
)
def test_numbers_that_are_not_finite_are_named(path, dtype, number, words):
    tensors = state(dtype)
    spoilt = torch.ones(7)
    spoilt[3] = number
    tensors["b.bias"] = spoilt.to(dtype)
    weights.write(path, tensors)
    refused(path, words)


def test_a_float_of_eight_bits_without_infinities_still_has_nan(path):
    weights.write(path, {"a": torch.tensor([1.0, -float("nan")]).to(torch.float8_e4m3fn)})
    refused(path, "'a' holds NaN")


def test_numbers_that_are_not_finite_are_found_anywhere_in_a_large_tensor(path):
    for place in (0, 1 << 18, (1 << 20) - 1):
        numbers = torch.zeros(1 << 20, dtype=torch.float16)
        numbers[place] = float("inf")
        weights.write(path, {"a": numbers})
        refused(path, "'a' holds infinite")


def test_a_large_tensor_comes_back_whole(path):
    numbers = torch.arange(300_001, dtype=torch.float64)
    weights.write(path, {"a": numbers, "b": numbers.int()})
    found = weights.read(path)
    assert torch.equal(found["a"], numbers)
    assert torch.equal(found["b"], numbers.int())


def test_floats_of_eight_bits_become_what_is_computed_with(path):
    numbers = torch.tensor([0.5, -1.75, 448.0])
    weights.write(path, {"a": numbers.to(torch.float8_e4m3fn)})
    assert weights.read(path)["a"].dtype == torch.float8_e4m3fn
    assert torch.equal(weights.read(path, dtype=torch.float32)["a"], numbers)


@pytest.mark.parametrize("dtype", [*DTYPES, torch.float8_e4m3fn, torch.float8_e5m2])
def test_the_largest_and_smallest_finite_numbers_are_read(path, dtype):
    limits = torch.finfo(dtype)
    extremes = torch.tensor([limits.min, limits.max, limits.tiny, -limits.tiny, 0.0, -0.0], dtype=dtype)
    weights.write(path, {"a": extremes})
    assert torch.equal(weights.read(path)["a"].double(), extremes.double())


def sharded(folder):
    tensors = state()
    weights.write(folder / "m-00001-of-00002.safetensors", {"a.weight": tensors["a.weight"]})
    weights.write(
        folder / "m-00002-of-00002.safetensors", {k: v for k, v in tensors.items() if k != "a.weight"}
    )
    names = {k: f"m-0000{1 if k == 'a.weight' else 2}-of-00002.safetensors" for k in tensors}
    index = folder / "m.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": names}))
    return index


def spoil(index, **changes):
    content = json.loads(index.read_text())
    content["weight_map"].update(changes)
    content["weight_map"] = {k: v for k, v in content["weight_map"].items() if v is not None}
    index.write_text(json.dumps(content))
    with pytest.raises(CheckpointError) as caught:
        weights.sharded_header(index)
    return str(caught.value)


def test_shards_are_read_as_one(tmp_path):
    found = {}
    for path in weights.sharded_header(sharded(tmp_path)):
        found |= weights.read(path)
    assert all(torch.equal(found[name], tensor) for name, tensor in state().items())


def test_shards_that_disagree_with_their_index_are_named(tmp_path):
    first, second = "m-00001-of-00002.safetensors", "m-00002-of-00002.safetensors"
    assert "m-00003.safetensors is missing, which m.safetensors.index.json names" in spoil(
        sharded(tmp_path), x="m-00003.safetensors"
    )
    assert "lacks 'x', which m.safetensors.index.json promises" in spoil(sharded(tmp_path), x=second)
    moved = spoil(sharded(tmp_path), **{"b.bias": first})
    assert f"{second} holds 'b.bias', which is promised in {first}" in moved
    assert "holds 'scalar', which is not in the index" in spoil(sharded(tmp_path), scalar=None)


@pytest.mark.parametrize(
    "name",
    [
        "../m-00001-of-00002.safetensors",
        "/etc/passwd",
        "a/b.safetensors",
        "..",
        "a\\b.safetensors",
        "a\0.safetensors",
        "model.bin",
        ".hidden.safetensors",
        7,
    ],
)
def test_an_index_cannot_lead_out_of_its_folder(tmp_path, name):
    assert "a shard is a .safetensors file beside it" in spoil(sharded(tmp_path), x=name)


def test_an_index_without_a_map_is_refused(tmp_path):
    (tmp_path / "i.json").write_text('{"weight_map": []}')
    with pytest.raises(CheckpointError, match="no weight_map"):
        weights.shards(tmp_path / "i.json")
    (tmp_path / "i.json").write_text(
        json.dumps({"weight_map": {str(i): "a.safetensors" for i in range(20_001)}})
    )
    with pytest.raises(CheckpointError, match="lists 20,001 tensors"):
        weights.shards(tmp_path / "i.json")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"weight": None}, r"x: 'weight' is missing"),
        ({"weight": None, "bias": None}, r"'weight', 'bias' are missing"),
        ({"wieght": torch.ones(3, 2), "weight": None}, r"'wieght' is unknown \(did you mean 'weight'\?\)"),
        ({"weight": torch.ones(2, 3)}, r"'weight' has shape \[2, 3\] where \[3, 2\] is due"),
        ({"bias": torch.ones(3).int()}, r"'bias' is I32 where floating point numbers are due"),
        ({name: torch.ones(1) for name in "abcde"}, r"'a', 'b', 'c' and 2 more are unknown"),
    ],
)
def test_a_state_is_held_against_its_module(change, words):
    module = torch.nn.Linear(2, 3)
    good = dict(module.state_dict())
    weights.check(good, module, "x")
    bad = {name: tensor for name, tensor in (good | change).items() if tensor is not None}
    for expected in (module, {"weight": (3, 2), "bias": (3,)}):
        with pytest.raises(CheckpointError, match=words):
            weights.check(bad, expected, "x")


def mutants(whole, count, seed):
    """`count` damaged copies: bytes changed, cut out, doubled and swapped, mostly in the header."""
    rng = random.Random(seed)
    length = 8 + int.from_bytes(whole[:8], "little")
    numbers = [match.span() for match in re.finditer(rb"\d+", whole[8:length])]
    for _ in range(count):
        spoilt = bytearray(whole)
        for _ in range(rng.choice((1, 1, 2, 8))):
            at = rng.randrange(length if rng.random() < 0.9 else len(spoilt)) % max(len(spoilt), 1)
            match rng.randrange(7):
                case 0:
                    spoilt[at : at + 1] = bytes([rng.randrange(256)])
                case 1:
                    del spoilt[at : at + rng.randrange(1, 40)]
                case 2:
                    spoilt[at:at] = spoilt[at : at + rng.randrange(1, 40)]
                case 3:
                    spoilt[at : at + 1] = rng.choice((b"{", b"}", b"[", b"]", b'"', b"\\", b",", b":", b"-"))
                case 4:
                    begin, end = rng.choice(numbers)
                    spoilt[8 + begin : 8 + end] = str(rng.choice((0, 1, 7, 2**31, 2**63, 2**64))).encode()
                case 5:
                    spoilt[:8] = rng.choice((0, 1, length, 2**32, 2**63, 2**64 - 1)).to_bytes(8, "little")
                case 6:
                    del spoilt[at:]
            if not spoilt:
                break
        yield bytes(spoilt)


def test_two_thousand_damaged_files_raise_nothing_but_checkpoint_errors(path):
    weights.write(path, state(), {"format": "pt"})
    whole = path.read_bytes()
    refusals = 0
    with open(path, "r+b") as file:
        for spoilt in mutants(whole, 2000, seed=1):
            file.seek(0)
            file.write(spoilt)
            file.truncate()
            file.flush()
            try:
                weights.read(path)
            except CheckpointError:
                refusals += 1
    assert 1500 < refusals <= 2000

"""`sfumato adapters` as it is typed, on LoRAs of the embedded model."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from sfumato import checkpoint
from sfumato.adapt import attach_new, live, save_lora


@pytest.fixture(scope="module")
def loras(tmp_path_factory):
    """The folder with "ink" (rank 3) and "moss" (rank 2), and "wide", which is made for SDXL."""
    folder = tmp_path_factory.mktemp("loras")
    networks = checkpoint.load("embedded", dtype=torch.float32).networks
    for rank, name in ((3, "ink"), (2, "moss")):
        live.detach(networks["unet"])
        generator = torch.Generator().manual_seed(rank)
        for parameter in attach_new(networks["unet"], rank, targets=["attn2.to_k"], generator=generator):
            torch.nn.init.normal_(parameter, std=0.1, generator=generator)
        metadata = {"modelspec.trigger_phrase": f"{name} style"}
        save_lora(folder / f"{name}.safetensors", networks, metadata=metadata)
    stem = "lora_unet_input_blocks_4_1_transformer_blocks_0_attn2_to_k"
    tensors = {f"{stem}.lora_down.weight": torch.ones(2, 2048), f"{stem}.lora_up.weight": torch.ones(640, 2)}
    save_file(tensors, folder / "wide.safetensors")
    save_file({"emb_params": torch.ones(2, 256)}, folder / "word.safetensors")
    return folder


@pytest.fixture
def folder(loras, tmp_path, monkeypatch):
    """The working folder with those files, and "ink" and "word" in the user's."""
    for path in loras.iterdir():
        shutil.copy(path, tmp_path)
    for kind, name in (("adapters", "ink"), ("embeddings", "word")):
        (tmp_path / "home" / kind).mkdir(parents=True)
        shutil.copy(loras / f"{name}.safetensors", tmp_path / "home" / kind)
    monkeypatch.setenv("SFUMATO_HOME", str(tmp_path / "home"))
    return tmp_path


def test_what_is_there_is_listed(here, folder):
    status, out, _ = here("adapters", "list")
    assert status == 0
    assert [line.split()[:2] for line in out.splitlines()] == [
        ["adapter", "kind"],
        ["ink", "LoRA"],
        ["word", "embedding"],
    ]
    found = [json.loads(line) for line in here("adapters", "list", "--json")[1].splitlines()]
    told = found[0]
    assert (told["name"], told["rank"], told["base"]) == ("ink", 3, "the embedded model")
    shutil.rmtree(folder / "home")
    assert here("adapters", "list")[1].startswith("no adapters yet: put LoRAs into")


def test_one_is_described_by_name_and_by_path(here, folder):
    status, out, _ = here("adapters", "info", "ink")
    facts = dict(line.split(maxsplit=1) for line in out.splitlines()[1:])
    assert (status, facts["rank"], facts["layout"]) == (0, "3", "PEFT")
    assert facts["norms"].startswith("down.1 ")
    told = json.loads(here("adapters", "info", "moss.safetensors", "--json")[1])
    assert set(told["norms"]) == {"down.1", "mid", "up.0"}
    assert here("adapters", "info", "word")[1].splitlines()[1].split() == ["kind", "embedding"]


def test_they_are_merged_converted_resized_folded_and_extracted(here, folder):
    arguments = ("adapters", "merge", "ink:0.5", "moss.safetensors", "-o", "both.safetensors")
    assert json.loads(here(*arguments, "--json")[1])["ranks"] == {"5": 4}
    status, out, _ = here(*arguments, "--overwrite")
    assert (status, out.split(", ")[:2]) == (0, ["both.safetensors: peft", "rank 5"])
    assert here("adapters", "convert", "both.safetensors", "k.safetensors", "--layout", "kohya")[0] == 0
    assert all(key.startswith("lora_unet_") for key in load_file(folder / "k.safetensors"))
    status, out, _ = here(
        "adapters", "resize", "k.safetensors", "small.safetensors", "--dynamic", "sv_fro:0.9"
    )
    kept = float(out.splitlines()[1].split()[1])
    assert (status, 90 <= kept < 100) == (0, True)
    status, out, _ = here("adapters", "fold", "both.safetensors", "-m", "embedded", "-o", "model", "--json")
    assert json.loads(out)["layers"] == {"unet": 4}
    status, out, _ = here("adapters", "extract", "embedded", "model", "found.safetensors", "--rank", "5")
    assert (status, out.split(", ")[:2]) == (0, ["found.safetensors: kohya", "rank 5"])


WRONG = {
    ("merge", "ink", "wide.safetensors", "-o", "o.safetensors"): "was made for Stable Diffusion XL, and",
    ("merge", "ink", "-o", "o.safetensors"): "merge takes two adapters or more, not 1",
    ("merge", "ink:1e9", "ink", "-o", "o.safetensors"): "ink:1e9: must be",
    ("merge", "ink", "nothing", "-o", "o.safetensors"): "there is no adapter 'nothing'",
    ("merge", "ink", "word.safetensors", "-o", "o.safetensors"): "word.safetensors is not an adapter",
    ("merge", "ink", "ink", "-o", "o.safetensors", "--rank", "0"): "rank is 0: must be 1 or more",
    ("merge", "ink", "moss.safetensors", "-o", "moss.safetensors", "--overwrite"): "is what is read",
    ("convert", "ink", "o.safetensors"): "Missing option '--layout'",
    ("convert", "ink", "o.safetensors", "--layout", "khoya"): "unknown layout 'khoya'; did you mean 'kohya'?",
    ("convert", "cut.safetensors", "o.safetensors", "--layout", "kohya"): "cut.safetensors is truncated",
    ("convert", "ink", "o.ckpt", "--layout", "kohya"): "an adapter is named .safetensors",
    ("resize", "ink", "o.safetensors"): "resize takes a rank",
    ("resize", "ink", "o.safetensors", "--dynamic", "sv_fro"): "must be METHOD:V, as sv_fro:0.95",
    ("resize", "ink", "o.safetensors", "--dynamic", "fro:1"): "unknown method 'fro'; did you mean",
    ("resize", "ink", "o.safetensors", "--rank", "2", "--dtype", "fp61"): "fp61",
    ("fold", "ink", "-m", "embedded", "-o", "o.safetensors"): "is a folder: the target must be one",
    ("fold", "wide.safetensors", "-m", "embedded", "-o", "o"): "was made for Stable Diffusion XL",
    ("extract", "embedded", "embedded", "o.safetensors", "--rank", "2"): "have the same weights",
    ("extract", "embedded", "nothing", "o.safetensors", "--rank", "2"): "there is no model 'nothing'",
    ("info", str(checkpoint.embedded())): "is a model's folder, not an adapter's",
    ("merge", "", "ink", "-o", "o.safetensors"): "'': ",
    ("info", "nothing"): "there is no adapter 'nothing'",
    ("info", "cut.safetensors"): "cut.safetensors is truncated",
}


@pytest.mark.parametrize("arguments", WRONG, ids=" ".join)
def test_what_is_wrong_is_one_line_and_status_2(arguments, here, folder):
    (folder / "cut.safetensors").write_bytes((folder / "moss.safetensors").read_bytes()[:5000])
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    status, out, err = here("adapters", *arguments)
    assert (status, out, len(err.splitlines())) == (2, "", 1), err
    assert WRONG[arguments] in err
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_what_is_there_is_replaced_on_demand_alone(here, folder):
    (folder / "o.safetensors").write_bytes(b"precious")
    arguments = ("adapters", "convert", "ink", "o.safetensors", "--layout", "kohya")
    status, _, err = here(*arguments)
    assert (status, "--overwrite replaces it" in err) == (1, True)
    assert (folder / "o.safetensors").read_bytes() == b"precious"
    assert here(*arguments, "--overwrite")[0] == 0

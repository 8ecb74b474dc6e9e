"""What `sfumato inspect` tells of an adapter or embedding, from its header alone."""

import json

import pytest
import torch
from adapt_families import ours, pipeline
from adapter_files import TARGETS, TEXT, kohya
from safetensors.torch import load_file, save_file

from sfumato.adapt.description import describe
from sfumato.cli.inspect import inspect

STEM = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"
METADATA = {
    "ss_network_module": "networks.lora",
    "ss_tag_frequency": json.dumps({"10_moss": {"moss": 12, "wet stone": 7}, "5_more": {"moss": 3}}),
    "ss_num_train_images": "40",
    "modelspec.title": "Moss",
    "modelspec.thumbnail": "data:image/png;base64," + "A" * 5000,
}


@pytest.fixture
def lora(tmp_path):
    path = tmp_path / "moss.safetensors"
    kohya(path, ours(pipeline("sd1")), (*TARGETS, *TEXT), rank=3, alpha=2.0)
    tensors = load_file(path)
    stem = "lora_unet_mid_block_attentions_0_proj_in"
    tensors |= {
        f"{stem}.lora_down.weight": torch.ones(2, 16, 1, 1),
        f"{stem}.lora_up.weight": torch.ones(16, 2, 1, 1),
        f"{stem}.dora_scale": torch.ones(16, 1, 1, 1),
        "bundle_emb.quill.clip_l": torch.ones(4, 24),
        "lora_unet_x.oft_blocks": torch.ones(2),
    }
    save_file(tensors, path, METADATA)
    return path


def test_a_loras_facts_are_told(lora):
    told = describe(lora)
    unet = len([key for key in load_file(lora) if key.startswith("lora_unet_") and key.endswith(".alpha")])
    assert told.kinds == {"LoRA": unet - 1 + 12, "DoRA": 1}
    assert (told.layout, told.base) == ("kohya", "a model whose text is 24 wide")
    assert told.layers == {"unet": unet, "text_encoder": 12}
    assert told.ranks == {3: unet - 1 + 12, 2: 1}
    assert told.alphas == {2.0: unet + 12}
    assert told.embeddings == {"quill": (4, 24)}
    assert told.triggers == ("moss", "wet stone")
    assert told.tags == {"moss": 15, "wet stone": 7}
    assert told.not_read == ("lora_unet_x.oft_blocks",)


@pytest.mark.parametrize(("width", "base"), [(768, "1.x"), (1024, "2.x"), (2048, "XL")])
@pytest.mark.parametrize("kind", ["LoRA", "LoHa"])
def test_the_base_is_told_by_the_width_of_the_text(kind, width, base, tmp_path):
    down, up = torch.ones(4, width), torch.ones(320, 4)
    parts = {"lora_down.weight": down, "lora_up.weight": up}
    if kind == "LoHa":
        parts = {f"hada_w{i}_{half}": each.clone() for i in "12" for half, each in (("a", up), ("b", down))}
    save_file({f"{STEM}.{role}": tensor for role, tensor in parts.items()}, tmp_path / "it.safetensors")
    told = describe(tmp_path / "it.safetensors")
    assert told.base.startswith(f"Stable Diffusion {base}")
    assert (told.kinds, told.ranks) == ({kind: 1}, {4: 1})


def test_a_folders_settings_are_told(tmp_path):
    tensors = {"lora_A.weight": torch.ones(2, 768), "lora_B.weight": torch.ones(320, 2)}
    key = "base_model.model.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k"
    save_file(
        {f"{key}.{role}": tensor for role, tensor in tensors.items()},
        tmp_path / "adapter_model.safetensors",
    )
    (tmp_path / "adapter_config.json").write_text('{"lora_alpha": 8, "r": 2}')
    told = describe(tmp_path)
    assert (told.layout, told.ranks, told.alphas) == ("PEFT", {2: 1}, {8.0: 1})


def test_the_command_prints_them_by_path_and_by_name(lora, tmp_path, monkeypatch, capfdbinary):
    assert inspect([str(lora)], as_json=False) == 0
    lines = capfdbinary.readouterr().out.decode().splitlines()
    facts = dict(line.split(maxsplit=1) for line in lines[1:] if not line.startswith("trigger"))
    assert lines[0] == f"{lora}: F32, {lora.stat().st_size / 1e6:.1f} MB"
    assert facts["alpha"] == "2"
    assert facts["embeddings"] == "quill (4 vectors, 24 wide)"
    assert facts["tags"] == "moss (15), wet stone (7)"
    assert facts["ss_num_train_images"] == "40"
    assert facts["modelspec.title"] == "Moss"
    assert "modelspec.thumbnail" not in facts
    assert "trigger words      moss, wet stone" in lines
    monkeypatch.setenv("SFUMATO_HOME", str(tmp_path))
    (tmp_path / "adapters").mkdir()
    lora.rename(tmp_path / "adapters" / "moss.safetensors")
    assert inspect(["moss"], as_json=True) == 0
    told = json.loads(capfdbinary.readouterr().out)
    assert told["tags"] == {"moss": 15, "wet stone": 7}
    assert told["metadata"]["modelspec.title"] == "Moss"


def test_an_embedding_is_told(tmp_path):
    save_file({"clip_l": torch.ones(3, 768), "clip_g": torch.ones(3, 1280)}, tmp_path / "moss.safetensors")
    told = describe(tmp_path / "moss.safetensors")
    assert (told.layout, told.base) == ("textual inversion", "Stable Diffusion XL")
    assert told.embeddings == {"moss": (3, 768, 1280)}


def test_models_and_broken_files_are_left_to_others(tmp_path):
    tensors = {f"conv_in.{name}": torch.ones(2, 2) for name in ("weight", "bias")}
    save_file(tensors, tmp_path / "unet.safetensors")
    (tmp_path / "broken.safetensors").write_bytes(b"{")
    for name in ("unet.safetensors", "broken.safetensors", "missing", "."):
        assert describe(tmp_path / name) is None

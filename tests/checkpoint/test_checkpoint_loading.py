import json
import shutil
import socket

import pytest
import safetensors.torch
import torch
from checkpoint_families import FAMILIES, give_scheduler

from sfumato import checkpoint
from sfumato.diffusion.level import Flow, VariancePreserving
from sfumato.errors import CheckpointError
from sfumato.nets.unet import SizeConditioning

KINDS = {
    "sd1": ("latent-diffusion", "text", None),
    "sd2": ("latent-diffusion", "text", None),
    "sdxl": ("sdxl", "text", None),
    "refiner": ("sdxl-refiner", "text", None),
    "inpaint": ("latent-diffusion", "inpaint", None),
    "instruct": ("latent-diffusion", "instruct", None),
    "lcm": ("latent-diffusion", "text", "lcm"),
}


def peers(pipe):
    return {
        name: getattr(pipe, name)
        for name in ("unet", "vae", "text_encoder", "text_encoder_2")
        if getattr(pipe, name, None) is not None
    }


def assert_same_weights(model, pipe, dtype=None):
    theirs = peers(pipe)
    assert model.networks.keys() == theirs.keys()
    for name, network in model.networks.items():
        state = {key.removeprefix("text_model."): value for key, value in theirs[name].state_dict().items()}
        state.pop("embeddings.position_ids", None)
        assert network.state_dict().keys() == state.keys()
        for key, tensor in network.state_dict().items():
            assert torch.equal(tensor, state[key] if dtype is None else state[key].to(dtype)), key


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("layout", ["plain", "variant", "sharded", "sharded variant"])
def test_what_diffusers_saves_is_loaded_strictly(pipelines, tmp_path, family, layout):
    pipe = pipelines(family)
    options = {"max_shard_size": "100KB"} if "sharded" in layout else {}
    pipe.save_pretrained(tmp_path / "m", variant="fp16" if "variant" in layout else None, **options)
    if "sharded" in layout:
        assert len(list((tmp_path / "m" / "unet").glob("*.safetensors"))) > 1
    model = checkpoint.load(tmp_path / "m")
    assert_same_weights(model, pipe)
    assert (model.kind, model.task, model.info.distilled) == KINDS[family]
    assert (model.native_size, model.factor, model.name) == ((16, 16), 2, "m")
    assert (model.report.value("unet variant") == "fp16") == ("variant" in layout)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_loaded_model_answers_as_diffusers_and_transformers_do(pipelines, saved, family):
    pipe, model = pipelines(family), checkpoint.load(saved(family))
    prompt = "a red apple, 3d render"
    states, pooled = [], None
    for suffix in ("", "_2"):
        if encoder := getattr(pipe, f"text_encoder{suffix}", None):
            ids = getattr(pipe, f"tokenizer{suffix}")(
                prompt, padding="max_length", return_tensors="pt"
            ).input_ids
            with torch.no_grad():
                out = encoder(ids, output_hidden_states=True)
            sdxl = family in ("sdxl", "refiner")
            states.append(out.hidden_states[-2] if sdxl else out.last_hidden_state)
            pooled = out[0] if sdxl else None
    cond = model.encode(prompt)
    torch.testing.assert_close(cond.states, torch.cat(states, -1), rtol=1e-4, atol=1e-5)
    assert (cond.pooled is None) == (pooled is None)
    x = torch.randn(1, pipe.unet.config.in_channels, 8, 8, generator=torch.Generator().manual_seed(0))
    extra, added, guidance = {}, None, None
    if pooled is not None:
        torch.testing.assert_close(cond.pooled, pooled, rtol=1e-4, atol=1e-5)
        ids = model.size_ids((16, 16))
        extra["added_cond_kwargs"] = {"text_embeds": cond.pooled, "time_ids": ids}
        added = SizeConditioning(cond.pooled, ids)
    if family == "lcm":
        guidance = torch.tensor([8.5])
        extra["timestep_cond"] = pipe.get_guidance_scale_embedding(guidance - 1, embedding_dim=32)
    with torch.no_grad():
        theirs = pipe.unet(x, 500, cond.states, **extra).sample
        ours = model.unet(x, torch.tensor([500.0]), cond.states, added, guidance)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_the_fields_of_a_schedule_become_prediction_and_path(folder):
    def path_of(**config):
        base = {"_class_name": "DDIMScheduler", "beta_start": 0.00085, "beta_end": 0.012}
        give_scheduler(folder, base | config)
        model = checkpoint.load(folder)
        return model.prediction, model.path()

    import diffusers

    for config in (
        {"beta_schedule": "scaled_linear"},
        {"beta_schedule": "linear"},
        {"beta_schedule": "squaredcos_cap_v2"},
        {"trained_betas": [0.1, 0.2, 0.3, 0.4], "num_train_timesteps": 4},
        {"beta_schedule": "scaled_linear", "prediction_type": "v_prediction", "rescale_betas_zero_snr": True},
        {"beta_schedule": "scaled_linear", "prediction_type": "sample"},
    ):
        prediction, path = path_of(**config)
        peer = diffusers.DDIMScheduler(**{"beta_start": 0.00085, "beta_end": 0.012, **config})
        assert isinstance(path, VariancePreserving)
        assert prediction == {"v_prediction": "v", "sample": "x0"}.get(
            config.get("prediction_type"), "epsilon"
        )
        torch.testing.assert_close(path.alphas_cumprod.float(), peer.alphas_cumprod, rtol=1e-3, atol=1e-6)
    prediction, path = path_of(_class_name="FlowMatchEulerDiscreteScheduler", shift=3.0)
    assert (prediction, path.shift, path.last) == ("flow", 3.0, 1000.0)
    assert isinstance(path, Flow)


@pytest.mark.parametrize("kind", ["exponential", "linear"])
@pytest.mark.parametrize("size", [(16, 16), (128, 64), (256, 256)])
def test_a_flow_is_shifted_by_the_size_of_the_picture_as_in_diffusers(folder, kind, size):
    from diffusers import FlowMatchEulerDiscreteScheduler
    from diffusers.pipelines.flux.pipeline_flux import calculate_shift

    config = {"base_shift": 0.6, "max_shift": 1.3, "use_dynamic_shifting": True, "time_shift_type": kind}
    peer = FlowMatchEulerDiscreteScheduler(**config)
    give_scheduler(folder, {"_class_name": type(peer).__name__, **config})
    model = checkpoint.load(folder)
    positions = size[0] // model.factor * size[1] // model.factor
    peer.set_timesteps(6, mu=calculate_shift(positions, base_shift=0.6, max_shift=1.3))
    path = model.path(size)
    ours = torch.tensor([path.level(float(t)).s for t in torch.linspace(1000, 1, 6)])
    torch.testing.assert_close(ours, peer.sigmas[:-1], rtol=1e-5, atol=1e-6)
    assert [level.s for level in model.levels("trailing", 3, size)] != [
        level.s for level in model.levels("trailing", 3, (8, 8))
    ]
    assert model.path().shift == model.path(model.native_size).shift
    assert checkpoint.inspect(folder).value("path") == "flow, shifted by the picture's size"


def rewrite(path, change):
    tensors = safetensors.torch.load_file(path)
    safetensors.torch.save_file(change(tensors), path)


def test_old_attention_names_and_convolutions_are_read_as_today_s(pipelines, folder):
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}

    def change(tensors, square):
        found = {}
        for name, tensor in tensors.items():
            if ".attentions." in name:
                for today, before in old.items():
                    name = name.replace(today, before)
                if square and name.endswith("weight") and tensor.ndim == 2:
                    tensor = tensor[:, :, None, None].contiguous()
            found[name] = tensor
        assert any("proj_attn" in name for name in found)
        return found

    weights = folder / "vae" / "diffusion_pytorch_model.safetensors"
    original = weights.read_bytes()
    for square in (False, True):
        weights.write_bytes(original)
        rewrite(weights, lambda tensors, square=square: change(tensors, square))
        assert not checkpoint.inspect(folder).problems
        assert_same_weights(checkpoint.load(folder), pipelines("sd1"))


@pytest.mark.parametrize("prefix", ["", "text_model."])
def test_text_encoders_are_read_with_and_without_prefix_and_position_ids(pipelines, folder, prefix):
    def change(tensors):
        found = {prefix + name.removeprefix("text_model."): tensor for name, tensor in tensors.items()}
        return {**found, f"{prefix}embeddings.position_ids": torch.arange(77)[None]}

    rewrite(folder / "text_encoder" / "model.safetensors", change)
    assert not checkpoint.inspect(folder).problems
    assert_same_weights(checkpoint.load(folder), pipelines("sd1"))


def test_a_parameter_under_two_names_is_refused(folder):
    rewrite(
        folder / "text_encoder" / "model.safetensors",
        lambda tensors: (
            tensors
            | {"text_model.final_layer_norm.bias": torch.zeros(24), "final_layer_norm.bias": torch.zeros(24)}
        ),
    )
    with pytest.raises(CheckpointError, match=r"are both 'final_layer_norm\.bias'"):
        checkpoint.load(folder)


def test_the_variant_is_chosen_by_wish_then_by_precision_then_by_what_there_is(pipelines, tmp_path):
    pipe = pipelines("sd1")
    folder = tmp_path / "m"
    pipe.save_pretrained(folder)
    pipe.save_pretrained(folder, variant="fp16")
    chosen = {
        what: checkpoint.load(folder, **options).report.components[0].variant
        for what, options in {
            "plain": {},
            "asked": {"variant": "fp16"},
            "half": {"dtype": torch.bfloat16},
        }.items()
    }
    assert chosen == {"plain": None, "asked": "fp16", "half": "fp16"}
    with pytest.raises(CheckpointError, match="no weights of variant 'fp32'"):
        checkpoint.load(folder, variant="fp32")
    (folder / "vae" / "diffusion_pytorch_model.fp16.safetensors").unlink()
    variants = {part.name: part.variant for part in checkpoint.load(folder, variant="fp16").report.components}
    assert variants == {"unet": "fp16", "vae": None, "text_encoder": "fp16"}


def test_weights_are_converted_once_and_need_no_gradient(pipelines, saved):
    model = checkpoint.load(saved("sd1"), dtype=torch.float16)
    assert_same_weights(model, pipelines("sd1"), torch.float16)
    for network in model.networks.values():
        assert not network.training
        assert not any(parameter.requires_grad or parameter.is_meta for parameter in network.parameters())


def test_absent_and_unused_components_are_no_obstacle(folder):
    index = json.loads((folder / "model_index.json").read_text())
    for name in ("safety_checker", "feature_extractor", "image_encoder", "requires_safety_checker"):
        index.pop(name, None)
    index["safety_checker"] = ["stable_diffusion", "StableDiffusionSafetyChecker"]
    (folder / "model_index.json").write_text(json.dumps(index))
    (folder / "safety_checker").mkdir()
    (folder / "safety_checker" / "pytorch_model.bin").write_bytes(b"\x80\x02never read")
    checkpoint.load(folder)


def test_a_folder_is_loaded_without_a_network(saved, monkeypatch):
    monkeypatch.setattr(socket, "socket", lambda *args: pytest.fail("the network was touched"))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args: pytest.fail("the network was touched"))
    checkpoint.load(str(saved("sd1")))
    checkpoint.inspect(saved("sdxl"))


def test_a_model_states_its_own_defaults(folder):
    own = {"native_size": [24, 32], "sampler": "euler", "spacing": "karras", "steps": 7, "guidance": 2}
    (folder / "sfumato.json").write_text(json.dumps(own))
    model = checkpoint.load(folder)
    assert model.native_size == (24, 32)
    assert vars(model.defaults) == {"sampler": "euler", "spacing": "karras", "steps": 7, "guidance": 2}


@pytest.mark.parametrize(
    ("own", "words"),
    [
        ({"stepps": 7}, "unknown key 'stepps'; did you mean 'steps'"),
        ({"steps": 0}, "steps is 0: must be at least 1 .allowed: 1 to 1000."),
        ({"steps": True}, "steps is True: must be a valid integer"),
        ({"guidance": "7"}, "guidance is '7': must be a valid number .allowed: 0 to 100."),
        ({"sampler": "magic"}, "sampler is 'magic': not supported; known: adams, "),
        ({"spacing": 3}, "spacing is 3: must be a valid string"),
        ({"native_size": [16]}, r"native_size is \(16,\): must have more than 1 item"),
        ({"native_size": [17, 16]}, "in steps of 2"),
    ],
)
def test_defaults_out_of_range_are_refused(folder, own, words):
    (folder / "sfumato.json").write_text(json.dumps(own))
    with pytest.raises(CheckpointError, match=words):
        checkpoint.load(folder)


def test_a_fingerprint_follows_the_content_and_not_the_place(folder, tmp_path):
    first = checkpoint.load(folder).fingerprint
    assert len(first) == 16
    copy = shutil.copytree(folder, tmp_path / "copy")
    (copy / "README.md").write_text("a note")
    assert checkpoint.load(copy).fingerprint == checkpoint.inspect(copy).fingerprint == first
    rewrite(
        copy / "unet" / "diffusion_pytorch_model.safetensors",
        lambda tensors: tensors | {"conv_in.bias": tensors["conv_in.bias"] + 1},
    )
    changed = checkpoint.load(copy).fingerprint
    assert changed != first
    scheduler = copy / "scheduler" / "scheduler_config.json"
    scheduler.write_text(scheduler.read_text().replace("0.012", "0.013"))
    assert checkpoint.load(copy).fingerprint not in (first, changed)

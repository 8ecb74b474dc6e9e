"""What teaches a model a subject: textual inversion, DreamBooth, adapters of every kind."""

import shutil

import diffusers
import peft
import pytest
import torch
from making import changed, made

from sfumato import checkpoint, weights
from sfumato.adapt import embedding
from sfumato.adapt.adapters import Adapters
from sfumato.adapt.live import NEW_KINDS, attached
from sfumato.diffusion.predict import prediction_named
from sfumato.errors import UsageError
from sfumato.nets.inputs import SizeConditioning
from sfumato.train.cache import CaptionEncoder
from sfumato.train.context import StepContext
from sfumato.train.examples import LatentBatch
from sfumato.train.loop import train
from sfumato.train.objectives import task
from sfumato.train.objectives.denoiser import DenoisingLoss
from sfumato.train.objectives.dreambooth import CLASS_PICTURES
from sfumato.train.objectives.unet import TrainedUNet
from sfumato.train.recipe import AdapterSection
from sfumato.train.state import FILE

CPU = torch.device("cpu")
KEYS = {"steps": 2, "batch_size": 4, "precision": "float32", "warmup_steps": 0, "ema_decays": (0.5,)}


@pytest.fixture
def inversion(tiny_base, own_pictures, tmp_path):
    return made(
        "textual-inversion", folder=str(own_pictures), base=str(tiny_base), run=str(tmp_path / "run"),
        token="mywall", vectors=3, initializer="red wall", caption_template=("mywall", "a mywall"), **KEYS,
        learning_rate=0.05,
    )  # fmt: skip


def test_only_the_new_rows_change_and_keep_their_norm(inversion, tiny_base, tmp_path):
    """Every weight of the model is as it was, to the bit; the new rows are not."""
    before = checkpoint.load(str(tiny_base), dtype=torch.float32)
    learned = task(inversion, CPU)
    assert [name for name, _ in learned.net.named_parameters()] == ["rows.0"]
    begun = learned.net.for_width(0, 256).detach().clone()
    train(learned, inversion, CPU)
    word = embedding.read(tmp_path / "run" / "mywall.safetensors")
    assert (word.token, word.count) == ("mywall", 3)
    assert not torch.equal(word.vectors[0], begun)
    assert torch.allclose(word.vectors[0].norm(dim=1), begun.norm(dim=1), rtol=1e-5)
    after = learned.loss.net.state_dict()
    assert all(torch.equal(weight, after[name]) for name, weight in before.unet.state_dict().items())
    table = before.text_encoders[0].embeddings.token_embedding.weight
    ids = before.tokenizers[0].encode("red wall")
    assert torch.allclose(begun[0], table[ids[0]], rtol=1e-5)
    read = learned.batches.states.base.text_encoders[0].state_dict()
    assert all(
        torch.equal(weight, read[name]) for name, weight in before.text_encoders[0].state_dict().items()
    )


def test_a_word_that_no_caption_names_is_refused():
    with pytest.raises(UsageError, match="caption_template must name the token 'mywall'"):
        made("textual-inversion", folder="x", run="y", token="mywall", caption_template="a wall")


def test_a_lora_is_trained_with_a_learned_word_and_brings_it(inversion, tmp_path):
    train(task(inversion, CPU), inversion, CPU)
    pivotal = made(
        "denoiser", folder=inversion.data.folder, base=inversion.base, run=str(tmp_path / "second"),
        embeddings=(str(tmp_path / "run" / "mywall.safetensors"),), caption_template="mywall", rank=2,
        layout="kohya", **KEYS,
    )  # fmt: skip
    train(task(pivotal, CPU), pivotal, CPU)
    model = checkpoint.load(inversion.base, dtype=torch.float32)
    adapter = Adapters(model.networks).load(tmp_path / "second" / "lora.safetensors")
    assert adapter.report.whole
    assert adapter.embeddings["mywall"].vectors[0].shape == (3, 256)


def test_a_layout_without_a_place_for_words_is_refused_before_anything_is_learned():
    with pytest.raises(UsageError, match="layout must be 'kohya'"):
        made("denoiser", folder="x", run="y", embeddings=("word.safetensors",), rank=2)


@pytest.fixture
def dreambooth(tiny_base, own_pictures, tmp_path):
    return made(
        "dreambooth", folder=str(own_pictures), base=str(tiny_base), run=str(tmp_path / "run"),
        class_prompt="a red square", class_pictures=3, prior_weight=0.5, caption_template="sks wall",
        rank=2, **KEYS,
    )  # fmt: skip


def test_half_a_batch_is_of_the_class_whose_pictures_are_drawn_once(dreambooth, tmp_path, monkeypatch):
    first = task(dreambooth, CPU)
    drawn = sorted((tmp_path / "run" / CLASS_PICTURES).glob("*.png"))
    assert len(drawn) == 3
    generator = torch.Generator().manual_seed(1)
    batch = first.batches(StepContext(0, 0, 1, generator), 4)
    assert batch.weights.tolist() == [1, 1, 0.5, 0.5]
    assert torch.equal(batch.states[2], batch.states[3])
    assert not torch.equal(batch.states[1], batch.states[2])
    drawn[1].unlink()
    kept = drawn[0].stat().st_mtime_ns
    task(dreambooth, CPU)
    assert drawn[1].is_file()
    assert drawn[0].stat().st_mtime_ns == kept
    monkeypatch.setattr("sfumato.train.sample_grid.draw", None)
    assert train(task(dreambooth, CPU), changed(dreambooth, prompts=()), CPU).done


@pytest.mark.parametrize("kind", [*NEW_KINDS, "dora"])
def test_an_adapter_of_every_kind_begins_without_effect_learns_and_is_read_back(
    kind, tiny_base, own_pictures, tmp_path
):
    section = AdapterSection(
        kind="lora" if kind == "dora" else kind, dora=kind == "dora", rank=2, rank_pattern={"to_v": 1},
        alpha_pattern={r"mid_block\..*to_q": 4.0}, rank_stabilized=kind == "lora",
    )  # fmt: skip
    recipe = changed(
        made("denoiser", folder=str(own_pictures), base=str(tiny_base), run=str(tmp_path), **KEYS),
        adapter=section,
    )
    learned = task(recipe, CPU)
    plain = checkpoint.load(str(tiny_base), dtype=torch.float32).unet
    given = torch.randn(1, 4, 8, 8), torch.tensor([500]), torch.randn(1, 77, 256)
    assert torch.allclose(learned.net(*given), plain(*given), atol=1e-5)
    train(learned, recipe, CPU)
    model = checkpoint.load(str(tiny_base), dtype=torch.float32)
    adapters = Adapters(model.networks)
    adapter = adapters.load(tmp_path / "lora.safetensors")
    assert adapter.report.whole
    ours = {path: each.delta for path, each in attached(learned.net).items()}
    assert {path for _, path in adapter.deltas} == set(ours)
    for (_, path), delta in adapter.deltas.items():
        assert delta.scale == pytest.approx(ours[path].scale, rel=1e-3)
        if kind in ("lora", "dora"):
            assert delta.rank == (1 if path.endswith("to_v") else 2)


@pytest.mark.parametrize("family_name", ["sd1", "sd2", "sdxl", "inpaint"])
def test_a_steps_gradient_is_that_of_diffusers_and_peft(family_name, family):
    """The same LoRA, latents, noise and times: the loss and the gradient of every weight of the LoRA."""
    folder = family(family_name)
    base = checkpoint.load(str(folder), dtype=torch.float32)
    net = checkpoint.load(str(folder), dtype=torch.float32).unet.requires_grad_(False)
    section = AdapterSection(rank=2, target_modules=("to_q", "to_k", "to_v", "to_out.0"))
    section.attach(net, torch.Generator().manual_seed(3))
    with torch.no_grad():
        for each in attached(net).values():
            each.delta.parts["up"].normal_(std=0.05, generator=torch.Generator().manual_seed(4))
    pipeline = diffusers.DiffusionPipeline.from_pretrained(folder)
    peer = pipeline.unet.requires_grad_(False)
    peer.add_adapter(peft.LoraConfig(r=2, lora_alpha=2, target_modules=["to_q", "to_k", "to_v", "to_out.0"]))
    parameters = dict(peer.named_parameters())
    with torch.no_grad():
        for path, each in attached(net).items():
            parameters[f"{path}.lora_A.default.weight"].copy_(each.delta.parts["down"])
            parameters[f"{path}.lora_B.default.weight"].copy_(each.delta.parts["up"])

    torch.manual_seed(5)
    x0 = torch.randn(3, 4, 8, 8)
    states = torch.randn(3, 77, net.config.context[0])
    more = torch.randn(3, 5, 8, 8) if family_name == "inpaint" else None
    size = SizeConditioning(torch.randn(3, 20), torch.randint(8, 64, (3, 6)).float())
    added = size if family_name == "sdxl" else None
    loss = DenoisingLoss(net, base.path(), prediction_named(base.prediction), "plain", CPU)
    batch = LatentBatch(x0, states, added, channels=more)
    ours, _ = loss(batch, torch.Generator().manual_seed(6))
    ours.mean().backward()

    generator = torch.Generator().manual_seed(6)
    u = (torch.rand(3, generator=generator) + torch.arange(3)) / 3
    timesteps = (u * 1000).long()
    eps = torch.randn(x0.shape, generator=generator)
    scheduler = diffusers.DDPMScheduler.from_config(pipeline.scheduler.config)
    noisy = scheduler.add_noise(x0, eps, timesteps)
    seen = noisy if more is None else torch.cat([noisy, more], dim=1)
    extra = {"added_cond_kwargs": {"text_embeds": size.pooled, "time_ids": size.ids}} if added else {}
    out = peer(seen, timesteps, states, **extra).sample
    is_v = scheduler.config.prediction_type == "v_prediction"
    target = scheduler.get_velocity(x0, eps, timesteps) if is_v else eps
    theirs = torch.nn.functional.mse_loss(out, target)
    theirs.backward()
    assert is_v == (family_name == "sd2")
    assert ours.mean().item() == pytest.approx(theirs.item(), rel=1e-4)
    for path, each in attached(net).items():
        for role, peers in (("down", "lora_A"), ("up", "lora_B")):
            expected = parameters[f"{path}.{peers}.default.weight"].grad
            torch.testing.assert_close(
                each.delta.parts[role].grad,
                expected,
                rtol=2e-3,
                atol=2e-5 * expected.abs().max().item() + 1e-8,
            )


@pytest.mark.parametrize("family_name", ["sd1", "sdxl"])
def test_the_gradient_of_trained_text_encoders_is_that_of_diffusers_and_peft(family_name, family):
    """The same LoRAs of the UNet and of each text encoder, by the loss through the texts' states."""
    folder, text = family(family_name), "a red mug"
    base = checkpoint.load(str(folder), dtype=torch.float32)
    recipe = made(
        "denoiser", folder="-", run="-", base=str(folder), rank=2, target_modules=("to_q", "to_k", "to_v"),
        text_encoders=True, precision="float32",
    )  # fmt: skip
    trained = TrainedUNet(recipe, base, CPU)
    net, encoders = trained.network(), trained.text_encoders()
    assert list(encoders) == ["text_encoder", "text_encoder_2"][: len(encoders)]
    pipeline = diffusers.DiffusionPipeline.from_pretrained(folder)
    peers = {"unet": (net, pipeline.unet)}
    peers |= {place: (each, getattr(pipeline, place)) for place, each in encoders.items()}
    pairs = {}
    for place, (ours, theirs) in peers.items():
        modules = ["to_q", "to_k", "to_v"] if place == "unet" else ["q_proj", "k_proj", "v_proj", "out_proj"]
        theirs.requires_grad_(False)
        theirs.add_adapter(peft.LoraConfig(r=2, lora_alpha=2, target_modules=modules))
        parameters = dict(theirs.named_parameters())
        for path, each in attached(ours).items():
            inside = "" if place == "unet" or f"{path}.lora_A.default.weight" in parameters else "text_model."
            for role, peer in (("down", "lora_A"), ("up", "lora_B")):
                mine = each.delta.parts[role]
                pairs[place, path, role] = mine, parameters[f"{inside}{path}.{peer}.default.weight"]
                with torch.no_grad():
                    mine.normal_(std=0.1)
                    pairs[place, path, role][1].copy_(mine)

    x0, time = torch.randn(1, 4, 8, 8), torch.tensor([400])
    states, pooled = CaptionEncoder(base, CPU, trained=True)([text])
    size = None if pooled is None else SizeConditioning(pooled, torch.full((1, 6), 64.0))
    net(x0, time, states, size).square().mean().backward()

    read, row = [], None
    for place in encoders:
        tokenizer = getattr(pipeline, place.replace("text_encoder", "tokenizer"))
        ids = tokenizer(text, padding="max_length", truncation=True, return_tensors="pt").input_ids
        out = getattr(pipeline, place)(ids, output_hidden_states=True)
        read.append(out.hidden_states[-2] if family_name == "sdxl" else out.last_hidden_state)
        row = out[0]
    extra = {"added_cond_kwargs": {"text_embeds": row, "time_ids": size.ids}} if size else {}
    pipeline.unet(x0, time, torch.cat(read, -1), **extra).sample.square().mean().backward()
    assert {place for place, *_ in pairs} == {"unet", *encoders}
    moved = set()
    for (place, *_), (mine, peer) in pairs.items():
        expected = torch.zeros_like(mine) if peer.grad is None else peer.grad
        own = torch.zeros_like(mine) if mine.grad is None else mine.grad
        torch.testing.assert_close(own, expected, rtol=2e-3, atol=2e-5 * expected.abs().max().item() + 1e-9)
        moved |= {place} if own.any() else set()
    assert moved == {"unet", *encoders}


@pytest.mark.parametrize(
    ("layout", "key"), [("peft", "text_encoder.text_model."), ("kohya", "lora_te_text_")]
)
def test_trained_text_encoders_are_written_and_read_back(layout, key, tiny_base, own_pictures, tmp_path):
    recipe = made(
        "denoiser", folder=str(own_pictures), base=str(tiny_base), run=str(tmp_path / "run"), rank=2,
        text_encoders=True, layout=layout, learning_rate=0.01, prompts=("a wall",), **KEYS,
    )  # fmt: skip
    before = checkpoint.load(str(tiny_base), dtype=torch.float32).text_encoders[0].state_dict()
    learned = task(recipe, CPU)
    assert train(learned, recipe, CPU).done
    assert any(name.startswith(key) for name in weights.read(tmp_path / "run" / "lora.safetensors"))
    model = checkpoint.load(str(tiny_base), dtype=torch.float32)
    adapter = Adapters(model.networks).load(tmp_path / "run" / "lora.safetensors")
    assert adapter.report.whole
    assert {part for part, _ in adapter.deltas} == {"unet", "text_encoder"}
    changed_ones = [delta for (part, _), delta in adapter.deltas.items() if part == "text_encoder"]
    assert any(delta.parts["up"].any() for delta in changed_ones)
    encoder = learned.net["text_encoder"]
    after = {name: weight for name, weight in encoder.state_dict().items() if "adapters" not in name}
    assert all(torch.equal(weight, after[name]) for name, weight in before.items())


def test_dreambooth_reads_the_class_anew_while_text_encoders_are_trained(dreambooth):
    recipe = changed(dreambooth, text_encoders=True)
    batch = task(recipe, CPU).batches(StepContext(0, 0, 1, torch.Generator().manual_seed(1)), 4)
    assert batch.states.requires_grad


def test_an_adapter_takes_the_memory_of_one_network_and_its_state_holds_the_adapter_alone(
    tiny_base, own_pictures, tmp_path
):
    recipe = made(
        "denoiser", folder=str(own_pictures), base=str(tiny_base), run=str(tmp_path), rank=2, **KEYS
    )
    loaded = []
    original = checkpoint.load
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint, "load", lambda *a, **k: loaded.append(original(*a, **k)) or loaded[-1])
        learned = task(recipe, CPU)
    own = dict(learned.net.named_parameters())
    for name, weight in loaded[0].unet.named_parameters():
        assert weight.data_ptr() == own[name].data_ptr()
    train(learned, recipe, CPU)
    assert not [name for name in weights.read(tmp_path / FILE) if "net." in name and "adapters" not in name]


def test_an_adapters_run_does_not_go_on_with_other_weights_of_its_base(tiny_base, own_pictures, tmp_path):
    mine = tmp_path / "mine"
    shutil.copytree(tiny_base, mine)
    recipe = made(
        "denoiser", folder=str(own_pictures), base=str(mine), run=str(tmp_path / "run"), rank=2, **KEYS
    )
    train(task(recipe, CPU), recipe, CPU, seconds=0)
    model = checkpoint.load(str(mine), dtype=torch.float32)
    model.unet.conv_out.bias.data += 1
    checkpoint.save(model, mine, overwrite=True)
    with pytest.raises(UsageError, match=r"is of an adapter for other weights than .*mine has now"):
        train(task(recipe, CPU), recipe, CPU)


def test_custom_diffusion_trains_the_keys_and_values_of_the_text_alone(tiny_base, own_pictures, tmp_path):
    recipe = made(
        "denoiser", folder=str(own_pictures), base=str(tiny_base), run=str(tmp_path), kind="full",
        target_modules=("attn2.to_k", "attn2.to_v"), **KEYS,
    )  # fmt: skip
    learned = task(recipe, CPU)
    train(learned, recipe, CPU)
    ends = {path.rsplit(".", 2)[-2] + "." + path.rsplit(".", 1)[-1] for path in attached(learned.net)}
    assert ends == {"attn2.to_k", "attn2.to_v"}
    assert all(each.delta.parts["diff"].any() for each in attached(learned.net).values())
    assert {weight.shape for weight in learned.net.parameters() if weight.requires_grad} == {
        each.delta.parts["diff"].shape for each in attached(learned.net).values()
    }

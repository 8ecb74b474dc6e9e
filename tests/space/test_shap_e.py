"""Shap-E's folders, made by diffusers at random: read strictly, drawn, seen and meshed as diffusers does."""

import json

import diffusers
import numpy as np
import PIL.Image
import pytest
import safetensors.torch
import torch
from diffusers.pipelines.shap_e import ShapERenderer
from diffusers.pipelines.shap_e.camera import create_pan_cameras
from shap_e_models import LATENT, PUBLISHED, set_cases, shap_e

import sfumato
from sfumato import checkpoint
from sfumato.checkpoint import library, source
from sfumato.checkpoint.layout import lacking
from sfumato.checkpoint.loading import empty_network
from sfumato.checkpoint.shape_model import load_shape_model
from sfumato.config import PriorConfig, ShapERendererConfig
from sfumato.errors import CheckpointError, UsageError
from sfumato.options import DeviceOptions
from sfumato.space import implicit
from sfumato.space.camera import Camera

PICTURE = PIL.Image.fromarray(
    np.random.default_rng(0).integers(0, 256, (40, 56, 3), dtype=np.uint8), mode="RGB"
)


@pytest.fixture(scope="module", params=["text", "image"])
def both(request, tmp_path_factory):
    """diffusers' pipeline, and ours of the folder that it wrote, in float32."""
    folder = tmp_path_factory.mktemp("shap-e") / request.param
    theirs = shap_e(request.param == "image")
    theirs.set_progress_bar_config(disable=True)
    theirs.save_pretrained(folder)
    return theirs, sfumato.ShapeModel.load(folder, DeviceOptions(device="cpu", dtype="float32")), folder


def asked(model):
    """What both are asked for: of us, and of diffusers."""
    return ("", {"image": PICTURE}) if model.model.task == "image" else ("a red apple", {})


def drawn(both, steps=4, guidance=4.0):
    """The latents of both from the same noise, (32, 32) each."""
    theirs, ours, _ = both
    noise = torch.randn(32, 32, generator=torch.Generator().manual_seed(3))
    prompt, fields = asked(ours)
    given = [fields["image"]] if fields else [prompt]
    latents = noise.flatten()[None]
    if fields:  # only the pipeline of texts scales what it is given
        theirs.scheduler.set_timesteps(steps)
        latents = latents * theirs.scheduler.init_noise_sigma
    call = {"latents": latents, "num_inference_steps": steps, "guidance_scale": guidance}
    other = theirs(*given, output_type="latent", **call).images[0]
    mine = ours.latent(prompt, noise=noise, steps=steps, guidance=guidance, **fields)
    return mine, other


@pytest.mark.parametrize("guidance", [1.0, 4.0])
def test_latents_are_those_of_diffusers(both, guidance):
    mine, other = drawn(both, guidance=guidance)
    assert other.std() > 0.05
    assert (mine - other).abs().max() < 1e-4


def test_the_weights_in_a_latent_are_those_of_diffusers(both):
    theirs, ours, _ = both
    with torch.no_grad():
        projected = theirs.shap_e_renderer.params_proj(LATENT[None])
    layers = ours.field(LATENT).layers
    assert len(projected) == 4
    for number, (name, other) in enumerate(projected.items()):
        assert (layers[number][0] - other[0]).abs().max() < 1e-5, name


def test_views_are_those_of_diffusers(both):
    theirs, ours, _ = both
    size = 16
    batch = size * size  # each view by itself, with random numbers of its own
    views = theirs.shap_e_renderer.decode_to_image(LATENT[None], "cpu", size=size, ray_batch_size=batch)
    cameras = create_pan_cameras(size)
    # between the middles of their outermost pixels there is their whole angle
    fov = 2 * np.degrees(np.arctan(np.tan(0.35) * size / (size - 1)))
    background = ours.model.renderer.void.background
    for number in (0, 7):
        azimuth = -np.degrees(np.linspace(0, 2 * np.pi, 20)[number])
        camera = Camera(azimuth, np.degrees(np.arctan(0.5)), 4.0, fov, size, size)
        origins, directions = camera.rays()
        rays = cameras.camera_rays[0].view(20, -1, 2, 3)[number]
        assert np.allclose(origins[:, [0, 2, 1]] * [1, -1, 1], rays[:, 0].numpy(), atol=1e-5)
        assert np.allclose(directions[:, [0, 2, 1]] * [1, -1, 1], rays[:, 1].numpy(), atol=1e-5)
        mine = implicit.view(ours.field(LATENT), camera, background)
        assert (mine - views[number]).abs().max() < 1e-4
        assert mine.std() > 0.02
    assert views[0].std() > 0.02


def test_the_surface_and_its_colours_are_those_of_diffusers(both):
    theirs, ours, _ = both
    grid = 20
    set_cases(theirs.shap_e_renderer)
    other = theirs.shap_e_renderer.decode_to_mesh(LATENT[None], "cpu", grid_size=grid)
    # it takes its grid, with a border added, for one over the same box: as much smaller is its mesh
    inside = other.verts * (grid + 1) / (grid - 1)
    within = inside.abs().amax(1) < 1
    assert within.sum() > 200
    mine = implicit.implicit_surface(ours.field(LATENT), grid).vertices
    back = torch.from_numpy(mine)[:, [0, 2, 1]] * torch.tensor([1.0, -1.0, 1.0])
    away = torch.cdist(inside[within].double(), back.double()).amin(1)
    assert away.max() < 1e-4
    colours = torch.stack([other.vertex_channels[name] for name in "RGB"], dim=1)
    own = torch.from_numpy(
        implicit.surface_colours(ours.field(LATENT), implicit.turned_back(other.verts).numpy())
    )
    linear = torch.where(own <= 0.04045, own / 12.92, ((own + 0.055) / 1.055) ** 2.4)
    assert (linear - colours).abs().max() < 1e-4
    assert colours.std() > 0.01


def test_a_shape_is_closed_and_has_the_colours_of_its_surface(both):
    _, ours, _ = both
    mesh = ours.shape_of(LATENT, faces=600, grid=16).mesh
    assert mesh.is_watertight
    own = implicit.surface_colours(ours.field(LATENT), mesh.vertices)
    shown = mesh.colours_at(mesh.faces, np.eye(3)[np.zeros(len(mesh.faces), int)])
    apart = np.abs(shown / 255 - own[mesh.faces[:, 0]]).max(1)
    assert np.median(apart) < 0.03
    (picture,) = [*ours.views(LATENT, frames=2, size=16)][:1]
    assert picture.size == (16, 16)


def test_the_keys_of_published_files_are_all_read():
    with torch.device("meta"):
        for changes in ({}, {"embedding_proj_norm_type": "layer", "embedding_proj_dim": 1024}):
            theirs = diffusers.PriorTransformer(**{**PUBLISHED, **changes})
            config = PriorConfig.from_dict(dict(theirs.config), "prior")
            own = empty_network(config).state_dict()
            assert shapes(own) == shapes(theirs.state_dict())
        renderer = ShapERenderer()
        own = empty_network(ShapERendererConfig.from_dict(dict(renderer.config), "renderer")).state_dict()
    left = {name: shape for name, shape in shapes(renderer.state_dict()).items() if name not in own}
    assert left == {"mesh_decoder.cases": (256, 5, 3), "mesh_decoder.masks": (256, 5)}
    assert shapes(own).items() <= shapes(renderer.state_dict()).items()


def shapes(state):
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def test_the_seed_decides_and_progress_is_told(both):
    _, ours, _ = both
    prompt, fields = asked(ours)
    told = []
    first = ours.latent(prompt, seed=5, steps=3, told=lambda *each: told.append(each), **fields)
    assert told == [(number, 5) for number in range(1, 6)]
    assert torch.equal(first, ours.latent(prompt, seed=5, steps=3, **fields))
    assert not torch.equal(first, ours.latent(prompt, seed=6, steps=3, **fields))
    euler = ours.latent(prompt, seed=5, steps=3, sampler="euler", spacing="linspace", **fields)
    assert not torch.allclose(first, euler)
    resolved = ours.resolve(prompt, **fields)
    assert (resolved.steps, resolved.guidance, resolved.sampler, resolved.spacing) == (
        25,
        4,
        "heun",
        "karras",
    )


def test_inspect_names_it_and_no_picture_is_drawn_with_it(both):
    _, ours, folder = both
    report = checkpoint.inspect(folder)
    assert report.problems == []
    assert (report.kind, report.value("task"), report.value("latent")) == ("shap-e", folder.name, "32 × 32")
    assert report.value("clipping") == "±1"
    assert {"prior", "shap_e_renderer"} < {part.name for part in report.components}
    assert ours.model.fingerprint == report.fingerprint
    assert library._kind(folder) == "shap-e"
    with pytest.raises(CheckpointError, match="Shap-E, which makes shapes and no pictures: sfumato shape"):
        sfumato.load(folder)


def test_what_is_no_model_of_shapes_is_told():
    with pytest.raises(CheckpointError, match="embedded is a model of pictures, not Shap-E"):
        load_shape_model("embedded")
    with pytest.raises(UsageError, match="vae is given, and Shap-E has none"):
        load_shape_model("embedded", vae="other")


@pytest.mark.parametrize(
    ("file", "changes", "said"),
    [
        ("prior", {"added_emb_type": "prd"}, "those of unCLIP and Kandinsky are not supported"),
        ("prior", {"clip_embed_dim": 32}, "clip_embed_dim is 32: must be 64"),
        ("prior", {"embedding_proj_dim": 48}, "the prior reads vectors of 48 numbers"),
        ("prior", {"num_embeddings": 16}, "latents of 16 × 32, and shap_e_renderer reads ones of 32 × 32"),
        ("shap_e_renderer", {"act_fn": "relu"}, "act_fn is 'relu': not supported, only 'swish'"),
        ("shap_e_renderer", {"param_names": ["nerstf.mlp.9.weight"] * 4}, "must be of nerstf.mlp.0.weight"),
        ("shap_e_renderer", {"insert_direction_at": 7}, "insert_direction_at is 7: must be 0 to 6"),
        ("scheduler", {"beta_schedule": "cubic"}, "beta_schedule is 'cubic'"),
    ],
)
def test_a_configuration_that_is_not_supported_is_named(tmp_path, file, changes, said):
    shap_e().save_pretrained(tmp_path)
    path = tmp_path / file / ("scheduler_config.json" if file == "scheduler" else "config.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(CheckpointError, match=said):
        load_shape_model(tmp_path)


def test_a_lost_tensor_and_other_pictures_are_refused(tmp_path):
    shap_e(picture=True).save_pretrained(tmp_path)
    settings = tmp_path / "image_processor" / "preprocessor_config.json"
    content = json.loads(settings.read_text())
    settings.write_text(json.dumps(content | {"image_mean": [0.5, 0.5, 0.5]}))
    with pytest.raises(CheckpointError, match=r"image_mean is \[0.5, 0.5, 0.5\]: not supported"):
        load_shape_model(tmp_path)
    settings.write_text(json.dumps(content))
    weights = tmp_path / "prior" / "diffusion_pytorch_model.safetensors"
    state = safetensors.torch.load_file(weights)
    del state["norm_in.bias"]
    safetensors.torch.save_file(state, weights)
    with pytest.raises(CheckpointError, match=r"norm_in\.bias"):
        load_shape_model(tmp_path)


def test_what_a_shape_has_no_use_for_is_named(both):
    _, ours, _ = both
    prompt, fields = asked(ours)
    with pytest.raises(UsageError, match="negative, width is given, and Shap-E does not read it"):
        ours.latent(prompt, negative="dull", width=64, **fields)
    other = ("an apple", {}) if fields else ("", {"image": PICTURE})
    with pytest.raises(UsageError, match="makes shapes of"):
        ours.latent(other[0], **other[1])
    with pytest.raises(UsageError, match="quantization is given, and Shap-E is not drawn in int8"):
        sfumato.ShapeModel(ours.model, DeviceOptions(device="cpu", quantization="int8"))


def test_where_no_surface_has_formed_it_is_told(both):
    _, ours, _ = both
    field = ours.field(torch.zeros(32, 32))
    weight, bias = field.layers[-1]
    empty = type(field)((*field.layers[:-1], (torch.zeros_like(weight), torch.full_like(bias, -1.0))))
    with pytest.raises(UsageError, match="no surface has formed"):
        implicit.mesh(empty, faces=100, grid=8)


def test_of_a_repository_all_that_is_read_is_fetched(both):
    _, _, folder = both
    files = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    fetched = source._wanted("org/shap-e", [*files, "prior/pytorch_model.bin", "README.md"], None, False)
    assert sorted(fetched) == sorted(files)
    assert lacking(folder, None, False) is None

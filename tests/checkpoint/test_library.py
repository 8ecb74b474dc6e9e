import copy
import json
import shutil

import pytest
import torch
from huggingface_hub import constants

from sfumato import checkpoint, weights
from sfumato.checkpoint import library, source
from sfumato.errors import CheckpointError, OutputError, UsageError


@pytest.fixture
def home(tmp_path, monkeypatch):
    """The user's folder of models, empty; the hub's cache is beside it."""
    monkeypatch.setenv("SFUMATO_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "home" / "models").mkdir(parents=True)
    return tmp_path / "home" / "models"


def single(path, **shapes):
    path.parent.mkdir(parents=True, exist_ok=True)
    weights.write(path, {name: torch.zeros(shape) for name, shape in shapes.items()})
    return path


def cached(cache, repository, folder, commit, *refs):
    """One revision as the hub's library keeps it: links to blobs."""
    place = cache / f"models--{repository.replace('/', '--')}"
    snapshot = place / "snapshots" / commit
    (place / "blobs").mkdir(parents=True, exist_ok=True)
    (place / "refs").mkdir(exist_ok=True)
    for file in folder.rglob("*"):
        if file.is_file():
            link = snapshot / file.relative_to(folder)
            blob = place / "blobs" / f"{commit}-{file.relative_to(folder).as_posix().replace('/', '-')}"
            shutil.copy(file, blob)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(blob)
    for ref in refs:
        (place / "refs" / ref).write_text(commit)
    return snapshot


ATTENTION = "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"


def test_nothing_is_listed_where_nothing_is(home):
    assert library.installed() == []
    home.rmdir()
    assert library.installed() == []
    with pytest.raises(UsageError, match="no installed model 'x'; no model is installed"):
        library.path("x")


def test_folders_and_files_are_told_by_their_headers(home, saved):
    shutil.copytree(saved("sd1"), home / "tiny")
    single(home / "a1111" / "dreamy.safetensors", **{ATTENTION: (4, 768)})
    single(home / "xl.SafeTensors", **{ATTENTION: (4, 2048)})
    single(home / "lora.safetensors", **{"lora_unet_x.lora_down.weight": (4, 768)})
    single(home / "vae.safetensors", **{"decoder.conv_in.weight": (4, 4)})
    single(home / "words.safetensors", emb_params=(2, 768))
    (home / "cut.safetensors").write_bytes(bytes(20))
    (home / "notes.txt").write_text("not a model")
    (home / ".hidden").mkdir()
    single(home / ".hidden" / "x.safetensors", w=(1,))
    found = {model.name: (model.layout, model.kind, model.place) for model in library.installed()}
    assert found == {
        "a1111/dreamy": ("single file", "sd1", "folder"),
        "cut": ("single file", "damaged", "folder"),
        "lora": ("single file", "adapter", "folder"),
        "tiny": ("diffusers", "latent-diffusion", "folder"),
        "vae": ("single file", "vae", "folder"),
        "words": ("single file", "unknown", "folder"),
        "xl": ("single file", "sdxl", "folder"),
    }
    sizes = {model.name: model.bytes for model in library.installed()}
    assert sizes["xl"] == (home / "xl.SafeTensors").stat().st_size
    assert sizes["tiny"] == sum(path.stat().st_size for path in saved("sd1").rglob("*") if path.is_file())


def test_shards_are_told_as_whole_files_are(home, pipelines):
    pipelines("sd2").save_pretrained(home / "m", max_shard_size="100KB")
    assert [model.kind for model in library.installed()] == ["latent-diffusion"]
    next((home / "m" / "unet").glob("*00002*.safetensors")).unlink()
    assert [model.kind for model in library.installed()] == ["damaged"]


def test_a_name_is_a_path_below_the_folder_or_its_last_part(home, saved):
    shutil.copytree(saved("sd1"), home / "dreamy")
    file = single(home / "dreamy.safetensors", w=(1,))
    deep = single(home / "b" / "deep.safetensors", w=(1,))
    other = single(home / "a" / "c" / "deep.safetensors", w=(1,))
    for name, path in {
        "dreamy": home / "dreamy",
        "dreamy.safetensors": file,
        "deep": deep,
        "b/deep": deep,
        "a/c/deep": other,
        "a/c/deep.safetensors": other,
    }.items():
        assert library.by_name(name) == library.path(name) == path
    for name in ("../models/dreamy", "/etc", "", ".", "unet", "dreamy/unet", "b"):
        assert library.by_name(name) is None
    assert {model.name for model in library.installed()} == {
        "dreamy",
        "dreamy.safetensors",
        "b/deep",
        "a/c/deep",
    }


def test_a_model_in_the_folder_is_loaded_by_its_name(home, saved):
    shutil.copytree(saved("sd1"), home / "org" / "name")
    assert source.locate("name") == source.locate("org/name") == home / "org" / "name"
    assert checkpoint.inspect("name").problems == []
    with pytest.raises(
        CheckpointError, match=r"there is no model 'nmae' here or in .*; did you mean 'org/name'"
    ):
        source.locate("nmae")


@pytest.mark.parametrize("whole", [False, True], ids=["of an autoencoder", "of a model"])
def test_an_autoencoder_is_taken_from_the_hubs_cache_by_its_id(home, saved, pipelines, tmp_path, whole):
    folder = tmp_path / "other"
    vae = copy.deepcopy(pipelines("sd1").vae)
    with torch.no_grad():
        vae.decoder.conv_out.bias += 1
    if whole:
        shutil.copytree(saved("sd1"), folder)
    vae.save_pretrained(folder / "vae" if whole else folder)
    cached(tmp_path / "cache", "org/other", folder, "a" * 40, "main")
    for name in ("org/other", "org/other@main", "org/other@aaaa"):
        model = checkpoint.load(saved("sd1"), vae=name, local_files_only=True)
        assert torch.equal(model.vae.decoder.conv_out.bias, vae.decoder.conv_out.bias)
    problems = checkpoint.inspect(saved("sd1"), vae="org/absent", local_files_only=True).problems
    assert [problem for problem in problems if "org/absent cannot be had from the hub" in problem]


@pytest.mark.parametrize("name", ["~nobody-of-this-name/x", "a" * 999, "/" + "a" * 999 + "/x", "a\0b"])
def test_a_name_that_can_be_no_path_is_an_unknown_model(home, name):
    with pytest.raises(CheckpointError, match="there is no model"):
        source.locate(name)
    assert any("there is no VAE" in problem for problem in checkpoint.inspect("embedded", vae=name).problems)


def test_the_hubs_cache_is_listed_by_revision(home, saved, tmp_path):
    assert not (tmp_path / "cache").exists()
    new = cached(tmp_path / "cache", "org/name", saved("sd1"), "a" * 40, "main")
    old = cached(tmp_path / "cache", "org/name", saved("sd1"), "b" * 40)
    tag = cached(tmp_path / "cache", "org/name", saved("sd1"), "c" * 40, "v2")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "model.gguf").write_text("another kind of model")
    cached(tmp_path / "cache", "org/other", tmp_path / "other", "d" * 40, "main")
    (tmp_path / "cache" / "models--broken").mkdir()
    found = {model.name: model.path for model in library.installed()}
    assert found == {"org/name": new, "org/name@bbbbbbbb": old, "org/name@v2": tag}
    assert source.locate("org/name@v2") == library.path("org/name@v2") == tag


def test_removing_takes_what_was_listed_and_nothing_else(home, saved, tmp_path):
    shutil.copytree(saved("sd1"), home / "a")
    single(home / "b.safetensors", w=(1,))
    kept = single(home / "c.safetensors", w=(1,))
    assert library.remove("a").path == home / "a"
    library.remove("b")
    assert sorted(home.iterdir()) == [kept]
    for name in ("a", "../models", "", "c/"):
        with pytest.raises(UsageError, match="there is no installed model"):
            library.remove(name)
    new = cached(tmp_path / "cache", "org/name", saved("sd1"), "a" * 40, "main")
    old = cached(tmp_path / "cache", "org/name", saved("sd1"), "b" * 40)
    library.remove("org/name@bbbbbbbb")
    assert (old.exists(), new.exists()) == (False, True)
    assert checkpoint.inspect(new).problems == []
    library.remove("org/name")
    assert not (tmp_path / "cache" / "models--org--name").exists()


def test_removing_never_follows_a_link_out_of_the_folder(home, saved, tmp_path):
    mine = shutil.copytree(saved("sd1"), tmp_path / "mine")
    file = single(tmp_path / "elsewhere" / "x.safetensors", w=(1,))
    (home / "linked").symlink_to(mine)
    (home / "other.safetensors").symlink_to(file)
    (home / "away").symlink_to(file.parent)
    assert {model.name for model in library.installed()} == {"linked", "other", "away/x"}
    library.remove("linked")
    library.remove("other")
    with pytest.raises(OutputError, match="a link leads there, out of"):
        library.remove("away/x")
    assert (mine / "model_index.json").exists()
    assert file.exists()
    assert [path.name for path in home.iterdir()] == ["away"]


def test_removing_from_the_cache_never_follows_a_link_out_of_it(home, saved, tmp_path):
    secret = tmp_path / "secret.json"
    secret.write_text("{}")
    snapshot = cached(tmp_path / "cache", "org/name", saved("sd1"), "a" * 40, "main")
    (snapshot / "evil.json").symlink_to(secret)
    with pytest.raises(OutputError, match=r"evil\.json is a link out of it"):
        library.remove("org/name")
    assert secret.exists()
    assert snapshot.exists()


def test_a_link_in_a_circle_is_no_hindrance(home):
    (home / "round").symlink_to(home)
    single(home / "x.safetensors", w=(1,))
    assert "x" in [model.name for model in library.installed()]


def test_what_a_folder_names_is_not_read_by_listing(home):
    (home / "m").mkdir()
    (home / "m" / "model_index.json").write_text(json.dumps({"unet": ["evil", "Evil"]}))
    assert [model.kind for model in library.installed()] == ["damaged"]

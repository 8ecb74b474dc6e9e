import json
import shutil
from types import SimpleNamespace

import huggingface_hub
import pytest
import torch
from huggingface_hub import constants, errors

from sfumato import checkpoint
from sfumato.checkpoint import library, source
from sfumato.errors import CheckpointError


class Hub:
    """A stand-in for the hub: repositories are folders, and only what is asked for is copied to the cache."""

    def __init__(self, tmp_path, monkeypatch):
        self.remote, self.cache, self.requests = tmp_path / "remote", tmp_path / "cache", []
        self.offline, self.failure = False, None
        monkeypatch.setattr(huggingface_hub, "snapshot_download", self.snapshot_download)
        monkeypatch.setattr(huggingface_hub, "HfApi", lambda: SimpleNamespace(model_info=self.model_info))
        monkeypatch.setattr(huggingface_hub, "is_offline_mode", lambda: self.offline)
        monkeypatch.chdir(tmp_path)

    def add(self, repository, folder):
        shutil.copytree(folder, self.remote / repository)

    def files(self, repository):
        folder = self.remote / repository
        return [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]

    def model_info(self, repository, revision, timeout):
        self.requests.append("model_info")
        assert timeout <= 10
        if self.failure:
            raise self.failure
        return SimpleNamespace(siblings=[SimpleNamespace(rfilename=name) for name in self.files(repository)])

    def snapshot_download(self, repository, *, revision, local_files_only=False, allow_patterns=None):
        target = self.cache / repository / (revision or "")
        if local_files_only:
            if not target.exists():
                raise errors.LocalEntryNotFoundError("not in the cache")
            return str(target)
        self.requests.append("snapshot_download")
        for name in allow_patterns:
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(self.remote / repository / name, target / name)
        return str(target)

    def cached(self, repository):
        folder = self.cache / repository
        return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def hub(tmp_path, monkeypatch):
    return Hub(tmp_path, monkeypatch)


def failing(kind):
    """An error of the hub's library, without the network answer that it is usually made from."""
    return kind.__new__(kind)


def test_only_one_variant_and_no_pickle_is_downloaded(hub, saved, pipelines, tmp_path):
    folder = shutil.copytree(saved("sd1"), tmp_path / "m")
    pipelines("sd1").save_pretrained(folder, variant="fp16")
    for extra in (
        "unet/pytorch_model.bin",
        "model.ckpt",
        "single.safetensors",
        "run.py",
        "unet/onnx/model.onnx",
    ):
        (folder / extra).parent.mkdir(exist_ok=True)
        (folder / extra).write_bytes(b"never")
    hub.add("org/name", folder)
    model = checkpoint.load("org/name")
    assert (model.name, model.kind) == ("org/name", "latent-diffusion")
    weights = {name for name in hub.cached("org/name") if not name.endswith((".json", ".txt"))}
    assert weights == {
        "unet/diffusion_pytorch_model.safetensors",
        "vae/diffusion_pytorch_model.safetensors",
        "text_encoder/model.safetensors",
    }
    checkpoint.load("org/name", variant="fp16")
    assert "unet/diffusion_pytorch_model.fp16.safetensors" in hub.cached("org/name")


@pytest.mark.parametrize("variant", [None, "fp16"])
def test_shards_are_downloaded_with_their_index(hub, pipelines, tmp_path, variant):
    for kind in (None, "fp16"):
        pipelines("sd1").save_pretrained(tmp_path / "saved", variant=kind, max_shard_size="100KB")
        shutil.copytree(tmp_path / "saved", tmp_path / "both", dirs_exist_ok=True)
    hub.add("org/name", tmp_path / "both")
    checkpoint.load("org/name", variant=variant)
    shards = {name for name in hub.cached("org/name") if name.endswith(".safetensors")}
    assert len(shards) > 5
    assert all((".fp16" in name) == bool(variant) for name in shards)


def test_a_cached_model_is_loaded_without_asking_the_hub(hub, saved):
    hub.add("org/name", saved("sdxl"))
    checkpoint.load("org/name")
    hub.requests.clear()
    hub.offline = True
    assert checkpoint.load("org/name").kind == "sdxl"
    assert hub.requests == []


def test_an_incomplete_cache_is_completed_or_named(hub, saved):
    hub.add("org/name", saved("sd1"))
    checkpoint.load("org/name")
    (hub.cache / "org/name/vae/diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(
        CheckpointError,
        match=r"is not completely in the local cache \(vae holds no weights.*\), and local_files_only",
    ):
        checkpoint.load("org/name", local_files_only=True)
    checkpoint.load("org/name")


def test_a_missing_model_is_one_clear_line_offline(hub):
    hub.offline = True
    with pytest.raises(
        CheckpointError, match=r"org/name is not in the local cache \(.*\), and HF_HUB_OFFLINE is set"
    ):
        checkpoint.load("org/name")
    assert hub.requests == []


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (failing(errors.RepositoryNotFoundError), "the hub does not know it"),
        (failing(errors.RevisionNotFoundError), "has no revision 'main'"),
        (failing(errors.GatedRepoError), "asks for its terms to be accepted"),
        (ConnectionError("[Errno -2] Name or service not known\nmore"), "cannot be reached: .*not known$"),
        (TimeoutError(), "cannot be reached: TimeoutError"),
    ],
)
def test_each_way_the_hub_can_fail_is_one_clear_line(hub, error, words):
    hub.failure = error
    with pytest.raises(CheckpointError, match=words) as caught:
        checkpoint.load("org/name")
    assert "\n" not in str(caught.value)
    assert hub.requests == ["model_info"]


def test_a_repository_of_another_layout_is_named(hub, tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "model.gguf").touch()
    hub.add("org/name", tmp_path / "other")
    with pytest.raises(CheckpointError, match=r"not in the diffusers layout: it has no model_index\.json"):
        checkpoint.load("org/name")


def test_a_mistyped_local_path_never_reaches_the_hub(hub, saved, tmp_path):
    shutil.copytree(saved("sd1"), tmp_path / "models" / "mine")
    with pytest.raises(CheckpointError, match="did you mean 'mine'"):
        checkpoint.load("models/mien")
    for name in ("./org/name", "/org/name", "a/b/c", "org\\name", "org/na me"):
        with pytest.raises(CheckpointError, match="there is no model"):
            checkpoint.load(name)
    assert hub.requests == []


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The hub's cache as its library lays it out, and no network."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(huggingface_hub, "is_offline_mode", lambda: True)
    monkeypatch.chdir(tmp_path)

    def keep(folder, commit="a" * 40, *refs, repository="org/name"):
        place = tmp_path / "cache" / f"models--{repository.replace('/', '--')}"
        for file in folder.rglob("*"):
            if file.is_file():
                link = place / "snapshots" / commit / file.relative_to(folder)
                blob = place / "blobs" / f"{commit}-{len(list((place / 'blobs').glob('*')))}"
                for each in (link, blob):
                    each.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file, blob)
                link.symlink_to(blob)
        for ref in refs or ("main",):
            (place / "refs" / ref).parent.mkdir(parents=True, exist_ok=True)
            (place / "refs" / ref).write_text(commit)
        return place / "snapshots" / commit

    return keep


def refusal(source, **options):
    with pytest.raises(CheckpointError) as caught:
        checkpoint.load(source, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def mixed(saved, pipelines, tmp_path):
    """A folder of which the UNet alone has weights of variant fp16 beside the plain ones."""
    pipelines("sd1").save_pretrained(tmp_path / "half", variant="fp16")
    folder = shutil.copytree(saved("sd1"), tmp_path / "mixed")
    name = "unet/diffusion_pytorch_model.fp16.safetensors"
    shutil.copy(tmp_path / "half" / name, folder / name)
    return folder


@pytest.mark.parametrize("variant", [None, "fp16", "bf16"])
@pytest.mark.parametrize("dtype", [None, torch.float16])
def test_a_hub_id_and_its_snapshots_folder_are_the_same_model(cache, mixed, variant, dtype):
    snapshot = cache(mixed)
    if variant == "bf16":
        for source in ("org/name", "org/name@main", snapshot):
            told = refusal(source, variant="bf16")
            assert "no weights of variant 'bf16'" in told
            assert "there are unet plain, vae plain, text_encoder plain" in told
        return
    options = {"variant": variant, "dtype": dtype}
    models = [checkpoint.load(source, **options) for source in ("org/name", "org/name@main", snapshot)]
    files = [[(part.name, part.files) for part in model.report.components] for model in models]
    assert files[0] == files[1] == files[2]
    half = variant == "fp16" or dtype is not None
    assert (".fp16" in str(files[0])) == half
    assert len({model.fingerprint for model in models}) == 1


def test_every_way_to_name_a_revision_works(cache, saved):
    snapshots = {
        "main": cache(saved("sd1"), "a1b2c3d4" + "0" * 32, "main"),
        "fp16": cache(saved("sd2"), "b1b2c3d4" + "0" * 32, "fp16", "refs/pr/7"),
    }
    for name, snapshot in {
        "org/name": snapshots["main"],
        "org/name@main": snapshots["main"],
        "org/name@a1b2c3d40000000000000000000000000000000000000000"[:49]: snapshots["main"],
        "org/name@a1b2c3d4": snapshots["main"],
        "org/name@a1b2c": snapshots["main"],
        "org/name@fp16": snapshots["fp16"],
        "org/name@refs/pr/7": snapshots["fp16"],
        "org/name@b1b2c3d4": snapshots["fp16"],
    }.items():
        assert source.locate(name).samefile(snapshot), name
        assert library.path(name).samefile(snapshot), name
        assert source.pull(name).samefile(snapshot), name
    assert checkpoint.inspect("org/name@b1b2c").problems == []
    assert checkpoint.load("org/name@fp16").name == "org/name@fp16"


def test_what_is_cached_is_said_where_something_is_missing(cache, saved, tmp_path):
    assert "holds no model), and HF_HUB_OFFLINE is set" in refusal("org/name")
    snapshot = cache(saved("sd1"), "a1b2c3d4" + "0" * 32, "main", "v1")
    assert "org/other is not in the local cache (" in refusal("org/other")
    assert "cache holds org/name)" in refusal("org/other")
    told = refusal("org/name@v2")
    assert "org/name@v2 is not in the local cache (its revisions there: main, v1, a1b2c3d4)" in told
    for name in ("vae/config.json", "tokenizer/tokenizer.json", "scheduler/scheduler_config.json"):
        (snapshot / name).unlink()
        told = refusal("org/name")
        assert "org/name is not completely in the local cache" in told
        assert name.partition("/")[0] in told
        (snapshot / name).symlink_to(saved("sd1") / name)
    weights = next((snapshot / "unet").glob("*.safetensors"))
    weights.resolve().unlink()  # a link that leads nowhere, as after a cleaning
    assert "unet holds no weights" in refusal("org/name", local_files_only=True)


def test_a_family_that_is_not_supported_is_named_before_its_weights_are_downloaded(hub, tmp_path):
    index = {"_class_name": "FluxPipeline", "vae": ["diffusers", "AutoencoderKL"]}
    (tmp_path / "flux" / "vae").mkdir(parents=True)
    (tmp_path / "flux" / "model_index.json").write_text(json.dumps(index))
    for name in ("config.json", "diffusion_pytorch_model.safetensors"):
        (tmp_path / "flux" / "vae" / name).write_bytes(b"{}")
    hub.add("org/flux", tmp_path / "flux")
    assert "Flux is not supported" in refusal("org/flux")
    assert hub.cached("org/flux") == {"model_index.json"}


def test_a_variant_that_no_part_has_is_known_before_the_download(hub, saved):
    hub.add("org/name", saved("sd1"))
    assert "org/name on the hub has no weights of variant 'fp16'" in refusal("org/name", variant="fp16")
    assert "snapshot_download" not in hub.requests


def test_the_lora_for_few_steps_comes_with_its_model(hub, saved, tmp_path):
    folder = shutil.copytree(saved("sd1"), tmp_path / "m")
    (folder / "fast.safetensors").touch()
    hub.add("org/name", folder)
    assert (source.locate("org/name") / "fast.safetensors").is_file()


def test_a_model_that_is_nowhere_says_where_it_was_looked_for(tmp_path, monkeypatch):
    monkeypatch.setenv("SFUMATO_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    assert f"no file of that name here or in {tmp_path / 'home' / 'models'}" in refusal("dreamy.safetensors")
    assert "no folder of that name here or in" in refusal("dreamy")
    assert "no file of that name, and" in refusal(str(tmp_path / "dreamy.safetensors"))


@pytest.mark.parametrize("name", ["nope/thing.safetensors", "nope/old.ckpt"])
def test_a_file_of_weights_that_is_not_there_is_no_hub_id(hub, name):
    assert refusal(name) == f"there is no model {name!r}: there is no folder 'nope'"
    with pytest.raises(CheckpointError, match=f"there is no file '{name}'"):
        source.hub_file(name, "learned_embeds.safetensors")
    assert hub.requests == []


def test_the_address_of_a_page_on_the_hub_is_the_models_name(hub, saved):
    hub.add("org/name", saved("sd1"))
    for site in ("https://huggingface.co", "http://hf.co"):
        assert source.locate(f"{site}/org/name") == hub.cache / "org" / "name"
        assert source.pull(f"{site}/org/name/") == hub.cache / "org" / "name"
        assert source.locate(f"{site}/org/name/tree/v1.0?a=b") == hub.cache / "org" / "name" / "v1.0"
    for other in ("https://example.org/org/name", "https://huggingface.co/org/name/blob/main/a.safetensors"):
        assert "only those of models on huggingface.co" in refusal(other)

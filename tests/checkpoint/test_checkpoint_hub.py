import shutil
from types import SimpleNamespace

import huggingface_hub
import pytest
from huggingface_hub import errors

from sfumato import checkpoint
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
    with pytest.raises(CheckpointError, match="is not completely in the local cache, and local_files_only"):
        checkpoint.load("org/name", local_files_only=True)
    checkpoint.load("org/name")


def test_a_missing_model_is_one_clear_line_offline(hub):
    hub.offline = True
    with pytest.raises(
        CheckpointError, match="org/name is not in the local cache, and HF_HUB_OFFLINE is set"
    ):
        checkpoint.load("org/name")
    assert hub.requests == []


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (failing(errors.RepositoryNotFoundError), "the hub does not know it"),
        (failing(errors.RevisionNotFoundError), "has no revision None"),
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
    for source in ("./org/name", "/org/name", "a/b/c", "org\\name", "org/na me"):
        with pytest.raises(CheckpointError, match="there is no model"):
            checkpoint.load(source)
    assert hub.requests == []

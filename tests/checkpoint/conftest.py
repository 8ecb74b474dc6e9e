import shutil

import pytest
import single_files
from checkpoint_families import pipeline


@pytest.fixture(scope="session")
def pipelines():
    """Each family's pipeline, made once."""
    made = {}

    def get(family):
        if family not in made:
            made[family] = pipeline(family)
        return made[family]

    return get


@pytest.fixture(scope="session")
def saved(pipelines, tmp_path_factory):
    """Each family's folder as diffusers saved it; to be read only."""
    made = {}

    def get(family):
        if family not in made:
            made[family] = tmp_path_factory.mktemp("saved") / family
            pipelines(family).save_pretrained(made[family])
        return made[family]

    return get


@pytest.fixture(scope="session")
def published(tmp_path_factory):
    """Each family's pipeline with CLIP's own vocabulary, and its tensors under the original names."""
    made = {}

    def get(family):
        if family not in made:
            pipe = single_files.pipeline(family, tmp_path_factory.mktemp(family))
            made[family] = pipe, single_files.original(pipe)
        return made[family]

    return get


@pytest.fixture
def folder(saved, tmp_path):
    """A copy of a small model's folder, to be damaged."""
    return shutil.copytree(saved("sd1"), tmp_path / "model")

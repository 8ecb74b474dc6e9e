import sys
from pathlib import Path

import pytest

sys.path.extend(str(Path(__file__).parents[1] / folder) for folder in ("checkpoint", "diffusion"))

from checkpoint_families import pipeline

from sfumato.checkpoint import embedded


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    """The folder of each small family as diffusers saved it, and that of the embedded model."""
    made = {"embedded": embedded()}

    def get(family):
        if family not in made:
            made[family] = tmp_path_factory.mktemp("models") / family
            pipeline(family).save_pretrained(made[family])
        return made[family]

    return get

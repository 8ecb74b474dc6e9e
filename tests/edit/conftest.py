import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "checkpoint"))

from checkpoint_families import pipeline


@pytest.fixture(scope="session")
def peers(tmp_path_factory):
    """A family's pipeline, and the folder in which diffusers saved it."""
    made = {}

    def get(family):
        if family not in made:
            pipe = pipeline(family)
            folder = tmp_path_factory.mktemp("edit") / family
            pipe.save_pretrained(folder)
            made[family] = pipe, folder
        return made[family]

    return get

"""A folder whose index names another scheduler than its configuration: the index counts, as in diffusers."""

import json
import shutil

import pytest
from both import apart

import sfumato.compat

PROGRAM = """
import torch
from diffusers import StableDiffusionPipeline
pipe = StableDiffusionPipeline.from_pretrained(MODEL, safety_checker=None)
result = pipe("a red apple", num_inference_steps=5, width=24, height=16, output_type="latent",
              generator=torch.Generator().manual_seed(3)).images
"""


@pytest.mark.parametrize("scheduler", ["EulerAncestralDiscreteScheduler", "UniPCMultistepScheduler"])
def test_the_scheduler_of_the_index_draws(scheduler, model, tmp_path):
    folder = shutil.copytree(model("sd1"), tmp_path / "model")
    index = json.loads((folder / "model_index.json").read_text())
    assert index["scheduler"][1] != scheduler
    index["scheduler"] = ["diffusers", scheduler]
    (folder / "model_index.json").write_text(json.dumps(index))
    pipe = sfumato.compat.StableDiffusionPipeline.from_pretrained(folder)
    assert type(pipe.scheduler).__name__ == scheduler
    assert apart(PROGRAM, folder) < 1e-4

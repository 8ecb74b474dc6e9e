"""Files of T2I-Adapters in every layout that was published."""

import re

import diffusers
import pytest
import torch

from sfumato import weights
from sfumato.checkpoint.loading import build
from sfumato.checkpoint.t2i_adapter import t2i_adapter_part
from sfumato.errors import CheckpointError

FULL = {"channels": [8, 12, 16, 16]}
KINDS = {
    "full": FULL,
    "full, of lines": {**FULL, "in_channels": 1},
    "full of SDXL": {**FULL, "adapter_type": "full_adapter_xl", "downscale_factor": 16},
    "light": {"channels": [8, 12, 16], "adapter_type": "light_adapter", "num_res_blocks": 4},
}


def original(kind, state):
    """The names that T2I-Adapter's first program gave: one row of residual blocks, two for each feature."""
    found = {}
    for name, tensor in state.items():
        bare = name.removeprefix("adapter.")
        if kind == "light":
            bare = bare.replace("resnets", "body")
        elif match := re.fullmatch(r"body\.(\d)\.(?:resnets\.(\d)\.(.*)|(in_conv.*))", bare):
            number = 2 * int(match[1]) + int(match[2] or 0)
            bare = f"body.{number}.{match[3] or match[4]}"
        found[bare] = tensor
    return found


def written(tmp_path, state):
    path = tmp_path / "adapter.safetensors"
    weights.write(path, state)
    return path


@pytest.mark.parametrize("layout", ["diffusers", "original"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_t2i_adapter_without_configuration_is_the_one_that_was_saved(tmp_path, kind, layout):
    torch.manual_seed(0)
    theirs = diffusers.T2IAdapter(**KINDS[kind]).eval()
    state = theirs.state_dict()
    path = written(tmp_path, original(kind, state) if layout == "original" else state)
    part = t2i_adapter_part(path, weights.header(path))
    known = dict(theirs.config)
    for key, value in part.config.to_dict().items():
        assert key.startswith("_") or known[key] == value, key
    ours = build(part, None)
    picture = torch.rand(1, theirs.config.in_channels, 64, 64)
    with torch.no_grad():
        for feature, expected in zip(ours(picture), theirs(picture), strict=True):
            assert torch.allclose(feature, expected, atol=1e-6)


def test_a_t2i_adapter_that_lacks_tensors_or_reads_squares_of_unknown_size_is_refused(tmp_path):
    state = original("full", diffusers.T2IAdapter(**FULL).state_dict())
    lacking = {name: tensor for name, tensor in state.items() if name != "body.4.block1.weight"}
    path = written(tmp_path, lacking)
    with pytest.raises(CheckpointError, match=r"body\.4\.block1\.weight is missing"):
        t2i_adapter_part(path, weights.header(path))
    path = written(tmp_path, {**state, "conv_in.weight": torch.zeros(8, 100, 3, 3)})
    with pytest.raises(CheckpointError, match=r"reads 100 numbers .* a folder with its config\.json does"):
        t2i_adapter_part(path, weights.header(path))

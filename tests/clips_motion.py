"""Motion adapters for tests, with random or zero weights."""

import diffusers
import torch
from safetensors.torch import save_file

from sfumato.checkpoint.motion import OWN_SCHEDULE
from sfumato.config import MotionAdapterConfig
from sfumato.nets.motion import MotionAdapter


def save_motion(path, unet, *, zero, **more):
    """A motion adapter for `unet`'s configuration in a folder, with random weights unless `zero`."""
    config = MotionAdapterConfig.from_dict(
        {
            "block_out_channels": list(unet.block_out_channels),
            "motion_layers_per_block": list(unet.layers),
            "motion_num_attention_heads": 4,
            "motion_norm_num_groups": unet.norm_num_groups,
            "motion_max_seq_length": 16,
            **more,
        },
        "motion",
    )
    torch.manual_seed(1)
    network = MotionAdapter(config)
    if not zero:
        for module in network.modules():
            if hasattr(module, "proj_out"):
                torch.nn.init.normal_(module.proj_out.weight, std=0.02)
    diffusers.MotionAdapter.from_config(config.to_dict()).save_config(path)
    state = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    save_file(state, path / "diffusion_pytorch_model.safetensors", metadata={OWN_SCHEDULE: "true"})
    return str(path)

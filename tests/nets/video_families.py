"""The published networks of clips, and narrow ones of the same make."""

import diffusers
import torch
from nets_families import stirred

from sfumato.config import TemporalVAEConfig, UNet3DConfig, UNetSpatioTemporalConfig
from sfumato.nets.temporal_vae import TemporalAutoencoderKL
from sfumato.nets.video_unet import UNet3D, UNetSpatioTemporal

CLASSES = {
    "SVD": (diffusers.UNetSpatioTemporalConditionModel, UNetSpatioTemporalConfig, UNetSpatioTemporal),
    "ModelScope": (diffusers.UNet3DConditionModel, UNet3DConfig, UNet3D),
    "SVD's autoencoder": (
        diffusers.AutoencoderKLTemporalDecoder,
        TemporalVAEConfig,
        TemporalAutoencoderKL,
    ),
}
_VAE = {"down_block_types": ["DownEncoderBlock2D"] * 4, "layers_per_block": 2, "latent_channels": 4}
PUBLISHED = {
    "SVD": {"num_frames": 14, "sample_size": 96, "num_attention_heads": [5, 10, 20, 20]},
    "ModelScope": {"sample_size": 32},
    "SVD's autoencoder": {**_VAE, "block_out_channels": [128, 256, 512, 512], "sample_size": 768},
}
NARROW = {
    "SVD": {
        "block_out_channels": [32, 64],
        "down_block_types": ["CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"],
        "up_block_types": ["UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"],
        "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": 24,
        "cross_attention_dim": 16,
        "transformer_layers_per_block": [2, 1],
        "num_attention_heads": [2, 4],
        "num_frames": 4,
    },
    "ModelScope": {
        "block_out_channels": [16, 32],
        "down_block_types": ["CrossAttnDownBlock3D", "DownBlock3D"],
        "up_block_types": ["UpBlock3D", "CrossAttnUpBlock3D"],
        "norm_num_groups": 8,
        "cross_attention_dim": 24,
        "attention_head_dim": 8,
    },
    "SVD's autoencoder": {
        **_VAE,
        "down_block_types": ["DownEncoderBlock2D"] * 2,
        "block_out_channels": [32, 64],
    },
}


def video_pair(family, seed=0):
    """Ours and diffusers', narrow, of the same random weights, in which frames count."""
    theirs_class, config, ours_class = CLASSES[family]
    torch.manual_seed(seed)
    theirs = stirred(theirs_class(**NARROW[family]))
    for name, parameter in theirs.named_parameters():
        if ".conv4." in name:  # they begin at zero
            torch.nn.init.normal_(parameter, std=0.1)
    ours = ours_class(config.from_dict(NARROW[family], family)).eval()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    return ours, theirs

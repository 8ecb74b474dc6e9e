"""Small random pipelines of Shap-E, made by diffusers itself."""

import diffusers
import torch
from checkpoint_families import tokenizer
from diffusers.pipelines.shap_e import ShapERenderer
from transformers import (
    CLIPImageProcessor,
    CLIPTextConfig,
    CLIPTextModelWithProjection,
    CLIPVisionConfig,
    CLIPVisionModel,
)

PUBLISHED = {
    "num_attention_heads": 16,
    "attention_head_dim": 64,
    "num_layers": 24,
    "embedding_dim": 1024,
    "num_embeddings": 1024,
    "additional_embeddings": 0,
    "time_embed_act_fn": "gelu",
    "norm_in_type": "layer",
    "encoder_hid_proj_type": None,
    "added_emb_type": None,
    "time_embed_dim": 4096,
    "embedding_proj_dim": 768,
    "clip_embed_dim": 2048,
}
"""The prior of openai/shap-e; that of openai/shap-e-img2img has a norm before its projection, of 1024."""


LATENT = torch.randn(32, 32, generator=torch.Generator().manual_seed(1))
"""One whose surface these pipelines show: it has three tenths of the box within it."""


def shap_e(picture=False, seed=0, **changes):
    """`picture`: the pipeline of pictures, else that of texts. `changes`: of the scheduler."""
    torch.manual_seed(seed)
    small = {
        "num_attention_heads": 2,
        "attention_head_dim": 16,
        "num_layers": 2,
        "embedding_dim": 32,
        "num_embeddings": 32,
        "time_embed_dim": 128,
        "embedding_proj_dim": 24,
        "clip_embed_dim": 64,
        "embedding_proj_norm_type": "layer" if picture else None,
    }
    prior = diffusers.PriorTransformer(**{**PUBLISHED, **small}).eval()
    for parameter in prior.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.2)
    renderer = ShapERenderer(
        param_shapes=((8, 93), (8, 8), (8, 8), (8, 8)), d_latent=32, d_hidden=8, background=(255.0, 51.0, 0.0)
    ).eval()
    # of a wave of 2^14 the last bit of a place is a hundredth: as in smooth functions the high ones are faint
    faint = torch.cat([torch.ones(3), *[0.5 ** torch.arange(15.0).repeat_interleave(3)] * 2])
    first = renderer.params_proj.projections["nerstf__mlp__0__weight"]
    with torch.no_grad():
        for parameter in (first.norm.weight, first.norm.bias, first.proj.bias.view(8, 93)):
            parameter.mul_(faint)
        last = renderer.mlp.mlp[-1]
        last.weight.mul_(8)
        renderer.mlp.load_state_dict(
            renderer.mlp.state_dict()
            | {f"mlp.{n}.weight": own[0] for n, own in enumerate(renderer.params_proj(LATENT[None]).values())}
        )
        points = torch.rand(1, 2000, 3, generator=torch.Generator().manual_seed(0)) * 2 - 1
        found = renderer.mlp(
            position=points, direction=None, ts=None, nerf_level="fine", rendering_mode="stf"
        )
        last.bias[0] -= found.signed_distance.atanh().quantile(0.7)
        last.bias[1:3] += 1
    parts = {
        "prior": prior,
        "shap_e_renderer": renderer,
        "scheduler": diffusers.HeunDiscreteScheduler(
            **{
                "beta_schedule": "exp",
                "num_train_timesteps": 1024,
                "prediction_type": "sample",
                "use_karras_sigmas": True,
                "clip_sample": True,
                "clip_sample_range": 1.0,
                **changes,
            }
        ),
    }
    layers = {"num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
    if picture:
        vision = CLIPVisionConfig(hidden_size=24, image_size=32, patch_size=8, projection_dim=16, **layers)
        processor = CLIPImageProcessor(crop_size=32, size=32)
        return diffusers.ShapEImg2ImgPipeline(
            image_encoder=CLIPVisionModel(vision).eval(), image_processor=processor, **parts
        )
    words = tokenizer()
    text = CLIPTextConfig(hidden_size=32, projection_dim=24, vocab_size=len(words), **layers)
    text.eos_token_id = words.eos_token_id
    return diffusers.ShapEPipeline(
        text_encoder=CLIPTextModelWithProjection(text).eval(), tokenizer=words, **parts
    )


def set_cases(renderer):
    """Fill the table of marching cubes: each row names the edges that are crossed, and no triangles."""
    decoder = renderer.mesh_decoder
    for mask in range(256):
        crossed = edges_of(mask)
        padded = torch.tensor((crossed + crossed[-1:] * 15)[:15] if crossed else [0] * 15)
        decoder.cases[mask], decoder.masks[mask] = padded.view(5, 3), bool(crossed)


def edges_of(mask):
    """The edges of a cube that cross the surface, as diffusers numbers them, by which corners are inside."""
    corner = lambda x, y, z: mask >> (x + 2 * y + 4 * z) & 1  # noqa: E731
    along_x = [((0, y, z), (1, y, z)) for y, z in ((0, 0), (1, 0), (0, 1), (1, 1))]
    along_y = [((x, 0, z), (x, 1, z)) for x, z in ((0, 0), (1, 0), (0, 1), (1, 1))]
    along_z = [((x, y, 0), (x, y, 1)) for x, y in ((0, 0), (1, 0), (0, 1), (1, 1))]
    edges = [*along_x, *along_y, *along_z]
    return [number for number, (a, b) in enumerate(edges) if corner(*a) != corner(*b)]

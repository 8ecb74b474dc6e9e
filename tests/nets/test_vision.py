"""CLIP's vision encoder against transformers, live."""

import pytest
import torch
import transformers
from nets_families import assert_close, norms, shapes, stirred

from sfumato.config import VisionConfig
from sfumato.nets.vision import CLIPVision

PUBLISHED = {
    "SD 1.5": {
        "hidden_act": "gelu",
        "hidden_size": 1280,
        "intermediate_size": 5120,
        "num_attention_heads": 16,
        "num_hidden_layers": 32,
        "patch_size": 14,
        "projection_dim": 1024,
    },
    "SDXL": {
        "hidden_act": "gelu",
        "hidden_size": 1664,
        "intermediate_size": 8192,
        "num_attention_heads": 16,
        "num_hidden_layers": 48,
        "patch_size": 14,
        "projection_dim": 1280,
    },
    "CLIP": {},
}
NARROW = {
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_attention_heads": 3,
    "num_hidden_layers": 3,
    "image_size": 20,
    "patch_size": 5,
    "projection_dim": 16,
}


@pytest.mark.parametrize("family", PUBLISHED)
def test_a_published_vision_encoder_has_the_keys_and_shapes_of_transformers(family):
    with torch.device("meta"):
        theirs = transformers.CLIPVisionModelWithProjection(
            transformers.CLIPVisionConfig(**PUBLISHED[family])
        )
        ours = CLIPVision(VisionConfig.from_dict(PUBLISHED[family], family))
    assert shapes(ours) == shapes(theirs)
    assert norms(ours) == norms(theirs)


@pytest.mark.parametrize("act", ["gelu", "quick_gelu"])
def test_the_pooled_vector_and_the_states_before_the_last_layer_equal_transformers(act):
    torch.manual_seed(0)
    config = NARROW | {"hidden_act": act}
    theirs = stirred(transformers.CLIPVisionModelWithProjection(transformers.CLIPVisionConfig(**config)))
    ours = CLIPVision(VisionConfig.from_dict(config, act)).eval()
    ours.load_state_dict(theirs.state_dict())
    pixels = torch.randn(2, 3, 20, 20, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected, seen = theirs(pixels, output_hidden_states=True), ours(pixels)
    assert_close(seen.pooled, expected.image_embeds)
    assert_close(seen.states, expected.hidden_states[-2])


def test_a_picture_of_another_size_is_refused():
    with pytest.raises(ValueError, match=r"\(3, 16, 20\) was given; \(3, 20, 20\) is due"):
        CLIPVision(VisionConfig(**NARROW))(torch.zeros(1, 3, 16, 20))

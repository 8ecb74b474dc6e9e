"""The text encoders against transformers, live."""

import pytest
import torch
import transformers
from nets_families import NARROW_TEXTS, PUBLISHED_TEXTS, assert_close, norms, shapes, stirred

from sfumato.config import TextConfig
from sfumato.nets.text import CLIPText

LENGTH = 12


def their_class(config):
    (name,) = config.get("architectures", ["CLIPTextModel"])
    return getattr(transformers, name)


def theirs_of(config):
    return their_class(config)(transformers.CLIPTextConfig(**config))


def pair(family):
    torch.manual_seed(0)
    theirs = stirred(theirs_of(NARROW_TEXTS[family]))
    ours = CLIPText(TextConfig.from_dict(NARROW_TEXTS[family], family)).eval()
    ours.load_state_dict({k.removeprefix("text_model."): v for k, v in theirs.state_dict().items()})
    return ours, theirs


def prompts(length=LENGTH):
    """Rows that end early, in the middle, at the last place and nowhere, padded with 0 or 99."""
    ids = torch.randint(1, 98, (4, length), generator=torch.Generator().manual_seed(0))
    ids[:3, 0] = 98
    ids[0, 1:] = 99
    ids[1, 5], ids[1, 6:] = 99, 0
    ids[2, -1] = 99
    return ids


@pytest.mark.parametrize("family", PUBLISHED_TEXTS)
def test_published_text_encoder_has_the_keys_and_shapes_of_transformers(family):
    with torch.device("meta"):
        theirs = theirs_of(PUBLISHED_TEXTS[family])
        ours = CLIPText(TextConfig.from_dict(PUBLISHED_TEXTS[family], family))
    assert shapes(ours) == shapes(theirs)
    assert norms(ours) == norms(theirs)


@pytest.mark.parametrize("family", NARROW_TEXTS)
def test_every_hidden_state_and_the_pooled_vector_equal_transformers(family):
    ours, theirs = pair(family)
    ids = prompts()
    with torch.no_grad():
        expected = theirs(ids, output_hidden_states=True)
        body = getattr(theirs, "text_model", theirs)
        pooled = expected.text_embeds if ours.config.with_projection else expected.pooler_output
        assert_close(ours(ids).states, expected.last_hidden_state)
        for skip in range(ours.config.num_hidden_layers + 1):
            states = expected.hidden_states[-(skip + 1)]
            bare, normed = ours(ids, skip, final_norm=False), ours(ids, skip)
            assert_close(bare.states, states)
            assert_close(normed.states, body.final_layer_norm(states))
            assert_close(bare.pooled, pooled)
            assert_close(normed.pooled, pooled)


@pytest.mark.parametrize("family", ["SD 1.5", "SD 1.5 with its true end"])
def test_short_and_single_rows_equal_transformers(family):
    ours, theirs = pair(family)
    for ids in (prompts()[:1], prompts(7), prompts(77)):
        with torch.no_grad():
            expected = theirs(ids)
            assert_close(ours(ids).states, expected.last_hidden_state)
            assert_close(ours(ids).pooled, expected.pooler_output)


def test_legacy_end_of_text_is_the_largest_id_and_the_true_one_the_first():
    largest, true = pair("SD 1.5")[0], pair("SD 1.5 with its true end")[0]
    ids = torch.tensor([[98, 4, 99, 7, 99, 0], [98, 4, 5, 6, 7, 99]])
    with torch.no_grad():
        for model in (largest, true):
            answer = model(ids)
            assert answer.pooled.equal(answer.states[[0, 1], [2, 5]])
        answer = largest(torch.tensor([[5, 4, 97, 7, 2, 0]]))
        assert answer.pooled.equal(answer.states[:, 2])


@pytest.mark.parametrize("family", NARROW_TEXTS)
def test_saved_configuration_rebuilds_the_text_encoder_in_transformers(family):
    ours, theirs = pair(family)
    saved = ours.config.to_dict()
    assert TextConfig.from_dict(saved, family) == ours.config
    assert shapes(theirs_of(saved)) == shapes(theirs)


def test_too_many_tokens_and_too_many_skipped_layers_are_refused():
    ours, _ = pair("SD 1.5")
    with pytest.raises(ValueError, match="78 token ids are more than the 77"):
        ours(prompts(78))
    with pytest.raises(ValueError, match="skip = 5 must be in 0 to 4"):
        ours(prompts(), skip=5)


def test_every_parameter_of_the_text_encoder_learns_but_the_biases_of_keys():
    ours, _ = pair("SDXL second")
    answer = ours(prompts())
    (answer.states.square().mean() + answer.pooled.square().mean()).backward()
    # adding one vector to all keys moves no softmax
    still = {
        name
        for name, parameter in ours.named_parameters()
        if not parameter.grad.abs().max() > 0 and not name.endswith("k_proj.bias")
    }
    assert still == set()


def test_text_encoder_runs_in_bfloat16_close_to_float32():
    ours, _ = pair("SDXL second")
    with torch.no_grad():
        exact = ours(prompts())
        rough = ours.to(torch.bfloat16)(prompts())
    assert rough.states.dtype == rough.pooled.dtype == torch.bfloat16
    assert_close(rough.states.float(), exact.states, 0.05)
    assert_close(rough.pooled.float(), exact.pooled, 0.05)

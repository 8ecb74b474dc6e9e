"""Draws the pictures of these pages with the embedded model: `python docs/draw_pictures.py [NAME …]`."""

import sys
from collections.abc import Sequence
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
import PIL.Image
import PIL.ImageDraw
from numpy.typing import NDArray

import sfumato
from sfumato import animation
from sfumato.contact_sheet import contact_sheet
from sfumato.edit.control_pictures import canny
from sfumato.series.grid import Axis, Grid
from sfumato.space.camera import Camera
from sfumato.space.puff import cropped
from sfumato.space.render import render_mesh

PICTURES = Path(__file__).parent / "pictures"
CELL = 160


def sheet(
    name: str,
    rows: Sequence[Sequence[sfumato.Image | PIL.Image.Image]],
    across: Sequence[str] = (),
    down: Sequence[str] = (),
    cell: int = CELL,
) -> None:
    """Lay pictures out in rows, with labels above the columns and before the rows."""
    page = contact_sheet(
        [getattr(picture, "pil", picture) for row in rows for picture in row],
        columns=max(map(len, rows)),
        column_labels=across,
        row_labels=down,
        cell=(cell, cell),
        font_size=15,
    )
    PICTURES.mkdir(exist_ok=True)
    page.save(PICTURES / name, quality=90)
    print(PICTURES / name)


def front(studio: sfumato.Studio) -> None:
    """The README's sheet: ordinary prompts, one fixed seed, nothing selected."""
    prompts = (
        "a red apple, 3d render", "grinning cat, noto style", "a green car, flat emoji",
        "sunflower, soft gradient emoji", "an angry tomato, 3d render", "a blue apple, 3d render",
        "a kitten with heart eyes, noto style", "a purple star, solid icon on a yellow background",
        "snowy mountain, noto style", "a red skull, game icon", "a slice of watermelon, flat emoji",
        "a full moon face, 3d render",
    )  # fmt: skip
    drawn = [studio.generate(prompt, seed=7, steps=30) for prompt in prompts]
    sheet("front.webp", [drawn[:6], drawn[6:]])


def evolution(studio: sfumato.Studio) -> None:
    """The decoded x0 estimates of one picture over its steps."""
    steps = list(studio.stream("a red apple, 3d render", seed=7, steps=20))
    chosen = [steps[i] for i in (0, 1, 3, 6, 10, 14, 19)]
    sheet(
        "evolution.webp",
        [[step.preview(decoder="full") for step in chosen]],
        [f"step {step.index}" for step in chosen],
    )


def samplers(studio: sfumato.Studio) -> None:
    """Every sampler that suits an undistilled model, over the number of network evaluations."""
    budgets = (4, 8, 16, 32)
    names = (
        "adams", "ddim", "heun", "dpm2", "dpmpp-2s", "dpmpp-2m", "dpmpp-3m", "dpm-solver-2m", "unipc", "deis",
        "lms", "pndm", "euler-a", "dpm2-a", "dpmpp-2s-a", "dpmpp-sde", "dpmpp-2m-sde", "dpmpp-3m-sde", "ddpm",
    )  # fmt: skip
    twice = {"heun", "dpm2", "dpm2-a", "dpmpp-2s-a", "dpmpp-sde"}
    rows = [
        [
            studio.generate(
                "grinning cat, noto style",
                seed=3,
                sampler=name,
                spacing="trailing",
                steps=n // 2 if name in twice else n,
            )
            for n in budgets
        ]
        for name in names
    ]
    sheet("samplers.webp", rows, [f"{n} evaluations" for n in budgets], names, 128)


def spacings(studio: sfumato.Studio) -> None:
    """Every spacing with the default sampler."""
    from sfumato.names import SPACINGS

    counts = (3, 5, 8, 12, 20)
    rows = [
        [studio.generate("a red apple, 3d render", seed=7, spacing=name, steps=n) for n in counts]
        for name in SPACINGS
    ]
    sheet("spacings.webp", rows, [f"{n} steps" for n in counts], list(SPACINGS), 128)


def guidance(studio: sfumato.Studio) -> None:
    """Two prompts over the guidance scale."""
    scales = (1.0, 2.0, 3.0, 4.0, 6.0, 9.0, 14.0)
    prompts = ("a green car, flat emoji", "a blue apple, 3d render")
    rows = [[studio.generate(prompt, seed=5, guidance=scale) for scale in scales] for prompt in prompts]
    sheet("guidance.webp", rows, [f"guidance {scale:g}" for scale in scales])


def weights(studio: sfumato.Studio) -> None:
    """One word's weight, on one seed."""
    values = (0.5, 0.75, 1.0, 1.25, 1.5)
    prompts = {
        "a (green:{}) and red apple, 3d render": 7,
        "a car, (pink:{}), flat emoji": 5,
        "a red heart, (purple:{}), soft gradient emoji": 2,
    }
    rows = [
        [studio.generate(prompt.format(value), seed=seed) for value in values]
        for prompt, seed in prompts.items()
    ]
    sheet("prompt-weights.webp", rows, [f"{value:g}" for value in values], ["green", "pink", "purple"])


def schedule(studio: sfumato.Studio) -> None:
    """Where a prompt changes to another, and taking turns."""
    fruits, beasts = "[a red apple:a green pear:{}], 3d render", "[a cat:a dog:{}], 3d render"
    switches = ("0.0", "0.1", "0.2", "0.3", "0.5", "1.0")
    rows = [
        [studio.generate(prompt.format(when), seed=seed) for when in switches]
        + [studio.generate(prompt.replace(":{}", "").replace(":", "|"), seed=seed)]
        for prompt, seed in ((fruits, 7), (beasts, 5))
    ]
    sheet("prompt-schedule.webp", rows, [*(f"at {when}" for when in switches), "in turn"], cell=140)


def mixing(studio: sfumato.Studio) -> None:
    """Two prompts in one picture: blended text embeddings, and composed predictions."""
    shares = (0.0, 0.3, 0.5, 0.7, 1.0)
    blended = '("a red apple, 3d render", "a lemon, 3d render").blend({}, {})'
    added = "a red apple, 3d render :{} AND a lemon, 3d render :{}"
    rows = [
        [
            studio.generate(prompt.format(round(1 - share, 1), share), dialect=dialect, seed=7)
            for share in shares
        ]
        for prompt, dialect in ((blended, "compel"), (added, "sfumato"))
    ]
    sheet("prompt-mixing.webp", rows, [f"{share:.0%} lemon" for share in shares], [".blend()", "AND"])


def gliding(studio: sfumato.Studio) -> None:
    """Frames of examples/live.py between two prompts, in two steps each."""
    blended = '("a red apple, 3d render", "a lemon, 3d render").blend({}, {})'
    frames = [
        studio.generate(
            blended.format(1 - n / 6, n / 6), dialect="compel", fast=True, steps=2, decoder="tiny", seed=7
        )
        for n in range(7)
    ]
    sheet("live.webp", [frames], cell=120)


def strength(studio: sfumato.Studio) -> None:
    """A picture drawn anew by more and more."""
    apple = studio.generate("a red apple, 3d render", seed=7)
    amounts = (0, 0.3, 0.6, 0.8, 1)
    drawn = [
        studio.generate("a blue apple, 3d render", image=apple, strength=amount, seed=3) for amount in amounts
    ]
    sheet("editing-strength.webp", [[apple, *drawn]], ["image", *map(str, amounts)])


def variations(studio: sfumato.Studio) -> None:
    """A picture, and more and more of two other noises in its own."""
    cat = studio.generate("grinning cat, noto style", seed=3)
    amounts = (0.1, 0.2, 0.4, 0.7)
    rows = [
        [cat, *(studio.vary(cat, amount=amount, count=1, variation_seed=seed)[0] for amount in amounts)]
        for seed in (1, 2)
    ]
    sheet("editing-variations.webp", rows, ["image", *map(str, amounts)], cell=128)


def interpolation(studio: sfumato.Studio) -> None:
    """Ways between prompts and between seeds."""
    apple, lemon = "a red apple, 3d render", "a lemon, 3d render"
    ways: dict[str, dict[str, Any]] = {
        "equal weights": {"prompts": [apple, lemon], "seeds": 7, "constant_speed": False},
        "constant speed": {"prompts": [apple, lemon], "seeds": 7},
        "seeds": {"prompts": apple, "seeds": [7, 8]},
    }
    rows = [studio.interpolate(frames=9, **way) for way in ways.values()]
    sheet("editing-interpolation.webp", rows, down=list(ways), cell=96)


def grid(studio: sfumato.Studio) -> None:
    """The grid of getting-started.md."""
    request = sfumato.Request("a {red|blue} apple, 3d render", seed=7)
    plan = Grid.of(request, Axis.parse("steps=4,8,20"), Axis.parse("guidance=1,4,7"))
    page = plan.page([image.pil for image in studio.generate(plan.requests)])
    page.thumbnail((600, 600))
    page.save(PICTURES / "grid.webp", quality=90)


def control(studio: sfumato.Studio) -> None:
    """An apple, its edges, and what is drawn with them."""
    apple = studio.generate("a red apple, 3d render", seed=7)
    edges = PIL.Image.fromarray(canny(apple.pixels)).convert("RGB")
    prompts = [
        "a green apple, flat emoji",
        "a tomato, 3d render",
        "a full moon, noto style",
        "a clock, flat emoji",
    ]
    steered = {"model": "edges", "image": edges}
    drawn = [studio.generate(prompt, controls=steered, seed=3) for prompt in prompts]
    sheet("control-edges.webp", [[apple, edges, *drawn]], ["image", "canny", *prompts])


def transparent(studio: sfumato.Studio) -> None:
    """Objects cut out, and a sticker, on dark and on chequered ground."""
    prompts = ["a red apple, 3d render", "grinning cat, noto style", "glasses, 3d render"]
    cut = [studio.generate(prompt, seed=11, transparent=True) for prompt in prompts]
    cut.append(studio.generate(prompts[0], seed=11, sticker=8))
    squares = (np.add(*np.indices((256, 256)) // 16) % 2 * 65 + 190).astype(np.uint8)
    grounds = PIL.Image.new("RGB", (256, 256), (20, 20, 24)), PIL.Image.fromarray(squares).convert("RGB")
    rows = []
    for ground in grounds:
        laid = [ground.copy() for _ in cut]
        for below, each in zip(laid, cut, strict=True):
            below.paste(each.pil, mask=each.pil)
        rows.append(laid)
    sheet("transparent.webp", rows, [*prompts, "sticker 8"], cell=128)


def extension(studio: sfumato.Studio) -> None:
    """Pictures on grounds of a colour, before and after they are extended to the right."""
    before, after = [], []
    for prompt, colour, beyond in (
        ("a red apple, 3d render", "#3cbeb4", "a lemon, 3d render"),
        ("glasses, 3d render", "#fadc5a", ""),
        ("grinning cat, noto style", "#3c3c6e", "a star, flat color"),
    ):
        cut = studio.generate(prompt, seed=11, transparent=True)
        ground = PIL.Image.new("RGB", cut.size, colour)
        ground.paste(cut.pil, mask=cut.pil)
        wide = studio.generate(beyond, image=ground, extend={"right": 128}, seed=3)
        framed = PIL.Image.new("RGB", wide.size, "white")
        framed.paste(ground)
        before.append(framed)
        after.append(wide)
    sheet("editing-extend.webp", [before, after], down=["image", "extended"])


def scene(studio: sfumato.Studio) -> None:
    """A scene: its background, the elements in front of it, and after the last pass."""
    whole = sfumato.Scene.read(PICTURES.parents[1] / "examples" / "kitchen.toml").request
    background = whole.changed(elements=(), harmonise=None)
    ways = {"background": background, "put together": whole.changed(harmonise=0.0), "last pass": whole}
    sheet("scene.webp", [[studio.generate(each) for each in ways.values()]], list(ways), cell=256)


def mask(studio: sfumato.Studio) -> None:
    """Sunglasses drawn into a picture, plainly and by RePaint."""
    apple = studio.generate("a red apple, 3d render", seed=7)
    shape = PIL.Image.new("L", apple.size)
    PIL.ImageDraw.Draw(shape).rounded_rectangle((40, 90, 216, 170), 24, fill=255)
    ways: dict[str, dict[str, Any]] = {
        "mask": {},
        "feather 8": {"feather": 8},
        "resample 4": {"resample": 4, "sampler": "ddim"},
    }
    drawn = [
        studio.generate("sunglasses, 3d render", image=apple, mask=shape, seed=5, **way)
        for way in ways.values()
    ]
    page = contact_sheet(
        [apple.pil, shape.convert("RGB"), *(picture.pil for picture in drawn)],
        columns=5,
        column_labels=["image", "mask, white", *ways],
        cell=(CELL, CELL),
        font_size=15,
    )
    page.save(PICTURES / "editing-mask.webp", quality=90)


def inversion(studio: sfumato.Studio) -> None:
    """A picture given back by its own noise, and changed by another prompt."""
    source = "a red apple, 3d render"
    apple = studio.generate(source, seed=7)
    rows = []
    for way in ("ddim", "ddpm"):
        given: dict[str, Any] = {"image": apple, "inversion": way, "source": source, "seed": 1, "strength": 1}
        prompts = (source, "a blue apple, 3d render", "a lemon, 3d render")
        changed = [
            studio.generate(prompt, guidance=1 if prompt == source else 5, **given) for prompt in prompts
        ]
        rows.append([apple, *changed])
    sheet("editing-inversion.webp", rows, ["image", "same prompt", "blue", "lemon"], ["ddim", "ddpm"])


def passes(studio: sfumato.Studio) -> None:
    """A size that the model does not know: in one pass, in windows, and in two passes."""
    size: dict[str, Any] = {"width": 512, "height": 512, "seed": 7}
    rows = []
    for prompt in ("a red apple, 3d render", "a cat, flat color"):
        rows.append(
            [
                studio.generate(prompt, seed=7),
                studio.generate(prompt, upscale=1, multidiffusion=False, **size),
                studio.generate(prompt, multidiffusion=True, **size),
                studio.generate(prompt, **size),
            ]
        )
    labels = ["256", "512, one pass", "512, windows", "512, two passes"]
    sheet("large-passes.webp", rows, labels, cell=240)


def upscalers(studio: sfumato.Studio) -> None:
    """A part of a picture made four times larger."""
    apple = studio.generate("a girl with a hat, noto style", seed=7)
    given: tuple[dict[str, Any], ...] = (
        {"upscaler": "lanczos", "strength": 0},
        {"upscaler": "embedded", "strength": 0},
        {"upscaler": "embedded"},
    )
    large = [studio.upscale(apple, 4, **each).pil.crop((360, 200, 680, 520)) for each in given]
    page = contact_sheet(
        large,
        columns=3,
        column_labels=["lanczos", "embedded", "embedded, refined"],
        cell=(320, 320),
        font_size=15,
    )
    page.save(PICTURES / "large-upscalers.webp", quality=90)


def textures(studio: sfumato.Studio) -> None:
    """Seamless tiles, each laid four times, and a panorama in windows."""
    page = PIL.Image.new("RGB", (1040, 772), "white")
    prompts = ("a seamless pattern of stars, flat color", "flowers and leaves, flat color")
    for column, (prompt, seed) in enumerate(zip(prompts, (3, 5), strict=True)):
        tile = studio.generate(prompt, seamless="xy", seed=seed).pil
        for row, along in ((0, 0), (0, 1), (1, 0), (1, 1)):
            page.paste(tile, (528 * column + 256 * along, 256 * row))
    street = studio.generate(
        "a row of houses, flat color", width=1024, height=256, multidiffusion=True, seed=7
    )
    page.paste(street.pil, (8, 528))
    page.save(PICTURES / "large-textures.webp", quality=88)


def instruction(studio: sfumato.Studio) -> None:
    """Pictures edited by instruction."""
    instructions = ["make it blue", "put it on a yellow background", "make it a silhouette emoji"]
    drawn = [
        studio.generate(prompt, seed=seed)
        for prompt, seed in (
            ("a red apple, 3d render", 7),
            ("a green car, flat emoji", 3),
            ("a cat, twemoji", 2),
        )
    ]
    editor = sfumato.load("embedded-instruct")
    rows = [[each, *(editor.edit(each, text, seed=1) for text in instructions)] for each in drawn]
    sheet("editing-instruction.webp", rows, ["image", *instructions])


def clips(studio: sfumato.Studio) -> None:
    """Three clips side by side."""
    prompts = (
        "a red apple bouncing, 3d render", "a yellow bell swinging, 3d render",
        "a red heart pulsing, noto style",
    )  # fmt: skip
    played("video.webp", [studio.animate(prompt, frames=16, seed=7, loop=True) for prompt in prompts])


def travels(studio: sfumato.Studio) -> None:
    """A clip whose frames read texts of their own."""
    texts = {0: "a smiling face, flat emoji", 6: "a crying face, flat emoji"}
    played("video-travel.webp", [studio.animate("", travel=texts, frames=12, seed=7, steps=16, loop=True)])


def between(studio: sfumato.Studio) -> None:
    """Clips half of whose frames are put between those that are drawn."""
    prompts = ("a yellow bell swinging, 3d render", "a red heart beating, 3d render")
    given = {"frames": 8, "interpolate": 2, "seed": 7, "steps": 16, "loop": True}
    played("video-between.webp", [studio.animate(prompt, **given) for prompt in prompts])


def played(name: str, videos: Sequence[sfumato.Video]) -> None:
    """Write clips of as many frames side by side."""
    rows = zip(*(video.frames for video in videos), strict=True)
    pages = [
        contact_sheet([frame.pil.resize((160, 160)) for frame in row], columns=len(videos)) for row in rows
    ]
    content = animation.encoded(pages, "WEBP", videos[0].fps, {})
    (PICTURES / name).write_bytes(content)


def shapes(studio: sfumato.Studio) -> None:
    """Pictures puffed to meshes, from seven sides; prints how well the outline is kept, and the time."""
    prompts = (
        "a red apple, 3d render", "a cat face, 3d render", "a red heart, 3d render", "a mushroom, 3d render",
        "a green car, flat emoji",
    )  # fmt: skip
    sides = ((0, 0), (45, 15), (90, 0), (135, 15), (180, 0), (270, 30), (0, 80))
    rows = []
    for prompt in prompts:
        drawn = studio.generate(prompt, seed=7, transparent=True)
        began = process_time()
        shape = sfumato.Shape.of_picture(drawn)
        seconds = process_time() - began
        overlap = silhouette(shape, cropped(drawn.pixels)[..., 3] > 127)
        print(f"| {prompt} | {overlap:.3f} | {seconds:.1f} |")
        rows.append([drawn, *(shape.render(*side, size=160) for side in sides)])
        if "mushroom" in prompt:
            frames = shape.turntable(24, size=160)
            content = animation.encoded(frames, "WEBP", 12, {})
            (PICTURES / "shapes-turntable.webp").write_bytes(content)
    sheet("shapes-puffed.webp", rows, ["picture", *(f"{side[0]}°, {side[1]}°" for side in sides)], cell=120)


def field(studio: sfumato.Studio) -> None:
    """Fields that are distilled, one from all around and a good one from eight sides: minutes."""
    shapes = []
    for quality in ("draft", "good"):
        began = process_time()
        shapes.append(studio.shape("a red apple, 3d render", method="field", quality=quality, seed=7))
        print(f"{quality}: {process_time() - began:.0f} CPU seconds")
    draft, good = shapes
    content = animation.encoded(draft.turntable(24, size=160), "WEBP", 12, {})
    (PICTURES / "shapes-field.webp").write_bytes(content)
    views = [good.render(azimuth, size=160) for azimuth in range(0, 360, 45)]
    sheet("shapes-good.webp", [views], [f"{azimuth}°" for azimuth in range(0, 360, 45)], cell=120)


def painted(studio: sfumato.Studio) -> None:
    """A puffed apple with a texture by a prompt, from eight sides; prints the time and the seams."""
    shape = sfumato.Shape.of_picture(studio.generate("a red apple, 3d render", seed=7))
    began = process_time()
    iron = studio.texture(shape, "rusty iron, 3d render", seed=7)
    print(f"{process_time() - began:.0f} CPU seconds, {iron.mesh.seam_difference:.2f} at the seams")
    views = [iron.render(azimuth, size=160) for azimuth in range(0, 360, 45)]
    sheet("shapes-painted.webp", [views], [f"{azimuth}°" for azimuth in range(0, 360, 45)], cell=120)


def silhouette(shape: sfumato.Shape, wanted: NDArray[np.bool_]) -> float:
    """Intersection over union of a shape's outline from the front and of `wanted` (H, W)."""
    side = max(wanted.shape)
    camera = Camera(distance=1, fov=90, width=side, height=side, orthographic=True)
    seen = np.asarray(render_mesh(shape.mesh, camera))[..., 3] > 127
    around = [((side - each) // 2, side - each - (side - each) // 2) for each in wanted.shape]
    whole = np.pad(wanted, around)
    return float((seen & whole).sum() / (seen | whole).sum())


if __name__ == "__main__":
    pages = {
        page.__name__: page
        for page in (
            front,
            evolution,
            samplers,
            spacings,
            guidance,
            weights,
            schedule,
            mixing,
            gliding,
            strength,
            variations,
            control,
            transparent,
            extension,
            scene,
            interpolation,
            grid,
            mask,
            inversion,
            passes,
            upscalers,
            textures,
            instruction,
            clips,
            travels,
            between,
            shapes,
            field,
            painted,
        )
    }
    loaded = sfumato.load()
    for wanted in sys.argv[1:] or pages:
        pages[wanted](loaded)

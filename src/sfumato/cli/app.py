"""The command line as typer sees it: every option, its help, and the function that does the work.

Values that `Request` checks are typed here as text, so that one place refuses them, in one wording. What
does the work is imported by the command that needs it.
"""

from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer

from sfumato.cli.help import HelpfulCommand, HelpfulGroup
from sfumato.names import DIALECTS, SAMPLERS, SPACINGS
from sfumato.version import __version__

PICTURE, WORDS, GUIDANCE, OUTPUT, MACHINE, RUN = (
    "The picture",
    "The words",
    "Guidance",
    "Output",
    "Model and machine",
    "The run",
)

app = typer.Typer(
    name="sfumato",
    help="Pictures from words.",
    cls=HelpfulGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="sfumato generate 'a red apple, 3d render' -o apple.png",
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"sfumato {__version__}")
        raise typer.Exit


def _samplers(incomplete: str) -> list[str]:
    return [name for name in SAMPLERS if name.startswith(incomplete)]


def _spacings(incomplete: str) -> list[str]:
    return [name for name in SPACINGS if name.startswith(incomplete)]


def _number(text: str | None) -> object:
    """A number as it was typed, or the text itself, for `Request` to refuse by name."""
    for kind in (int, float):
        with suppress(ValueError, TypeError):
            return kind(text)  # type: ignore[arg-type]
    return text


def _option(*names: str, panel: str, text: str, **more: Any) -> Any:
    return typer.Option(*names, help=text, rich_help_panel=panel, show_default=False, **more)


Dialect = Annotated[
    str | None,
    _option(
        "--dialect",
        panel=WORDS,
        metavar="NAME",
        text=f"How the prompt is read: {', '.join(DIALECTS)}.",
        autocompletion=lambda incomplete: [name for name in DIALECTS if name.startswith(incomplete)],
    ),
]
Vae = Annotated[
    str | None,
    _option("--vae", panel=MACHINE, metavar="FILE", text="Another autoencoder than the model's own."),
]
Tiny = Annotated[
    str | None,
    _option(
        "--tiny",
        panel=MACHINE,
        metavar="FILE",
        text="A tiny autoencoder (TAESD), for previews and --decoder tiny, where the model has none.",
    ),
]
Base = Annotated[
    str | None,
    _option("--base", panel=MACHINE, metavar="MODEL", text="Has what a file with a UNet alone does not."),
]
Prediction = Annotated[
    str | None,
    _option(
        "--prediction",
        panel=MACHINE,
        metavar="NAME",
        text="epsilon or v, for a Stable Diffusion 2 file that does not say.",
    ),
]
Json = Annotated[bool, _option("--json", panel=OUTPUT, text="Say it in JSON.")]
Quiet = Annotated[bool, _option("-q", "--quiet", panel=OUTPUT, text="No progress, no warnings.")]
Device = Annotated[
    str | None,
    _option("--device", panel=MACHINE, metavar="NAME", text="cpu, cuda, cuda:1, mps; else the fastest."),
]
Dtype = Annotated[
    str | None,
    _option(
        "--dtype",
        panel=MACHINE,
        metavar="NAME",
        text="float32, bfloat16, float16; else the fastest safe one.",
    ),
]
Slices = Annotated[
    int | None,
    _option("--slices", panel=MACHINE, metavar="N", text="Split attention in N parts: less memory."),
]
Tile = Annotated[
    int | None,
    _option(
        "--tile",
        panel=MACHINE,
        metavar="CELLS",
        text="Decode in tiles of this side (64 = 512 px): less memory.",
    ),
]
Offload = Annotated[
    bool, _option("--offload", panel=MACHINE, text="Keep weights in main memory until they are needed.")
]
Compile = Annotated[
    bool, _option("--compile", panel=MACHINE, text="Minutes at first, then faster: for many pictures.")
]


@app.callback()
def _sfumato(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks; may stand anywhere.")] = False,
) -> None:
    """Pictures from words."""


@app.command(
    cls=HelpfulCommand,
    epilog="""sfumato generate 'a red apple, 3d render' -o apple.png --seed 7
sfumato generate 'a blue cat' -n 4 -o cat.png        (cat-1.png to cat-4.png)
sfumato generate 'a cat' 'a dog' -o pets/ --steps 12 --sampler dpmpp-2m
sfumato generate - --json < prompts.txt
sfumato generate 'a red apple' -o - | display""",
)
def generate(
    prompts: Annotated[
        list[str],
        typer.Argument(
            metavar="PROMPT...",
            help="What to draw; - reads one prompt a line from stdin.",
            show_default=False,
        ),
    ],
    count: Annotated[
        str | None, _option("-n", "--count", panel=PICTURE, metavar="N", text="Pictures of each prompt.")
    ] = None,
    seed: Annotated[
        str | None,
        _option(
            "--seed",
            panel=PICTURE,
            metavar="N",
            text="The first picture's; the next ones count up. Else random.",
        ),
    ] = None,
    negative: Annotated[
        str | None, _option("--negative", panel=PICTURE, metavar="TEXT", text="What should not be in it.")
    ] = None,
    width: Annotated[
        str | None, _option("-W", "--width", panel=PICTURE, metavar="PX", text="Else the model's.")
    ] = None,
    height: Annotated[
        str | None, _option("-H", "--height", panel=PICTURE, metavar="PX", text="Else the model's.")
    ] = None,
    steps: Annotated[
        str | None, _option("--steps", panel=PICTURE, metavar="N", text="More are slower and finer.")
    ] = None,
    sampler: Annotated[
        str | None,
        _option(
            "--sampler",
            panel=PICTURE,
            metavar="NAME",
            text="The way from noise to picture: sfumato samplers.",
            autocompletion=_samplers,
        ),
    ] = None,
    spacing: Annotated[
        str | None,
        _option(
            "--spacing",
            panel=PICTURE,
            metavar="NAME",
            text="How noise levels are spread; see the same.",
            autocompletion=_spacings,
        ),
    ] = None,
    clip_skip: Annotated[
        str | None,
        _option(
            "--clip-skip", panel=PICTURE, metavar="N", text="Last text-encoder layers to leave out; 0 to 11."
        ),
    ] = None,
    fast: Annotated[
        bool,
        _option("--fast", panel=PICTURE, text="In 4 steps, or --steps 1 to 8, if the model can."),
    ] = False,
    decoder: Annotated[
        str | None,
        _option(
            "--decoder",
            panel=PICTURE,
            metavar="NAME",
            text="full, or tiny: several times faster at its work, and less exact.",
            autocompletion=lambda incomplete: [
                name for name in ("full", "tiny") if name.startswith(incomplete)
            ],
        ),
    ] = None,
    style: Annotated[
        list[str] | None,
        _option(
            "--style", panel=WORDS, metavar="NAME", text="A preset around the prompt: sfumato styles. Repeat."
        ),
    ] = None,
    templates: Annotated[
        str | None,
        _option(
            "--templates",
            panel=WORDS,
            metavar="HOW",
            text="What {a|b} and __list__ become: random (a choice for each picture), combinatorial "
            "(each in turn) or off.",
        ),
    ] = None,
    dialect: Dialect = None,
    loras: Annotated[
        list[str] | None,
        _option(
            "--lora",
            panel=WORDS,
            metavar="NAME[:W[:TW]]",
            text="A LoRA or the like: a file, or one in your folder; W its weight, TW that on the text "
            "encoders. Repeat.",
        ),
    ] = None,
    allow_partial: Annotated[
        bool,
        _option("--allow-partial", panel=WORDS, text="Use LoRAs that fit the model only in part."),
    ] = False,
    embeddings: Annotated[
        list[str] | None,
        _option(
            "--embedding",
            panel=WORDS,
            metavar="FILE",
            text="A learned embedding that the prompt names; those in your folder need no option. Repeat.",
        ),
    ] = None,
    places: Annotated[
        list[str] | None,
        _option(
            "--region",
            panel=WORDS,
            metavar="L,T,R,B:PROMPT",
            text="Another prompt for a part of the picture, its edges as fractions: 0,0,0.5,1 is the left "
            "half. Repeat.",
        ),
    ] = None,
    guidance: Annotated[
        str | None,
        _option(
            "--guidance",
            panel=GUIDANCE,
            metavar="SCALE",
            text="How strongly the prompt pulls; 1 is unguided.",
        ),
    ] = None,
    guidance_interval: Annotated[
        tuple[str, str] | None,
        _option(
            "--guidance-interval", panel=GUIDANCE, metavar="LO HI", text="Guide only at these noise levels σ."
        ),
    ] = None,
    guidance_rescale: Annotated[
        str | None,
        _option("--guidance-rescale", panel=GUIDANCE, metavar="PHI", text="Against overexposure; 0 to 1."),
    ] = None,
    output: Annotated[
        str | None,
        _option(
            "-o",
            "--output",
            panel=OUTPUT,
            metavar="PATH",
            text="A file (.png .jpg .webp), a folder/, a pattern with {n} {seed} {prompt}, or - for stdout. "
            "Else PROMPT-SEED.png here.",
        ),
    ] = None,
    preview: Annotated[
        Path | None,
        _option(
            "--preview", panel=OUTPUT, metavar="FOLDER", text="Save the picture after every evaluation, too."
        ),
    ] = None,
    as_json: Annotated[
        bool, _option("--json", panel=OUTPUT, text="One line of JSON for each picture.")
    ] = False,
    quiet: Quiet = False,
    model: Annotated[
        str | None,
        _option(
            "--model",
            panel=MACHINE,
            metavar="MODEL",
            text="A diffusers folder, a .safetensors file, a hub id; else the embedded one.",
        ),
    ] = None,
    vae: Vae = None,
    tiny: Tiny = None,
    base: Base = None,
    prediction: Prediction = None,
    device: Device = None,
    dtype: Dtype = None,
    slices: Slices = None,
    tile: Tile = None,
    offload: Offload = False,
    compiled: Compile = False,
) -> None:
    """Draw pictures from prompts."""
    from sfumato.cli.generate import Loading, Options, adapter, draw, region

    fields: dict[str, Any] = {
        "negative": negative,
        "width": _number(width),
        "height": _number(height),
        "steps": _number(steps),
        "guidance": _number(guidance),
        "guidance_interval": guidance_interval and tuple(map(_number, guidance_interval)),
        "guidance_rescale": _number(guidance_rescale),
        "sampler": sampler,
        "spacing": spacing,
        "seed": _number(seed),
        "count": _number(count),
        "clip_skip": _number(clip_skip),
        "style": style,
        "templates": templates,
        "dialect": dialect,
        "adapters": loras and [adapter(each) for each in loras],
        "embeddings": embeddings,
        "allow_partial": allow_partial or None,
        "regions": places and [region(each) for each in places],
        "fast": fast or None,
        "decoder": decoder,
        "model": model,
        "vae": vae,
        "tiny": tiny,
        "base": base,
        "prediction": prediction,
    }
    draw(
        Options(
            prompts=prompts,
            fields={name: value for name, value in fields.items() if value is not None},
            loading=Loading(device, dtype, slices, tile, offload, compiled),
            output=output,
            preview=preview,
            as_json=as_json,
            quiet=quiet,
        )
    )


@app.command(
    cls=HelpfulCommand,
    epilog="""sfumato replay apple.png
sfumato replay old.png --model ~/models/dreamy -o again.png""",
)
def replay(
    image: Annotated[
        Path, typer.Argument(metavar="IMAGE", help="A picture that Sfumato drew.", show_default=False)
    ],
    output: Annotated[
        Path | None, _option("-o", "--output", panel=OUTPUT, metavar="FILE", text="Save the new drawing.")
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
    model: Annotated[
        str | None,
        _option(
            "--model",
            panel=MACHINE,
            metavar="MODEL",
            text="Where the model is now; else as the picture says.",
        ),
    ] = None,
    device: Device = None,
    dtype: Dtype = None,
    slices: Slices = None,
    tile: Tile = None,
    offload: Offload = False,
    compiled: Compile = False,
) -> None:
    """Draw a picture again from its file alone; say identical (exit status 0) or how it differs (1)."""
    from sfumato.cli.generate import Loading
    from sfumato.cli.replay import replay

    loading = Loading(device, dtype, slices, tile, offload, compiled)
    raise typer.Exit(replay(image, loading, model, output, as_json, quiet))


@app.command(cls=HelpfulCommand)
def inspect(
    source: Annotated[
        str,
        typer.Argument(
            metavar="MODEL|IMAGE",
            help="A model's folder or file, a hub id, embedded, or a picture.",
            show_default=False,
        ),
    ],
    as_json: Json = False,
) -> None:
    """Tell what a model is and why, or what a picture carries."""
    from sfumato.cli.inspect import inspect

    raise typer.Exit(inspect(source, as_json))


@app.command(cls=HelpfulCommand)
def samplers(as_json: Json = False) -> None:
    """List samplers and spacings and what they are for."""
    from sfumato.cli.samplers import samplers

    samplers(as_json)


@app.command(
    cls=HelpfulCommand,
    epilog="""sfumato prompt 'a (red:1.3) apple, [sketch:oil painting:0.4]'
sfumato prompt 'a red apple AND a blue cat :0.5' --steps 8
sfumato prompt 'a (red)1.3 apple' --dialect compel""",
)
def prompt(
    text: Annotated[str, typer.Argument(metavar="PROMPT", help="What to read.", show_default=False)],
    dialect: Dialect = None,
    steps: Annotated[
        str | None, _option("--steps", panel=WORDS, metavar="N", text="Of the drawing; else the model's.")
    ] = None,
    model: Annotated[
        str | None,
        _option("--model", panel=WORDS, metavar="MODEL", text="Whose tokens; else the embedded one's."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Tell how a prompt is read: its parts, tokens, weights and chunks, and what happens at which step."""
    from sfumato.cli.prompt import prompt

    fields = {"dialect": dialect, "steps": _number(steps), "model": model}
    prompt(text, {name: value for name, value in fields.items() if value is not None}, as_json)


@app.command(cls=HelpfulCommand)
def styles(
    kind: Annotated[
        str | None, _option("--model", panel=WORDS, metavar="KIND", text="Only those for this kind of model.")
    ] = None,
    as_json: Json = False,
) -> None:
    """List the style presets and what they are."""
    from sfumato.cli.styles import styles

    styles(kind, as_json)


@app.command(
    cls=HelpfulCommand,
    epilog="""sfumato convert ~/models/dreamy dreamy.safetensors --dtype fp16
sfumato convert dreamy.safetensors ~/models/dreamy
sfumato convert --from-pickle old.ckpt old.safetensors""",
)
def convert(
    source: Annotated[
        str,
        typer.Argument(metavar="SOURCE", help="A model's folder or file, or a pickle.", show_default=False),
    ],
    target: Annotated[
        Path,
        typer.Argument(
            metavar="TARGET",
            help="A .safetensors file, in Stable Diffusion's original layout, or a diffusers folder.",
            show_default=False,
        ),
    ],
    dtype: Annotated[
        str | None,
        _option("--dtype", panel=OUTPUT, metavar="NAME", text="fp32, fp16 or bf16; else as it is stored."),
    ] = None,
    variant: Annotated[
        str | None,
        _option("--variant", panel=OUTPUT, metavar="NAME", text="Into a folder's file names, as fp16."),
    ] = None,
    overwrite: Annotated[bool, _option("--overwrite", panel=OUTPUT, text="Replace what is there.")] = False,
    from_pickle: Annotated[
        bool,
        _option(
            "--from-pickle",
            panel=OUTPUT,
            text="SOURCE is a .ckpt, .pt, .bin or .pth: read its tensors, and nothing else, in a process "
            "that can open, send and start nothing.",
        ),
    ] = False,
    as_json: Json = False,
    vae: Vae = None,
    base: Base = None,
    prediction: Prediction = None,
) -> None:
    """Turn a model's folder into a single file, or a file into a folder; or a pickle into safetensors."""
    if from_pickle:
        from sfumato.cli.models import convert_pickle

        convert_pickle(Path(source), target, overwrite, as_json)
        return
    from sfumato.cli.convert import Conversion, convert

    convert(source, target, Conversion(dtype, variant, prediction, vae, base, overwrite), as_json)


models = typer.Typer(name="models", help="List, bring, find and delete models.", cls=HelpfulGroup)
app.add_typer(models)
Name = Annotated[str, typer.Argument(metavar="NAME", help="As sfumato models list says.", show_default=False)]


@models.command("list", cls=HelpfulCommand)
def list_models(as_json: Json = False) -> None:
    """List the models that are here: your own folder's and the hub cache's."""
    from sfumato.cli.models import list_models

    list_models(as_json)


@models.command(cls=HelpfulCommand)
def pull(
    repository: Annotated[
        str, typer.Argument(metavar="ORG/NAME", help="A repository on the hub.", show_default=False)
    ],
    revision: Annotated[
        str | None, _option("--revision", panel=MACHINE, metavar="NAME", text="A branch, tag or commit.")
    ] = None,
    variant: Annotated[
        str | None, _option("--variant", panel=MACHINE, metavar="NAME", text="Of the weights, as fp16.")
    ] = None,
) -> None:
    """Download a model from the hub into its cache, never a pickle; print where it is."""
    from sfumato.cli.models import pull

    pull(repository, revision, variant)


@models.command(cls=HelpfulCommand)
def path(name: Name) -> None:
    """Print where a model is."""
    from sfumato.cli.models import path

    path(name)


@models.command(cls=HelpfulCommand)
def rm(
    name: Name, yes: Annotated[bool, _option("-y", "--yes", panel=OUTPUT, text="Do not ask.")] = False
) -> None:
    """Delete a model that list shows, after asking."""
    from sfumato.cli.models import remove

    raise typer.Exit(remove(name, yes))


@app.command(cls=HelpfulCommand)
def doctor(as_json: Json = False) -> None:
    """Tell what is installed, what is fast here, and what is missing."""
    from sfumato.cli.doctor import doctor

    raise typer.Exit(doctor(as_json))


Recipe = Annotated[
    Path, typer.Argument(metavar="RECIPE", help="What to train and how: a TOML file.", show_default=False)
]
Seconds = Annotated[
    float | None, _option("--seconds", panel=RUN, metavar="N", text="Stop after so long; run again to go on.")
]
Steps = Annotated[
    int | None, _option("--steps", panel=RUN, metavar="N", text="The last step, else the recipe's.")
]
DataOption = Annotated[
    str | None, _option("--data", panel=RUN, metavar="FOLDER", text="The data, else the recipe's.")
]
BaseOption = Annotated[
    str | None,
    _option("--base", panel=RUN, metavar="MODEL", text="The model to start from, else the recipe's."),
]
RunOption = Annotated[
    str | None,
    _option("--run", panel=RUN, metavar="FOLDER", text="Where to keep the run, else the recipe's."),
]
Shards = Annotated[
    Path | None,
    _option("--shards", panel=RUN, metavar="FOLDER", text="Leave the model in files below 15 MB, too."),
]


@app.command(
    cls=HelpfulCommand,
    epilog="""sfumato train recipes/icons/all.toml --seconds 540         (again: goes on)
sfumato train my.toml --steps 20000 --base runs/mine/autoencoder/model""",
)
def train(
    recipe: Recipe,
    seconds: Seconds = None,
    steps: Steps = None,
    data: DataOption = None,
    base: BaseOption = None,
    run: RunOption = None,
    shards: Shards = None,
    as_json: Json = False,
    quiet: Quiet = False,
    device: Device = None,
) -> None:
    """Train by a recipe, stage after stage if it lists several, or go on where the last slice stopped."""
    from sfumato.cli.train import train

    changes = {"steps": steps, "data": data, "base": base, "run": run}
    train(recipe, changes, seconds, shards, device, as_json, quiet)


@app.command(
    cls=HelpfulCommand,
    epilog="""sfumato distill recipes/icons/fast.toml --seconds 540       (again: goes on)
sfumato distill my.toml --base path/to/model --data my/pictures""",
)
def distill(
    recipe: Recipe,
    seconds: Seconds = None,
    steps: Steps = None,
    data: DataOption = None,
    base: BaseOption = None,
    run: RunOption = None,
    shards: Shards = None,
    as_json: Json = False,
    quiet: Quiet = False,
    device: Device = None,
) -> None:
    """Teach a student to draw in few steps what a model draws in many, or go on where that stopped."""
    from sfumato.cli.train import train

    changes = {"steps": steps, "data": data, "base": base, "run": run}
    train(recipe, changes, seconds, shards, device, as_json, quiet, students=True)


@app.command(
    cls=HelpfulCommand,
    epilog="""sfumato evaluate --data data/icons --out report
sfumato evaluate --model embedded --model runs/mine/model --steps 8,20 --guidance 2,4
sfumato evaluate --small --json""",
)
def evaluate(
    models: Annotated[
        list[str] | None,
        _option("--model", panel=MACHINE, metavar="MODEL", text="As for generate; else embedded. Repeat."),
    ] = None,
    data: Annotated[
        Path, _option("--data", panel=RUN, metavar="FOLDER", text="Pictures with words: data/icons.")
    ] = Path("data/icons"),
    steps: Annotated[
        str | None, _option("--steps", panel=PICTURE, metavar="N,...", text="As 4,8,20; else the model's.")
    ] = None,
    guidance: Annotated[
        str | None, _option("--guidance", panel=PICTURE, metavar="SCALE,...", text="Else 1,2,4,7.")
    ] = None,
    sampler: Annotated[
        str | None,
        _option(
            "--sampler",
            panel=PICTURE,
            metavar="NAME,...",
            text="Else the model's own: sfumato samplers.",
            autocompletion=_samplers,
        ),
    ] = None,
    fast: Annotated[
        bool, _option("--fast", panel=PICTURE, text="Draw by what the models have for few steps.")
    ] = False,
    spacing: Annotated[
        str | None,
        _option(
            "--spacing",
            panel=PICTURE,
            metavar="NAME",
            text="Else the model's own; see the same.",
            autocompletion=_spacings,
        ),
    ] = None,
    decoder: Annotated[
        str, _option("--decoder", panel=PICTURE, metavar="NAME", text="full or tiny, where the model has it.")
    ] = "full",
    size: Annotated[
        int | None,
        _option("--size", panel=PICTURE, metavar="PX", text="Of a side; else what the first model draws."),
    ] = None,
    count: Annotated[
        int | None, _option("-n", "--count", panel=RUN, metavar="N", text="Pictures to compare: 1000.")
    ] = None,
    seed: Annotated[int, _option("--seed", panel=RUN, metavar="N", text="Of everything by lot: 0.")] = 0,
    small: Annotated[
        bool, _option("--small", panel=RUN, text="Few, small, quick pictures: to see that it works.")
    ] = False,
    scorer: Annotated[
        str | None,
        _option(
            "--scorer",
            panel=RUN,
            metavar="FILE",
            text="What finds captions, else the one for icons; none leaves it out.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        _option("--out", panel=OUTPUT, metavar="FOLDER", text="For table, plots, pictures and JSON."),
    ] = None,
    cache: Annotated[
        Path | None,
        _option("--cache", panel=OUTPUT, metavar="FOLDER", text="For what is drawn, to go on with later."),
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
    device: Device = None,
    dtype: Dtype = None,
) -> None:
    """Measure how good models are: how real their pictures look, and how true to the words."""
    from sfumato.cli.evaluate import Options, evaluate

    evaluate(
        Options(
            models=models or ["embedded"],
            data=data,
            steps=steps,
            guidance=guidance,
            sampler=sampler,
            fast=fast,
            spacing=spacing,
            decoder=decoder,
            count=count,
            seed=seed,
            size=size,
            small=small,
            scorer=scorer,
            out=out,
            cache=cache,
            device=device,
            dtype=dtype,
            as_json=as_json,
            quiet=quiet,
        )
    )


data_app = typer.Typer(name="data", help="Make training data.", cls=HelpfulGroup)
app.add_typer(data_app)


@data_app.command(
    name="icons", cls=HelpfulCommand, epilog="sfumato data icons data/icons         (npm fetches the sets)"
)
def icons(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="Where to keep it.", show_default=False)
    ] = Path("data/icons"),
    size: Annotated[
        int, _option("--size", panel=PICTURE, metavar="PX", text="Width and height of the pictures: 256.")
    ] = 256,
    offline: Annotated[
        bool, _option("--offline", panel=RUN, text="Render what of the pack is there; fetch nothing.")
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Fetch, pack and render the icons and emoji that the embedded model learns from."""
    from sfumato.cli.data import icons

    raise typer.Exit(icons(folder, size, offline, quiet))


Pictures = Annotated[
    Path, typer.Argument(metavar="FOLDER", help="Pictures, with captions beside them.", show_default=False)
]


@data_app.command(
    name="check",
    cls=HelpfulCommand,
    epilog="sfumato data check photos             (what training would find)",
)
def check_data(
    folder: Pictures,
    size: Annotated[
        int, _option("--size", panel=PICTURE, metavar="PX", text="The side of square pictures: 512.")
    ] = 512,
    ratio: Annotated[
        float, _option("--ratio", panel=PICTURE, metavar="R", text="How much longer than wide, at most: 2.")
    ] = 2.0,
    step: Annotated[
        int, _option("--step", panel=PICTURE, metavar="PX", text="What sides are multiples of.")
    ] = 0,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Say what is in a folder of pictures: captions, sizes with counts, and what is broken."""
    from sfumato.cli.data import check

    raise typer.Exit(check(folder, size, ratio, step, as_json, quiet))


@data_app.command(name="pack", cls=HelpfulCommand, epilog="sfumato data pack photos photos-packed")
def pack_data(
    folder: Pictures,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Where to put the shards.", show_default=False)],
    megabytes: Annotated[
        int, _option("--megabytes", panel=OUTPUT, metavar="N", text="Of pictures in one shard: 256.")
    ] = 256,
    quiet: Quiet = False,
) -> None:
    """Put a folder of pictures into a few large files, which travel well."""
    from sfumato.cli.data import pack

    raise typer.Exit(pack(folder, out, megabytes, quiet))

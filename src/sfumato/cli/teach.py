"""`sfumato teach`: a few pictures of one thing, or of one style, to an adapter or a word that draws it."""

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from sfumato.cli import console
from sfumato.cli.help import MODEL, OUTPUT, RUN
from sfumato.cli.options import Json, OptionGroup, Program, Quiet, argument, device_option, option
from sfumato.cli.train import go_on
from sfumato.errors import UsageError
from sfumato.options import EMBEDDED, DeviceOptions

if TYPE_CHECKING:
    from sfumato.train.teach import Teaching

program = Program()


@dataclass(frozen=True)
class TeachOptions:
    """The options of `teach`."""

    pictures: Annotated[list[Path], argument("PICTURE...", "Pictures of it, or a folder of them.")]
    name: Annotated[
        str, option("--name TEXT", RUN, 'What prompts call it: a rare word and its class, "sks mug".')
    ]
    of_class: Annotated[
        str | None, option("--class TEXT", RUN, "What it is one of, as mug. Default: not said.")
    ] = None
    method: Annotated[
        str, option("--method NAME", RUN, "lora, dreambooth, inversion or pivotal. Default: lora.")
    ] = "lora"
    model: Annotated[
        str, option("-m, --model MODEL", MODEL, "What learns it. Default: the embedded model.")
    ] = EMBEDDED
    mask: Annotated[
        str | None,
        option(
            "--mask NAME",
            RUN,
            "Learn the subject alone: by files (masks), alpha, background (plain). Default: files, if any.",
        ),
    ] = None
    steps: Annotated[int | None, option("--steps N", RUN, "Steps. Default: the method's.")] = None
    batch_size: Annotated[
        int | None, option("--batch-size N", RUN, "Pictures in a step; fewer take less memory. Default: 4.")
    ] = None
    resolution: Annotated[
        int | None, option("--resolution PX", RUN, "The side of square pictures. Default: the model's.")
    ] = None
    seconds: Annotated[
        float | None, option("--seconds N", RUN, "Stop after N seconds; run again to resume. Default: never.")
    ] = None
    text_encoders: Annotated[
        bool, option("--text-encoders", RUN, "Train the text encoders as well, which takes more memory.")
    ] = False
    run: Annotated[
        Path | None, option("--run FOLDER", RUN, "Where to keep the run. Default: runs/ and its name.")
    ] = None
    output: Annotated[
        Path | None,
        option("-o, --output FILE", OUTPUT, "The result. Default: in your folder of adapters, by its name."),
    ] = None
    overwrite: Annotated[bool, option("--overwrite", OUTPUT, "Replace a result of that name.")] = False
    device: Annotated[str | None, device_option("device")] = None
    threads: Annotated[int | None, device_option("threads")] = None
    as_json: Json = False
    quiet: Quiet = False


@program.add(
    examples="""sfumato teach mug/*.png --name 'sks mug' --class mug     (again: resumes)
sfumato generate 'sks mug on the moon' --lora mug
sfumato teach mug --name 'sks mug' --model dreamy.safetensors -o mug.safetensors"""
)
def teach(options: Annotated[TeachOptions, OptionGroup.of(TeachOptions)]) -> None:
    """Teach a model a subject, and print where the result lies."""
    computing = DeviceOptions(device=options.device, threads=options.threads)
    if options.seconds is not None and options.seconds <= 0:
        raise UsageError(f"--seconds {options.seconds:g} must be more than 0")
    from sfumato import devices
    from sfumato.train import teach as teaching_of
    from sfumato.train.distributed import process_group

    teaching = teaching_of.Teaching(
        tuple(options.pictures),
        options.name,
        options.of_class,
        options.method,
        options.model,
        options.run,
        options.steps,
        options.batch_size,
        options.resolution,
        options.text_encoders,
        options.mask,
        options.device,
    )
    devices.set_threads(computing)
    meter = console.Meter(options.quiet)
    with meter.shown(options.name):
        target = teaching_of.result_path(teaching, options.output, options.overwrite)
        plan = teaching_of.prepare(teaching)
        with process_group(options.device) as device:
            results = go_on(plan, device, meter, options.seconds)
        outcome, stage = results[-1].outcome, results[-1].stage
        if outcome.done:
            teaching_of.keep(plan, target)
    done = {"done": outcome.done, "run": str(teaching.folder), "step": outcome.step}
    following = _try(options, teaching, target) if outcome.done else _again(options)
    if options.as_json:
        result = {"result": str(target)} if outcome.done else {}
        told = {**done, "seconds": outcome.seconds, **result, "next": shlex.join(following)}
        console.result(console.as_json(told))
        return
    stopped = f"stopped at step {outcome.step:,} of {stage.recipe.steps:,}, run again to go on"
    console.result(f"{teaching.folder}: {f'done in {outcome.seconds:,.0f} s' if outcome.done else stopped}")
    if outcome.done:
        console.result(f"{'result':16} {target}")
        console.result(f"{'samples':16} {Path(stage.recipe.run) / 'samples' / 'last.webp'}")
    console.result(f"{'next':16} {shlex.join(following)}")


def _try(options: TeachOptions, teaching: "Teaching", target: Path) -> list[str]:
    """The command that draws with the result."""
    model = [] if options.model == EMBEDDED else ["--model", options.model]
    draw = ["sfumato", "generate", f"{teaching.name} on the moon", *model]
    if options.method == "inversion":
        # what lies in the folder of embeddings is known by its name
        return draw if options.output is None else [*draw, "--embedding", str(target)]
    return [*draw, "--lora", target.stem if options.output is None else str(target)]


def _again(options: TeachOptions) -> list[str]:
    """The command that was typed, as far as it says what to learn."""
    given = {
        "--name": options.name,
        "--class": options.of_class,
        "--method": options.method if options.method != "lora" else None,
        "--model": options.model if options.model != EMBEDDED else None,
        "--mask": options.mask,
        "--steps": options.steps,
        "--batch-size": options.batch_size,
        "--resolution": options.resolution,
        "--run": options.run,
        "-o": options.output,
        "--device": options.device,
    }
    pairs = [(name, str(value)) for name, value in given.items() if value is not None]
    pictures = map(str, options.pictures)
    text = ["--text-encoders"] if options.text_encoders else []
    return ["sfumato", "teach", *pictures, *(part for pair in pairs for part in pair), *text]

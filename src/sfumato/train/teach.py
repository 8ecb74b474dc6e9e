"""A subject or a style from a few pictures: the recipe that `sfumato teach` writes and carries out."""

import json
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sfumato import devices, folders
from sfumato.checkpoint.source import locate
from sfumato.checkpoint.vocabulary import clip_tokenizer
from sfumato.data import caption_files, kohya_config
from sfumato.data.caption_transform import CAPTION
from sfumato.data.folder import FolderContents
from sfumato.data.search import MASK_ENDS, search
from sfumato.errors import DataError, OutputError, UsageError, nearest, warn
from sfumato.files import make_folder, output_error, replace_atomically
from sfumato.formats import READ_FORMATS, READABLE
from sfumato.options import EMBEDDED
from sfumato.train import loop, recipe_file, stages
from sfumato.train.distributed import process_group
from sfumato.train.loop import TrainingProgress
from sfumato.train.loss_masks import LOSS_MASKS
from sfumato.train.stages import Plan

PICTURES, RECIPE = "pictures", "recipe.toml"
"""In the run's folder: copies of pictures that were named one by one, and the recipe."""
INVERSION, LORA = "inversion.toml", "lora.toml"
"""In the run's folder, of pivotal tuning: its two recipes."""
METHODS = ("lora", "dreambooth", "inversion", "pivotal")
VECTORS = 4
"""Of a new word."""
TRIED = {"lora": (2e-3, 150), "dreambooth": (1e-3, 150), "pivotal": (1e-3, 150), "inversion": (1e-2, 200)}
"""Learning rate and steps of each method with the embedded model, chosen by what they draw."""
USUAL = {**dict.fromkeys(("lora", "dreambooth", "pivotal"), (1e-4, 500)), "inversion": (5e-4, 500)}
"""The same with other models: the rates of diffusers' scripts, and as many steps as its guides take."""
BATCH = 4
CLASS_PICTURES = 24
MOST_NAME = 64
RARE = "sks"
COMMON_RANK = 45_000
"""Of the pieces of CLIP's vocabulary, the most frequent first, so many are common."""
FEW = 3
"""Pictures below which a subject is learned with its surroundings."""
MANY, PATIENCE = 10, 4
"""Of so many pictures one is held out; the run ends after so many tenths of its steps that were no better."""


@dataclass(frozen=True)
class Teaching:
    """What is to be learned, and how.

    Raises `UsageError` for what is wrong with a name, a method or a device, `CheckpointError` where there is
    no model.
    """

    pictures: tuple[Path, ...]
    """A folder, a dataset config of kohya's, or pictures."""
    name: str
    """What prompts call it, such as "sks mug"."""
    of_class: str | None = None
    """What it is one of, such as "mug"."""
    method: str = "lora"
    base: str = EMBEDDED
    run: Path | None = None
    """The folder of the run; `runs/` and the pictures' name unless given."""
    steps: int | None = None
    """Of each recipe."""
    batch_size: int | None = None
    """Pictures of the subject in one step; the method's unless given."""
    resolution: int | None = None
    """The side of square pictures; the model's own unless given."""
    text_encoders: bool = False
    """Whether the LoRA changes the text encoders as well."""
    mask: str | None = None
    """What of the pictures is learned, one of `LOSS_MASKS`; by masks beside them, if there are any, unless
    given."""
    device: str | None = None
    """Where it is learned; the fastest device here unless given."""

    def __post_init__(self) -> None:
        devices.pick_device(self.device)
        if self.method not in METHODS:
            raise UsageError(f"unknown method {self.method!r}; {nearest(self.method, METHODS)}")
        if self.mask is not None and self.mask not in LOSS_MASKS:
            raise UsageError(f"unknown mask {self.mask!r}; {nearest(self.mask, LOSS_MASKS)}")
        for what, text in (("name", self.name), ("class", self.of_class)):
            if text is not None and (not text.strip() or len(text) > MOST_NAME or "\n" in text):
                raise UsageError(
                    f"the {what} is {text!r}: must be a few words, {MOST_NAME} letters at most, as 'sks mug'"
                )
        if re.search(r"[<>(){}\[\]:|]", self.name):
            raise UsageError(f"the name is {self.name!r}: <>(){{}}[]:| mean something else in prompts")
        if self.method == "inversion" and self.text_encoders:
            raise UsageError("inversion leaves the networks as they are: --text-encoders goes with a LoRA")
        if self.method == "dreambooth" and not self.of_class:
            raise UsageError("dreambooth keeps the class as it was, and must know it: --class mug")
        locate(self.base)

    @property
    def short_name(self) -> str:
        """What the result is called: as the folder of the pictures, or as prompts call it."""
        folders = {each if each.is_dir() else each.parent for each in self.pictures}
        one = next(iter(folders)).resolve().name if len(folders) == 1 else ""
        named = one if one and next(iter(folders)).resolve() != Path.cwd() else self.name
        return re.sub(r"[^\w.-]+", "-", named.strip().lower()).strip("-.") or "subject"

    @property
    def folder(self) -> Path:
        """The folder of the run."""
        return self.run or Path("runs") / self.short_name

    @property
    def token(self) -> str:
        """The word that textual inversion learns: the name's first."""
        return self.name.split()[0]

    @property
    def result_name(self) -> str:
        """What the file of the result is called, without its suffix."""
        return self.token if self.method == "inversion" else self.short_name


def prepare(teaching: Teaching) -> Plan:
    """The run's folder with its recipe in it, and the plan.

    Pictures that are named one by one are copied into it, with their captions and masks. Raises `UsageError`
    also for a folder that has another run, `DataError` and `OutputError`.
    """
    run = teaching.folder
    data = _data(teaching, run)
    found = search(data)
    for text in advice(teaching, len(found.pictures)):
        warn(text)
    written = recipes(teaching, found)
    for name, content in written.items():
        if "stages" not in content:
            # before the recipe of another run that is there is replaced
            loop.check(recipe_file.parse(content, str(run / name)))
    make_folder(run, run / RECIPE)
    for name, content in written.items():
        with replace_atomically(run / name) as file:
            file.write(toml(content).encode("utf-8"))
    return stages.read(run / RECIPE)


def teach(
    pictures: str | Path | Sequence[str | Path],
    name: str,
    *,
    of_class: str | None = None,
    method: str = "lora",
    model: str | Path = EMBEDDED,
    output: str | Path | None = None,
    overwrite: bool = False,
    run: str | Path | None = None,
    steps: int | None = None,
    batch_size: int | None = None,
    resolution: int | None = None,
    text_encoders: bool = False,
    mask: str | None = None,
    device: str | None = None,
    progress: Callable[[TrainingProgress], None] = lambda _: None,
) -> Path:
    """Teach `model` a subject or a style from `pictures`, as `sfumato teach` does; the file of the result.

    It is for `Studio.load_adapter`, of inversion for `Studio.load_embedding`, and lies at `output`, or in the
    user's folder of adapters or embeddings. The other arguments are those of `Teaching`. A run that was
    interrupted goes on where the same is asked for again. `progress` is called at least every second.

    Raises `UsageError`, `DataError` and `CheckpointError` for what is wrong with the arguments, the pictures
    and the model, `OutputError` for a result that is there already unless `overwrite`, and `NumericsError`.
    """
    named = [pictures] if isinstance(pictures, str | Path) else pictures
    folder = None if run is None else Path(run)
    teaching = Teaching(
        *(tuple(map(Path, named)), name, of_class, method, str(model), folder, steps, batch_size, resolution),
        *(text_encoders, mask, device),
    )
    target = result_path(teaching, None if output is None else Path(output), overwrite)
    plan = prepare(teaching)
    with process_group(device) as chosen:
        stages.carry_out(plan, chosen, progress=lambda _, made: progress(made))
    keep(plan, target)
    return target


def result_path(teaching: Teaching, output: Path | None = None, overwrite: bool = False) -> Path:
    """Where the result goes: `output`, or the user's folder of its kind, which is made.

    Raises `UsageError` for a name that it cannot have, `OutputError` for one that another result has.
    """
    target, learns_word = output, teaching.method == "inversion"
    if target is None:
        kind = "embeddings" if learns_word else "adapters"
        target = folders.folder(kind) / f"{teaching.result_name}.safetensors"
    elif target.suffix != ".safetensors":
        raise UsageError(f"{target} must be called .safetensors")
    elif learns_word and target.stem != teaching.token:
        raise UsageError(
            f"{target} must be called {teaching.token}.safetensors: prompts name a word by its file"
        )
    if target.exists() and not overwrite:
        raise OutputError(
            f"will not replace {target}: another name with -o (output), or --overwrite to replace it"
        )
    make_folder(target.parent, target)
    return target


def keep(plan: Plan, target: Path) -> None:
    """Copy the result of `plan` to `target`. Raises `OutputError`."""
    recipe = plan.stages[-1].recipe
    try:
        with open(recipe.objective.result(recipe), "rb") as source, replace_atomically(target) as file:
            shutil.copyfileobj(source, file)
    except OSError as error:
        raise output_error(target, error) from error


def recipes(teaching: Teaching, data: FolderContents) -> dict[str, dict[str, Any]]:
    """The recipes for the pictures in a folder, by the names of their files, as tables."""
    run = teaching.folder
    if teaching.method == "inversion":
        return {RECIPE: _inversion(teaching, data, run)}
    if teaching.method != "pivotal":
        return {RECIPE: _lora(teaching, data, run)}
    word = run / "inversion" / f"{teaching.token}.safetensors"
    lora = _lora(teaching, data, run / "lora")
    lora["data"]["embeddings"] = [str(word)]
    lora["adapter"]["layout"] = "kohya"  # has a place for the word
    return {
        RECIPE: {"stages": [INVERSION, LORA]},
        INVERSION: _inversion(teaching, data, run / "inversion"),
        LORA: lora,
    }


def _common(teaching: Teaching, data: FolderContents, run: Path, method: str) -> dict[str, Any]:
    name = teaching.name.strip()
    learning_rate, usual = (TRIED if teaching.base == EMBEDDED else USUAL)[method]
    steps = usual if teaching.steps is None else teaching.steps
    template = name if teaching.base == EMBEDDED else f"a photo of {name}"
    texts: dict[str, Any] = {"caption_template": [template]}
    if any(picture.captions for picture in data.pictures):
        texts = {"caption_template": [CAPTION], "trigger": name}
    by_files = any(picture.mask for picture in data.pictures)
    return {
        "base": teaching.base,
        "run": str(run),
        "steps": steps,
        "batch_size": BATCH if teaching.batch_size is None else teaching.batch_size,
        "gradient_checkpointing": teaching.base != EMBEDDED,
        "ema_decays": [0.98],
        "checkpoint_every": 25,
        "log_every": 25,
        "data": {
            "folder": str(data.folder),
            "hold_out": False,
            **texts,
            "caption_dropout": 0.0,
            "resolution": teaching.resolution or 0,
            "loss_mask": "files" if by_files else "none",
            **(kohya_config.read(data.folder).data if kohya_config.is_config(data.folder) else {}),
            **({"loss_mask": teaching.mask} if teaching.mask else {}),
        },
        "optimizer": {
            "learning_rate": learning_rate,
            "warmup_steps": max(min(10, steps - 1), 0),
            "lr_schedule": "cosine",
        },
        "samples": {"prompts": sample_prompts(teaching), "every": max(steps // 3, 25)},
        **_validation(len(data.pictures), steps),
    }


def _validation(pictures: int, steps: int) -> dict[str, Any]:
    """Of many pictures some are held out, to keep the best step and stop where it gets no better."""
    if pictures < MANY:
        return {}
    keys = {"every": max(steps // 10, 1), "pictures": max(pictures // MANY, 1), "patience": PATIENCE}
    return {"validation": keys}


def _lora(teaching: Teaching, data: FolderContents, run: Path) -> dict[str, Any]:
    """A LoRA (Hu et al. 2022), for DreamBooth with prior preservation."""
    content = _common(teaching, data, run, teaching.method)
    content["objective"] = {"name": "denoiser"}
    content["adapter"] = {
        "rank": 16,
        "trigger_words": [teaching.name.strip()],
        "text_encoders": teaching.text_encoders,
    }
    if teaching.method == "dreambooth":
        # of each batch half are pictures of the class
        content["batch_size"] *= 2
        content["objective"] = {
            "name": "dreambooth",
            "class_prompt": teaching.of_class,
            "class_pictures": CLASS_PICTURES,
        }
    return content


def _inversion(teaching: Teaching, data: FolderContents, run: Path) -> dict[str, Any]:
    """Textual inversion (Gal et al. 2023)."""
    content = _common(teaching, data, run, "inversion")
    begins_as = teaching.of_class or "thing"
    content["objective"] = {
        "name": "textual-inversion",
        "token": teaching.token,
        "vectors": VECTORS,
        "initializer": begins_as,
    }
    return content


def sample_prompts(teaching: Teaching) -> list[str]:
    """What is drawn while it is learned: it, it elsewhere, and one of its class."""
    name = teaching.name.strip()
    own = [name, f"{name} on the moon", f"{name}, 3d render"]
    return [*own, teaching.of_class] if teaching.of_class else own


def _data(teaching: Teaching, run: Path) -> Path:
    """The folder to learn from: the one that is named, or copies of the pictures that are."""
    if not teaching.pictures:
        raise UsageError("no pictures are given: name a folder of pictures, or pictures")
    for path in teaching.pictures:
        if not path.exists():
            raise DataError(f"there is no picture {path}: name a folder of pictures, or pictures")
    first = teaching.pictures[0]
    if len(teaching.pictures) == 1 and (first.is_dir() or kohya_config.is_config(first)):
        return first
    for path in teaching.pictures:
        if path.is_dir():
            raise UsageError(f"{path} is a folder: name one folder alone, or pictures")
        if path.suffix.lower() not in READ_FORMATS:
            raise DataError(f"{path} is not a {READABLE} picture: convert it")
    names = [path.name for path in teaching.pictures]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UsageError(f"two pictures are called {twice}: put all into one folder under names of their own")
    folder = run / PICTURES
    make_folder(folder)
    wanted: dict[str, Path] = {}
    for path in teaching.pictures:
        wanted[path.name] = path
        beside = [path.with_suffix(suffix) for suffix in caption_files.CAPTION_SUFFIXES]
        beside += [path.with_name(path.name + suffix) for suffix in caption_files.CAPTION_SUFFIXES]
        beside += [path.with_name(path.stem + end) for end in MASK_ENDS]
        wanted |= {each.name: each for each in beside if each.is_file()}
    try:
        for old in folder.iterdir():
            if old.name not in wanted:
                old.unlink()
        for name, path in wanted.items():
            target = folder / name
            if not target.is_file() or target.read_bytes() != path.read_bytes():
                shutil.copyfile(path, target)
    except OSError as error:
        raise OutputError(f"cannot copy the pictures to {folder}: {error.strerror}") from error
    return folder


def advice(teaching: Teaching, count: int) -> list[str]:
    """What will go wrong with `count` pictures: so few that what surrounds the subject is learned with it;
    and with a name without a word of its own, which would change what that name draws already.
    """
    texts = []
    if 0 < count < FEW:
        told = "one picture is" if count == 1 else f"{count} pictures are"
        texts.append(
            f"{told} little: background and position are learned too; five from several sides, "
            "before several backgrounds, draw it anew"
        )
    words = re.findall(r"[^\W\d_]+", teaching.name.lower())
    common = _common_words()
    if all(word in common or word in (teaching.of_class or "").lower().split() for word in words):
        texts.append(
            f"{teaching.name!r} is made of common words, and what they draw now would be lost: "
            f"'{RARE} {teaching.of_class or teaching.name}' has a word of its own"
        )
    return texts


def _common_words() -> frozenset[str]:
    vocab = clip_tokenizer().vocab
    pieces = (piece for piece, number in vocab.items() if number < COMMON_RANK and piece.endswith("</w>"))
    return frozenset(piece.removesuffix("</w>") for piece in pieces)


def toml(content: Mapping[str, Any]) -> str:
    """A recipe as TOML: keys of the run first, then a table for each section."""
    lines = [f"{key} = {_value(value)}" for key, value in content.items() if not isinstance(value, Mapping)]
    for section, own in content.items():
        if isinstance(own, Mapping):
            lines += ["", f"[{section}]", *(f"{key} = {_value(value)}" for key, value in own.items())]
    return "\n".join(lines) + "\n"


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{json.dumps(key)} = {_value(one)}" for key, one in value.items()) + "}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "[" + ", ".join(map(_value, value)) + "]"
    # of text, numbers and truth values JSON is TOML
    return json.dumps(value, ensure_ascii=False)

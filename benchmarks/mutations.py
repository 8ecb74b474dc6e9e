"""How the loaders bear damage: thousands of spoilt files, each of which must load or be refused by name.

    python benchmarks/mutations.py [COUNT] [--seconds S] [--seed N] [--only SUBJECT]... [--case NUMBER]

Whatever comes out of a loader that is not one of Sfumato's declared errors is listed with the number of its
case, which `--case` repeats. On Linux the process may take 256 MiB more than it has after loading every
subject whole, so that a file that asks for more is found out too; a case may take 20 seconds.
"""

import argparse
import json
import os
import random
import resource
import shutil
import signal
import struct
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from measuring import LOAD, load, machine, say

from sfumato import checkpoint, weights
from sfumato.adapt import Adapters, AdapterWeight, embedding
from sfumato.checkpoint.loading import empty_network
from sfumato.checkpoint.model import ModelNetwork
from sfumato.config import Config, TextConfig, UNetConfig, VAEConfig
from sfumato.errors import SfumatoError
from sfumato.prompt.tokenizer import Tokenizer

EXTRA_MEMORY = 256 << 20
CASE_SECONDS = 20

UNET = {
    "_class_name": "UNet2DConditionModel",
    "sample_size": 8,
    "block_out_channels": [4],
    "down_block_types": ["CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D"],
    "layers_per_block": 1,
    "norm_num_groups": 2,
    "attention_head_dim": 2,
    "cross_attention_dim": 4,
}
VAE = {
    "_class_name": "AutoencoderKL",
    "block_out_channels": [4],
    "layers_per_block": 1,
    "norm_num_groups": 2,
    "down_block_types": ["DownEncoderBlock2D"],
    "up_block_types": ["UpDecoderBlock2D"],
}
TEXT = {
    "architectures": ["CLIPTextModel"],
    "hidden_size": 4,
    "intermediate_size": 4,
    "num_hidden_layers": 1,
    "num_attention_heads": 1,
    "vocab_size": 200,
    "bos_token_id": 190,
    "eos_token_id": 191,
}
BARE = {
    "unet": {**UNET, "block_out_channels": [32], "norm_num_groups": 32, "attention_head_dim": 8}
    | {"cross_attention_dim": 64},
    "vae": {**VAE, "block_out_channels": [32], "norm_num_groups": 32},
    "text_encoder": {**TEXT, "hidden_size": 64, "vocab_size": 49408, "bos_token_id": 49406}
    | {"eos_token_id": 49407},
}
SCHEDULER = {"_class_name": "DDIMScheduler", "beta_start": 0.00085, "beta_end": 0.012, "steps_offset": 1}
INDEX = {
    "_class_name": "StableDiffusionPipeline",
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "scheduler": ["diffusers", "DDIMScheduler"],
}
NETWORKS: dict[str, tuple[dict[str, Any], type[Config], str]] = {
    "unet": (UNET, UNetConfig, "diffusion_pytorch_model"),
    "vae": (VAE, VAEConfig, "diffusion_pytorch_model"),
    "text_encoder": (TEXT, TextConfig, "model"),
}


def model_folder(folder: Path) -> None:
    """The smallest model there can be, in the diffusers layout."""
    for name, (content, kind, stem) in NETWORKS.items():
        (folder / name).mkdir(parents=True)
        (folder / name / "config.json").write_text(json.dumps(content))
        shapes = empty_network(kind.from_dict(content, name)).state_dict()
        state = {key: torch.ones(tensor.shape, dtype=torch.float16) for key, tensor in shapes.items()}
        weights.write(folder / name / f"{stem}.safetensors", state)
    for name, file, content in (
        ("scheduler", "scheduler_config.json", SCHEDULER),
        (".", "model_index.json", INDEX),
        (".", "sfumato.json", {"native_size": [64, 64], "steps": 4}),
    ):
        (folder / name).mkdir(exist_ok=True)
        (folder / name / file).write_text(json.dumps(content))
    (folder / "tokenizer").mkdir()
    letters = [chr(code) for code in range(33, 127)]
    pieces = [*letters, *(f"{letter}</w>" for letter in letters), "in", "in</w>"]
    vocab = {piece: number for number, piece in enumerate(pieces)}
    vocab |= {"<|startoftext|>": 190, "<|endoftext|>": 191}
    Tokenizer(vocab, [("i", "n"), ("i", "n</w>")]).save(folder / "tokenizer")


def sharded_folder(folder: Path) -> None:
    """The same with its UNet in two files and an index."""
    model_folder(folder)
    whole = folder / "unet" / "diffusion_pytorch_model.safetensors"
    state = weights.read(whole)
    whole.unlink()
    names = sorted(state)
    homes = {
        name: f"part-0000{1 + (at > len(names) // 2)}-of-00002.safetensors" for at, name in enumerate(names)
    }
    for home in set(homes.values()):
        weights.write(folder / "unet" / home, {name: state[name] for name in names if homes[name] == home})
    index = {"metadata": {"total_size": 1}, "weight_map": homes}
    (folder / "unet" / f"{whole.name}.index.json").write_text(json.dumps(index))


def stated_file(folder: Path) -> None:
    """The same as one file in the original layout, its configurations in its header."""
    model_folder(folder / "model")
    checkpoint.convert(folder / "model", folder / "model.safetensors")
    shutil.rmtree(folder / "model")


def bare_file(folder: Path) -> None:
    """A file in the original layout that says nothing of itself, as small as those can be told."""
    unsaid = shutil.ignore_patterns("sfumato.json", "tiny_vae")
    shutil.copytree(checkpoint.embedded(), folder / "model", ignore=unsaid)
    for name, content in BARE.items():
        kind, stem = NETWORKS[name][1:]
        (folder / "model" / name / "config.json").write_text(json.dumps(content))
        shapes = empty_network(kind.from_dict(content, name)).state_dict()
        state = {key: torch.ones(tensor.shape, dtype=torch.float16) for key, tensor in shapes.items()}
        weights.write(folder / "model" / name / f"{stem}.safetensors", state)
    file = folder / "model.safetensors"
    checkpoint.convert(folder / "model", file)
    shutil.rmtree(folder / "model")
    weights.write(file, weights.read(file))


def adapter_file(folder: Path) -> None:
    """A LoRA of one layer in kohya's names, and one in PEFT's."""
    block = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
    plain = {"down.weight": torch.ones(2, 4), "up.weight": torch.ones(4, 2)}
    kohya = {f"lora_unet_{block.replace('.', '_')}.lora_{key}": tensor for key, tensor in plain.items()}
    kohya[f"lora_unet_{block.replace('.', '_')}.alpha"] = torch.tensor(1.0)
    weights.write(folder / "kohya.safetensors", kohya, {"ss_network_dim": "2", "ss_tag_frequency": "{}"})
    peft = {"lora_A.weight": torch.ones(2, 4), "lora_B.weight": torch.ones(4, 2)}
    weights.write(
        folder / "peft.safetensors", {f"unet.{block}.{key}": tensor for key, tensor in peft.items()}
    )


def embedding_file(folder: Path) -> None:
    """A word of two vectors, in each form."""
    weights.write(folder / "kohya.safetensors", {"emb_params": torch.ones(2, 4)})
    weights.write(folder / "pair.safetensors", {"clip_l": torch.ones(2, 4), "clip_g": torch.ones(2, 4)})
    weights.write(folder / "numbered.safetensors", {"<a>": torch.ones(4), "<a>_1": torch.ones(4)})


def load_model(folder: Path, damaged: Path) -> None:
    """Describe the model and load it; what describing finds wrong is the first thing that loading refuses."""
    checkpoint.inspect(folder)
    checkpoint.load(folder)


def load_single(folder: Path, damaged: Path) -> None:
    """As `load_model`, of a file."""
    checkpoint.inspect(damaged)
    checkpoint.load(damaged)


def load_adapter(folder: Path, damaged: Path) -> None:
    """Read it for the smallest model and fold it in."""
    adapters = Adapters(networks())
    adapters.fuse([AdapterWeight(adapters.load(damaged, allow_partial=True).name, 0.5)])
    adapters.detach()


@cache
def networks() -> dict[str, ModelNetwork]:
    """Those that adapters are read for."""
    with tempfile.TemporaryDirectory() as folder:
        model_folder(Path(folder))
        return checkpoint.load(folder).networks


def load_embedding(folder: Path, damaged: Path) -> None:
    """Read it."""
    embedding.read(damaged)


@dataclass(frozen=True)
class Subject:
    """Something that can be damaged: what writes it, what loads it, and how often it is chosen."""

    make: Callable[[Path], None]
    load: Callable[[Path, Path], None]
    weight: int


SUBJECTS = {
    "model folder": Subject(model_folder, load_model, weight=3),
    "sharded folder": Subject(sharded_folder, load_model, weight=1),
    "file with configurations": Subject(stated_file, load_single, weight=6),
    "file without": Subject(bare_file, load_single, weight=1),
    "adapter": Subject(adapter_file, load_adapter, weight=8),
    "embedding": Subject(embedding_file, load_embedding, weight=8),
}

WORDS = [
    "",
    "x",
    "__class__",
    "../../etc/passwd",
    "\0",
    "\ud800",
    "NaN",
    "a" * 5000,
    "F32",
    "F8_E4M3",
    "BOOL",
]
WORDS += ["UNet2DConditionModel", "os.system", "epsilon", "<|endoftext|>", "\u202e\x1b[2J"]
NUMBERS = [0, 1, -1, 2, 3, 7, 64, 255, 1000, 1 << 16, 1 << 20, 1 << 31, 1 << 53, 1 << 63, 1 << 64, -(1 << 63)]
NUMBERS += [10**400, 0.5, -0.0, 1e-320, 1e308, 1e300, 4.0]


def odd(chance: random.Random) -> Any:
    """A value that nobody expects."""
    kind = chance.randrange(8)
    if kind < 3:
        return chance.choice(NUMBERS)
    if kind < 5:
        return chance.choice(WORDS)
    if kind == 5:
        return chance.choice([None, True, False])
    if kind == 6:
        return [odd(chance) for _ in range(chance.choice([0, 1, 2, 9]))]
    return {str(odd(chance))[:50]: odd(chance) for _ in range(chance.choice([0, 1, 3]))}


def places(tree: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) in a JSON tree."""
    found: list[tuple[Any, Any]] = []
    keys = tree.keys() if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, list) else ()
    for key in keys:
        found.append((tree, key))
        found += places(tree[key])
    return found


def damage_tree(tree: Any, chance: random.Random) -> None:
    """Change one thing in a JSON tree: a value, a key, or the order."""
    inside = places(tree)
    if not inside:
        return
    holder, key = chance.choice(inside)
    match chance.randrange(7):
        case 0:
            del holder[key]
        case 1:
            tree[str(odd(chance))[:2000]] = odd(chance)
        case 2:
            other, its = chance.choice(inside)
            holder[key], other[its] = other[its], holder[key]
        case 3 if isinstance(holder, dict):
            holder[chance.choice(WORDS)] = holder.pop(key)
        case 4 if isinstance(holder[key], int) and not isinstance(holder[key], bool):
            holder[key] += chance.choice([-1, 1, 8, 1 << 40])
        case _:
            holder[key] = odd(chance)


def damage_text(text: bytes, chance: random.Random) -> bytes:
    """Spoil JSON where a tree cannot: keys twice, numbers that are none, depth, bytes that are no UTF-8."""
    at = chance.randrange(len(text) + 1)
    match chance.randrange(7):
        case 0:
            return text[:1] + text[1:].rstrip()[:-1] + b"," + text[1:]
        case 1:
            return text.replace(
                b":", b":" + chance.choice([b"NaN,", b"-Infinity,", b"1e999,", b"[" * 50_000]), 1
            )
        case 2:
            return text[:at] + chance.choice([b"\xff", b"\xed\xa0\x80", b"\\ud800", b"\0", b'"']) + text[at:]
        case 3:
            return b'{"a":' * 50_000 + text
        case 4:
            return chance.choice(
                [b"", b"[]", b"null", b"1", b'""', b"\xef\xbb\xbf" + text, text.decode().encode("utf-16")]
            )
        case 5:
            return text[:at] + text[chance.randrange(len(text) + 1) :]
        case _:
            return text.replace(b":", b":" + b"9" * chance.choice([30, 5000]), chance.randrange(1, 4))


def damage_bytes(content: bytes, chance: random.Random) -> bytes:
    """Flip bits, cut, double, fill or lengthen, as disks and downloads do."""
    spoilt = bytearray(content)
    reach = len(spoilt) if chance.random() < 0.3 else min(len(spoilt), chance.choice([9, 200, 4000]))
    match chance.randrange(6):
        case 0 | 1:
            for _ in range(chance.choice([1, 1, 2, 8, 64])):
                if reach:
                    spoilt[chance.randrange(reach)] ^= 1 << chance.randrange(8)
        case 2:
            del spoilt[chance.randrange(len(spoilt) + 1) :]
        case 3:
            spoilt += bytes(chance.choice([1, 8, 4096]))
        case 4:
            at = chance.randrange(reach + 1)
            spoilt[at : at + chance.choice([1, 8, 512])] = chance.randbytes(chance.choice([1, 8, 512]))
        case _:
            at = chance.randrange(reach + 1)
            del spoilt[at : at + chance.choice([1, 8, 512])]
    return bytes(spoilt)


def damage_json(content: bytes, chance: random.Random) -> bytes:
    """Spoil a JSON file in one of the three ways."""
    if chance.random() < 0.6:
        tree = json.loads(content)
        damage_tree(tree, chance)
        return json.dumps(tree).encode("utf-8", "surrogatepass")
    return chance.choice([damage_text, damage_bytes])(content, chance)


def damage_safetensors(content: bytes, chance: random.Random) -> bytes:
    """Spoil the header and say its length rightly, or wrongly, or spoil any bytes."""
    length = int.from_bytes(content[:8], "little")
    header, data = content[8 : 8 + length], content[8 + length :]
    match chance.randrange(8):
        case 0 | 1 | 2 | 3:
            header = damage_json(header, chance)
        case 4:
            header = damage_text(header, chance)
        case 5:
            claimed = chance.choice([0, 1, length - 1, length + 1, 1 << 20, 16 << 20, 1 << 32, (1 << 64) - 1])
            return struct.pack("<Q", claimed) + header + data
        case 6:
            data = struct.pack("<e", chance.choice([float("nan"), float("inf"), 65504.0, 6e-8])) + data[2:]
        case _:
            return damage_bytes(content, chance)
    return struct.pack("<Q", len(header)) + header + data


def damage_lines(content: bytes, chance: random.Random) -> bytes:
    """Spoil a list of lines: drop, double, swap, lengthen, or any bytes."""
    lines = content.split(b"\n")
    at = chance.randrange(len(lines))
    match chance.randrange(6):
        case 0:
            del lines[at]
        case 1:
            lines.insert(
                at, chance.choice([lines[at], b"a b c", b" ", b"a", b"\xff \xfe", b"a " + b"b" * 100_000])
            )
        case 2:
            chance.shuffle(lines)
        case 3:
            lines = lines * 1000
        case 4:
            lines[at] = b" ".join(reversed(lines[at].split(b" ")))
        case _:
            return damage_bytes(content, chance)
    return b"\n".join(lines)


DAMAGES: dict[str, Callable[[bytes, random.Random], bytes]] = {
    ".safetensors": damage_safetensors,
    ".json": damage_json,
    ".txt": damage_lines,
}


class TooSlow(Exception):  # noqa: N818 - it is raised into whatever runs
    """A case that takes longer than it may."""


def stop(number: int, frame: FrameType | None) -> None:
    """The signal's handler."""
    raise TooSlow(f"more than {CASE_SECONDS} s")


@dataclass(frozen=True)
class Outcome:
    """One case: whether it loaded, was refused by a declared error, or went wrong (`fault`)."""

    how: str
    seconds: float
    fault: str = ""


def run(
    subject: Subject, folder: Path, sound: dict[Path, bytes], chance: random.Random
) -> tuple[Path, Outcome]:
    """Damage one file of a sound `folder`, load it, and mend it."""
    path = chance.choice(sorted(sound))
    content = DAMAGES[path.suffix](sound[path], chance)
    path.write_bytes(content)
    start = time.perf_counter()
    signal.alarm(CASE_SECONDS)
    how, fault = "loaded", ""
    try:
        subject.load(folder, path)
    except SfumatoError:
        how = "refused"
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        how, fault = "fault", "".join(traceback.format_exception(error)[-6:])
    finally:
        signal.alarm(0)
        path.write_bytes(sound[path])
    return path, Outcome(how, time.perf_counter() - start, fault)


def bound_memory() -> None:
    """Let this process take `EXTRA_MEMORY` more than it has, where the system can hold it to that."""
    if sys.platform == "linux":
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * os.sysconf("SC_PAGE_SIZE") + EXTRA_MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (most, resource.getrlimit(resource.RLIMIT_AS)[1]))


def peak() -> int:
    """Bytes that were resident at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << (0 if sys.platform == "darwin" else 10)


def sound_files(above: Path) -> dict[str, dict[Path, bytes]]:
    """Every subject's files, written into folders of their own below `above`, and seen to load whole."""
    sound = {}
    for name, subject in SUBJECTS.items():
        folder = above / name
        folder.mkdir()
        subject.make(folder)
        sound[name] = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        for path in folder.rglob("*.safetensors"):
            subject.load(folder, path)
    return sound


def main() -> int:
    """Damage, load, count; the exit status, 1 where an undeclared error came out."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("count", nargs="?", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", action="append", choices=SUBJECTS)
    parser.add_argument("--case", type=int)
    options = parser.parse_args()

    torch.set_num_threads(1)
    say(f"{machine('cpu')}.")
    signal.signal(signal.SIGALRM, stop)
    names = options.only or list(SUBJECTS)
    counts: Counter[tuple[str, str]] = Counter()
    slowest = 0.0
    with tempfile.TemporaryDirectory() as above:
        sound = sound_files(Path(above))
        before = peak()
        bound_memory()
        began = time.perf_counter()
        for number in range(options.count) if options.case is None else [options.case]:
            if time.perf_counter() - began > options.seconds:
                break
            chance = random.Random(f"{options.seed} {number}")
            (name,) = chance.choices(names, [SUBJECTS[name].weight for name in names])
            path, outcome = run(SUBJECTS[name], Path(above) / name, sound[name], chance)
            counts[name, outcome.how] += 1
            slowest = max(slowest, outcome.seconds)
            if outcome.fault:
                say(f"case {number}: {name}, {path.name}\n{outcome.fault}")
            if counts.total() % 1000 == 0:
                seconds = time.perf_counter() - began
                say(f"  {counts.total():,} cases in {seconds:.0f} s, {LOAD} {load()}")
    for name in names:
        told = ", ".join(f"{counts[name, how]:,} {how}" for how in ("loaded", "refused", "fault"))
        print(f"{name}: {told}")
    print(
        f"{counts.total():,} cases in {time.perf_counter() - began:.0f} s, the slowest {slowest:.2f} s; "
        f"{(peak() - before) / 2**20:.0f} MiB more than sound files take"
    )
    return 1 if any(how == "fault" for _, how in counts) else 0


if __name__ == "__main__":
    sys.exit(main())

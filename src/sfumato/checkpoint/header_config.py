"""The configurations that a converted file carries in its own header, so that nothing has to be concluded."""

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from sfumato.checkpoint.layout import TOKENIZERS, Content, config_of, read_configs
from sfumato.checkpoint.report import Report
from sfumato.checkpoint.vocabulary import clip_tokenizer
from sfumato.config import Config
from sfumato.config.model_settings import checked_settings
from sfumato.errors import CheckpointError
from sfumato.files import parse_json
from sfumato.prompt.tokenizer import Tokenizer
from sfumato.weights import Header

ENTRY = "sfumato.model"
"""The header's entry."""

_SECTIONS = ("index", "scheduler", "own", "networks", "tokenizers")


def stated(
    path: Path, header: Header, present: Collection[str], report: Report, configs_of: Path | None
) -> tuple[dict[str, Config], Content] | None:
    """What is said of the networks `present` in the file `path`, and else, as the report has it.

    By the model's folder `configs_of`, if one is given, or by the file's header; `None` if nothing is said.

    Raises `CheckpointError`.
    """
    if configs_of:
        found: tuple[dict[str, Config], Content] | None = read_configs(configs_of, present, report)
        reason = f"{configs_of} has it, as asked for"
    else:
        found, reason = read(path, header, present), f"the header of {path.name} carries it ({ENTRY})"
    if found:
        report.infer("configuration", "stated", reason)
    return found


def read(path: Path, header: Header, present: Collection[str]) -> tuple[dict[str, Config], Content] | None:
    """What the header of `path` says about the networks `present`, and else; `None` if it carries nothing.

    Raises `CheckpointError` for an entry that is damaged or speaks of other networks.
    """
    if ENTRY not in header.metadata:
        return None
    where = f"{path} ({ENTRY})"
    content = parse_json(header.metadata[ENTRY].encode("utf-8"), where, infinite=True)
    if content.keys() != set(_SECTIONS) or not all(isinstance(part, dict) for part in content.values()):
        raise CheckpointError(f"{where} must have {', '.join(_SECTIONS)}")
    if content["networks"].keys() != set(present):
        raise CheckpointError(
            f"{where} speaks of {', '.join(content['networks'])}; the file holds {', '.join(present)}"
        )
    configs: dict[str, Config] = {}
    for name, entry in content["networks"].items():
        if not isinstance(entry, dict):
            raise CheckpointError(f"{where}: {name} must be an object")
        _, configs[name] = config_of(name, entry, f"{where}: {name}")
    return configs, Content(
        tokenizers={
            name: _tokenizer(content["tokenizers"].get(name), f"{where}: {name}")
            for encoder, name in TOKENIZERS.items()
            if encoder in present
        },
        scheduler=content["scheduler"],
        index=content["index"],
        own=checked_settings(content["own"], where),
        reasons={"latent scale": f"the header of {path.name} says so"},
    )


def written(
    networks: Mapping[str, Config],
    tokenizers: Mapping[str, Tokenizer],
    scheduler: Mapping[str, Any],
    index: Mapping[str, Any],
    own: Mapping[str, Any],
) -> str:
    """The entry as `read` takes it. CLIP's own vocabulary is not written out: every reader has it."""
    content = {
        "index": index,
        "scheduler": scheduler,
        "own": own,
        "networks": {name: config.to_dict() for name, config in networks.items()},
        "tokenizers": {name: _written_tokenizer(tokenizer) for name, tokenizer in tokenizers.items()},
    }
    return json.dumps(content, ensure_ascii=False, separators=(",", ":"))


def _tokenizer(entry: Any, where: str) -> Tokenizer:
    try:
        settings = {name: entry[name] for name in ("bos", "eos", "pad", "limit", "words")}
        if entry["vocab"] is None:
            vocab, merges = (clip := clip_tokenizer()).vocab, clip.merges
        else:
            vocab = {str(piece): int(number) for piece, number in entry["vocab"].items()}
            merges = [(str(left), str(right)) for left, right in entry["merges"]]
        if len(set(vocab.values())) < len(vocab) or not all(
            0 <= number < 1 << 20 for number in vocab.values()
        ):
            raise ValueError("the vocabulary must give every piece a number of its own")
        return Tokenizer(vocab, merges, **settings)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise CheckpointError(f"{where} is no tokenizer: {error}") from error


def _written_tokenizer(tokenizer: Tokenizer) -> dict[str, Any]:
    clip = clip_tokenizer()
    same = tokenizer.vocab == clip.vocab and tokenizer.merges == clip.merges
    return {
        "bos": tokenizer.special["bos_token"],
        "eos": tokenizer.special["eos_token"],
        "pad": tokenizer.special["pad_token"],
        "limit": tokenizer.limit,
        "words": tokenizer.words,
        "vocab": None if same else tokenizer.vocab,
        "merges": None if same else tokenizer.merges,
    }

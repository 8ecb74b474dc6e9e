"""The task of the scorer, which learns from what is read from pictures once."""

import hashlib
import json
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from sfumato import weights
from sfumato.data.captions import TINTS
from sfumato.data.icons import Icons, captioned, load, tinted
from sfumato.data.sets import SETS
from sfumato.devices import DTYPES
from sfumato.evaluate import features
from sfumato.evaluate.features import Features
from sfumato.evaluate.scorer import (
    AT_ONCE,
    READINGS,
    Head,
    HeadConfig,
    load_teacher,
    of_texts,
    read,
    retrieval,
)
from sfumato.nets.sentence_bert import SentenceBert
from sfumato.train.encoded import made_once
from sfumato.train.loop import Task
from sfumato.train.recipe import ScorerRecipe
from sfumato.train.scoring import CaptionedFeatures, CaptionScorerLoss

RESULT = "scorer.safetensors"
SEEN, HELD_OUT = "seen.safetensors", "held-out.safetensors"
AMONG, MOST_JUDGED = 1000, 2000
_LEAST_DEVIATION = 1e-2


def task(recipe: ScorerRecipe, device: torch.device) -> Task[tuple[Tensor, Tensor]]:
    eyes, teacher = features.load(device), load_teacher(device)
    own = {"readings": READINGS, "vector": teacher.width}
    head = Head(HeadConfig.from_dict(recipe.network | own, f"network of {recipe.objective}")).to(device)
    data = Path(recipe.data)
    icons, others = load(data, held_out=False, device=device), load(data, held_out=True, device=device)
    seen = _shown(recipe, icons, recipe.pictures, SEEN, eyes, teacher)
    held_out = _shown(recipe, others, MOST_JUDGED, HELD_OUT, eyes, teacher)
    deviation, head.mean = torch.std_mean(seen["readings"].float(), dim=0)
    head.scale = 1 / deviation.clamp(min=_LEAST_DEVIATION)

    def finish(state: dict[str, Tensor], folder: Path) -> dict[str, float]:
        kept = Head(head.config).to(device)
        kept.load_state_dict(state)
        figures = {"colour_held_out": _colour_sense(kept, others, eyes, teacher)} if others.ink_rows else {}
        for name, table in (("held_out", held_out), ("seen", seen)):
            found = retrieval(*_judged(kept, table), among=AMONG, seed=recipe.seed)
            figures |= {f"{key}_{name}": float(value) for key, value in asdict(found).items()}
        told = {
            "config": json.dumps(head.config.to_dict()),
            "figures": json.dumps({name: round(figure, 4) for name, figure in figures.items()}),
            "trained": f"{recipe.steps} steps of {recipe.batch} from {len(seen['readings'])} pictures",
        }
        half = {name: tensor.half() for name, tensor in kept.state_dict().items()}
        weights.write(folder / RESULT, half, told)
        return figures

    return Task(
        head,
        CaptionedFeatures(**seen),
        CaptionScorerLoss(head, recipe.drop),
        lambda state, path: None,
        finish,
    )


@torch.no_grad()
def _shown(
    recipe: ScorerRecipe, icons: Icons, most: int, name: str, eyes: Features, teacher: SentenceBert
) -> dict[str, Tensor]:
    """What is read from at most `most` pictures (N, R), the rows of their captions (N, K) and the vectors of
    these (U, P), kept in the run's folder as `name`. What is shown more often is more likely among them.
    """
    examples = captioned(icons, seed=recipe.seed, ways=recipe.captions, tints=recipe.tints)
    chances = torch.tensor(examples.weights, dtype=torch.float64)
    lot = torch.Generator().manual_seed(recipe.seed)
    drawn = torch.multinomial(chances, min(most, len(examples)), generator=lot).tolist()
    captions = [examples.captions[place] for place in drawn]
    told = {
        "captions": hashlib.sha256(json.dumps(captions).encode("utf-8")).hexdigest(),
        "pictures": examples.digest,
        "teacher": teacher.digest,
    }
    device, dtype = icons.pictures.device, DTYPES[recipe.precision]

    def make() -> dict[str, Tensor]:
        texts = list(dict.fromkeys(text for own in captions for text in own))
        numbers = {text: number for number, text in enumerate(texts)}
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            parts = []
            for start in range(0, len(drawn), AT_ONCE):
                x = torch.cat([examples.signal(place, place + 1) for place in drawn[start : start + AT_ONCE]])
                parts.append(read(eyes, x).half())
            vectors = of_texts(teacher, texts).half()
        rows = torch.tensor([[numbers[text] for text in own] for own in captions])
        return {"readings": torch.cat(parts), "captions": rows, "vectors": vectors}

    found = made_once(Path(recipe.run) / name, told, make)
    return {name: tensor.to(device) for name, tensor in found.items()}


@torch.no_grad()
def _judged(head: Head, table: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Vectors (N, P) of at most `MOST_JUDGED` pictures, and of the first caption of each (N, P)."""
    texts = table["vectors"][table["captions"][:MOST_JUDGED, 0]].float()
    return F.normalize(head(table["readings"][:MOST_JUDGED].float()), dim=-1), texts


@torch.no_grad()
def _colour_sense(head: Head, icons: Icons, eyes: Features, teacher: SentenceBert) -> float:
    """How often, of one-colour drawings on white, the caption with the right colour is nearer than those that
    differ from it in nothing but the colour; the colours take turns.
    """
    names = [name for name in TINTS if name != "white"]
    right = []
    for place, row in enumerate(icons.ink_rows):
        own = place % len(names)
        ink = torch.tensor([TINTS[names[own]]]).float() / 127.5 - 1
        inks = icons.inks[[place]]
        picture = tinted(inks, ink.to(inks.device), torch.ones(1, 3, device=inks.device))
        vector = F.normalize(head(read(eyes, picture)), dim=-1)
        texts = of_texts(teacher, [f"{name} {row.label}, {SETS[row.set].styles[0]}" for name in names])
        right.append(int((texts @ vector[0]).argmax()) == own)
    return sum(right) / len(right)

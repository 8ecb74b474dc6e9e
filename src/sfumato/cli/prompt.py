"""`sfumato prompt`: how a prompt is read, from its parts down to its tokens."""

import json
from typing import Any

from sfumato import expansion
from sfumato.cli import console
from sfumato.request import Request


def prompt(text: str, fields: dict[str, Any], as_json: bool) -> None:
    """Print what a drawing would make of `text`; `fields` are those of `Request`, the values still text."""
    request = Request.build(prompt=text, **{"seed": 0, **fields})
    single = next(expansion.singles(request))
    from sfumato import checkpoint
    from sfumato.adapt.embedding import called
    from sfumato.prompt.explain import explain

    with console.Meter(quiet=False).shown("loading the model"):
        model = checkpoint.load(request.model)
        widths = [encoder.config.hidden_size for encoder in model.text_encoders]
        embeddings = called(single.prompt, (), widths)
    steps = request.steps or model.defaults.steps
    counts = {name: embedding.count for name, embedding in embeddings.items()}
    told = explain(single.prompt, model.tokenizers[0], request.dialect, steps, counts)
    if as_json:
        console.result(json.dumps({"prompt": single.prompt, **told.to_dict()}, ensure_ascii=False))
        return
    if single.prompt != text:
        console.result(f'filled in with seed {single.seed}: "{single.prompt}"\n')
    console.result("\n".join(told.lines()))

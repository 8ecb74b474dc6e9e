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
    from sfumato.prompt.explain import explain

    model = checkpoint.load(request.model)
    steps = request.steps or model.defaults.steps
    told = explain(single.prompt, model.tokenizers[0], request.dialect, steps)
    if as_json:
        console.result(json.dumps({"prompt": single.prompt, **told.to_dict()}, ensure_ascii=False))
        return
    if single.prompt != text:
        console.result(f'filled in with seed {single.seed}: "{single.prompt}"\n')
    console.result("\n".join(told.lines()))

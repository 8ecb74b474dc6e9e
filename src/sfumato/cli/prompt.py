"""`sfumato prompt`: how a prompt is read, from its parts down to its tokens."""

from typing import Annotated, Any

from sfumato.cli import console
from sfumato.cli.options import Json, Program, argument, request_fields
from sfumato.request import Request

program = Program()


@program.add(
    examples="""sfumato prompt 'a (red:1.3) apple, [sketch:oil painting:0.4]'
sfumato prompt 'a red apple AND a blue cat :0.5' --steps 8
sfumato prompt 'a (red)1.3 apple' --dialect compel"""
)
def prompt(
    text: Annotated[str, argument("PROMPT", "The prompt to read.")],
    fields: Annotated[dict[str, Any], request_fields("dialect", "steps", "model")],
    as_json: Json = False,
) -> None:
    """Print what a drawing would make of `text`."""
    from sfumato import expansion

    request = Request.build(prompt=text, **{"seed": 0, **fields})
    meter = console.Meter()
    with meter.shown("reading the prompt"):
        single = next(expansion.expand(request)).request
    from sfumato import checkpoint
    from sfumato.adapt.embedding import embeddings_in
    from sfumato.prompt.explain import explain

    with meter.shown("loading the model"):
        model = checkpoint.load(request.model)
        widths = [encoder.config.hidden_size for encoder in model.text_encoders]
        embeddings = embeddings_in(single.prompt, (), widths)
    steps = request.steps or model.defaults.steps
    counts = {name: embedding.count for name, embedding in embeddings.items()}
    read = explain(single.prompt, model.tokenizers[0], request.dialect, steps, counts)
    if as_json:
        console.result(console.as_json({"prompt": single.prompt, **read.to_dict()}))
        return
    if single.prompt != text:
        console.result(f'filled in with seed {single.seed}: "{single.prompt}"\n')
    console.result("\n".join(read.lines()))

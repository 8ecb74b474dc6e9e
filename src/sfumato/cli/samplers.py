"""`sfumato samplers`: every sampler and every spacing, as their registries describe them."""

from sfumato.cli import console
from sfumato.cli.options import Json, Program

program = Program()


@program.add()
def samplers(as_json: Json = False) -> None:
    """Print the samplers and the spacings, with their orders, costs and sources."""
    from sfumato.diffusion.samplers import SAMPLERS, read_own_samplers
    from sfumato.diffusion.spacing import SPACINGS

    with console.Meter().shown("reading samplers"):
        read_own_samplers()
    if as_json:
        listed = [
            {
                "name": one.name,
                "order": one.order,
                "evaluations_per_step": one.evaluations_per_step,
                "fresh_noise": one.random,
                "summary": one.summary,
                "source": one.source,
            }
            for one in SAMPLERS.values()
        ]
        spacings = [{"name": one.name, "summary": one.summary} for one in SPACINGS.values()]
        console.result(console.as_json({"samplers": listed, "spacings": spacings}))
        return
    width = max(map(len, [*SAMPLERS, *SPACINGS]))
    lines = [f"{'sampler':{width}} order  per step  noise"]
    for one in SAMPLERS.values():
        noise = "fresh" if one.random else "-"
        costs = f"{one.order:<6} {one.evaluations_per_step:<9} {noise:6}"
        source = f" ({one.source})" if one.source else ""
        lines.append(f"{one.name:{width}} {costs} {one.summary}{source}".rstrip())
    lines += [
        "",
        "order: of accuracy; per step: network evaluations; noise: fresh noise in every step",
        "",
        "spacing",
        *(f"{one.name:{width}} {one.summary}" for one in SPACINGS.values()),
    ]
    console.result("\n".join(lines))

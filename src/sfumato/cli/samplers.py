"""`sfumato samplers`: what there is to draw with, and what each is good for."""

import json

from sfumato.cli import console


def samplers(as_json: bool) -> None:
    """Print every sampler and every spacing as their registries describe them."""
    from sfumato.diffusion.samplers import SAMPLERS
    from sfumato.diffusion.spacing import SPACINGS

    if as_json:
        told = {
            "samplers": [
                {
                    "name": one.name,
                    "order": one.order,
                    "evaluations_per_step": one.evaluations_per_step,
                    "fresh_noise": one.random,
                    "summary": one.summary,
                    "source": one.source,
                }
                for one in SAMPLERS.values()
            ],
            "spacings": [{"name": one.name, "summary": one.summary} for one in SPACINGS.values()],
        }
        console.result(json.dumps(told, ensure_ascii=False))
        return
    lines = [f"{'sampler':14} order  per step  noise"]
    for one in SAMPLERS.values():
        noise = "fresh" if one.random else "-"
        costs = f"{one.order:<6} {one.evaluations_per_step:<9} {noise:6}"
        lines.append(f"{one.name:14} {costs} {one.summary} ({one.source})")
    lines += [
        "",
        "order: of accuracy; per step: evaluations of the network; noise: fresh noise on the way",
        "",
        "spacing",
        *(f"{one.name:14} {one.summary}" for one in SPACINGS.values()),
    ]
    console.result("\n".join(lines))

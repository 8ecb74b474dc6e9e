"""The names of samplers, spacings and dialects, and what other programs call them. No torch here."""

from sfumato.errors import UsageError, nearest

SAMPLERS: dict[str, tuple[str, ...]] = {
    "ddpm": ("DDPM", "DDPMScheduler"),
    "ddim": ("DDIM", "DDIMScheduler"),
    "euler": ("Euler", "EulerDiscreteScheduler", "k_euler"),
    "euler-a": ("Euler a", "EulerAncestralDiscreteScheduler", "k_euler_a", "euler_ancestral"),
    "adams": (),
    "heun": ("Heun", "HeunDiscreteScheduler", "k_heun"),
    "dpm2": ("DPM2", "KDPM2DiscreteScheduler", "k_dpm_2", "dpm_2"),
    "dpm2-a": ("DPM2 a", "KDPM2AncestralDiscreteScheduler", "k_dpm_2_a", "dpm_2_ancestral"),
    "dpmpp-2s": ("DPM++ 2S", "DPMSolverSinglestepScheduler"),
    "dpmpp-3s": (),
    "dpmpp-2s-a": ("DPM++ 2S a", "k_dpmpp_2s_a", "dpmpp_2s_ancestral"),
    "dpmpp-2m": ("DPM++ 2M", "DPMSolverMultistepScheduler", "k_dpmpp_2m"),
    "dpmpp-2m-sde": ("DPM++ 2M SDE", "k_dpmpp_2m_sde"),
    "dpmpp-3m": ("DPM++ 3M",),
    "dpmpp-3m-sde": ("DPM++ 3M SDE", "k_dpmpp_3m_sde"),
    "dpmpp-sde": ("DPM++ SDE", "DPMSolverSDEScheduler", "k_dpmpp_sde"),
    "dpm-solver-1": (),
    "dpm-solver-2s": (),
    "dpm-solver-3s": (),
    "dpm-solver-2m": (),
    "dpm-solver-3m": (),
    "unipc": ("UniPC", "UniPCMultistepScheduler"),
    "lms": ("LMS", "LMSDiscreteScheduler", "k_lms"),
    "deis": ("DEIS", "DEISMultistepScheduler"),
    "pndm": ("PNDM", "PLMS", "PNDMScheduler"),
    "lcm": ("LCM", "LCMScheduler"),
    "tcd": ("TCD", "TCDScheduler"),
    "consistency": ("CMStochasticIterativeScheduler",),
}

SPACINGS: dict[str, tuple[str, ...]] = {
    "leading": ("DDIM",),
    "linspace": ("Normal", "Uniform", "Automatic"),
    "trailing": ("SGM Uniform", "Simple"),
    "lcm": (),
    "karras": ("Karras", "use_karras_sigmas"),
    "exponential": ("Exponential", "Polyexponential", "use_exponential_sigmas"),
    "beta": ("Beta", "use_beta_sigmas"),
    "balanced": (),
}


DIALECTS: dict[str, str] = {
    "sfumato": "A1111's syntax, with clear errors instead of its quirks",
    "a1111": "as Stable Diffusion WebUI reads it",
    "comfy": "as ComfyUI reads it",
    "compel": "as the compel library reads it",
    "plain": "no syntax: every character is text, as in diffusers",
}
"""The prompt languages, and whose reading of a prompt each is."""


def _resolve(kind: str, name: str, table: dict[str, tuple[str, ...]]) -> str:
    def plain(text: str) -> str:
        return text.strip().lower().replace("++", "pp").replace("_", "-").replace(" ", "-")

    wanted = plain(name)
    for ours, others in table.items():
        if wanted == ours or wanted in map(plain, others):
            return ours
    raise UsageError(f"unknown {kind} {name!r}; {nearest(wanted, table)}")


def sampler_name(name: str) -> str:
    """Our name of a sampler, from ours, A1111's or diffusers'. Raises `UsageError` naming the nearest."""
    return _resolve("sampler", name, SAMPLERS)


def spacing_name(name: str) -> str:
    """Our name of a spacing, from ours or A1111's schedule types. Raises `UsageError` naming the nearest."""
    return _resolve("spacing", name, SPACINGS)


def split_label(label: str) -> tuple[str, str | None]:
    """Sampler and spacing of a label such as "DPM++ 2M Karras"; the spacing is `None` if it names none."""
    words = label.split()
    for spacing, others in SPACINGS.items():
        if len(words) > 1 and words[-1].lower() in {spacing, *(other.lower() for other in others)}:
            return sampler_name(" ".join(words[:-1])), spacing
    return sampler_name(label), None

"""The names of samplers, spacings and dialects, and what other programs call them. No torch here."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from sfumato.errors import UsageError, nearest

SAMPLERS: dict[str, tuple[str, ...]] = {
    "ddpm": ("DDPM", "DDPMScheduler"),
    "ddim": ("DDIM", "DDIMScheduler", "ddim_v3"),
    "euler": ("Euler", "EulerDiscreteScheduler", "k_euler"),
    "euler-a": (
        "Euler a",
        "EulerAncestralDiscreteScheduler",
        "k_euler_a",
        "euler_ancestral",
        "k_euler_ancestral",
    ),
    "adams": (),
    "heun": ("Heun", "HeunDiscreteScheduler", "k_heun"),
    "dpm2": ("DPM2", "KDPM2DiscreteScheduler", "k_dpm_2", "dpm_2", "kdpm_2"),
    "dpm2-a": ("DPM2 a", "KDPM2AncestralDiscreteScheduler", "k_dpm_2_a", "dpm_2_ancestral", "kdpm_2_a"),
    "dpmpp-2s": ("DPM++ 2S", "DPMSolverSinglestepScheduler"),
    "dpmpp-3s": (),
    "dpmpp-2s-a": ("DPM++ 2S a", "k_dpmpp_2s_a", "dpmpp_2s_ancestral", "k_dpmpp_2s_ancestral"),
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
    "unipc": ("UniPC", "UniPCMultistepScheduler", "uni_pc", "uni_pc_bh2"),
    "sa-solver": ("SA Solver", "SASolverScheduler", "sa_solver"),
    "lms": ("LMS", "LMSDiscreteScheduler", "k_lms"),
    "deis": ("DEIS", "DEISMultistepScheduler"),
    "pndm": ("PNDM", "PLMS", "PNDMScheduler"),
    "lcm": ("LCM", "LCMScheduler"),
    "tcd": ("TCD", "TCDScheduler"),
    "consistency": ("CMStochasticIterativeScheduler",),
}

"""Our samplers, and those registered since, with their names in other programs."""

BUILT_IN = dict(SAMPLERS)
"""Our samplers."""

UPSCALERS = ("lanczos", "latent", "embedded")
"""What enlarges a picture, besides the file of a network."""
SPACINGS: dict[str, tuple[str, ...]] = {
    "leading": ("DDIM", "ddim_uniform"),
    "linspace": ("Normal", "Uniform", "Automatic", "native"),
    "trailing": ("SGM Uniform", "Simple"),
    "lcm": (),
    "karras": ("Karras", "use_karras_sigmas", "k"),
    "exponential": ("Exponential", "Polyexponential", "use_exponential_sigmas"),
    "beta": ("Beta", "use_beta_sigmas"),
    "balanced": (),
}


_SIDES = ("width", "height")
ELSEWHERE: dict[str, tuple[str, ...]] = {
    "cfg": ("guidance",),
    "cfg_scale": ("guidance",),
    "scale": ("guidance",),
    "uncond_prompt": ("negative",),
    "num_inference_steps": ("steps",),
    "n": ("count",),
    "num_images": ("count",),
    "num_images_per_prompt": ("count",),
    "batch_size": ("count",),
    "subseed": ("variation_seed",),
    "subseed_strength": ("variation_amount",),
    "variation_strength": ("variation_amount",),
    "scheduler": ("sampler",),
    "size": _SIDES,
    "resolution": _SIDES,
    "image_size": _SIDES,
    "output_dir": ("output",),
    "outdir": ("output",),
    "ckpt": ("model",),
    "checkpoint": ("model",),
    "loras": ("adapters",),
}
"""What other programs call fields of a request and options of the command, and what they are called here."""

PREPROCESSORS: dict[str, str] = {
    "none": "the picture as it is",
    "canny": "its edges, light on black (Canny 1986)",
    "invert": "light and dark exchanged, for dark lines on white",
}
"""What may be made of a control's picture before its network reads it."""

LORA_LAYOUTS: dict[str, str] = {
    "peft": "PEFT's names of layers, which diffusers reads",
    "kohya": "those of kohya's scripts, which A1111, ComfyUI and diffusers read",
}
RANK_METHODS: dict[str, str] = {
    "sv_ratio": "singular values above the largest / V, from V = 1",
    "sv_fro": "as many as have the share V of the Frobenius norm",
    "sv_cumulative": "as many as have the share V of the sum of all",
}
"""How a layer's rank is chosen by its singular values, under the names of kohya's scripts."""

DIALECTS: dict[str, str] = {
    "sfumato": "A1111's syntax, with clear errors instead of its quirks",
    "a1111": "as Stable Diffusion WebUI reads it",
    "comfy": "as ComfyUI reads it",
    "compel": "as the compel library reads it",
    "plain": "no syntax: every character is text, as in diffusers",
}
"""The prompt languages, and whose reading of a prompt each is."""


def plain(text: str) -> str:
    """A name of another program in the spelling of ours: "DPM++ 2M" as "dpmpp-2m"."""
    return text.strip().lower().replace("++", "pp").replace("_", "-").replace(" ", "-")


def own_samplers() -> dict[str, Path]:
    """The Python files in the user's folder of samplers; each file's name is a sampler's."""
    from sfumato.folders import folder  # needed only for a name that is not ours

    files = sorted(folder("samplers").glob("[!._]*.py"))
    return {plain(file.stem): file for file in files}


def sampler_name(name: str) -> str:
    """Our name of a sampler, from ours, A1111's or diffusers'. Raises `UsageError` naming the nearest."""
    if found := find(name, SAMPLERS):
        return found
    known = {**dict.fromkeys(own_samplers(), ()), **SAMPLERS}
    if found := find(name, known):
        return found
    raise UsageError(f"unknown sampler {name!r}; {nearest(plain(name), known)}")


def spacing_name(name: str) -> str:
    """Our name of a spacing, from ours or A1111's schedule types. Raises `UsageError` naming the nearest."""
    if found := find(name, SPACINGS):
        return found
    raise UsageError(f"unknown spacing {name!r}; {nearest(plain(name), SPACINGS)}")


def split_label(label: str) -> tuple[str, str | None]:
    """Sampler and spacing of a label such as "DPM++ 2M Karras"; the spacing is `None` if it names none."""
    for spacing, others in SPACINGS.items() if find(label, SAMPLERS) is None else ():
        for ending in (spacing, *map(plain, others)):
            sampler = plain(label).removesuffix(f"-{ending}")
            if sampler != plain(label) and find(sampler, {**SAMPLERS, **dict.fromkeys(own_samplers(), ())}):
                return sampler_name(sampler), spacing
    return sampler_name(label), None


def find(name: str, table: Mapping[str, Sequence[str]]) -> str | None:
    """The key of `table` that `name` is, or that has it among its other names."""
    wanted = plain(name)
    return next((own for own, others in table.items() if wanted in (own, *map(plain, others))), None)


TEXT2VIDEO_ZERO = "text2video-zero"
"""The motion of clips without a motion adapter (Khachatryan et al. 2023)."""

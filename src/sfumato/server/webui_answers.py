"""What the routes of Stable Diffusion WebUI's API answer."""

from typing import Any

from pydantic import Field

from sfumato.server.jobs import View


class DrawnImages(View):
    """PNG files in base64; `info`: a JSON text of how they were drawn."""

    images: tuple[str, ...]
    parameters: dict[str, Any]
    info: str


class EnlargedImage(View):
    """A PNG file in base64."""

    image: str
    html_info: str


class EnlargedImages(View):
    """PNG files in base64."""

    images: tuple[str, ...]
    html_info: str


class PngInfo(View):
    """The line of settings of a picture, and all its texts."""

    info: str
    items: dict[str, str]
    parameters: dict[str, Any] = Field(default_factory=dict)


class ProgressState(View):
    """Where the drawing is: picture `job_no` of `job_count`, and how many of its evaluations are done."""

    skipped: bool = False
    interrupted: bool = False
    stopping_generation: bool = False
    job: str
    job_timestamp: str
    job_count: int
    job_no: int
    sampling_step: int
    sampling_steps: int


class WebUIProgress(View):
    """How far the oldest running job is, 0 to 1; `eta_relative`: seconds that are left."""

    progress: float
    eta_relative: float
    state: ProgressState
    current_image: str | None
    textinfo: str | None = None


class SamplerItem(View):
    """A sampler."""

    name: str
    aliases: tuple[str, ...]
    options: dict[str, str] = Field(default_factory=dict)


class SchedulerItem(View):
    """A spacing of the noise levels."""

    name: str
    label: str
    aliases: tuple[str, ...]


class ModelItem(View):
    """A model that is served."""

    title: str
    model_name: str
    filename: str
    hash: str | None = None
    sha256: str | None = None
    config: str | None = None


class LoraItem(View):
    """An adapter in the server's folder."""

    name: str
    alias: str
    path: str = ""
    metadata: dict[str, Any] = Field(default_factory=dict)


class EmbeddingItems(View):
    """Learned embeddings in the server's folder, by name."""

    loaded: dict[str, dict[str, Any]]
    skipped: dict[str, dict[str, Any]] = Field(default_factory=dict)


class StyleItem(View):
    """A style preset."""

    name: str
    prompt: str
    negative_prompt: str


class UpscalerItem(View):
    """What `extra-single-image` enlarges with."""

    name: str
    model_name: str | None = None
    model_path: str | None = None
    model_url: str | None = None
    scale: float = 4


class LatentMode(View):
    """What a second pass enlarges latents with."""

    name: str


class ScriptNames(View):
    """Scripts that a request may name."""

    txt2img: tuple[str, ...]
    img2img: tuple[str, ...]


class WebUIOptions(View):
    """Settings that tools look at."""

    sd_model_checkpoint: str
    CLIP_stop_at_last_layers: int
    samples_format: str = "png"


class MainMemory(View):
    """In bytes."""

    free: int
    used: int
    total: int


class GraphicsMemory(View):
    """Not counted here."""

    error: str


class Memory(View):
    """Of the machine."""

    ram: MainMemory
    cuda: GraphicsMemory


class ControlNetVersion(View):
    """Of the extension whose units are read."""

    version: int


class ControlModels(View):
    """The networks that a unit may name."""

    model_list: tuple[str, ...]


class ControlModules(View):
    """What may be made of a unit's picture first."""

    module_list: tuple[str, ...]

"""`scheduler/scheduler_config.json`: the noise that a network was trained on."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Self

from pydantic import Field
from pydantic.dataclasses import dataclass

from sfumato.config.base import MOST_TOKENS, Config, Positive, Tokens, same_length
from sfumato.config.schedulers import SCHEDULERS
from sfumato.errors import CheckpointError
from sfumato.validation import one_of, shown

Beta = Annotated[float, Field(gt=0, lt=1)]
Shift = Annotated[float, Field(ge=0.001, le=1000)]
BETA_SCHEDULES = ("linear", "scaled_linear", "squaredcos_cap_v2", "exp")
_CLIPPING = {"DDIMScheduler", "DDPMScheduler", "HeunDiscreteScheduler", "LCMScheduler", "TCDScheduler"}


@dataclass(frozen=True)
class ScheduleConfig(Config):
    """`scheduler_config.json`: the noise that a network was trained on, and what its makers suggest.

    How to sample is the request's choice, so the keys of a single sampler are read past.
    """

    FIXED: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "invert_sigmas": (False,),
        "predict_epsilon": (True,),
        "shift_terminal": (None,),
    }
    IGNORED = frozenset(key for settings in SCHEDULERS.values() for key in settings)
    DERIVED = frozenset({"class_name"})

    class_name: Annotated[str, one_of(SCHEDULERS)] = "DDIMScheduler"
    num_train_timesteps: Annotated[int, Field(ge=2, le=MOST_TOKENS)] = 1000
    beta_start: Beta = 0.0001
    beta_end: Beta = 0.02
    beta_schedule: Annotated[str, one_of(BETA_SCHEDULES)] = "linear"
    trained_betas: tuple[Beta, ...] | None = None
    prediction_type: Annotated[str, one_of(("epsilon", "v_prediction", "sample", "flow_prediction"))] = (
        "epsilon"
    )
    timestep_spacing: Annotated[str, one_of(("leading", "linspace", "trailing"))] = "leading"
    steps_offset: int = 0
    set_alpha_to_one: bool = False
    clip_sample: bool = False
    clip_sample_range: float = 1.0
    thresholding: bool = False
    dynamic_thresholding_ratio: Annotated[float, Field(ge=0, le=1)] = 0.995
    sample_max_value: Positive = 1.0
    rescale_betas_zero_snr: bool = False
    use_karras_sigmas: bool | None = False
    use_exponential_sigmas: bool | None = False
    use_beta_sigmas: bool | None = False
    final_sigmas_type: str | None = "zero"
    sigma_min: float | None = None
    sigma_max: float | None = None
    sigma_data: Positive = 0.5
    timestep_type: Annotated[str, one_of(("discrete", "continuous"))] = "discrete"
    sigma_schedule: Annotated[str, one_of(("karras", "exponential"))] = "karras"
    shift: Shift = 1.0
    use_flow_sigmas: bool | None = False
    flow_shift: Shift | None = 1.0
    use_dynamic_shifting: bool = False
    base_shift: Shift = 0.5
    max_shift: Shift = 1.15
    base_image_seq_len: Tokens = 256
    max_image_seq_len: Tokens = 4096
    time_shift_type: Annotated[str, one_of(("exponential", "linear"))] = "exponential"
    original_inference_steps: Tokens = 50
    timestep_scaling: Positive = 10.0

    @classmethod
    def from_dict(cls, mapping: Mapping[str, Any], where: str) -> Self:
        if str(mapping.get("_class_name")).startswith("FlowMatch"):  # of which this is no setting
            mapping = {key: value for key, value in mapping.items() if key != "prediction_type"}
        return super().from_dict(mapping, where)

    @classmethod
    def defaults(cls, mapping: Mapping[str, Any], where: str) -> dict[str, Any]:
        name = mapping.get("_class_name", cls.class_name)
        if not isinstance(name, str) or name not in SCHEDULERS:
            known = ", ".join(sorted(SCHEDULERS))
            raise CheckpointError(f"{where}: the scheduler {shown(name)} is not supported; known: {known}")
        own = {key: value for key, value in SCHEDULERS[name].items() if key in cls.__pydantic_fields__}
        flow = {"prediction_type": "flow_prediction"} if name.startswith("FlowMatch") else {}
        return {"class_name": name, **flow, **own}

    @property
    def is_edm(self) -> bool:
        """Whether it is a schedule of EDM: noise levels σ, and a network that is preconditioned by them."""
        return self.class_name.startswith("EDM") or self.is_continuous

    @property
    def is_continuous(self) -> bool:
        """Whether it is EDM's by an `EulerDiscreteScheduler`, as Stable Video Diffusion's, with σ_data 1."""
        continuous = self.timestep_type == "continuous" and self.prediction_type == "v_prediction"
        return continuous and self.class_name == "EulerDiscreteScheduler"

    @property
    def is_flow(self) -> bool:
        """Whether it is a schedule of flow matching."""
        return self.class_name.startswith("FlowMatch") or self.prediction_type == "flow_prediction"

    @property
    def predicts_noise(self) -> bool:
        """Whether the network's answer is the noise, of which no picture follows at pure noise."""
        return self.prediction_type == "epsilon" and not self.is_edm

    @property
    def clips(self) -> bool:
        """Whether clean estimates were clipped; other schedulers carry the key along without reading it."""
        return self.clip_sample and self.class_name in _CLIPPING

    @property
    def thresholds(self) -> bool:
        """Whether clean estimates are thresholded; other schedulers only carry the key along."""
        return self.thresholding and "thresholding" in SCHEDULERS[self.class_name]

    def check(self) -> None:
        if self.is_edm and self.prediction_type not in ("epsilon", "v_prediction"):
            raise ValueError(f"prediction_type = {self.prediction_type!r} is none of an EDM schedule")
        if self.is_edm and not 0 < (self.sigma_min or 0) < (self.sigma_max or 0):
            raise ValueError(f"sigma_min = {self.sigma_min} must be above 0 and below sigma_max")
        if self.trained_betas is not None:
            same_length("trained_betas", self.trained_betas, self.num_train_timesteps)
        rises = self.base_image_seq_len < self.max_image_seq_len and self.base_shift <= self.max_shift
        if self.use_dynamic_shifting and not rises:
            raise ValueError(
                "base_image_seq_len and base_shift must be below max_image_seq_len and max_shift"
            )

    def to_dict(self) -> dict[str, Any]:
        return {"_class_name": self.class_name} | super().to_dict()

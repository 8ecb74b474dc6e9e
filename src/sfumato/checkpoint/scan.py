"""Reading all of a model but its weights: what there is, and what is wrong with it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from sfumato import weights
from sfumato.checkpoint import replacement_parts, single
from sfumato.checkpoint.families import FAMILIES
from sfumato.checkpoint.infer import ModelInfo, model_info
from sfumato.checkpoint.instruct_adapter import InstructAdapter
from sfumato.checkpoint.layout import (
    ENCODER,
    FAST,
    MOTION,
    NETWORKS,
    TINY,
    TOKENIZERS,
    UNUSED,
    Content,
    Part,
    fingerprint,
    makes_shapes,
    networks_of,
    place_of,
    read_index,
    read_network,
    read_schedule,
    read_settings,
    require_variant,
)
from sfumato.checkpoint.report import Report
from sfumato.checkpoint.schedules import PREDICTIONS
from sfumato.checkpoint.shape_info import shape_info
from sfumato.checkpoint.source import locate
from sfumato.config import Config, ScheduleConfig, TextConfig, TinyVAEConfig, UNetConfig, VAEConfig
from sfumato.errors import CheckpointError, UsageError, nearest
from sfumato.options import ModelOptions
from sfumato.prompt.tokenizer import Tokenizer
from sfumato.validation import described

T = TypeVar("T")


def scan(
    options: ModelOptions,
    *,
    prefer_half: bool = False,
    collect_errors: bool = False,
    given: Mapping[str, Config] | None = None,
    configs_of: Path | None = None,
) -> "Scan":
    """Everything about a model but its weights; parts that are `given` come from elsewhere.

    `configs_of`: a model's folder that has the configurations and tokenizers for a single file.

    Raises `CheckpointError`, and `UsageError` as `Scan.read`.
    """
    variant, local = options.variant, options.local_files_only
    place = locate(options.source, variant=variant, prefer_half=prefer_half, local_files_only=local)
    if adapter := InstructAdapter.of(place):
        below = replace(options, source=options.base or adapter.base, base=None)
        whole = scan(below, prefer_half=prefer_half, collect_errors=collect_errors, given=given)
        whole.attempt(whole.extend, adapter)
        return whole
    found = Scan(place=place, report=Report(options.source), collect_errors=collect_errors)
    base = None
    if options.base is not None:
        lender = ModelOptions(options.base, variant=variant, local_files_only=local)
        base = scan(lender, prefer_half=prefer_half)
    found.read(options, prefer_half, base, given or {}, configs_of)
    return found


@dataclass(kw_only=True)
class Scan(Content):
    """A folder's or file's content short of its weights.

    With `collect_errors` it notes problems instead of raising the first.
    """

    place: Path
    report: Report
    collect_errors: bool = False
    networks: int = 0
    schedule: ScheduleConfig | None = None
    asked: str = ""
    adapters: tuple[InstructAdapter, ...] = ()
    """What makes it a model that edits by instruction, where those are files of their own."""

    @property
    def fast(self) -> Path | None:
        """The file of a folder's LoRA for few steps, if there is one."""
        file = self.place / FAST
        return file if file.is_file() and not self.adapters else None

    def extend(self, adapter: InstructAdapter) -> None:
        """Make it the model that `adapter` makes of it."""
        part = self.parts.get("unet")
        if part is None:
            return
        assert isinstance(part.config, UNetConfig)
        self.adapters = (*self.adapters, adapter)
        self.parts["unet"] = replace(part, headers={**part.headers, adapter.path: adapter.header})
        self.own = {**self.own, **adapter.settings}
        self.report.source = str(adapter.path)
        self.report.infer("base", adapter.base, f"the header of {adapter.path.name} names it")

    @property
    def controls(self) -> dict[str, Path]:
        """The folders in a model's own that hold networks which are no part of it, by their names."""
        configs = sorted(self.place.glob("*/config.json")) if self.place.is_dir() else []
        return {file.parent.name: file.parent for file in configs if file.parent.name not in _PLACES}

    @property
    def motion(self) -> Path | None:
        """The folder of the motion adapter that it brings."""
        folder = self.place / MOTION
        return folder if (folder / "config.json").is_file() else None

    @property
    def image_encoder(self) -> Path | None:
        """The folder of its image encoder."""
        folder = self.place / ENCODER
        return folder if (folder / "config.json").is_file() else None

    def attempt(self, step: Callable[..., T], *arguments: Any, **options: Any) -> T | None:
        """Do one step; a `CheckpointError` becomes a noted problem with `collect_errors`."""
        try:
            return step(*arguments, **options)
        except CheckpointError as error:
            if not self.collect_errors:
                raise
            self.report.problems.append(str(error))
            return None

    def read(
        self,
        options: ModelOptions,
        prefer_half: bool,
        base: "Scan | None",
        given: Mapping[str, Config],
        configs_of: Path | None,
    ) -> None:
        """Read every configuration, header and tokenizer; a file takes what it lacks from `base`."""
        prediction = _scheduler_name(options.prediction)
        if self.place.is_dir():
            self._read_folder(options.variant, prefer_half, given)
        else:
            elsewhere = {*given, *(["vae"] if options.vae else [])}
            self.attempt(self._read_file, base, elsewhere, prediction, configs_of)
            self._take(given)
        if options.vae and self.parts:
            self.attempt(self._replace_vae, options.vae, prefer_half, options.local_files_only)
        if options.tiny and self.parts:
            self.attempt(self._replace_tiny, options.tiny, prefer_half, options.local_files_only)
        self.report.components += [part.component() for part in self.parts.values()]
        for name in TOKENIZERS:
            if name in self.parts and TOKENIZERS[name] in self.tokenizers:
                self.attempt(self._check_tokenizer, name)
        if self.schedule is not None:
            self._override(self.schedule, prediction, options.zero_terminal_snr)
            self.attempt(self._check_marks, self.schedule, options.zero_terminal_snr)

    def _override(self, schedule: ScheduleConfig, prediction: str | None, zero_snr: bool | None) -> None:
        """Put what was asked for in the place of what the files say. Raises `UsageError`."""
        changes: dict[str, Any] = {}
        if prediction is not None:
            changes["prediction_type"] = prediction
            self.reasons["prediction"] = "asked for"
        if zero_snr is not None:
            if schedule.is_edm or schedule.is_flow:
                raise UsageError(f"zero_terminal_snr is about betas, which {self.place} has none of")
            changes["rescale_betas_zero_snr"] = zero_snr
            self.report.infer("zero terminal SNR", "yes" if zero_snr else "no", "asked for")
        elif prediction == "epsilon" and schedule.rescale_betas_zero_snr:
            changes["rescale_betas_zero_snr"] = False
            self.report.infer("zero terminal SNR", "no", "prediction epsilon was asked for")
        try:
            self.schedule = replace(schedule, **changes)
        except ValidationError as error:
            raise UsageError(next(described(error, ScheduleConfig.__pydantic_fields__))) from None
        self.scheduler = {**self.scheduler, **changes}
        self.asked = " ".join(str(each) for each in changes.values())

    def _check_marks(self, schedule: ScheduleConfig, zero_snr: bool | None) -> None:
        mark = self.reasons.get("zero terminal SNR")
        if mark and zero_snr is None and schedule.rescale_betas_zero_snr and schedule.predicts_noise:
            raise CheckpointError(
                f"{self.place}: {mark} (zero terminal SNR), but predicts epsilon "
                f"({self.reasons['prediction']}), which has no answer at pure noise: --prediction v if it "
                "predicts v, else --no-zero-terminal-snr"
            )

    @property
    def makes_shapes(self) -> bool:
        """Whether it is Shap-E, a model of shapes and not of pictures."""
        return makes_shapes(self.index)

    def whole(self) -> ScheduleConfig:
        """Its schedule. Raises `CheckpointError` where something needed was not found."""
        if self.schedule is None or len(self.parts) < self.networks:
            raise CheckpointError(f"{self.place}: what the model is cannot be told while parts are missing")
        return self.schedule

    def shape_info(self) -> None:
        """Work out what a model of shapes is, as `model_info`."""
        schedule = self.whole()
        shape_info(self.parts, schedule, self.report)

    def model_info(self) -> ModelInfo:
        """Work out what the checkpoint is. Raises `CheckpointError` where something needed was not found."""
        schedule = self.whole()
        if self.makes_shapes:
            raise CheckpointError(f"{self.place} is Shap-E, which makes shapes and no pictures")
        content: Content = self
        if self.adapters:
            unet = self.parts["unet"]
            assert isinstance(unet.config, UNetConfig)
            wide = replace(unet, config=self.adapters[-1].widened(unet.config))
            content = replace(self, parts={**self.parts, "unet": wide})
        found = model_info(content, schedule, self.report)
        if self.fast:
            self.report.infer("few steps", "by a LoRA of its own, --fast", f"there is {FAST}")
        return found

    def identify(self) -> str:
        """The model's fingerprint, which goes into the report as well."""
        self.report.fingerprint = fingerprint(self.place, self.parts.values(), self.asked)
        return self.report.fingerprint

    def _take(self, given: Mapping[str, Config]) -> None:
        """Put parts that come from elsewhere into their places."""
        for name, config in given.items():
            self.parts[name] = Part(name, config.CLASS, config, f"the {name} that was given", {}, {})
        self.parts = {name: self.parts[name] for name in _ORDER if name in self.parts} | self.parts

    def _read_folder(self, variant: str | None, prefer_half: bool, given: Mapping[str, Config]) -> None:
        self.index = read_index(self.place)
        self.own = self.attempt(read_settings, self.place) or {}
        networks, encoders = networks_of(self.place, self.index)
        self.networks = len(networks)
        for name in networks:
            if name not in given and (part := self.attempt(self._read_network, name, variant, prefer_half)):
                self.parts[name] = part
                if part.variant:
                    asked = "asked for" if part.variant == variant else "found"
                    self.report.infer(f"{name} variant", part.variant, f"{part.files[0].name} was {asked}")
        self._take({name: given[name] for name in networks if name in given})
        chosen = {name: part.variant for name, part in self.parts.items()}
        self.attempt(require_variant, variant, chosen, self.place)
        for name in encoders:
            self.attempt(self._read_tokenizer, name)
        if read := self.attempt(read_schedule, self.place, self.index, self.report):
            self.scheduler, self.schedule = read

    def _read_network(self, name: str, variant: str | None, prefer_half: bool) -> Part:
        place = place_of(self.place, name)
        return read_network(place, name, self.index, variant=variant, prefer_half=prefer_half)

    def _read_file(
        self, base: "Scan | None", given: set[str], prediction: str | None, configs_of: Path | None
    ) -> None:
        lent: Mapping[str, Part] = base.parts if base else {}
        header = weights.header(self.place)
        found = single.scan(self.place, header, self.report, lent, given, prediction, configs_of)
        vars(self).update(vars(found))
        self.parts = {name: self.parts[name] for name in _ORDER if name in self.parts}
        self.schedule = ScheduleConfig.from_dict(self.scheduler, f"{self.place}: scheduler")
        self.networks = len({*self.parts, *given})
        if base and (borrowed := [name for name, part in self.parts.items() if part is base.parts.get(name)]):
            self.report.infer("borrowed", ", ".join(borrowed), f"the file lacks them; {base.place} has them")
            for name in borrowed:
                if name in TOKENIZERS:
                    self.tokenizers[TOKENIZERS[name]] = base.tokenizers[TOKENIZERS[name]]

    def _replace_vae(self, name: str, prefer_half: bool, local: bool) -> None:
        path = replacement_parts.located(name, "vae", prefer_half=prefer_half, local_files_only=local)
        own = self.parts.get("vae")
        if own and isinstance(own.config, VAEConfig):
            scaling = own.config.scaling_factor
        else:
            scaling = FAMILIES[self.report.value("family") or "sd1"].scaling_factor
        part = replacement_parts.vae_part(path, scaling)
        if (
            not path.is_dir()
            and own
            and isinstance(own.config, VAEConfig)
            and isinstance(part.config, VAEConfig)
        ):
            mean, std = own.config.latents_mean, own.config.latents_std
            if own.config.latent_channels == part.config.latent_channels:
                part = replace(part, config=replace(part.config, latents_mean=mean, latents_std=std))
        self.parts["vae"] = part
        self.report.infer(
            "vae", Path(name).name, "asked for, in the place of the model's own" if own else "asked for"
        )
        if isinstance(part.config, TinyVAEConfig):
            self.reasons["latent scale"] = "tiny autoencoders have it"
        elif path.is_dir():
            self.reasons["latent scale"] = f"the config.json in {Path(name).name}"

    def _replace_tiny(self, name: str, prefer_half: bool, local: bool) -> None:
        path = replacement_parts.located(name, TINY, prefer_half=prefer_half, local_files_only=local)
        self.parts[TINY] = replacement_parts.tiny_part(path)
        self.report.infer("tiny decoder", Path(name).name, "asked for")

    def _read_tokenizer(self, encoder: str) -> None:
        name = TOKENIZERS[encoder]
        self.tokenizers[name] = Tokenizer.load(place_of(self.place, name))

    def _check_tokenizer(self, encoder: str) -> None:
        name = TOKENIZERS[encoder]
        tokenizer = self.tokenizers[name]
        self.report.tokenizers.append(
            f"{name}: {len(tokenizer.vocab):,} pieces, windows of {tokenizer.limit}, padding {tokenizer.pad}"
        )
        config = self.parts[encoder].config
        assert isinstance(config, TextConfig)
        where = f"{self.place / name if self.place.is_dir() else self.place}"
        if max(tokenizer.vocab.values()) >= config.vocab_size:
            raise CheckpointError(
                f"{where} knows ids up to {max(tokenizer.vocab.values())}, and {encoder} only "
                f"{config.vocab_size} (vocab_size)"
            )
        if tokenizer.limit > config.max_position_embeddings:
            raise CheckpointError(
                f"{where} makes windows of {tokenizer.limit} tokens, and {encoder} reads "
                f"{config.max_position_embeddings} (max_position_embeddings)"
            )


def _scheduler_name(prediction: str | None) -> str | None:
    """What schedulers call a prediction. Raises `UsageError` for an unknown one."""
    theirs = {ours: theirs for theirs, ours in PREDICTIONS.items()}
    if prediction is not None and prediction not in theirs:
        raise UsageError(f"unknown prediction {prediction!r}; {nearest(prediction, theirs)}")
    return prediction and theirs[prediction]


_PLACES = frozenset({*NETWORKS, *UNUSED, MOTION})
_ORDER = ("unet", "vae", "text_encoder", "text_encoder_2", ENCODER)

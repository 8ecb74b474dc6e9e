"""How the server runs: from the command line, the environment, and a TOML file, in this order."""

from pathlib import Path
from typing import Annotated, Any

import platformdirs
from pydantic import Field, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from sfumato.errors import UsageError, nearest
from sfumato.options import EDITOR, EMBEDDED
from sfumato.request import MAX_FRAMES
from sfumato.server.limits import Limits
from sfumato.validation import described

LOOPBACK = ("127.0.0.1", "::1", "localhost")
MEBI = 1 << 20


class ServerSettings(BaseSettings):
    """Settings of `sfumato serve`. In the environment each is `SFUMATO_SERVE_NAME`."""

    model_config = SettingsConfigDict(env_prefix="SFUMATO_SERVE_", extra="forbid", frozen=True)

    host: str = Field("127.0.0.1", description="Address to listen on; beyond this machine only with a key.")
    port: int = Field(7860, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    models: Annotated[tuple[str, ...], NoDecode] = Field(
        (EMBEDDED, EDITOR),
        min_length=1,
        description="Models that may be drawn with; the first is the default.",
    )
    data: Path = Field(
        default_factory=lambda: Path(platformdirs.user_data_dir("sfumato", appauthor=False)) / "server",
        description="Folder of the database and the pictures.",
    )
    database: str | None = Field(
        None, description="URL of a PostgreSQL database. Default: SQLite in the data folder."
    )
    api_keys: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Keys that clients must send. Needed beyond this machine.", repr=False
    )
    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Names under which clients reach the server, besides its address."
    )
    workers: int = Field(1, ge=1, le=64, description="Processes that draw, one a device.")
    ray: bool = Field(
        False, description="Draw on the nodes of a Ray cluster: RAY_ADDRESS's, this machine's, or a new one."
    )
    max_workers: int | None = Field(
        None, ge=1, le=1024, description="With Ray: workers at most. Default: as many as `workers`."
    )
    jobs_per_worker: int = Field(
        8, ge=1, le=64, description="With Ray: jobs of each worker above which more workers are started."
    )
    devices: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Devices of the workers in turn. Default: the fastest one."
    )
    queue: int = Field(1000, ge=1, le=1_000_000, description="Jobs that may wait.")
    pictures_per_hour: int | None = Field(
        None, ge=1, description="Pictures that each key may ask for in an hour. Default: any number."
    )
    memory: int | None = Field(
        None, ge=1, description="MiB that loaded models may take; the least recently used one leaves first."
    )
    rows: int = Field(
        4,
        ge=0,
        le=64,
        description="Rows of the native size in a batch on a CPU; with 0 each picture is drawn alone.",
    )
    disk: int | None = Field(
        None,
        ge=1,
        description="MiB of pictures to keep, also of those that requests begin from; the oldest go first, "
        "favourites stay.",
    )
    disk_per_key: int | None = Field(
        None, ge=1, description="MiB of pictures to keep of each key, as `disk`: its own oldest go first."
    )
    safety: bool = Field(
        False, description="Refuse pictures that show nudity, by a local detector; no previews are sent."
    )
    max_pictures: int = Field(100, ge=1, le=1000, description="Pictures that a request may ask for.")
    max_pixels: int = Field(
        2048 * 2048, ge=4096, description="Pixels that a picture, or a frame of a clip, may have."
    )
    max_frames: int = Field(
        64, ge=0, le=MAX_FRAMES, description="Frames that a clip may have; with 0 no clips are drawn."
    )
    max_steps: int = Field(200, ge=1, le=1000, description="Steps that a request may take.")
    max_teach_steps: int = Field(
        2000, ge=0, description="Steps that a teaching may take; with 0 nothing is taught."
    )
    max_body: int = Field(96 * MEBI, ge=1024, description="Bytes that a request may have.")
    receive_seconds: float = Field(
        10.0, gt=0, le=600, description="Time that a client has to send a request."
    )
    grace_seconds: float = Field(10.0, ge=0, le=3600, description="Time that running jobs have at a stop.")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        assert isinstance(env_settings, EnvSettingsSource)
        file = TomlConfigSettingsSource(settings_cls)
        return init_settings, env_settings, file

    @field_validator("models", "api_keys", "allowed_hosts", "devices", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        """A text with commas is a list, as environment variables have it."""
        return (
            tuple(each.strip() for each in value.split(",") if each.strip())
            if isinstance(value, str)
            else value
        )

    @property
    def local(self) -> bool:
        """Whether only this machine can reach the server."""
        return self.host in LOOPBACK

    @property
    def limits(self) -> Limits:
        """Up to where jobs are accepted and pictures kept."""
        disk, disk_per_key = (each and each * MEBI for each in (self.disk, self.disk_per_key))
        return Limits(self.queue, self.pictures_per_hour, disk, disk_per_key)

    @property
    def hosts(self) -> frozenset[str]:
        """Names under which the server is known, without ports."""
        own = LOOPBACK if self.local or self.host in ("0.0.0.0", "::") else (self.host,)
        return frozenset({*own, *self.allowed_hosts})


def server_settings(file: Path | None = None, **given: Any) -> ServerSettings:
    """Settings from what is `given`, the environment and a TOML `file`. Raises `UsageError`."""
    known = ServerSettings.model_fields

    class FromFile(ServerSettings):
        model_config = SettingsConfigDict(toml_file=file)

    if file is not None and not file.is_file():
        raise UsageError(f"there is no file {file}")
    try:
        settings = FromFile(**given)
    except ValidationError as error:
        for one in error.errors():
            if one["type"] == "extra_forbidden":
                name = str(one["loc"][0])
                raise UsageError(f"unknown setting {name!r}; {nearest(name, known)}") from None
        raise UsageError("; ".join(described(error, known))) from None
    if not settings.local and not settings.api_keys:
        raise UsageError(
            f"host is {settings.host}: other machines may reach it only with a key; give --api-key, "
            "or SFUMATO_SERVE_API_KEYS"
        )
    if settings.ray and (len(settings.devices) > 1 or ":" in "".join(settings.devices)):
        raise UsageError(
            f"devices is {', '.join(settings.devices)}: with Ray it is one kind, such as cuda; "
            "each worker has a GPU of its own"
        )
    if settings.max_workers is not None:
        if not settings.ray:
            raise UsageError("max_workers needs Ray, which starts and ends workers: give --ray")
        if settings.max_workers < settings.workers:
            raise UsageError(
                f"max_workers is {settings.max_workers}: must be at least workers, {settings.workers}"
            )
    return ServerSettings.model_construct(**settings.model_dump())

"""What the routes of OpenAI's Images API answer."""

from typing import Any, Literal

from sfumato.server.jobs import View


class ModelCard(View):
    """A model that is served."""

    id: str
    object: Literal["model"] = "model"
    created: int = 0
    owned_by: str = "sfumato"


class ModelCards(View):
    """The models that are served."""

    object: Literal["list"] = "list"
    data: tuple[ModelCard, ...]


class TokenDetails(View):
    """Tokens by kind."""

    image_tokens: int = 0
    text_tokens: int = 0


class Usage(View):
    """Clients read it; nothing is counted in tokens here."""

    input_tokens: int = 0
    input_tokens_details: TokenDetails = TokenDetails()
    output_tokens: int = 0
    total_tokens: int = 0


class ImageDatum(View):
    """A picture: its file in base64, or its address."""

    b64_json: str | None = None
    url: str | None = None


class ImagesAnswer(View):
    """Pictures. `created`: seconds since 1970, UTC."""

    created: int
    data: tuple[ImageDatum, ...]
    output_format: Literal["png", "jpeg", "webp"]
    size: str
    background: Literal["transparent", "opaque"]
    usage: Usage = Usage()


STREAM: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Pictures; with `stream` server-sent events: partial pictures, then whole ones.",
        "content": {"text/event-stream": {"schema": {"type": "string"}}},
    }
}


def form_of(parameters: dict[str, Any], *, mask: bool) -> dict[str, Any]:
    """The description of a multipart body with a picture besides these parameters, a JSON schema."""
    binary = {"type": "string", "format": "binary"}
    files = {"image": binary, **({"mask": binary} if mask else {})}
    schema = {**parameters, "properties": {**parameters["properties"], **files}, "required": ["image"]}
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}}

"""What draws the variations of a picture: its request and another noise, or the picture itself."""

from typing import Any, Unpack

from sfumato.image import Image
from sfumato.inputs import PictureSource
from sfumato.request import Request, RequestFields

COUNT = 4
"""How many are drawn unless that is said."""
AMOUNT = 0.2


def variation(
    picture: Image | PictureSource, amount: float = AMOUNT, **fields: Unpack[RequestFields]
) -> Request:
    """The request for variations of `picture`, with `fields` in place of its own.

    An `Image` is drawn by its request, with `amount` of another noise mixed into its own. Any other picture
    is where the drawing begins (img2img) with the strength `amount`, and an empty prompt unless one is given:
    noise mixed into its inversion gives worse pictures.
    """
    given: dict[str, Any] = {"count": COUNT, **fields}
    if isinstance(picture, Image):
        own, seeds = picture.request, given.pop("variation_seed", ())
        seeds = (seeds,) if isinstance(seeds, int) else seeds
        return own.changed(
            variation_seed=(*own.variation_seed, *seeds),
            variation_amount=(*own.variation_amount, amount),
            **given,
        )
    if not given.get("prompt"):
        given = {"prompt": "", "guidance": 1, **given}
    return Request.build(image=picture, strength=amount, **given)

"""A gate before pictures are kept: a local detector of nudity (NudeNet), whose weights its package ships."""

from typing import Any

from sfumato.errors import UsageError

REFUSED = (
    "ANUS_EXPOSED",
    "BUTTOCKS_EXPOSED",
    "FEMALE_BREAST_EXPOSED",
    "FEMALE_GENITALIA_EXPOSED",
    "MALE_GENITALIA_EXPOSED",
)
"""The detector's classes that a picture may not show."""
LEAST_SCORE = 0.4
"""From which on a detection counts; scores are 0 to 1."""


class ContentGate:
    """Refuses pictures that show one of `REFUSED`. Needs the package `nudenet`."""

    def __init__(self) -> None:
        import nudenet

        self._detector: Any = nudenet.NudeDetector()

    def check(self, content: bytes) -> None:
        """Raise `UsageError` for a picture, a PNG file, that is not to be kept."""
        found = [
            each
            for each in self._detector.detect(content)
            if each["class"] in REFUSED and each["score"] >= LEAST_SCORE
        ]
        if found:
            worst = max(found, key=lambda each: float(each["score"]))
            name = worst["class"].lower().replace("_", " ")
            raise UsageError(
                f"the content gate of this server refused the picture ({name}, score {worst['score']:.2f}): "
                "it is not kept; change the prompt or the seed"
            )

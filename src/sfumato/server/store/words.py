"""The words of a text as they are searched: the same in every database."""

import re
import unicodedata

_WORD = re.compile(r"[^\W_]+")


def words_of(text: str) -> list[str]:
    """Runs of letters and digits, without case and accents."""
    parts = unicodedata.normalize("NFKD", text.casefold())
    return _WORD.findall("".join(part for part in parts if not unicodedata.combining(part)))

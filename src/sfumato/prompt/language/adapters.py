"""`<lora:name:weight>`: adapters that a prompt calls by name."""

from sfumato.errors import UsageError
from sfumato.prompt.language.tree import finite, shown
from sfumato.prompt.meaning import AdapterWeight

KINDS = ("lora", "lyco")
_NAMED = ("te", "unet")


def call(arguments: str, *, text_first: bool) -> AdapterWeight:
    """The call of "name:0.8", "name:0.8:0.5" or "name:unet=0.8:te=0.5".

    Where two numbers are given, the second is the text encoder's, but A1111 has it first (`text_first`).
    Raises `UsageError`.
    """
    name, *rest = arguments.split(":")
    name = name.strip()
    tag = shown(f"<lora:{arguments}>")
    if not name:
        raise UsageError(f"{tag} names no adapter; write <lora:name:weight>")
    numbers: list[float] = []
    named: dict[str, float] = {}
    for argument in rest:
        key, equals, value = argument.partition("=")
        if not equals:
            numbers.append(finite(argument, f"the weight in {tag}"))
        elif key.strip() in _NAMED:
            named[key.strip()] = finite(value, f"{key.strip()} in {tag}")
        else:
            raise UsageError(f"{tag} has {shown(argument)}; only te= and unet= can be named")
    if len(numbers) > 2:
        raise UsageError(f"{tag} has {len(numbers)} weights; at most two are read")
    if text_first:
        text_weight = named.get("te", numbers[0] if numbers else 1.0)
        weight = named.get("unet", numbers[1] if len(numbers) == 2 else text_weight)
        return AdapterWeight(name, weight, None if weight == text_weight else text_weight)
    weight = named.get("unet", numbers[0] if numbers else 1.0)
    return AdapterWeight(name, weight, named.get("te", numbers[1] if len(numbers) == 2 else None))

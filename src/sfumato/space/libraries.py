"""The libraries of the extra `three-d`, imported when they are needed."""

from importlib import import_module
from types import ModuleType

from sfumato.errors import UsageError


def library(name: str) -> ModuleType:
    """A module of the extra. Raises `UsageError`, naming the extra, where it is not installed."""
    try:
        return import_module(name)
    except ImportError:
        package = name.partition(".")[0]
        raise UsageError(f"shapes need {package}: pip install 'sfumato[three-d]'") from None

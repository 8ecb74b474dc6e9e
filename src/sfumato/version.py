"""The package's version, for whoever records or shows it; `pyproject.toml` reads it here."""

__version__ = "0.1.0"

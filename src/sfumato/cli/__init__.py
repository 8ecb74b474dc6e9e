"""The `sfumato` command: thin, and quick to answer until there is something to draw."""

from sfumato.cli.outcome import main as main

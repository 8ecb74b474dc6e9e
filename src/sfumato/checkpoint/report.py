"""What was found out about a checkpoint, and why: nothing is guessed without saying so."""

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Component:
    """One network's weights as their headers describe them; `bytes` counts the files."""

    name: str
    class_name: str
    parameters: int
    dtypes: tuple[str, ...]
    bytes: int
    files: tuple[str, ...]
    variant: str | None


@dataclass(frozen=True)
class Inference:
    """One conclusion: what about, what it is, and what it was concluded from."""

    what: str
    value: str
    reason: str


@dataclass
class Report:
    """A checkpoint's description: the inferences explain everything the files do not say outright."""

    source: str
    components: list[Component] = field(default_factory=list)
    tokenizers: list[str] = field(default_factory=list)
    inferences: list[Inference] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    fingerprint: str | None = None

    def infer(self, what: str, value: object, reason: str) -> None:
        """Record one conclusion."""
        self.inferences.append(Inference(what, str(value), reason))

    def value(self, what: str) -> str | None:
        """What was concluded about `what`, or `None`."""
        return next((found.value for found in self.inferences if found.what == what), None)

    @property
    def kind(self) -> str | None:
        """The family, where it could be told."""
        return self.value("kind")

    @property
    def parameters(self) -> int:
        """All networks' numbers together."""
        return sum(component.parameters for component in self.components)

    def lines(self, *, problems: bool = True) -> list[str]:
        """The report as text, a fact a line, and with `problems` a problem a line."""
        told = [self.source]
        if self.fingerprint:
            told.append(f"fingerprint  {self.fingerprint}")
        for part in self.components:
            variant = f", variant {part.variant}" if part.variant else ""
            files = f"{len(part.files)} files" if len(part.files) > 1 else part.files[0]
            told.append(
                f"{part.name}: {part.class_name}, {part.parameters / 1e6:,.1f} M parameters, "
                f"{' + '.join(part.dtypes)}, {part.bytes / 1e6:,.1f} MB ({files}{variant})"
            )
        told += self.tokenizers
        told += [f"{found.what}: {found.value} ({found.reason})" for found in self.inferences]
        return told + [f"problem: {problem}" for problem in self.problems if problems]

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON would hold it."""
        return {"kind": self.kind, "parameters": self.parameters, **asdict(self)}

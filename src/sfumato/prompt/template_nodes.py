"""What a template is read into: text, choices, wildcards, variables, one within another."""

from dataclasses import dataclass
from typing import Literal

Method = Literal["random", "cyclical", "combinatorial"]
"""How it is chosen, where a choice says so: `{~a|b}`, `{@a|b}`, `{!a|b}`."""


@dataclass(frozen=True, eq=False)
class Run:
    """Parts one after another."""

    parts: "tuple[TemplateNode, ...]"


@dataclass(frozen=True, eq=False)
class Wildcard:
    """`__name__`: one entry of its files, chosen by `method`. `where` it stands is for errors."""

    name: str
    where: str
    method: Method | None = None


@dataclass(frozen=True, eq=False)
class Variants:
    """`least` to `most` different ones of the options, in any order; an option of weight 0 is left out.

    `method`: how it is chosen, and what is chosen within, where that is said: `{~a|b}`, `{@a|b}`, `{!a|b}`.
    """

    options: "tuple[TemplateNode, ...]"
    weights: tuple[float, ...]
    least: int = 1
    most: int = 1
    separator: str = ", "
    method: Method | None = None


@dataclass(frozen=True, eq=False)
class Lookup:
    """A wildcard whose name depends on variables: it is known when they are, and becomes that of `choice`."""

    name: "TemplateNode"
    wildcard: Wildcard
    choice: Variants | None = None


@dataclass(frozen=True, eq=False)
class Assign:
    """`${name=value}`: the value is chosen here and kept; nothing is written. `?=` keeps an older value."""

    name: str
    value: "TemplateNode"
    keep: bool = False


@dataclass(frozen=True, eq=False)
class Variable:
    """`${name}` or `${name:default}`."""

    name: str
    default: "TemplateNode | None"
    where: str


@dataclass(frozen=True, eq=False)
class Scope:
    """`__name(c=red)__`: variables that have their values only within."""

    assigns: tuple[Assign, ...]
    inside: "TemplateNode"


@dataclass(frozen=True, eq=False)
class Wrap:
    """`%{before ... after$$inner}`: the inner text in the place of the dots."""

    wrapper: "TemplateNode"
    inner: "TemplateNode"


TemplateNode = str | Run | Wildcard | Variants | Lookup | Assign | Variable | Scope | Wrap

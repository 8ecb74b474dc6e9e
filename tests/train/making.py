"""Recipes from flat keys: each is put into the section that has it."""

from dataclasses import fields, replace

from sfumato.train.objectives import OBJECTIVES
from sfumato.train.recipe import SECTIONS, AdapterSection, DataSection, Objective, Optimizer, Recipe, Samples
from sfumato.train.recipe_file import parse


def made(objective, **keys):
    """The recipe of an objective, read as from a file."""
    kind = OBJECTIVES[objective]
    sections = {"objective": kind, "data": kind.DATA, "optimizer": Optimizer, "adapter": AdapterSection}
    sections["samples"] = Samples
    mapping = {"objective": {"name": objective}}
    for key, value in keys.items():
        into = next((name for name, each in sections.items() if key in names(each)), None)
        into = into or (None if key in names(Recipe) else "objective")
        (mapping.setdefault(into, {}) if into else mapping)[key] = listed(value)
    return parse(mapping, "recipe.toml")


def changed(recipe, **keys):
    """The same recipe but for `keys`."""
    for name in SECTIONS:
        section = getattr(recipe, name)
        own = {key: keys.pop(key) for key in list(keys) if section and key in names(section)}
        keys |= {name: replace(section, **own)} if own else {}
    return replace(recipe, **keys)


def names(section):
    return {each.name for each in fields(section)}


def listed(value):
    return list(value) if isinstance(value, tuple) else value


class Nothing(Objective):
    """An objective without a task."""

    VALIDATES = True

    def task(self, recipe, device, report):
        raise AssertionError("it has none")


def bare(**keys):
    """A recipe without anything to learn, for the loop alone."""
    return changed(Recipe(Nothing(), DataSection(folder="-"), run="-"), **keys)

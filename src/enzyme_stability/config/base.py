"""Settings that refuse unknown names and say what is wrong with a value."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from enzyme_stability.errors import ConfigError


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A clause that suggests the known setting closest to a misspelt one; empty where none is close.

    Args:
        name: As it was given; groups are set apart by dots, and may be left out.
        known: Names that there are.
    """
    inside, _, last = name.rpartition(".")
    places = [(*right.rpartition(".")[::2], right) for right in known]
    beside = {own: right for above, own, right in places if above == inside}
    elsewhere = [right for _, own, right in places if own == last]
    close = [beside[own] for own in difflib.get_close_matches(last, beside, n=1)]
    close = close or difflib.get_close_matches(name, elsewhere, n=1, cutoff=0)
    close = close or difflib.get_close_matches(name, [right for *_, right in places], n=1, cutoff=0.75)
    return f"; did you mean {close[0]}?" if close else ""


def _given(value: object) -> str:
    """The offending value, where it is short enough to help."""
    return "" if isinstance(value, dict) else f" (got {value!r:.80})"


class Strict(BaseModel):
    """Frozen settings that refuse unknown names."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @classmethod
    def parse(cls, values: Mapping[str, Any], source: str) -> Self:
        """Validate ``values``; ``source`` says in the error where they came from.

        Raises:
            ConfigError: A name is unknown or a value is out of bounds; every such setting is named.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            lines = []
            for fault in error.errors():
                place, beside = _place(values, fault["loc"])
                misspelt = fault["type"] == "extra_forbidden"
                meant = did_you_mean(place, beside if "." in place else cls.model_fields) if misspelt else ""
                lines.append(f"  {place}{': ' * bool(place)}{fault['msg']}{_given(fault['input'])}{meant}")
            raise ConfigError(f"{source} has settings that cannot be used:\n" + "\n".join(lines)) from None


def _place(values: object, location: tuple[int | str, ...]) -> tuple[str, list[str]]:
    """Where in ``values`` a fault lies, as it is given on the command line, and the places beside it."""
    steps: list[str] = []
    beside: list[str] = []
    told = False
    for step in location:
        if not told and isinstance(values, Mapping) and values.get("kind") == step:
            told = True  # which kind of encoder or head it is, pydantic says between two settings
            continue
        above = ".".join(steps)
        beside = [f"{above}.{name}" for name in values if name != step] if isinstance(values, Mapping) else []
        steps.append(str(step))
        try:
            values = values[step]  # type: ignore[index]
        except (KeyError, IndexError, TypeError):
            values = None
        told = False
    return ".".join(steps), beside

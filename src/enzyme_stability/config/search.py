"""Settings of a hyperparameter search: which settings are tried, and over which range."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from enzyme_stability.config.base import Strict

Value = bool | int | float | str | None
"""Of a setting. Text is read as on the command line, so a list of widths is the text ``[512,256]``."""

_SEARCHED = re.compile(r"(encoder|head|trainer)(\.[A-Za-z_][A-Za-z0-9_]*)*")


class _Range(Strict):
    low: float
    high: float
    log: bool = Field(False, description="whether each power of ten is tried equally often")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.low < self.high:
            raise ValueError(f"low ({self.low:g}) must be below high ({self.high:g})")
        if self.log and self.low <= 0:
            raise ValueError("low must be above 0 where log is true")
        return self

    def value(self, corner: int) -> Value:
        """The lowest for an even ``corner``, the highest for an odd one."""
        return self.high if corner % 2 else self.low


class FloatRange(_Range):
    """Numbers from ``low`` to ``high``."""

    kind: Literal["float"]
    low: float = Field(allow_inf_nan=False)
    high: float = Field(allow_inf_nan=False)


class IntRange(_Range):
    """Whole numbers from ``low`` to ``high``, both included."""

    kind: Literal["int"]
    low: int
    high: int


class Choice(Strict):
    """One of a few values."""

    kind: Literal["choice"]
    values: tuple[Value, ...] = Field(min_length=1)

    @field_validator("values", mode="before")
    @classmethod
    def _plain(cls, values: object) -> object:
        for value in values if isinstance(values, list | tuple) else ():
            if not isinstance(value, Value):
                raise ValueError(f"{value!r} is no single value; write a list as text, as in '[512,256]'")
        return values

    @field_validator("values")
    @classmethod
    def _once(cls, values: tuple[Value, ...]) -> tuple[Value, ...]:
        if len(set(map(as_override, values))) < len(values):
            raise ValueError("a value is there twice")
        return values

    def value(self, corner: int) -> Value:
        """Value number ``corner``, starting again behind the last."""
        return self.values[corner % len(self.values)]


Parameter = Annotated[FloatRange | IntRange | Choice, Field(discriminator="kind")]


class SearchSpace(Strict):
    """What is tried for each setting, by the key that overrides it."""

    parameters: dict[str, Parameter] = Field(min_length=1)

    @field_validator("parameters")
    @classmethod
    def _searchable(cls, parameters: dict[str, Parameter]) -> dict[str, Parameter]:
        for key in parameters:
            if not _SEARCHED.fullmatch(key):
                raise ValueError(
                    f"'{key}' cannot be searched: only settings of encoder, head and trainer can, "
                    "the others decide what is compared"
                )
        return parameters

    def corners(self) -> Iterator[list[str]]:
        """Overrides in which every end of a range and every choice comes up at least once."""
        choices = [len(p.values) for p in self.parameters.values() if isinstance(p, Choice)]
        for corner in range(max([2, *choices])):
            yield [f"{key}={as_override(p.value(corner))}" for key, p in self.parameters.items()]


def as_override(value: Value) -> str:
    """A value as it is written behind the equals sign of an override."""
    if isinstance(value, bool) or value is None:
        return "null" if value is None else str(value).lower()
    return value if isinstance(value, str) else repr(value)

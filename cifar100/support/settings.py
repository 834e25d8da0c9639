"""What the dataclasses of config.py have in common: every value is checked against its field's type."""

from __future__ import annotations

import reprlib
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from cifar100.support.errors import UserError


def check(holds: bool, message: str) -> None:
    """Raise UserError with this message unless the condition holds."""
    if not holds:
        raise UserError("config.value", message)


def flag(name: str) -> str:
    """The flag of a setting."""
    return f"--{name.replace('_', '-')}"


class Section:
    """What the concerns of a configuration share: each value is of its field's type, and one of its choices."""

    def __post_init__(self) -> None:
        for name, kind in get_type_hints(type(self)).items():
            value, choices = getattr(self, name), get_args(kind)
            told = f"{flag(name)} is {reprlib.repr(value)}"
            if get_origin(kind) is Literal:
                check(value in choices, f"{told}; it must be one of {', '.join(choices)}.")
            elif kind is float:
                check(_is_number(value), f"{told}; it must be a number.")
            elif kind is int:
                check(isinstance(value, int) and not isinstance(value, bool), f"{told}; it must be a whole number.")
            elif kind is bool:
                check(isinstance(value, bool), f"{told}; it must be True or False.")
            elif get_origin(kind) is tuple and choices[-1] is Ellipsis:
                whole = isinstance(value, tuple) and all(type(item) is choices[0] for item in value)
                check(whole, f"{told}; it must be whole numbers.")
            elif get_origin(kind) is tuple:
                whole = isinstance(value, tuple) and len(value) == len(choices) and all(map(_is_number, value))
                check(whole, f"{told}; it must be {len(choices)} numbers.")
            else:
                check(isinstance(value, Path) or (value is None and None.__class__ in choices), f"{told}, not a path.")

    def at_least(self, least: int, *names: str) -> None:
        """Raise UserError unless these settings are that much or more."""
        for name in names:
            value = getattr(self, name)
            check(value >= least, f"{flag(name)} is {value}; it must be {least} or more.")

    def above_0(self, *names: str) -> None:
        """Raise UserError unless these settings are above 0."""
        for name in names:
            check(getattr(self, name) > 0, f"{flag(name)} is {getattr(self, name)}; it must be above 0.")

    def probabilities(self, *names: str) -> None:
        """Raise UserError unless these settings lie in 0..1."""
        for name in names:
            check(0 <= getattr(self, name) <= 1, f"{flag(name)} is {getattr(self, name)}; it must lie in 0..1.")

    def below_1(self, *names: str) -> None:
        """Raise UserError unless these settings lie in [0, 1)."""
        for name in names:
            value = getattr(self, name)
            check(0 <= value < 1, f"{flag(name)} is {value}; it must be at least 0 and below 1.")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300  # a NaN is not


def plain(value: Any) -> Any:
    """A setting's value in a type that JSON has."""
    if isinstance(value, Path):
        return str(value)
    return list(value) if isinstance(value, tuple) else value

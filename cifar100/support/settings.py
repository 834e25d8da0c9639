"""The base of the dataclasses of config.py: every value is checked against its field's type and range."""

from __future__ import annotations

import reprlib
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from cifar100.support.errors import UserError


def check(holds: bool, setting: str, message: str) -> None:
    """Raise UserError with the code "config.<setting>" unless the condition holds."""
    if not holds:
        raise UserError(f"config.{setting}", message)


def flag(name: str) -> str:
    """The flag of a setting."""
    return f"--{name.replace('_', '-')}"


class ConfigSection:
    """A section of the settings; each value has its field's type, and is one of its choices."""

    def __post_init__(self) -> None:
        for name, kind in get_type_hints(type(self)).items():
            requirement = _requirement(getattr(self, name), kind)
            if requirement:
                self._refuse(name, requirement)

    def at_least(self, minimum: int, *names: str) -> None:
        """Raise UserError unless these settings are at least `minimum`."""
        self._check_range(names, lambda value: value >= minimum, f"{minimum} or more")

    def positive(self, *names: str) -> None:
        """Raise UserError unless these settings are above 0."""
        self._check_range(names, lambda value: value > 0, "above 0")

    def between(self, minimum: int, maximum: int, *names: str) -> None:
        """Raise UserError unless these settings lie in [minimum, maximum]."""
        self._check_range(names, lambda value: minimum <= value <= maximum, f"between {minimum} and {maximum}")

    def below_one(self, *names: str) -> None:
        """Raise UserError unless these settings lie in [0, 1)."""
        self._check_range(names, lambda value: 0 <= value < 1, "at least 0 and below 1")

    def _check_range(self, names: tuple[str, ...], is_valid: Any, requirement: str) -> None:
        for name in names:
            if not is_valid(getattr(self, name)):
                self._refuse(name, requirement)

    def _refuse(self, name: str, requirement: str) -> None:
        value = reprlib.repr(getattr(self, name))
        check(False, name, f"{flag(name)} is {value}; it must be {requirement}.")


def _requirement(value: Any, kind: Any) -> str:
    """What a value of a field of this type must be, "" if it is."""
    choices = get_args(kind)
    if get_origin(kind) is Literal:
        return "" if value in choices else f"one of {', '.join(choices)}"
    if kind is float:
        return "" if _is_number(value) else "a number"
    if kind is int:
        return "" if type(value) is int else "a whole number"
    if kind is bool:
        return "" if isinstance(value, bool) else "True or False"
    if get_origin(kind) is tuple and choices[-1] is Ellipsis:  # whole numbers, or text
        is_valid = isinstance(value, tuple) and all(type(item) in (int, str) for item in value)
        return "" if is_valid else "whole numbers"
    if get_origin(kind) is tuple:
        is_valid = isinstance(value, tuple) and len(value) == len(choices) and all(map(_is_number, value))
        return "" if is_valid else f"{len(choices)} numbers"
    is_valid = isinstance(value, Path) or (value is None and None.__class__ in choices)
    return "" if is_valid else "a path"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300  # a NaN is not


def plain(value: Any) -> Any:
    """A setting's value in a type that JSON has."""
    if isinstance(value, Path):
        return str(value)
    return list(value) if isinstance(value, tuple) else value

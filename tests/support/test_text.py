"""cifar100/support/text.py."""

from __future__ import annotations

import pytest

from cifar100.support.text import setting_text


@pytest.mark.parametrize(
    ("value", "expected"),
    [(("16:4", "32:2"), "16:4 32:2"), ([8, 16], "8 16"), ((), "none"), (0.1, "0.1"), (None, "None"), (True, "True")],
)
def test_setting_text_is_valid_for_the_flag(value: object, expected: str) -> None:
    assert setting_text(value) == expected

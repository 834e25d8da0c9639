"""Settings: one place, checked, and the same after a trip through JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cifar100.config import Config
from cifar100.recipes import RECIPES, is_modified, recipe
from cifar100.support.errors import UserError
from cifar100.support.old_settings import REMOVED


def test_settings_survive_json() -> None:
    config = Config().replace(epochs=7, data_dir=Path("x"), mean=(0.1, 0.2, 0.3), model="resnet34")
    assert Config.from_flat(json.loads(json.dumps(config.flat()))) == config


def test_differences_name_what_differs() -> None:
    assert Config().replace(lr=0.2).differences(Config()) == {"lr": (0.2, 0.1)}


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_change_nothing_about_where_a_run_happens(name: str) -> None:
    assert recipe(name).replace(report=True).run == Config().run


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_modified_by_what_changes_the_training(name: str) -> None:
    config = recipe(name)
    assert not is_modified(name, config.replace(device="cpu", stop_after=3))
    assert is_modified(name, config.replace(lr=0.7))
    assert is_modified(name, config.replace(val_fraction=0.1))
    assert not is_modified("mine", config), "nothing to compare it with"


def test_settings_of_an_earlier_version_are_read() -> None:
    old = {name: value for name, value in Config().flat().items() if name != "dist_timeout"}
    assert Config.from_flat(old | REMOVED | {"peer_seconds": 7.0}) == Config().replace(dist_timeout=7.0)


@pytest.mark.parametrize("name", REMOVED)
def test_a_removed_setting_with_another_value_is_named(name: str) -> None:
    with pytest.raises(UserError, match=rf"{name} is 3 .* 0\.2\.0") as raised:
        Config.from_flat(Config().flat() | {name: 3})
    assert raised.value.code == "config.removed"

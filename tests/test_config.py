"""Settings: validation, recipes, and conversion to and from JSON."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from cifar100.config import Config
from cifar100.recipes import RECIPES, is_modified, recipe
from cifar100.support.errors import UserError
from cifar100.support.old_settings import REMOVED
from cifar100.support.settings import BELOW_ONE, POSITIVE, RANGES, without_local_paths
from cifar100.support.train_sizes import resolutions


def test_settings_round_trip_through_json() -> None:
    config = Config().replace(epochs=7, data_dir=Path("x"), mean=(0.1, 0.2, 0.3), model="resnet34")
    assert Config.from_flat(json.loads(json.dumps(config.flat()))) == config


def test_differences_between_configs() -> None:
    assert Config().replace(lr=0.2).differences(Config()) == {"lr": (0.2, 0.1)}


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_do_not_change_run_settings(name: str) -> None:
    assert recipe(name).replace(report=True).run == Config().run


@pytest.mark.parametrize("name", RECIPES)
def test_only_training_settings_modify_a_recipe(name: str) -> None:
    config = recipe(name)
    assert not is_modified(name, config.replace(device="cpu", stop_after=3))
    assert not is_modified(name, config.replace(seed=3)), "a repetition of the recipe"
    assert is_modified(name, config.replace(lr=0.7))
    assert is_modified(name, config.replace(val_fraction=0.1))
    assert not is_modified("mine", config), "not a recipe, so there is nothing to compare with"


def test_settings_of_an_earlier_version_are_read() -> None:
    old = {name: value for name, value in Config().flat().items() if name != "dist_timeout"}
    assert Config.from_flat(old | REMOVED | {"peer_seconds": 7.0}) == Config().replace(dist_timeout=7.0)


@pytest.mark.parametrize("name", REMOVED)
def test_a_removed_setting_with_another_value_is_named(name: str) -> None:
    with pytest.raises(UserError, match=rf"{name} is 3 .* 0\.2\.0") as raised:
        Config.from_flat(Config().flat() | {name: 3})
    assert raised.value.code == "config.removed"


def test_fast_recipe_resolutions_scale_with_the_number_of_epochs() -> None:
    """With 6, 8, 9, 14 and 30 epochs these are the resolutions of the measured runs."""
    sizes = recipe("fast").augment.train_sizes
    assert resolutions(sizes, 9) == [*[16] * 4, *[24] * 3, *[32] * 2]
    assert resolutions(sizes, 30) == [*[16] * 13, *[24] * 10, *[32] * 7]
    assert resolutions(sizes, 6) == [16, 16, 24, 24, 32, 32]
    assert resolutions(sizes, 8) == [*[16] * 3, *[24] * 3, *[32] * 2]
    assert resolutions(sizes, 14) == [*[16] * 6, *[24] * 4, *[32] * 4]
    for num_epochs in range(1, 50):
        sizes_per_epoch = resolutions(sizes, num_epochs)
        assert len(sizes_per_epoch) == num_epochs
        assert sizes_per_epoch == sorted(sizes_per_epoch)
        assert sizes_per_epoch[-1] == 32


def test_settings_hold_no_numpy_types() -> None:
    """A checkpoint cannot: they would be lost when it is read."""
    config = Config().replace(lr=np.float64(0.1), mean=tuple(np.full(3, 0.5)), optimizer=np.str_("muon"))
    values = config.flat()
    assert type(values["lr"]) is float
    assert type(values["optimizer"]) is str
    assert [type(value) for value in values["mean"]] == [float] * 3


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        (Path("/home/me/base.pth"), "base.pth"),
        (r"C:\Users\me\base.pth", "base.pth"),
        (Path("hf://user/model"), "hf:/user/model"),
        ("pretrained", "pretrained"),
        (None, None),
    ],
)
def test_shared_settings_have_no_local_paths(source: Path | str | None, shown: str | None) -> None:
    settings = {"lr": 0.1, "data_dir": "/home/me/data", "init_from": source and str(source)}
    assert without_local_paths(settings) == {"lr": 0.1, "init_from": shown}


def test_train_sizes_are_weights_or_one_per_epoch() -> None:
    assert resolutions(("16:0.58", "24:0.28", "32:0.14"), 7) == [16, 16, 16, 16, 24, 24, 32]
    assert resolutions((16, 24), 4) == [16, 24, 24, 24]
    assert resolutions((16, 24, 32), 2) == [16, 24]


@pytest.mark.parametrize(
    "sizes", [(16, 4), ("7:1",), ("16:0",), ("16:-1",), ("16:x",), (16, "24:1"), ("16",), ("16:nan",)]
)
def test_invalid_train_sizes(sizes: tuple[int | str, ...]) -> None:
    with pytest.raises(UserError, match="--train-sizes") as raised:
        Config().replace(train_sizes=sizes)
    assert raised.value.code == "config.train_sizes"


def test_ranges_name_existing_settings() -> None:
    assert Config().flat().keys() >= RANGES.keys() | POSITIVE | BELOW_ONE

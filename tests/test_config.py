"""Settings: one place, checked, and the same after a trip through JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cifar100.config import Config
from cifar100.errors import UserError
from cifar100.recipes import RECIPES, recipe


def test_settings_survive_json() -> None:
    config = Config().replace(epochs=7, data_dir=Path("x"), mean=(0.1, 0.2, 0.3), model="resnet34")
    assert Config.from_flat(json.loads(json.dumps(config.flat()))) == config


def test_differences_name_what_differs() -> None:
    assert Config().replace(lr=0.2).differences(Config()) == {"lr": (0.2, 0.1)}


@pytest.mark.parametrize(
    ("setting", "value", "told"),
    [
        ("image_size", 15, "--image-size is 15"),
        ("image_size", 1025, "--image-size is 1025"),
        ("test_fraction", 0.0, "--test-fraction is 0.0"),
        ("test_fraction", 1.0, "--test-fraction is 1.0"),
        ("split_seed", -1, "--split-seed is -1"),
        ("val_fraction", 1.0, "--val-fraction is 1.0"),
        ("crop_padding", -1, "--crop-padding is -1"),
        ("cutout_size", -1, "--cutout-size is -1"),
        ("flip_probability", 1.5, "--flip-probability is 1.5; a probability lies in 0..1"),
        ("cutout_probability", float("nan"), "--cutout-probability is nan"),
        ("std", (0.2, 0.0, 0.2), "--std is"),
        ("epochs", 0, "--epochs is 0"),
        ("batch_size", 0, "--batch-size is 0"),
        ("lr", 0.0, "--lr is 0.0"),
        ("momentum", 1.0, "--momentum is 1.0"),
        ("momentum", 0.0, "--no-nesterov"),
        ("weight_decay", -1e-4, "--weight-decay is -0.0001"),
        ("warmup_epochs", -1, "--warmup-epochs is -1"),
        ("label_smoothing", 1.0, "--label-smoothing is 1.0"),
        ("seed", -1, "--seed is -1"),
        ("num_workers", -1, "--num-workers is -1"),
        ("eval_every", 0, "--eval-every is 0"),
        ("checkpoint_every", -1, "--checkpoint-every is -1"),
        ("save_seconds", -1, "--save-seconds is -1"),
        ("stop_after", -1, "--stop-after is -1"),
        ("colour", "red", "Unknown setting colour; the settings are dataset,"),
    ],
)
def test_a_value_out_of_range_is_one_sentence(setting: str, value: object, told: str) -> None:
    with pytest.raises(UserError) as error:
        Config().replace(**{setting: value})
    assert told in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_change_nothing_about_where_a_run_happens(name: str) -> None:
    assert recipe(name).run == Config().run

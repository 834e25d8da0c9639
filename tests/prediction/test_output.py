"""The line about the weights that precedes a table of predictions."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from conftest import FakeBackend

from cifar100.inference import Predictor
from cifar100.prediction.output import Table, model_lines
from cifar100.prediction.predictor import Prediction, Result
from cifar100.support.provenance import DatasetInfo, Selection, TemperatureFit

EVALUATION = {"top1": 0.809, "images": 10_000, "split": "test"}
RUN = {"top1": 0.5, "split": "test"}


def predictor_with(*, fit: Any = "crop", views: int = 1, **fields: Any) -> Predictor:
    backend = FakeBackend(lambda pixels: np.zeros((len(pixels), 2)), ("cat", "dog"))
    backend.info = replace(backend.info, source="best_model.pth", **fields)
    return Predictor(backend, fit=fit, views=views)


@pytest.mark.parametrize(
    ("fields", "accuracy"),
    [
        ({}, ""),
        ({"evaluation": {"top1": None}}, ""),
        ({"evaluation": EVALUATION}, "80.9% top-1 on 10,000 test images"),
        ({"evaluation": EVALUATION, "metrics": RUN}, "80.9% top-1 on 10,000 test images"),
        ({"metrics": RUN}, "50.0% top-1 on test images"),
        ({"metrics": RUN, "dataset": DatasetInfo(num_train=72, num_test=18)}, "50.0% top-1 on 18 test images"),
        ({"metrics": RUN | {"split": "val"}, "dataset": DatasetInfo(num_test=18)}, "50.0% top-1 on val images"),
        (
            {"metrics": RUN, "selection": Selection(rule="best", split="test")},
            "50.0% top-1 on test images (selected on these)",
        ),
        ({"metrics": RUN, "selection": Selection(rule="last")}, "50.0% top-1 on test images"),
    ],
)
def test_the_accuracy_and_its_images_are_named(fields: dict[str, Any], accuracy: str) -> None:
    name, description = model_lines(predictor_with(**fields))
    assert name.startswith("best_model.pth (sha256 0123456789ab")
    assert description == (f"{accuracy}, uncalibrated" if accuracy else "uncalibrated")


@pytest.mark.parametrize("columns", ["60", "80", "100"])
def test_the_line_fits_the_terminal(monkeypatch: pytest.MonkeyPatch, columns: str) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    fields: dict[str, Any] = {"evaluation": EVALUATION, "calibration": TemperatureFit(temperature=0.854)}
    predictor = predictor_with(fit="stretch", views=2, **fields)
    lines = Table(predictor, ["a.jpg"]).header().splitlines()
    assert max(map(len, lines)) <= int(columns)
    assert " ".join(line.strip() for line in lines[1:]) == model_lines(predictor)[1]


def test_a_class_name_cannot_forge_a_row() -> None:
    prediction = Prediction("cat\nother.jpg   99.99%  dog", 0, 0.5)
    result = Result([prediction], "", np.zeros((32, 32, 3), np.uint8))
    assert len(Table(predictor_with(), ["a.jpg"]).result("a.jpg", result).splitlines()) == 2, "the columns and a row"

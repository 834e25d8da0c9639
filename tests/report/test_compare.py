"""`cifar100 compare`: differences in settings and results between runs."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from conftest import assert_one_sentence
from PIL import Image

from cifar100.cli.main import main
from cifar100.config import Config
from cifar100.report.compare import comparison, read_runs
from cifar100.support.errors import UserError


def write_run(folder: Path, done: int, top1: float | None = None, test_fingerprint: str = "", **settings: Any) -> Path:
    """Write the files of a run of `done` epochs, of which the second is the best; `top1` is the final accuracy."""
    folder.mkdir(parents=True)
    config = {"recipe": "baseline", "settings": Config().replace(**settings).flat(), "versions": {"torch": "2.13.0"}}
    (folder / "config.json").write_text(json.dumps(config))
    rows = [
        {"epoch": n, "split": "val", "top1": 0.6 if n == 2 else 0.1 * n, "elapsed_seconds": 61.0 * n}
        | {"train_loss": 1.0, "images_per_second": 50.0 * n, "loss": None, "learning_rate": 0.1}
        for n in range(1, done + 1)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    if top1 is not None:
        final = {"top1": top1, "top5": 0.9, "loss": 1.25, "images": 10_000}
        final |= {"dataset": {"name": "photos", "num_test": 10_000}, "test_fingerprint": test_fingerprint}
        (folder / "evaluation.json").write_text(json.dumps(final))
    return folder


def table_rows(text: str) -> dict[str, str]:
    """The rows of a table by name."""
    split = [re.split(r"\s{2,}", line, maxsplit=1) for line in text.splitlines()]
    return {parts[0]: parts[1] for parts in split if len(parts) == 2}


def test_different_settings_and_results_are_shown(tmp_path: Path) -> None:
    write_run(tmp_path / "one", 3, 0.7, lr=0.1, run_dir=Path("here"))
    write_run(tmp_path / "two", 2, None, lr=0.2, train_sizes=(16, 32), run_dir=Path("there"), epochs=50)
    (tmp_path / "two" / "last.pth").write_text("")
    text = comparison(read_runs([tmp_path / "one", tmp_path / "two" / "last.pth"]), 200)
    table = table_rows(text)
    shown = {name: re.split(r"\s{2,}", cells) for name, cells in table.items()}
    assert shown["lr"] == ["0.1", "0.2"]
    assert shown["train_sizes"] == ["none", "16 32"]
    assert "run_dir" not in shown
    assert "momentum" not in shown, "the same in both"
    assert "torch" not in shown, "the same in both"
    assert shown["best top-1"] == ["60.00% of val, epoch 2", "60.00% of val, epoch 2"]
    assert shown["test top-1"] == ["70.00%", "–"]
    assert shown["test loss"] == ["1.2500", "–"]
    assert shown["time"] == ["3:03", "2:02"]
    assert shown["epochs"] == ["3 of 100", "2 of 50"]
    assert shown["images/s"] == ["100", "75"]
    assert "Highest" not in text, "one run is not finished"


def test_runs_on_different_images_are_not_ranked(tmp_path: Path) -> None:
    prints = ["1" * 64, "2" * 64]
    paths = [write_run(tmp_path / value[:2], 2, 0.5, value) for value in prints]
    text = comparison(read_runs(paths), 200)
    assert "Highest" not in text
    shown = re.split(r"\s{2,}", table_rows(text)["test images"])
    assert shown == ["photos, 10000, 11111111", "photos, 10000, 22222222"]
    earlier = write_run(tmp_path / "earlier", 2, 0.6)  # before the fingerprint was recorded
    assert "Highest" in comparison(read_runs([paths[0], earlier]), 200)
    again = write_run(tmp_path / "again", 2, 0.6, prints[0])
    text = comparison(read_runs([paths[0], again]), 200)
    assert "Highest" in text
    assert "test images" not in table_rows(text)


def test_the_best_finished_run_is_named(tmp_path: Path) -> None:
    paths = [write_run(tmp_path / name, 2, top1) for name, top1 in (("one", 0.7), ("two", 0.72), ("three", None))]
    text = comparison(read_runs(paths), 200)
    low, high = map(float, re.findall(r"(-?[\d.]+) to (-?[\d.]+)", text.splitlines()[-1])[0])
    assert text.splitlines()[-1].startswith("Highest test top-1: two, 2.00 points above one")
    spread = 196 * (0.7 * 0.3 / 10_000 + 0.72 * 0.28 / 10_000) ** 0.5  # 95% interval of two proportions
    assert (low, high) == (pytest.approx(2 - spread, abs=0.01), pytest.approx(2 + spread, abs=0.01))
    assert text.count("epochs") == 1


def test_a_narrow_terminal_gets_several_tables(tmp_path: Path) -> None:
    runs = read_runs([write_run(tmp_path / f"run{number}", 2) for number in range(5)])
    wide, narrow = comparison(runs, 400), comparison(runs, 80)
    assert wide.count("best top-1") == 1
    assert narrow.count("best top-1") == 3
    assert all(f"run{number}" in narrow for number in range(5))
    assert max(map(len, narrow.splitlines())) <= 80


def test_a_file_cannot_add_a_line(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / name, 1) for name in "ab"]
    (runs[0] / "metrics.jsonl").write_text(json.dumps({"epoch": 1, "split": "val\nHighest: a", "top1": 0.5}) + "\n")
    assert not re.search(r"^Highest", comparison(read_runs(runs), 200), re.MULTILINE)


def test_run_names_are_unique(tmp_path: Path) -> None:
    paths = [write_run(tmp_path / place / "cifar100", 1) for place in ("a", "b")]
    assert [run.name for run in read_runs(paths)] == ["a/cifar100", "b/cifar100"]


def test_a_plot(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [str(write_run(tmp_path / name, 3)) for name in ("one", "two")]
    assert main(["compare", *runs, "--plot", str(tmp_path / "curves.png")]) == 0
    assert "best top-1" in capsys.readouterr().out
    with Image.open(tmp_path / "curves.png") as image:
        assert min(image.size) > 500


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.json", "{"),
        ("config.json", "[]"),
        ("config.json", '{"settings": 3}'),
        ("metrics.jsonl", "3\n"),
        ("metrics.jsonl", "{"),
        ("evaluation.json", "[" * 100_000),
    ],
)
def test_damaged_run_files(tmp_path: Path, name: str, content: str) -> None:
    folder = write_run(tmp_path / "run\x1b[31m", 2)
    (folder / name).write_text(content)
    with pytest.raises(UserError) as caught:
        read_runs([folder])
    assert_one_sentence(str(caught.value), name)


def test_a_directory_that_is_not_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare"]) == 2
    assert main(["compare", str(tmp_path)]) == 2
    assert main(["compare", str(write_run(tmp_path / "run", 1)), "--plot", str(tmp_path / "none" / "x.png")]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 3
    for line in errors:
        assert_one_sentence(line)


def test_settings_that_differ_at_their_ends_are_shown(tmp_path: Path) -> None:
    starts = [Path(f"/home/anna/cifar100/logs/pretraining_{name}/best_model.pth") for name in "ab"]
    runs = read_runs([write_run(tmp_path / start.parent.name, 1, init_from=start) for start in starts])
    shown = table_rows(comparison(runs, 200))["init_from"].split()
    assert shown[0] != shown[1]

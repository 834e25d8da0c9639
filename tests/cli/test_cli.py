"""The command line: commands and flags, help, output and error messages."""

from __future__ import annotations

import csv
import io
import json
import math
import re
import shutil
from dataclasses import fields
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from conftest import narrow_network, untrained
from PIL import Image
from torch import nn

from cifar100.cli.main import COMMANDS, main
from cifar100.cli.push import Push
from cifar100.cli.train import Train
from cifar100.config import Config
from cifar100.inference import Predictor, load_predictor
from cifar100.recipes import recipe
from cifar100.train import TrainResult

RUN = ["--data-dir", "--strict", "--run-dir", "--device", "--precision", "--compile", "--num-workers"]
RUN += ["--eval-every", "--checkpoint-every", "--save-seconds", "--dist-timeout", "--stop-after"]
RUN += ["--report", "--tensorboard", "--track"]
AUGMENT = [
    "--sampler",
    "--crop-padding",
    "--flip-probability",
    "--alternating-flip",
    "--cutout-size",
    "--cutout-probability",
]
AUGMENT += ["--policy", "--rand-ops", "--rand-magnitude"]
AUGMENT += ["--mixup-probability", "--mixup-alpha", "--cutmix-probability", "--cutmix-alpha"]
AUGMENT += ["--train-sizes", "--mean", "--std", "--pipeline"]
MODEL = ["--model", "--init-from", "--sync-bn"]
OPTIM = ["--optimizer", "--epochs", "--batch-size", "--lr", "--muon-lr"]
OPTIM += ["--schedule", "--momentum", "--nesterov", "--weight-decay", "--decay-norms", "--warmup-epochs"]
OPTIM += ["--label-smoothing", "--class-weights", "--ema-decay", "--seed"]
DATA = ["--dataset", "--image-size", "--test-fraction", "--split-seed", "--val-fraction"]
SETTINGS = [*DATA, *AUGMENT, *MODEL, *OPTIM, *RUN]
EVAL = ["--dataset", "--data-dir", "--device", "--precision"]
FOREIGN = ["--mean", "--std", "--classes"]

SURFACE = {
    "train": ["--recipe", "--resume", *SETTINGS],
    "evaluate": [
        *(*EVAL, "--split", "--per-class", "--samples", "--json"),
        *("--tta", "--exclude-duplicates", *FOREIGN),
    ],
    "robustness": [*EVAL, "--corruptions-dir", "--limit", *FOREIGN],
    "classes": ["--json"],
    "predict": [
        *("--checkpoint", "--device", "--example", "--top-k", "--batch-size", "--calibrated", "--fit", "--views"),
        *("--json", "--csv", "--montage", "--explain", *FOREIGN),
    ],
    "export": [
        *("--format", "--out", "--input-format", "--data-dir", "--images", "--runtime", "--examples", "--serve"),
        *FOREIGN,
    ],
    "similar": ["--checkpoint", "--device", "--in", "--count", "--sheet"],
    "push": ["--checkpoint", "--private", "--folder"],
    "app": ["--checkpoint", "--device", "--host", "--port", "--open", "--fit", "--views"],
    "report": [*EVAL, "--split", "--out", "--neighbors"],
    "compare": ["--plot"],
    "data download": ["--to"],
    "data check": ["--image-size"],
    "data report": ["--dataset", "--image-size", "--out"],
    "data preview": ["--dataset", "--data-dir", "--image-size", "--out", "--batch-size", "--seed", *AUGMENT],
    "data samples": ["--dataset", "--data-dir", "--image-size", "--count", "--test-fraction", "--split-seed"],
    "doctor": ["--device", "--precision", "--json"],
    "model": ["--num-classes", "--image-size"],
}


@pytest.fixture(scope="module")
def narrow_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained narrow resnet18 as a checkpoint file."""
    path = tmp_path_factory.mktemp("weights") / "model.pth"
    untrained(weights=narrow_network("resnet18", 100).state_dict()).save(path)
    return path


@pytest.fixture
def checkpoint(narrow_file: Path, narrow_checkpoints: None) -> Path:
    """The file of the narrow network, which can be loaded in this test."""
    return narrow_file


def test_the_commands() -> None:
    assert COMMANDS.keys() == SURFACE.keys()


@pytest.mark.parametrize("command", SURFACE)
def test_flags_of_each_command(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main([*command.split(), "--help"])
    assert exit_.value.code == 0
    shown = re.findall(r"^[│ ] (?:-h, )?(--[a-z][a-z0-9-]*)", capsys.readouterr().out, re.MULTILINE)
    aliases = {"--no-exclude-duplicates", "--without-duplicates", "--no-without-duplicates"}  # on separate lines
    assert [flag for flag in shown if flag not in aliases] == ["--help", *SURFACE[command]]


def test_help_of_an_option_is_one_paragraph(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is wrapped at the width of the terminal; line breaks of the source are not kept."""
    monkeypatch.setenv("COLUMNS", "1000")
    with pytest.raises(SystemExit):
        main(["evaluate", "--help"])
    assert 'in training, "all" every image of an image folder. None: test; for a folder' in capsys.readouterr().out


def test_every_setting_is_a_flag_with_a_unique_name() -> None:
    assert sorted(f"--{name.replace('_', '-')}" for name in Config().flat()) == sorted(SETTINGS)
    names = [setting.name for section in fields(Config()) for setting in fields(getattr(Config(), section.name))]
    assert len(names) == len(set(names)), "flag names must be unique"


@pytest.mark.parametrize(
    ("words", "code", "stdout"),
    [
        (["--help"], 0, "Train from scratch"),
        (["--version"], 0, "cifar100 0."),
        ([], 2, "usage: cifar100 COMMAND"),
        (["data"], 2, "usage: cifar100 data COMMAND"),
        (["data", "--help"], 0, "usage: cifar100 data COMMAND"),
        (["model", "resnet34"], 0, "Total parameters: 21,328,292"),
    ],
)
def test_exit_code_and_output(words: list[str], code: int, stdout: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == code
    assert stdout in capsys.readouterr().out


def test_evaluate_prints_a_table_and_writes_json(
    checkpoint: Path, tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "figures.json"
    words = ["--data-dir", str(tiny_data), "--per-class", "--samples", "2", "--json", str(out)]
    assert main(["evaluate", str(checkpoint), *words]) == 0
    table = capsys.readouterr().out
    figures = json.loads(out.read_text())
    assert f"top-1         {figures['top1']:7.2%}" in table
    assert len(re.findall(r"\d%( |\n)", table)) >= 100 + 20, "every class and superclass"
    assert len(figures["per_class"]) == len(figures["class_scores"]) == 100
    macro, apple = figures["macro"], figures["class_scores"]["apple"]
    assert f"precision     {macro['precision']:7.2%} {figures['weighted']['precision']:7.2%}" in table
    assert f"ROC AUC       {macro['roc_auc']:7.4f}" in table
    assert re.search(rf"apple +{apple['recall']:.2%} +{apple['precision']:.2%} +{apple['f1']:.3f}", table)
    assert len(figures["per_superclass"]) == 20
    assert figures["images"] == 100
    assert figures["versions"]["torch"]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder with good.png, =1+1.png and bad.png, which is not an image."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("good.png", "=1+1.png"):
        Image.new("RGB", (50, 40), "teal").save(folder / name)
    (folder / "bad.png").write_text("not an image")
    return folder


def predict(checkpoint: Path, *words: str | Path) -> int:
    return main(["predict", *map(str, words), "--checkpoint", str(checkpoint), "--device", "cpu", "--top-k", "3"])


def test_predict_reports_how_much_of_a_panorama_is_used(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, width in (("a.png", 250), ("b.png", 60), ("c.png", 200)):
        Image.new("RGB", (width, 50), "teal").save(tmp_path / name)
    assert predict(checkpoint, tmp_path) == 0
    line = next(line for line in capsys.readouterr().err.splitlines() if "--fit pad" in line)
    assert "20%" in line
    assert "a.png" in line
    assert "2 images" in line
    assert predict(checkpoint, tmp_path, "--fit", "pad") == 0
    assert "--fit" not in capsys.readouterr().err


def test_predict_prints_no_table_without_results(
    checkpoint: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert predict(checkpoint, photos / "bad.png") == 1
    assert "probability" not in capsys.readouterr().out


def test_predict_continues_after_an_invalid_image(
    checkpoint: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert predict(checkpoint, photos, photos / "none*") == 1
    printed = capsys.readouterr()
    assert printed.out.count("\nimage ") + printed.out.startswith("image ") == 1, "one table header"
    assert len(re.findall(r" \d+\.\d\d%  \w+ +\d+", printed.out)) == 2 * 3
    assert printed.err.splitlines() == [
        f"cifar100: {photos}/bad.png is not an image that can be read.",
        f"cifar100: No image matches {photos}/none*.",
        "cifar100: 2 of 4 images could not be read.",
    ]
    assert predict(checkpoint, photos / "good.png") == 0


def test_predict_json_has_a_line_for_each_image_or_error(
    checkpoint: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert predict(checkpoint, photos / "bad.png", photos / "good.png", "--json") == 1
    bad, good = map(json.loads, capsys.readouterr().out.splitlines())
    assert bad == {"image": str(photos / "bad.png"), "error": f"{photos}/bad.png is not an image that can be read."}
    assert set(good) == {"image", "predictions", "unsure", "reason", "model", "temperature", "fit", "views"}
    fields = {"class_name", "class_id", "probability", "superclass"}
    assert [set(item) for item in good["predictions"]] == [fields] * 3
    assert good["model"]["name"] == "model.pth"
    assert re.fullmatch("[0-9a-f]{12}", good["model"]["sha256"])


def test_predict_example_classifies_the_photos_in_the_package(
    checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert predict(checkpoint, "--example", "--json") == 0
    names = [json.loads(line)["image"] for line in capsys.readouterr().out.splitlines()]
    assert 6 <= len(names) <= 12
    assert {"bee.jpg", "tiger.jpg"} <= set(names)
    assert predict(checkpoint, "--example", "photo.jpg") == 2


def test_predict_is_calibrated_by_default(exports: Path, photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    odds = []
    for words in (["--no-calibrated"], []):
        assert predict(exports / "best.onnx", photos / "good.png", "--json", *words) == 0
        first, second, _ = json.loads(capsys.readouterr().out)["predictions"]
        odds.append(math.log(first["probability"] / second["probability"]))
    assert odds[1] == pytest.approx(odds[0] / 1.5, rel=1e-4), "the temperature of the model is 1.5"


def test_predict_csv_contains_no_formula(
    checkpoint: Path, photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(photos)
    assert predict(checkpoint, "=1+1.png", "bad.png", "--csv") == 1
    head, *rows = csv.reader(io.StringIO(capsys.readouterr().out))
    assert head[:6] == ["image", "rank", "class_name", "class_id", "probability", "error"]
    assert head[6:] == ["unsure", "reason", "model", "sha256"]
    assert [(row[0], row[1]) for row in rows] == [("'=1+1.png", rank) for rank in "123"] + [("bad.png", "")]
    assert 0 < float(rows[0][4]) <= 1
    assert rows[3][5] == "bad.png is not an image that can be read."


def test_predict_draws_sheets(
    checkpoint: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sheets = tmp_path / "sheet.png", tmp_path / "why.png"
    assert predict(checkpoint, photos, "--montage", sheets[0], "--explain", sheets[1]) == 1
    assert "wrote 2 images to" in capsys.readouterr().err
    first, second = (np.asarray(Image.open(sheet)).astype(int) for sheet in sheets)
    teal = (np.abs(first - (0, 128, 128)).max(axis=2) < 3).sum()
    assert teal == 2 * 128 * 128, "both images, uncropped"
    assert second.shape[1] > 256, "each next to its overlay"


def test_predict_prefers_the_last_run_to_the_bundled_model(
    narrow_file: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["predict", str(photos / "good.png"), "--json", "--device", "cpu"]

    def answer() -> str:
        assert main(words) == 0
        return capsys.readouterr().out

    shipped = answer()
    assert main(["classes"]) == 0
    assert "pretrained" in capsys.readouterr().out
    Path("logs/cifar100").mkdir(parents=True)
    shutil.copy(narrow_file, "logs/cifar100/best_model.pth")
    monkeypatch.setattr("cifar100.checkpoints.checkpoint.build_model", narrow_network)
    assert answer() != shipped
    assert main(["classes"]) == 0
    assert "logs/cifar100/best_model.pth" in capsys.readouterr().out
    assert Push(repo="me/m").checkpoint == Path("logs/cifar100/best_model.pth")
    good = str(photos / "good.png")
    assert main(["similar", good, "--in", good, "--device", "cpu"]) == 0
    assert load_predictor(narrow_file, device="cpu").info.digest in capsys.readouterr().out
    served: list[Predictor] = []
    monkeypatch.setattr("cifar100.web.server.serve", lambda predictor, **_: served.append(predictor))
    assert main(["app"]) == 0
    assert served[0].info.source == "logs/cifar100/best_model.pth"


def test_data_check_prints_what_a_folder_contains(tiny_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "check", str(tiny_data)]) == 1
    stdout = capsys.readouterr().out
    assert "NOT the published images" in stdout
    assert re.search(r"train +200 images  2 per class  fingerprint [0-9a-f]{64}", stdout)


def test_data_samples_writes_images_named_by_class(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "samples", str(tmp_path / "s"), "--dataset", "synthetic", "--count", "3"]) == 0
    paths = capsys.readouterr().out.split()
    assert [Path(path).name.rsplit("_", 1)[0] for path in paths] == ["apple", "mouse", "worm"]
    assert Image.open(paths[0]).size == (32, 32)


def test_data_samples_stays_in_its_directory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Classes of a file of labels may contain separators."""
    for number, label in enumerate(("../../a", "../../a", "b/c", "b/c")):
        Image.new("RGB", (8, 8), (60 * number, 0, 0)).save(tmp_path / f"{number}.png")
        with (tmp_path / "labels.csv").open("a") as file:
            file.write(f"{number}.png,{label}\n")
    out = tmp_path / "x" / "samples"
    words = ["--data-dir", str(tmp_path / "labels.csv"), "--count", "2", "--test-fraction", "0.5"]
    assert main(["data", "samples", str(out), *words]) == 0
    assert sorted(path.name for path in out.iterdir()) == [".._.._a_0.png", "b_c_1.png"]
    assert [path.name for path in out.parent.iterdir()] == ["samples"]


def test_former_flag_names_still_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = []
    monkeypatch.setattr(COMMANDS["train"], "run", lambda self: seconds.append(self.config.run.dist_timeout) or 0)
    for words in (["--peer-seconds", "7"], ["--peer_seconds=7"], ["--dist-timeout", "7"]):
        assert main(["train", *words]) == 0
    assert seconds == [7, 7, 7]


def test_a_moved_run_is_resumed_where_it_is(tmp_path: Path) -> None:
    content = {"recipe": "fast", "settings": recipe("fast").replace(run_dir=tmp_path / "before").flat()}
    (tmp_path / "now").mkdir()
    (tmp_path / "now" / "config.json").write_text(json.dumps(content))
    config = Train.default(["--resume", "--run-dir", str(tmp_path / "now")]).config
    assert (config.run.run_dir, config.optim.optimizer) == (tmp_path / "now", "muon")


def test_resume_uses_the_settings_of_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "logs" / "cifar100"
    folder.mkdir(parents=True)
    settings = Config().replace(epochs=3, lr=0.7).flat()
    (folder / "config.json").write_text(json.dumps({"recipe": "fast", "modified": True, "settings": settings}))
    resumed = Train.default(["--resume"])
    assert isinstance(resumed, Train)
    assert (resumed.recipe, resumed.config.optim.epochs, resumed.config.optim.lr) == ("fast", 3, 0.7)
    fresh = Train.default([])
    assert isinstance(fresh, Train)
    assert fresh.config == Config()


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Config]]:
    """Recipe and settings of each training that a command starts, in place of the training."""
    calls: list[tuple[str, Config]] = []

    def train(config: Config, *, recipe: str, resume: bool) -> TrainResult:
        calls.append((recipe, config))
        return TrainResult([], nn.Identity(), Path(), None)

    monkeypatch.setattr(import_module("cifar100.train"), "train", train)
    return calls


@pytest.mark.parametrize(
    ("words", "padding", "warmup"),
    [
        (["--recipe", "fast"], 2, 2),
        (["--recipe", "fast", "--epochs", "9"], 2, 2),
        (["--recipe", "fast", "--epochs", "8"], 1, 1),
        (["--recipe", "fast", "--epochs=30"], 4, 2),
        (["--epochs", "8", "--recipe", "fast", "--crop-padding", "3", "--warmup-epochs", "2"], 3, 2),
        (["--epochs", "3"], 4, 5),
    ],
)
def test_short_runs_of_the_fast_recipe_have_weaker_augmentation(
    words: list[str], padding: int, warmup: float, started: list[tuple[str, Config]]
) -> None:
    assert main(["train", *words]) == 0
    ((name, config),) = started
    assert name == ("fast" if "fast" in words else "baseline")
    assert (config.augment.crop_padding, config.optim.warmup_epochs) == (padding, warmup)


def test_classes_are_listed_by_superclass(exports: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["classes", str(exports / "best.onnx"), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["class_id"] for row in rows] == list(range(100))
    assert rows[0] == {"class_id": 0, "class_name": "apple", "superclass": "fruit_and_vegetables"}
    assert main(["classes", str(exports / "best.onnx")]) == 0
    printed = capsys.readouterr().out
    assert "\nfruit_and_vegetables: apple, " in printed
    assert all(len(line) <= 80 for line in printed.splitlines()[1:])

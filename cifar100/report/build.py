"""`cifar100 report`: evaluate a checkpoint once, for `report.write` to write the report."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cifar100.checkpoints.checkpoint import Checkpoint
from cifar100.checkpoints.hub import is_hub_address
from cifar100.checkpoints.weights import PRETRAINED, load_weights
from cifar100.compute.device import Compute, select_device
from cifar100.dataset import Dataset
from cifar100.evaluation.calibration import MAX_TEMPERATURE, MIN_TEMPERATURE, fit_temperature
from cifar100.evaluation.corruption_results import Robustness, read_results
from cifar100.evaluation.eval_split import load_eval_split
from cifar100.evaluation.evaluate import Evaluation, evaluate_split
from cifar100.report.compare import short_names
from cifar100.report.curves import History
from cifar100.report.sections import ReportInput
from cifar100.report.write import prepare_folder, write_report
from cifar100.support.errors import RunFailed, UserError
from cifar100.support.provenance import TemperatureFit


def report(
    checkpoints: Sequence[Path],
    out: Path | None = None,
    *,
    split: str | None = None,
    dataset: str | None = None,
    data_dir: Path | None = None,
    device: str = "auto",
    precision: str = "fp32",
    neighbors: bool = False,
) -> Path:
    """Evaluate the first checkpoint and write its report to `out`; returns the path of the page.

    `out` defaults to report/ next to the checkpoint, or in the working directory for "pretrained" and the Hub.
    Checkpoints are whatever `load_weights` takes; the learning curves of all are drawn in one plot. Results that
    `cifar100 robustness` saved for the first are included. The temperature is that of the weights, else one fitted on
    the validation split of the training, else a cross-fitted one. `neighbors` also shows the most similar train images
    of the most confident errors, which takes a forward pass over all train images; not for images of the train split.

    Raises UserError if a checkpoint or the data cannot be read, `out` cannot be written, or the model's outputs are
    not finite.
    """
    paths = [Path(path) for path in checkpoints]
    loaded = [load_weights(path) for path in paths]
    histories = [history_of(path, checkpoint) for path, checkpoint in zip(paths, loaded, strict=True)]
    beside = Path() if is_hub_address(paths[0]) else paths[0].parent
    out = prepare_folder(out or beside / "report")
    compute = select_device(device, precision)
    checkpoint = loaded[0]
    options: dict[str, Any] = {"dataset": dataset, "data_dir": data_dir}
    data, chosen, config = load_eval_split(checkpoint, split=split, **options)
    subject = ReportInput(
        checkpoint=checkpoint,
        name=paths[0].name,
        dataset=data,
        images=chosen.images,
        evaluation=evaluate_split(checkpoint, data, chosen, config.augment, compute, name=split),
        compute=compute,
        history=histories[0],
        robustness=saved_robustness(paths[0], checkpoint, data.test.fingerprint),
        neighbors=neighbors and split not in ("train", "val") and len(data.train) > 0,
    )
    temperature = stored_temperature(checkpoint)
    is_own = checkpoint.dataset.fingerprint in ("", data.train.fingerprint)
    if temperature is None and split in (None, "test") and config.data.val_fraction and is_own:
        _, held_out, _ = load_eval_split(checkpoint, split="val", **options)
        temperature = _fitted_on(evaluate_split(checkpoint, data, held_out, config.augment, compute, name="val"))
    folders = [path.parent for path in paths]
    names = short_names(folders if len({folder.resolve() for folder in folders}) == len(paths) else paths)
    runs = dict(zip(names, histories, strict=True)) if len(paths) > 1 else {}
    return write_report(subject, out, runs=runs, temperature=temperature)


def saved_robustness(path: Path, checkpoint: Checkpoint, fingerprint: str) -> Robustness | None:
    """The most complete results on corruptions of the test images with this fingerprint: those next to the weights, and
    for "pretrained" also those in the working directory."""
    known = read_results(path, checkpoint)
    if str(path) == "pretrained":
        known += read_results(PRETRAINED, checkpoint)
    own = [one for one in known if one.identity["fingerprint"] == fingerprint]
    return max(own, key=lambda one: (len(one.cells), one.identity["images"]), default=None)


def write_run_report(
    checkpoint: Checkpoint,
    dataset: Dataset,
    evaluation: Evaluation,
    *,
    held_out: Evaluation | None,
    compute: Compute,
    name: str,
    out: Path,
) -> str:
    """Write the report on the last epoch of a run; returns a log line: the path of the page, or why it was not written.

    A report that fails does not end the run. The temperature is fitted on `held_out`, the validation split, if any.
    """
    subject = ReportInput(
        checkpoint=checkpoint,
        name=name,
        dataset=dataset,
        images=dataset.test.images,
        evaluation=evaluation,
        compute=compute,
        history=checkpoint.history,
    )
    try:
        page = write_report(subject, out, temperature=None if held_out is None else _fitted_on(held_out))
    except (UserError, RunFailed) as error:
        return f"Report    not written: {error}"
    return f"Report    {page}"


def stored_temperature(checkpoint: Checkpoint) -> TemperatureFit | None:
    """The temperature stored with the weights; None if there is none, or it was fitted on the test images, on which it
    would then be evaluated."""
    fit = checkpoint.calibration
    if fit is None or not MIN_TEMPERATURE <= fit.temperature <= MAX_TEMPERATURE or fit.fitted_on == "test-crossfit":
        return None
    return fit


def _fitted_on(held_out: Evaluation) -> TemperatureFit:
    temperature = fit_temperature(held_out.logits, held_out.labels)
    return TemperatureFit(temperature=temperature, fitted_on="val", num_images=held_out.images)


def history_of(path: Path, checkpoint: Checkpoint) -> History:
    """The history of the checkpoint's run, including later rows if its directory has them."""
    rows = checkpoint.history
    try:
        lines = (path.parent / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        all_rows = [json.loads(line) for line in lines]
    except (OSError, ValueError, RecursionError):
        return rows
    is_same_run = rows and all_rows[: len(rows)] == rows and all(isinstance(row, dict) for row in all_rows)
    return all_rows if is_same_run else rows

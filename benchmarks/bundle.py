"""Make the bundled weights from a run: fp16, with their results on the test images and a temperature.

    python benchmarks/bundle.py RUN/last.pth --sibling HELD_OUT/last.pth --data-dir DIR [--out FILE]

The temperature is fitted on the train images that the sibling held out (`--val-fraction`); it is a training with the
same settings otherwise. Both may also be .safetensors files.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from cifar100.checkpoints.weights import PRETRAINED, load_weights, save_weights
from cifar100.config import Config
from cifar100.evaluation.calibration import fit_temperature
from cifar100.evaluation.evaluate import evaluate
from cifar100.recipes import RECIPES, is_modified
from cifar100.support.provenance import TemperatureFit

FIGURES = ("split", "images", "loss", "top1", "top5", "superclass_top1", "per_superclass", "per_class", "compute")


def main() -> None:
    """Evaluate the weights as they will be saved, fit the temperature, and write both files."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--sibling", type=Path, required=True)
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--out", type=Path, default=PRETRAINED)
    args = parser.parse_args()

    run, sibling = load_weights(args.run), load_weights(args.sibling)
    config = Config.from_flat(run.config)
    expected = config.replace(val_fraction=sibling.config["val_fraction"])
    differences = expected.differences(replace(Config.from_flat(sibling.config), run=config.run))
    assert not differences, f"The sibling has other settings: {differences}"
    save_weights(run, args.out, "fp16")
    figures = evaluate(args.out, split="test", data_dir=args.data_dir).to_json()
    held_out = evaluate(sibling, split="val", data_dir=args.data_dir)
    run.evaluation = {name: figures[name] for name in FIGURES}
    run.calibration = TemperatureFit(
        temperature=round(fit_temperature(held_out.logits, held_out.labels), 3),
        fitted_on="sibling-val",
        num_images=held_out.images,
    )
    run.recipe = next((name for name in RECIPES if not is_modified(name, config)), run.recipe)
    run.modified = is_modified(run.recipe, config)
    run.config = config.flat()
    save_weights(run, args.out, "fp16")
    fit = run.calibration
    print(f"{args.out}: recipe {run.recipe}, top-1 {figures['top1']:.2%}, temperature {fit.temperature} {fit.origin}")


if __name__ == "__main__":
    main()

"""Why did it say that: Grad-CAM, where in an image a network saw the class that it names.

explain = load_explainer("logs/cifar100/best_model.pth")
for explanation in explain(["photo.jpg", "other.jpg"]):
    print(explanation.predictions[0].class_name)
    Image.fromarray(explanation.overlay).save("why.png")

Grad-CAM (Selvaraju et al. 2017, https://arxiv.org/abs/1610.02391) weighs the maps A^k of one layer by the mean gradient
of the class's logit y over each, and keeps what speaks for the class: relu(sum_k w_k A^k), w_k = mean_ij dy/dA^k_ij.

The layer is the output of the last stage, `layer4`. After it come only the mean over the map and the linear layer, so
the gradient is the same in every cell, the weights are the class's own, and what the cells say adds up to the logit:
it is CAM (Zhou et al. 2016, https://arxiv.org/abs/1512.04150), exact. An earlier stage is finer, but what its channels
mean for a class still changes from place to place, and the mean gradient blurs that. The price is the size: images of
32 pixels give a map of 4x4 cells, 8 pixels each, so it says which part of a picture counted, not which edge.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.nn import functional as F

from cifar100.augmentation.batched import normalize
from cifar100.checkpoints.checkpoint import Checkpoint
from cifar100.checkpoints.weights import load_weights
from cifar100.compute.device import Compute, select_device
from cifar100.evaluation.metrics import softmax
from cifar100.images.convert import to_model_input
from cifar100.model import ResNet, fold_batch_norms
from cifar100.prediction.overlay import overlay
from cifar100.prediction.predictor import Prediction
from cifar100.support.errors import UserError
from cifar100.support.text import escape_control_chars

BATCH_SIZE = 128
"""Images that are explained at once."""


def grad_cam(model: ResNet, images: Tensor, classes: Sequence[int] | Tensor | None = None) -> tuple[Tensor, Tensor]:
    """What the network says of normalised images [B, 3, H, W], and where it saw it.

    Gives the logits, float32 [B, C], and a map for each image, float32 [B, h, w] in 0..1, of the evidence for
    `classes` [B], or for the likeliest class of each where None. 1 is where a map is highest, 0 where nothing speaks
    for the class; a map is 0 everywhere where nothing does anywhere. Works in whatever autocast it is called, on the
    device of the images, in `eval()`; parameters get no gradients, and the training mode is left as it was.
    Raises ValueError where there are not as many classes as images, or one that the network does not have.
    """
    kept: list[Tensor] = []

    def keep(_module: object, _inputs: object, output: Tensor) -> Tensor:
        torch.set_grad_enabled(True)  # from here on alone; ends with the block below
        kept.append(output.detach().float().requires_grad_())
        return kept[0]

    was_training = model.training
    hook = model.layer4.register_forward_hook(keep)
    try:
        with torch.inference_mode(False), torch.no_grad():
            logits = model.eval()(images).float()
            chosen = logits.argmax(dim=1) if classes is None else torch.as_tensor(classes, device=logits.device)
            if chosen.shape != logits.shape[:1] or ((chosen < 0) | (chosen >= logits.shape[1])).any():
                raise ValueError(f"classes must be {len(logits)} ids in 0..{logits.shape[1] - 1}")
            (gradients,) = torch.autograd.grad(logits.gather(1, chosen[:, None]).sum(), kept)
    finally:
        hook.remove()
        model.train(was_training)
    features = kept[0].detach()  # [B, K, h, w]
    weights = gradients.mean(dim=(2, 3), keepdim=True)  # [B, K, 1, 1]
    maps = F.relu((weights * features).sum(dim=1))
    highest = maps.amax(dim=(1, 2), keepdim=True)
    return logits.detach(), torch.where(highest > 0, maps / highest, 0)


@dataclass(frozen=True)
class Explanation:
    """What is seen in an image, and where."""

    predictions: list[Prediction]
    """The likeliest classes, the likeliest first."""
    class_id: int
    """The class whose evidence the map shows."""
    pixels: np.ndarray
    """What the network was shown, uint8 [S, S, 3]."""
    heat: np.ndarray
    """Where the evidence for that class is, float32 [h, w] in 0..1."""

    @property
    def overlay(self) -> np.ndarray:
        """The map laid over the picture, uint8 [S', S', 3]."""
        return overlay(self.pixels, self.heat)


class Explainer:
    """What a Predictor says, and why. Made by `load_explainer`; loads nothing more when it is called."""

    def __init__(self, checkpoint: Checkpoint, compute: Compute) -> None:
        self.model = compute.place(fold_batch_norms(checkpoint.build())).to(compute.dtype)
        self.compute = compute
        self.classes = tuple(checkpoint.classes)
        self.image_size = checkpoint.image_size
        self.mean, self.std = tuple(checkpoint.mean), tuple(checkpoint.std)

    def __call__(self, images: Iterable[Any], *, top_k: int = 5, class_id: int | None = None) -> Iterator[Explanation]:
        """An explanation for each image as it comes: of its likeliest class, or of the class that is named.

        `images` are whatever `to_model_input` accepts. Raises UserError where one is no image, or there is no
        such class.
        """
        if class_id is not None and not 0 <= class_id < len(self.classes):
            raise UserError(f"There is no class {class_id}; they run from 0 to {len(self.classes) - 1}.")
        remaining = iter(images)
        while batch := [to_model_input(image, self.image_size) for image in islice(remaining, BATCH_SIZE)]:
            with self.compute.autocast():
                inputs = normalize(torch.from_numpy(np.stack(batch)).to(self.compute.device), self.mean, self.std)
                logits, maps = grad_cam(self.model, inputs, None if class_id is None else [class_id] * len(batch))
            for pixels, likely, heat in zip(batch, softmax(logits.cpu().numpy()), maps.cpu().numpy(), strict=True):
                order = np.argsort(-likely, kind="stable")[:top_k].tolist()
                predictions = [Prediction(self.classes[i], i, float(likely[i])) for i in order]
                yield Explanation(predictions, order[0] if class_id is None else class_id, pixels, heat)


def load_explainer(path: str | Path = "pretrained", *, device: str = "auto", precision: str = "auto") -> Explainer:
    """An Explainer from a file of weights: a checkpoint (.pth), a .safetensors with its .json, or "pretrained".

    Its answers are those of `load_predictor` with the same arguments. Raises UserError as that does.
    """
    compute = select_device(device, precision)
    checkpoint = load_weights(path)
    try:
        return Explainer(checkpoint, compute)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def draw_explanations(explanations: Sequence[Explanation], titles: Sequence[str]) -> Image.Image:
    """A picture: a row an image, the image beside its overlay, its title and what was seen in it."""
    font, margin, text_width = ImageFont.load_default(15), 16, 280
    tiles = [explanation.overlay for explanation in explanations]
    side = max(len(tile) for tile in tiles)
    sheet = Image.new("RGB", (2 * side + text_width + 4 * margin, (side + margin) * len(tiles) + margin), "white")
    pen = ImageDraw.Draw(sheet)
    for row, (explanation, title, tile) in enumerate(zip(explanations, titles, tiles, strict=True)):
        top = margin + row * (side + margin)
        original = Image.fromarray(explanation.pixels).resize((side, side), Image.Resampling.NEAREST)
        sheet.paste(original, (margin, top))
        sheet.paste(Image.fromarray(tile), (2 * margin + side, top))
        lines = [escape_control_chars(title), ""]
        lines += [f"{p.probability:7.2%}  {p.class_name}" for p in explanation.predictions]
        pen.multiline_text((3 * margin + 2 * side, top), "\n".join(lines), fill="black", font=font, spacing=6)
    return sheet

"""The verdict of a report: what the headline metrics mean."""

from __future__ import annotations

from cifar100.evaluation.evaluate import Evaluation
from cifar100.report.sections import percent, split_images
from cifar100.report.style import display_name

MIN_CLASSES_FOR_TOP5 = 6


def verdict(evaluation: Evaluation) -> str:
    """Two sentences: how many images are classified correctly; the least and the most accurate class, or that
    the mean recall is not better than chance."""
    first = f"Of {split_images(evaluation)}, {percent(evaluation.top1)} are classified correctly"
    if len(evaluation.classes) >= MIN_CLASSES_FOR_TOP5:
        first += f"; for {percent(evaluation.top5)} the true class is among the five most likely"
    accuracies = evaluation.per_class
    if 1 < len(accuracies) == len(evaluation.classes) and not evaluation.is_better_than_chance:
        chance = percent(evaluation.chance)
        return f"{first}. The mean recall of the classes is not better than chance, {chance}."
    low, high = (choose(accuracies, key=accuracies.__getitem__) for choose in (min, max))
    if accuracies[low] == accuracies[high]:
        return f"{first}."
    return (
        f"{first}. The accuracy is lowest for {display_name(low)} ({percent(accuracies[low], 0)}) and highest for "
        f"{display_name(high)} ({percent(accuracies[high], 0)})."
    )

"""What a teacher would say of a training that goes wrong, from its history."""

from __future__ import annotations

import math
from collections.abc import Sequence

from labreport.evidence.tables import percent
from labreport.records.record import Epoch

GAP = 0.15  # of training over validation accuracy


def notes(history: Sequence[Epoch], num_classes: int, lr: float) -> dict[str, str]:
    """Notes on the last epoch of `history`, by kind: `diverges`, `one class`, `ln K`, `by heart`; mostly none."""
    row, at_first = history[-1], math.log(num_classes)
    told = f"after epoch {row.epoch}"
    found = {}
    if row.train_loss > 1.1 * at_first and (row.val_loss or math.inf) > 0.9 * at_first:
        found["diverges"] = (
            f"{told} the loss is {row.train_loss:.3g}, above the ln {num_classes} = {at_first:.3f} of a network that "
            f"knows nothing: the steps are too long; try a rate of {lr / 10:g} instead of {lr:g} (chapter 1, before "
            "the first step)"
        )
    if row.val_accuracy is not None and abs(row.val_accuracy - 1 / num_classes) < 0.003:
        found["one class"] = (
            f"{told} the validation accuracy is {percent(row.val_accuracy)}, what naming a single class for every "
            "image gives; a few more steps may help, but at a rate too high all ReLUs can close and nothing is learned "
            "any more (chapter 1, the gradient)"
        )
    elif abs(row.train_loss - at_first) < 0.01 * at_first:
        found["ln K"] = (
            f"{told} the loss is {row.train_loss:.3f}, still at ln {num_classes}, as before the first step: the rate "
            f"is too low ({lr:g}), or hardly any gradient arrives at the first layers (chapter 1, before the first "
            "step)"
        )
    if row.val_accuracy is not None and row.train_accuracy - row.val_accuracy > GAP:
        found["by heart"] = (
            f"{told} the training accuracy is {percent(row.train_accuracy)}, the validation accuracy "
            f"{percent(row.val_accuracy)}: it learns its images by heart; dropout, flips and shifts, weight decay or "
            "fewer epochs help (chapter 3)"
        )
    return found

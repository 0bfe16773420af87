"""What a trained network says of images, and how good that is."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from labreport.images import augment
from labreport.records.record import Predictions, Score
from labreport.training.run import DeviceSplit, Run

EVAL_BATCH = 500


def views(images: Tensor, tta: str) -> list[tuple[float, Tensor]]:
    """The views that a test-time average sees, weighted: the image and its mirror image, and two shifts of each."""
    if tta == "none":
        return [(1.0, images)]
    if tta == "flip":
        return [(0.5, images), (0.5, images.flip(-1))]
    side = images.shape[-1]
    padded = F.pad(images, (1, 1, 1, 1), "reflect")
    shifted = [padded[:, :, :side, :side], padded[:, :, 2:, 2:]]
    weighted = [(0.25, images), *((0.125, view) for view in shifted)]
    return [(weight, side_view) for weight, view in weighted for side_view in (view, view.flip(-1))]


@torch.inference_mode()
def predict(run: Run, split: DeviceSplit, tta: str = "none", epoch: int | None = None) -> Tensor:
    """Logits (N, num_classes) float32 of a whole split, in evaluation mode, in its order.

    The images have the size that they have in training at `epoch`, or by default their own.
    """
    run.model.eval()
    logits = []
    for inputs in split.inputs.split(EVAL_BATCH):
        if inputs.ndim == 4:
            inputs = augment.normalize(inputs.permute(0, 3, 1, 2), run.recipe.normalization)
            side = inputs.shape[-1] if epoch is None else run.recipe.image_side(epoch, inputs.shape[-1])
            inputs = augment.resize(inputs, side).contiguous(memory_format=torch.channels_last)
        seen = views(inputs, tta) if inputs.ndim == 4 else [(1.0, inputs)]
        with torch.autocast(run.device.type, torch.bfloat16, enabled=run.autocast):
            logits.append(sum(weight * run.model(view).float() for weight, view in seen))
    return torch.cat(logits)


def score(logits: Tensor, labels: Tensor) -> Score:
    """Mean cross-entropy and accuracy of logits (N, num_classes) against labels (N,)."""
    hits = (logits.argmax(1) == labels).sum().item()
    return Score(F.cross_entropy(logits, labels).item(), hits / len(labels), len(labels))


def predictions(model: nn.Module, logits: Tensor, labels: Tensor, pictures: Tensor) -> Predictions:
    """What a record keeps of logits (N, num_classes) for test images (N, 3, 32, 32) uint8 with labels (N,)."""
    log_probabilities = rounded(logits.cpu().double().log_softmax(1).numpy())
    labels = labels.cpu()
    confidence, predicted = torch.from_numpy(log_probabilities).float().max(1)
    ranking = confidence.argsort(descending=True, stable=True)
    right = ranking[predicted[ranking] == labels[ranking]]
    best_of_class = [right[labels[right] == label][:1] for label in labels.unique()]
    wrong = ranking[predicted[ranking] != labels[ranking]]
    examples = torch.cat([*best_of_class, wrong[: len(best_of_class)]])
    first = next((m.weight for m in model.modules() if isinstance(m, nn.Conv2d)), torch.empty(0))
    return Predictions(
        labels=labels.numpy().astype(np.uint8),
        log_probabilities=log_probabilities,
        example_indices=examples.numpy(),
        example_images=pictures[examples].cpu().numpy(),
        first_kernels=first.detach().float().cpu().numpy(),
    )


def rounded(log_probabilities: np.ndarray) -> np.ndarray:
    """(N, num_classes) as float16, with the same largest class in every row, where rounding would have made two."""
    half = log_probabilities.astype(np.float16)
    rows, best = np.arange(len(half)), log_probabilities.argmax(axis=1)
    tied = half == half[rows, best][:, None]
    tied[rows, best] = False
    return np.where(tied, np.nextafter(half, np.float16(-np.inf)), half)

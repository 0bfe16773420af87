"""How far a training is, for whoever looks on: in lines, on a notebook's panel, in a file for other processes."""

from __future__ import annotations

import dataclasses
import datetime
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TextIO

import torch
from torch import Tensor, nn

from labreport.evidence.tables import duration
from labreport.records.record import Epoch

TELL = 1.0  # seconds between two stages within an epoch
LOOK = 0.02  # seconds between two batches whose loss is read
POINTS = 240  # of the running loss that are kept


@dataclass(frozen=True)
class Stage:
    """How far one training is. `resumed` epochs are an earlier process's.

    `seen` images of the epoch under way are done, `rate` a second; `left` seconds remain, or None where nothing is
    known. `running` holds (epochs, loss) within the epochs, a mean over the batches read since the point before.
    `ended` says how it ended, and is empty until then; `elsewhere`: another process is at it.
    """

    title: str
    seed: int
    epochs: int
    images: int  # an epoch
    device: str = ""
    since: str = ""
    resumed: int = 0
    seen: int = 0
    rate: float = 0.0
    left: float | None = None
    history: tuple[Epoch, ...] = ()
    running: tuple[tuple[float, float], ...] = ()
    notes: tuple[str, ...] = ()
    ended: str = ""
    elsewhere: bool = False

    @property
    def label(self) -> str:
        return f"{self.title}, seed {self.seed}"

    @property
    def share(self) -> float:
        """Of all images of all epochs."""
        return (len(self.history) + self.seen / max(self.images, 1)) / self.epochs

    @property
    def beginning(self) -> str:
        """What is to be done, where, and about how long it takes."""
        epochs = f"{self.epochs} epochs" if self.epochs > 1 else "1 epoch"
        what = f"going on after epoch {self.resumed} of {self.epochs}" if self.resumed else epochs
        about = f", about {duration(self.left)}" if self.left is not None else ""
        return f"{what} of {self.images:,} images on {self.device}{about}"

    @property
    def state(self) -> str:
        """How far it is: `epoch 2/4, 38 %, 5,450 images/s, 22 s left, loss 1.532, validation 44.10 %`."""
        if self.elsewhere and not self.images:
            return "its first epoch"
        parts = [f"epoch {min(len(self.history) + 1, self.epochs)}/{self.epochs}", f"{self.share:.0%}"]
        parts += [f"{self.rate:,.0f} images/s"] if self.rate else []
        parts += [f"{duration(self.left)} left"] if self.left is not None else []
        loss = self.running[-1][1] if self.running else self.history[-1].train_loss if self.history else None
        parts += [f"loss {loss:.3f}"] if loss is not None else []
        if self.history and (accuracy := self.history[-1].val_accuracy) is not None:
            parts.append(f"validation {accuracy:.2%}")
        return ", ".join(parts).replace("%", " %").replace("  %", " %")

    @classmethod
    def of(cls, raw: dict[str, Any]) -> Stage:
        """The stage that `dataclasses.asdict` and JSON have made plain.

        Raises:
            ValueError: it is not one.
        """
        try:
            history = tuple(Epoch(**row) for row in raw["history"])
            running = tuple((at, loss) for at, loss in raw["running"])
            return cls(**raw | {"notes": tuple(raw["notes"]), "history": history, "running": running})
        except (KeyError, TypeError) as error:
            raise ValueError(f"not a stage of a training ({error})") from error


Watch = Callable[[Stage], None]


class Progress:
    """Follows one training in this process and tells a `Watch` of it, within an epoch at most once a second."""

    def __init__(self, stage: Stage, work: Sequence[float], tell: Watch):
        """`work` is what an image of each epoch costs, relative to the others."""
        self.stage, self._kinds = stage, set[str]()
        self._work, self._tell = work, tell
        self._losses: list[float] = []
        self._began = self._told = time.monotonic()
        self._told_seen = 0
        tell(self.stage)

    def tell(self, **changes) -> None:
        """Change the stage, and tell it."""
        self.stage = dataclasses.replace(self.stage, **changes)
        self._tell(self.stage)

    def say(self, note: str) -> None:
        """Add a note."""
        self.tell(notes=(*self.stage.notes, note))

    def begin(self, history: Sequence[Epoch], seconds_per_image: float | None = None) -> None:
        """The work begins, after what an earlier process has done; so long did an image take in a trial."""
        self._began = self._told = time.monotonic()
        now = datetime.datetime.now().isoformat(sep=" ", timespec="minutes")
        self.stage = dataclasses.replace(self.stage, since=now, history=tuple(history), resumed=len(history))
        self.tell(left=seconds_per_image and self._to_do() * seconds_per_image)

    def count(self, images: int, loss: float | None = None) -> None:
        """So many more images of the epoch are done; `loss` is that of a batch, where it was read."""
        seen = min(self.stage.seen + images, self.stage.images)
        self.stage = dataclasses.replace(self.stage, seen=seen)
        if loss is not None:
            self._losses.append(loss)
        now = time.monotonic()
        if now - self._told >= TELL:
            rate = (seen - self._told_seen) / (now - self._told)
            running = self.stage.running
            if self._losses:
                at = len(self.stage.history) + seen / self.stage.images
                running = thinned((*running, (at, sum(self._losses) / len(self._losses))))
            self._losses.clear()
            self._told, self._told_seen = now, seen
            self.tell(rate=rate, left=self._seconds_left(now), running=running)

    def end_epoch(self, history: Sequence[Epoch], notes: Mapping[str, str]) -> None:
        """An epoch is done and measured; of the notes on it, by kind, those of a new kind are told."""
        now = time.monotonic()
        self._told, self._told_seen = now, 0
        rate = self.stage.images / history[-1].seconds if history[-1].seconds else 0.0
        new = tuple(note for kind, note in notes.items() if kind not in self._kinds)
        self._kinds |= notes.keys()
        self.stage = dataclasses.replace(self.stage, history=tuple(history), seen=0, notes=self.stage.notes + new)
        self.tell(rate=rate, left=self._seconds_left(now))

    def _to_do(self) -> float:
        """Of the whole training's work, in images of the network's own size."""
        done = len(self.stage.history)
        here = self._work[done] * self.stage.seen if done < len(self._work) else 0.0
        return sum(self._work[done:]) * self.stage.images - here

    def _seconds_left(self, now: float) -> float | None:
        done = sum(self._work[self.stage.resumed :]) * self.stage.images - self._to_do()
        return (now - self._began) * self._to_do() / done if done else self.stage.left


def thinned(points: tuple[tuple[float, float], ...]) -> tuple[tuple[float, float], ...]:
    """The points; where they are too many, the mean of every two neighbours but the last."""
    if len(points) <= POINTS:
        return points
    pairs = zip(points[:-1:2], points[1:-1:2], strict=False)
    return (*(((a + b) / 2, (c + d) / 2) for (a, c), (b, d) in pairs), points[-1])


@contextmanager
def each_step(model: nn.Module, count: Callable[[int, float | None], None]) -> Iterator[None]:
    """While it lasts, `count(images, loss)` is told of every training step of `model`; the loss of some, else None.

    The step's own code stays as it is. It shows its loss to nobody, but a cross-entropy's gradient at the logits is
    (p − y)/N (chapter 1): so the targets are y = p − N × gradient, and the loss is −Σ y log p.
    """
    looked = -TELL

    def read(logits: Tensor, gradient: Tensor) -> None:
        log_p = logits.float().log_softmax(1)
        targets = log_p.exp() - len(logits) * gradient.float()
        count(0, -(targets * log_p).sum(1).mean().item())

    def look(module: nn.Module, _: tuple[Tensor, ...], logits: Tensor) -> None:
        nonlocal looked
        if not (module.training and torch.is_grad_enabled()):
            return
        # A look at a GPU's number makes it wait, so there are fewer of them there.
        if (now := time.monotonic()) - looked >= (TELL if logits.is_cuda else LOOK):
            looked = now
            logits.register_hook(partial(read, logits.detach()))
        count(len(logits), None)

    hook = model.register_forward_hook(look)
    try:
        yield
    finally:
        hook.remove()


class Lines:
    """Trainings as plain lines: the beginning, the end, every note, and one every `seconds` between.

    On a terminal one line moves instead.
    """

    def __init__(self, stream: TextIO | None = None, seconds: float = 30.0):
        # A notebook shows what is on stderr as a failure.
        self._stream = stream or (sys.stdout if "ipykernel" in sys.modules else sys.stderr)
        self._moves = self._stream.isatty()
        self._seconds = 0.5 if self._moves else seconds
        self._said: set[str] = set()
        self._told = 0.0

    def __call__(self, stage: Stage) -> None:
        for note in stage.notes:
            self._once(f"{stage.label}, note: {note}")
        if stage.ended:
            self._line(f"{stage.label}: {stage.ended}")
        elif stage.elsewhere:
            self._once(f"{stage.label}: in progress in another process; waiting for it")
            self._now_and_then(stage)
        elif stage.since and self._once(f"{stage.label}: {stage.beginning}", key=stage.label):
            self._told = time.monotonic()
        else:
            self._now_and_then(stage)

    def _now_and_then(self, stage: Stage) -> None:
        if (stage.rate or stage.elsewhere) and time.monotonic() - self._told >= self._seconds:
            self._told = time.monotonic()
            text = f"{stage.label}: {stage.state}"
            print(f"\r{text}\x1b[K" if self._moves else text, end="" if self._moves else "\n", file=self._stream)
            self._stream.flush()

    def _once(self, text: str, key: str = "") -> bool:
        if (key or text) in self._said:
            return False
        self._said.add(key or text)
        self._line(text)
        return True

    def _line(self, text: str) -> None:
        print(f"\r{text}\x1b[K" if self._moves else text, file=self._stream, flush=True)

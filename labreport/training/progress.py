"""How far a training is: a moving bar on a terminal, a line a minute in a log."""

from __future__ import annotations

import sys
from functools import partial

from tqdm import tqdm

LOG_INTERVAL = 60.0  # seconds


class LogLines:
    """A file for tqdm that ends each of the bar's states with a line feed, instead of overwriting it."""

    def write(self, text: str) -> None:
        if text.strip():
            print(text.strip(), file=sys.stderr, flush=True)

    def flush(self) -> None:
        sys.stderr.flush()


def progress(label: str, total: int, done: int) -> tqdm:
    """A bar over `total` images of which `done` are trained on already; to be used in a `with`."""
    bar = partial(tqdm, desc=label, total=total, initial=done, unit="img", unit_scale=True)
    if sys.stderr.isatty():
        return bar(mininterval=0.5, file=sys.stderr)
    words = "{desc}: {percentage:.0f} % after {elapsed}, about {remaining} left, {rate_fmt}{postfix}"
    return bar(mininterval=LOG_INTERVAL, file=LogLines(), bar_format=words)

"""Errors in a notebook as one sentence: those that this suite raises on purpose, and the interrupt of its work."""

from __future__ import annotations

import linecache
import os
from types import TracebackType
from typing import Any

from labreport import paths

PACKAGE = f"{paths.PACKAGE}{os.sep}"


def in_sentences() -> None:
    """In IPython, show such errors without a traceback from now on. The cell fails all the same."""
    try:
        from IPython import get_ipython
    except ImportError:
        return
    if shell := get_ipython():
        shell.set_custom_exc((ValueError, RuntimeError, OSError, KeyboardInterrupt), _show)


def _show(shell: Any, kind: type, error: BaseException, traceback: TracebackType, tb_offset: int | None = None) -> Any:
    text = sentence(error, traceback)
    if not text:
        shell.showtraceback((kind, error, traceback), tb_offset=tb_offset)
        return None
    shell._showtraceback(kind, error, [text])
    return [text]


def sentence(error: BaseException, traceback: TracebackType | None) -> str:
    """What to say of an error instead of its traceback; empty where that is needed."""
    places = []
    while traceback:
        places.append((traceback.tb_frame.f_code.co_filename, traceback.tb_lineno))
        traceback = traceback.tb_next
    if isinstance(error, KeyboardInterrupt):
        inside = any(file.startswith(PACKAGE) for file, _ in places)
        return " ".join(str(error).split()) or ("interrupted; run this cell again" if inside else "")
    # Raised by a line of ours that says so; what a library or a slip raises is a bug, and its traceback is wanted.
    file, line = places[-1]
    ours = file.startswith(PACKAGE) and linecache.getline(file, line).lstrip().startswith("raise ")
    return " ".join(str(error).split()) if ours else ""

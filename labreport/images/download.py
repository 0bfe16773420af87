"""CIFAR-10's archive fetched and unpacked, all of it or nothing."""

from __future__ import annotations

import contextlib
import http.client
import shutil
import socket
import ssl
import tarfile
import tempfile
import time
import urllib.error
from collections.abc import Iterator
from pathlib import Path

from labreport.images.splits import DataError

FOLDER = "cifar-10-batches-py"
ARCHIVE = "cifar-10-python.tar.gz"
SOCKET_TIMEOUT = 20.0  # seconds of silence after which a server counts as unreachable


class UnreachableError(Exception):
    """The server cannot be reached."""


def download(folder: Path) -> Path:
    """Fetch the archive by torchvision (progress bar, md5) and unpack it in `folder`.

    Raises:
        UnreachableError: there is no network, or the server does not answer.
        DataError: what arrived is not the official archive, or it cannot be written.
    """
    from labreport._torchvision import torchvision  # takes more than a second, and only a download needs it

    source = torchvision.datasets.CIFAR10
    try:
        with _temporary_folder(folder) as partial, _socket_timeout(SOCKET_TIMEOUT):
            torchvision.datasets.utils.download_url(source.url, partial, ARCHIVE, source.tgz_md5)
            return unpack(partial / ARCHIVE, folder)
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError, ssl.SSLError) as error:
        raise UnreachableError(f"{source.url} cannot be reached ({error})") from error
    except RuntimeError as error:
        raise DataError(
            f"{source.url}: what arrived is not the official archive (its md5 is not {source.tgz_md5}); nothing was "
            "kept: try again, or name a folder that holds the data"
        ) from error
    except OSError as error:
        raise DataError(
            f"{folder}: the download cannot be written there ({error}); make room, or name a folder"
        ) from error


def unpack(archive: Path, folder: Path) -> Path:
    """Unpack the batch files of `archive` into `folder`/cifar-10-batches-py, all of them or nothing."""
    target = folder / FOLDER
    try:
        with _temporary_folder(folder) as partial:
            with tarfile.open(archive) as tar:
                tar.extractall(partial, filter="data")
            if not (partial / FOLDER).is_dir():
                raise DataError(f"{archive}: holds no folder {FOLDER}; replace it by the official archive")
            try:
                (partial / FOLDER).rename(target)
            except OSError:
                if not target.is_dir():  # else another process unpacked the same archive first
                    raise
    except (tarfile.TarError, EOFError, OSError) as error:
        raise DataError(f"{archive}: cannot be unpacked in {folder} ({error}); delete it and get it again") from error
    return target


@contextlib.contextmanager
def _temporary_folder(folder: Path) -> Iterator[Path]:
    """A folder inside `folder`, so that renaming out of it is atomic; removed in the end."""
    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.glob(".cifar-10-*.partial"):  # by a process that was killed; a day is longer than any download
        if time.time() - left.stat().st_mtime > 86_400:
            shutil.rmtree(left, ignore_errors=True)
    partial = Path(tempfile.mkdtemp(prefix=".cifar-10-", suffix=".partial", dir=folder))
    try:
        yield partial
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@contextlib.contextmanager
def _socket_timeout(seconds: float) -> Iterator[None]:
    """Let every new socket fail after `seconds` of silence: torchvision sets no limit of its own."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)

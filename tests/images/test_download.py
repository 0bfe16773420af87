"""The download against servers on this machine that are slow, break off, lie about their file, or serve another."""

import contextlib
import hashlib
import http.server
import io
import multiprocessing
import os
import random
import re
import socket
import tarfile
import threading
from pathlib import Path

import pytest

from labreport._torchvision import torchvision
from labreport.images import cifar10 as data
from labreport.images import download
from labreport.images.splits import DataError

CONTENT = b"\x1f\x8b" + random.Random(0).randbytes(300_000)  # begins as a gzip archive does


class Server(http.server.ThreadingHTTPServer):
    """Serves `content` on 127.0.0.1, faithfully unless told otherwise."""

    daemon_threads = True

    def __init__(self, content: bytes = CONTENT):
        self.content = content
        self.limit: int | None = None  # bytes after which an answer breaks off
        self.length: int | None = None  # what the headers say of the file's length
        self.ranges = True  # whether parts can be asked for
        self.status = 200
        self.asked: list[str | None] = []  # each request's range
        self.sent = 0
        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/cifar-10-python.tar.gz"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self):
        server, asked = self.server, self.headers["Range"]
        server.asked.append(asked)
        start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1]) if asked and server.ranges else 0
        length = len(server.content) if server.length is None else server.length
        self.send_response(206 if start and server.status == 200 else server.status)
        self.send_header("Content-Length", str(length - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{length - 1}/{length}")
        self.end_headers()
        body = server.content[start:][: server.limit]
        server.sent += len(body)
        with contextlib.suppress(ConnectionError):  # the client hangs up as soon as it knows enough
            self.wfile.write(body)

    def log_message(self, *args):
        pass


@pytest.fixture
def serve(monkeypatch, home):
    """Starts servers that are the sources, in this order, of an archive like the first one's."""
    with contextlib.ExitStack() as stack:

        def start(*servers: Server) -> None:
            content = CONTENT if any(server.content == CONTENT for server in servers) else servers[0].content
            monkeypatch.setattr(download, "SOURCES", tuple(server.url for server in servers))
            monkeypatch.setattr(download, "SIZE", len(content))
            monkeypatch.setattr(download, "MD5", hashlib.md5(content).hexdigest())
            monkeypatch.setattr(download, "WORTHWHILE", 1_000)
            for server in servers:
                stack.enter_context(server)
                threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
                stack.callback(server.shutdown)

        yield start


@pytest.fixture
def partial(tmp_path) -> Path:
    return tmp_path / "archive.download"


def refused(partial: Path, *fragments: str) -> None:
    """The download fails with one line that holds every fragment."""
    with pytest.raises(DataError) as caught:
        download._fetch(partial)
    message = str(caught.value)
    assert "\n" not in message
    for fragment in fragments:
        assert fragment in message


def test_known_archive_is_torchvisions():
    source = torchvision.datasets.CIFAR10
    assert (download.SOURCES[0], download.MD5, download.ARCHIVE) == (source.url, source.tgz_md5, source.filename)


# --- one server ------------------------------------------------------------------------------------------------------


def test_a_whole_answer(serve, partial):
    serve(server := Server())
    download._fetch(partial)
    assert partial.read_bytes() == CONTENT
    assert server.asked == [None]


def test_what_breaks_off_is_resumed_where_it_stopped(serve, partial):
    server = Server()
    server.limit = 70_000
    serve(server)
    download._fetch(partial)
    assert partial.read_bytes() == CONTENT
    assert server.asked == [None] + [f"bytes={n}-" for n in (70_000, 140_000, 210_000, 280_000)]
    assert server.sent == len(CONTENT)


def test_a_later_call_goes_on_from_what_an_earlier_one_left(serve, partial):
    partial.write_bytes(CONTENT[:123_456])
    serve(server := Server())
    download._fetch(partial)
    assert partial.read_bytes() == CONTENT
    assert server.sent == len(CONTENT) - 123_456


def test_a_server_that_gives_hardly_anything_is_not_asked_forever(serve, partial):
    server = Server()
    server.limit = 999
    serve(server)
    refused(partial, "broke off", "999 of 300,002 bytes", "try again")
    assert partial.read_bytes() == CONTENT[:999]
    assert len(server.asked) == 1


def test_a_server_that_ignores_ranges_is_read_from_the_start_and_compared(serve, partial):
    partial.write_bytes(CONTENT[:123_456])
    server = Server()
    server.ranges = False
    serve(server)
    download._fetch(partial)
    assert partial.read_bytes() == CONTENT
    assert server.sent == len(CONTENT)


def test_a_server_that_lies_about_the_length_is_told(serve, partial):
    server = Server()
    server.length = 5_000_000
    serve(server)
    refused(partial, "5000000 bytes", "300002")
    partial.write_bytes(CONTENT[:1_000])
    refused(partial, "bytes 1000-4999999/5000000")
    assert partial.read_bytes() == CONTENT[:1_000]


def test_a_page_instead_of_the_archive_costs_nothing_of_what_is_there(serve, partial):
    page = Server(b"<html>log in</html>")
    page.ranges = False
    page.length = len(CONTENT)
    serve(page, good := Server())
    partial.write_bytes(CONTENT[:1_000])
    download._fetch(partial)
    assert partial.read_bytes() == CONTENT
    assert good.asked == ["bytes=1000-"]


def test_a_wrong_file_of_the_right_length_is_found_by_its_md5(serve, partial):
    serve(Server(CONTENT[:-1] + bytes([CONTENT[-1] ^ 1])), good := Server())
    download._fetch(partial)
    assert partial.read_bytes() == CONTENT
    assert good.asked == [None]


def test_only_wrong_files(serve, partial, monkeypatch):
    serve(Server())
    monkeypatch.setattr(download, "MD5", "0" * 32)
    refused(partial, "127.0.0.1", "md5", "0" * 32)
    assert not partial.exists()


def test_a_wrong_beginning_is_not_blamed_on_who_gave_the_rest(serve, partial):
    partial.write_bytes(b"\x1f" + b"?" * 50_000)
    serve(server := Server())
    download._fetch(partial)
    assert partial.read_bytes() == CONTENT
    assert server.asked == ["bytes=50001-", None]


# --- several servers -------------------------------------------------------------------------------------------------


def test_the_next_source_goes_on_where_the_first_broke_off(serve, partial):
    first = Server()
    first.limit = 500  # less than is worth asking again
    serve(first, second := Server())
    download._fetch(partial)
    assert partial.read_bytes() == CONTENT
    assert second.asked == ["bytes=500-"]


def test_a_missing_file_and_an_absent_server_are_passed_over(serve, partial, monkeypatch):
    missing = Server()
    missing.status = 404
    serve(missing, good := Server())
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    monkeypatch.setattr(download, "SOURCES", (f"http://127.0.0.1:{port}/x", missing.url, good.url))
    download._fetch(partial)
    assert partial.read_bytes() == CONTENT


def test_a_slow_source_is_left_and_asked_again_when_no_other_is_faster(serve, partial, monkeypatch, capsys):
    monkeypatch.setattr(download, "LEAST_RATE", 1e15)  # so that each is slow, at once
    monkeypatch.setattr(download, "WINDOW", 0.0)
    monkeypatch.setattr(download, "BLOCK", 10_000)
    serve(first := Server(), second := Server())
    download._fetch(partial)
    assert partial.read_bytes() == CONTENT
    assert first.asked[0] is None and re.fullmatch(r"bytes=[1-9]\d*-", second.asked[0])  # what came is kept
    assert len(first.asked) + len(second.asked) == 3
    said = capsys.readouterr().err
    assert all(f"127.0.0.1:{server.server_port} gives" in said for server in (first, second))


def test_of_the_slow_the_fastest_is_asked_again(partial, monkeypatch):
    rates, asked = {"http://a/": 10.0, "http://b/": 30.0, "http://c/": 20.0}, []

    def complete(url, partial, least):
        asked.append(url)
        if least:
            raise download._SlowError(rates[url])

    monkeypatch.setattr(download, "SOURCES", tuple(rates))
    monkeypatch.setattr(download, "_complete", complete)
    download._fetch(partial)
    assert asked == ["http://a/", "http://b/", "http://c/", "http://b/"]


# --- what is told ----------------------------------------------------------------------------------------------------


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize("stream", [Terminal(), io.StringIO()])
def test_the_line_has_rate_and_time_left(monkeypatch, stream):
    now = 1_000.0
    monkeypatch.setattr(download.time, "monotonic", lambda: now)
    monkeypatch.setattr(download.sys, "stderr", stream)
    monkeypatch.setattr(download, "SIZE", 100_000_000)
    with contextlib.closing(download._Meter("https://host/file", 0, 0.0)) as meter:
        for position in (10_000_000, 20_000_000, 40_000_000):
            now += 10.0
            meter.show(position)
    said = stream.getvalue()
    assert "CIFAR-10 from host: 40.0 of 100.0 MB, 2,000 kB/s, 00:00:30 left" in said  # of the last ten seconds
    assert said.count("\r") == (3 if stream.isatty() else 0)
    assert said.count("\n") == (1 if stream.isatty() else 3)


# --- through load() --------------------------------------------------------------------------------------------------


@pytest.fixture
def archive(written, tenth_of_the_size) -> bytes:
    return (written / "archive.tar.gz").read_bytes()


def load(folder: Path | None = None) -> data.Data:
    return data.load(folder, val_size=500)


def is_stand_in(loaded: data.Data, output: str, reason: str) -> None:
    assert loaded.info.source == "synthetic stand-in"
    assert loaded.caveat == "synthetic stand-in, not CIFAR-10"
    assert output.count("\n") == 1 and output.startswith("WARNING") and reason in output


def test_download_once(serve, archive, home, capsys, written):
    serve(server := Server(archive))
    expected = load(written).info
    assert load().info == expected
    assert load().info == expected
    assert server.asked == [None]
    assert [p.name for p in sorted((home / "data").iterdir())] == [
        ".cifar-10-python.tar.gz.lock",
        "cifar-10-batches-py",
    ]
    assert "MB" in capsys.readouterr().err


def test_a_broken_transfer_says_how_to_go_on_and_does(serve, archive, home, monkeypatch):
    server = Server(archive)
    server.limit = len(archive) // 2
    serve(server)
    monkeypatch.setattr(download, "WORTHWHILE", len(archive))
    with pytest.raises(DataError, match=f"{len(archive) // 2:,} of {len(archive):,} bytes was kept"):
        load()
    assert [p.name for p in (home / "data").glob("[!.]*")] == []
    server.limit = None
    assert len(load().test) == 1_000
    assert server.asked == [None, f"bytes={len(archive) // 2}-"]


def test_what_a_killed_process_left_is_not_taken_as_good(serve, archive, home):
    left = home / "data" / ".cifar-10-killed.partial" / "cifar-10-batches-py"
    left.mkdir(parents=True)
    (left / "data_batch_1").write_bytes(b"half")
    old = left.parent.with_name(".cifar-10-older.partial")
    old.mkdir()
    os.utime(old, (0, 0))
    serve(server := Server(archive))
    assert len(load().test) == 1_000
    assert server.asked
    assert not old.exists()  # and what lies there for long is removed
    assert left.exists()


def hold(folder: Path, ready, done) -> None:
    with download._one_process(folder / f".{download.ARCHIVE}.download"):
        ready.set()
        done.wait()


def test_a_second_process_waits_and_takes_what_the_first_has_unpacked(serve, archive, home, written):
    context = multiprocessing.get_context("spawn")
    ready, done = context.Event(), context.Event()
    (home / "data").mkdir(parents=True)
    first = context.Process(target=hold, args=(home / "data", ready, done))
    first.start()
    assert ready.wait(60)
    serve(server := Server(archive))
    found: list[Path] = []
    second = threading.Thread(target=lambda: found.append(download.download(home / "data")))
    second.start()
    download.unpack(written / "archive.tar.gz", home / "data")
    done.set()
    second.join(60)
    first.join(60)
    assert found == [home / "data" / "cifar-10-batches-py"]
    assert server.asked == []


def test_no_network_gives_the_stand_in_with_one_warning(home, monkeypatch, capsys):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    monkeypatch.setattr(download, "SOURCES", tuple(f"http://127.0.0.1:{port}/{i}" for i in range(3)))
    is_stand_in(load(), capsys.readouterr().err, "refused")


def test_a_server_that_never_answers_does_not_hang(home, monkeypatch, capsys):
    monkeypatch.setattr(download, "SOCKET_TIMEOUT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setattr(download, "SOURCES", (f"http://127.0.0.1:{silent.getsockname()[1]}/x",))
        is_stand_in(load(), capsys.readouterr().err, "timed out")


def test_no_download_when_told_so(serve, archive, monkeypatch, capsys):
    serve(server := Server(archive))
    is_stand_in(data.load(download=False, val_size=500), capsys.readouterr().err, "no download")
    monkeypatch.setenv("LABREPORT_OFFLINE", "1")
    is_stand_in(load(), capsys.readouterr().err, "no download")
    assert server.asked == []


def test_a_folder_that_cannot_be_written(serve, archive, home):
    home.write_text("a file where the folder should be")
    serve(Server(archive))
    with pytest.raises(DataError, match="cannot be written"):
        load()


# --- unpacking -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", [0.5, 0.99])
def test_a_truncated_archive_leaves_nothing(archive, tmp_path, end):
    (tmp_path / download.ARCHIVE).write_bytes(archive[: int(len(archive) * end)])
    with pytest.raises(DataError, match=r"cifar-10-python\.tar\.gz: cannot be unpacked: truncated or damaged"):
        load(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == [download.ARCHIVE]


def test_a_damaged_archive(archive, tmp_path):
    middle = len(archive) // 2
    (tmp_path / download.ARCHIVE).write_bytes(archive[:middle] + bytes(1_000) + archive[middle + 1_000 :])
    with pytest.raises(DataError, match="official archive in its place"):
        load(tmp_path)


def test_an_empty_folder_is_no_copy_and_a_foreign_one_is_not_overwritten(serve, archive, home, written):
    serve(Server(archive))
    folder = home / "data" / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    assert len(load().test) == 1_000
    for path in folder.iterdir():
        path.unlink()
    (folder / "notes").write_text("mine")
    with pytest.raises(DataError, match=r"cannot be unpacked.*not empty"):
        load()
    assert [path.name for path in folder.iterdir()] == ["notes"]


def test_an_archive_of_something_else(tmp_path):
    with tarfile.open(tmp_path / download.ARCHIVE, "w:gz") as tar:
        tar.add(__file__, "readme")
    with pytest.raises(DataError, match="holds no folder cifar-10-batches-py"):
        load(tmp_path)


def test_an_intact_archive_in_a_folder_that_cannot_be_written_is_not_blamed(written, tmp_path, monkeypatch):
    os.link(written / "archive.tar.gz", tmp_path / download.ARCHIVE)

    def refuse(*_, **__):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(download.tempfile, "mkdtemp", refuse)
    with pytest.raises(DataError, match=r"Read-only file system.*unpack it elsewhere") as caught:
        load(tmp_path)
    assert "delete" not in str(caught.value) and "damaged" not in str(caught.value)

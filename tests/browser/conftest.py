"""JupyterLab, Notebook 7 and one Chromium for all tests here, skipped where there is no browser (`make browser`)."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import nbformat
import pytest

from labreport import paths

CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
TOKEN = "of-the-tests"
PATIENCE = 300  # seconds until something must have happened; only a hang takes so long
SETTINGS = {  # no question at the first start; every cell is in the page, whether in sight or not
    "@jupyterlab/apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    "@jupyterlab/notebook-extension/tracker": {"windowingMode": "none"},
}
# The kernel's word to JupyterLab, which asks for widgets before any notebook has imported them.
NOT_OURS = ("No such comm",)
# Notebook 7.6.5's own, while it opens any notebook: its shortcuts hear of other settings before they have theirs.
NOTEBOOK_7_SAYS = ("Cannot read properties of undefined (reading 'schema')",)
AS_ROOT = hasattr(os, "geteuid") and os.geteuid() == 0


@pytest.fixture(scope="session")
def browser():
    """The user's own Chromium: Playwright's is a large download."""
    playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is missing: pip install -e '.[browser]'")
    chromium = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if chromium is None:
        pytest.skip(f"no browser is installed; looked for {', '.join(CHROMIUM)}")
    with playwright.sync_playwright() as driver:
        # A sandbox needs an ordinary user.
        started = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"] if AS_ROOT else [])
        yield started
        started.close()


@dataclass(frozen=True)
class Server:
    """A JupyterLab or a Notebook, and the folder that it shows. `page` is where it has a notebook's page."""

    page: str
    notebooks: Path


@contextmanager
def serving(folder: Path, module: str, app: str, page: str) -> Iterator[Server]:
    """A JupyterLab or a Notebook on a copy of the notebooks, with settings of its own."""
    shutil.copytree(paths.NOTEBOOKS, folder / "notebooks")
    for name, settings in SETTINGS.items():
        file = folder / "settings" / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(settings))
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        port = free.getsockname()[1]
    homes = {f"JUPYTER_{name}_DIR": str(folder / name.lower()) for name in ("CONFIG", "DATA", "RUNTIME")}
    homes |= {f"JUPYTERLAB_{name}_DIR": str(folder / name.lower()) for name in ("SETTINGS", "WORKSPACES")}
    environment = os.environ | homes | {"PYTHONPATH": str(paths.REPOSITORY), "IPYTHONDIR": str(folder / "ipython")}
    for name in ("LABREPORT_HEADLESS", "MPLBACKEND"):  # somebody looks on
        environment.pop(name, None)
    options = {"ServerApp.port": port, "ServerApp.port_retries": 0, "IdentityProvider.token": TOKEN}
    options |= {"ServerApp.root_dir": folder / "notebooks", f"{app}.expose_app_in_browser": True}
    command = [sys.executable, "-m", module, "--no-browser", *(f"--{k}={v}" for k, v in options.items())]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command + ["--allow-root"] * AS_ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT
        )
    try:
        address = f"http://127.0.0.1:{port}"
        _wait_for(f"{address}/api/status?token={TOKEN}", process, folder / "log")
        yield Server(f"{address}/{page}token={TOKEN}", folder / "notebooks")
    finally:
        process.terminate()  # its kernels end with it
        process.wait(PATIENCE)


def _wait_for(address: str, process: subprocess.Popen, log: Path) -> None:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and process.poll() is None:
        try:
            urllib.request.urlopen(address).close()
            return
        except OSError:
            time.sleep(0.2)
    pytest.fail(f"the server did not start:\n{log.read_text()}")


class Notebook:
    """A notebook in the browser. `errors` has what the console and the kernel have complained of so far."""

    def __init__(self, page, address: str, not_ours: tuple[str, ...]):
        self.page, self.address, self.not_ours = page, address, not_ours
        self.errors: list[str] = []
        page.set_default_timeout(1000 * PATIENCE)
        page.on("console", lambda said: self._note(said.text) if said.type == "error" else None)
        page.on("pageerror", lambda error: self._note(str(error)))
        self.open()

    def _note(self, text: str) -> None:
        if not text.startswith(self.not_ours):
            self.errors.append(text)

    def open(self) -> None:
        """Load the page, anew if it is there, and listen to the kernel."""
        self.page.goto(self.address)
        self.page.wait_for_function("window.jupyterapp?.shell.currentWidget?.sessionContext?.isReady")
        self.page.evaluate("""async () => {
            const { context, sessionContext } = jupyterapp.shell.currentWidget;
            await Promise.all([context.ready, sessionContext.ready, sessionContext.session.kernel.info]);
            sessionContext.iopubMessage.connect((_, { header, content }) => {
                if (header.msg_type === 'stream' && content.name === 'stderr') console.error(content.text);
                if (header.msg_type === 'error') console.error((content.traceback || [content.ename]).join('\\n'));
            });
        }""")

    def command(self, name: str, **arguments) -> None:
        """One of JupyterLab's commands, to its end."""
        self.page.evaluate("([name, arguments]) => jupyterapp.commands.execute(name, arguments)", [name, arguments])

    def theme(self, name: str) -> None:
        self.command("apputils:change-theme", theme=f"JupyterLab {name}")
        light = str(name == "Light").lower()
        self.page.wait_for_function(f"document.body.dataset.jpThemeLight === '{light}'")
        self.settle()

    def run_all(self) -> None:
        self.command("notebook:run-all-cells")
        self.settle()

    def start(self, index: int = 0) -> None:
        """Run the code cell in this place, without waiting for its end."""
        self.page.evaluate(
            """index => {
                const { content } = jupyterapp.shell.currentWidget;
                const cells = content.widgets.map((cell, place) => [cell.model.type, place]);
                content.activeCellIndex = cells.filter(([type]) => type === 'code')[index][1];
                jupyterapp.commands.execute('notebook:run-cell');
            }""",
            index,
        )

    def settle(self) -> None:
        """Wait until the kernel has answered everything and the page has drawn it."""
        self.page.evaluate("""async () => {
            const { kernel } = jupyterapp.shell.currentWidget.sessionContext.session;
            const asked = kernel.requestExecute({ code: '', silent: true, store_history: false });
            await asked.done;
            await Promise.all([...document.images].map(image => image.decode().catch(() => null)));
        }""")
        self.page.wait_for_timeout(100)

    def outputs(self, index: int | None = None) -> str:
        """What stands below the code cells, or one of them, as text."""
        cells = self.page.locator(".jp-CodeCell .jp-Cell-outputArea")
        return "\n".join(cells.all_inner_texts()) if index is None else cells.nth(index).inner_text()


def opening(browser, server: Server, not_ours: tuple[str, ...] = NOT_OURS):
    """`with open_notebook(name) as notebook`: in a page of its own, whose kernel ends with it.

    `cells` are those of a new notebook.
    """

    @contextmanager
    def opened(name: str, *cells: str) -> Iterator[Notebook]:
        if cells:
            new = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
            new.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
            nbformat.write(new, server.notebooks / f"{name}.ipynb")
        with closing(browser.new_context(viewport={"width": 1400, "height": 1000})) as context:
            notebook = Notebook(context.new_page(), server.page.format(name=name), not_ours)
            try:
                yield notebook
            finally:
                notebook.command("kernelmenu:shutdown")

    return opened


@pytest.fixture(scope="session")
def open_notebook(browser, tmp_path_factory):
    """As `opening` says, in JupyterLab."""
    folder = tmp_path_factory.mktemp("jupyterlab")
    with serving(folder, "jupyterlab", "LabApp", "lab/tree/{name}.ipynb?reset&") as server:
        yield opening(browser, server)


@pytest.fixture(scope="session")
def open_in_notebook_7(browser, tmp_path_factory):
    """As `opening` says, in Notebook 7."""
    pytest.importorskip("notebook", reason="Notebook 7 is missing: pip install -e '.[browser]'")
    folder = tmp_path_factory.mktemp("notebook")
    with serving(folder, "notebook", "JupyterNotebookApp", "notebooks/{name}.ipynb?") as server:
        yield opening(browser, server, NOT_OURS + NOTEBOOK_7_SAYS)


@pytest.fixture(scope="session")
def report_page(browser) -> Path:
    """The report's web page, on what the notebooks have trained by then."""
    command = [sys.executable, "-m", "labreport", "report", "--profile", "smoke"]
    done = subprocess.run(
        command, env=os.environ | {"PYTHONPATH": str(paths.REPOSITORY)}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return paths.build("smoke") / "report.html"

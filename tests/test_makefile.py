"""What `make` hands to the shell."""

import subprocess

import pytest

from labreport import paths

TARGETS = ("report", "test", "lab", "browser", "lint", "faults", "clean", "constraints")


@pytest.mark.parametrize("target", TARGETS)
def test_every_target_is_words_that_a_shell_understands(target):
    """With a browser and data, too, where those are missing here."""
    values = ("CHROMIUM=/usr/bin/chromium", "DATA=a folder", "DEVICE=cpu", "FORMATS=pdf,tex", "ON=ray", "PORT=9999")
    command = ["make", "--dry-run", "--always-make", target, *values]
    printed = subprocess.run(command, cwd=paths.REPOSITORY, check=True, capture_output=True, text=True).stdout
    done = subprocess.run(["sh", "-n"], input=printed, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")

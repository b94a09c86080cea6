"""The commands of docs/runbook.md, and whether they answer what the page shows."""

import os
import re
import subprocess
import textwrap
import time

from conftest import REPOSITORY
from remit_process import binary, environment

PAGE = REPOSITORY / "docs/runbook.md"
# They change nothing, so they may be asked until a change that was just made is seen.
READ_ONLY = re.compile(r"remit (status|introspect|authorize .* --dry-run)\b|remit authorize .*--dry-run")
DENIED = ("denied", "not active", "not ready", "error")


def sections():
    """Heading → its pieces of text between fences, each with its kind: (kind, text)."""
    found, heading = {}, ""
    fence = re.compile(r"^ *```(\w+)\n(.*?)^ *```$", re.DOTALL | re.MULTILINE)
    for part in re.split(r"(?m)^(?=#+ )", PAGE.read_text()):
        heading = part.splitlines()[0].lstrip("# ") if part else heading
        blocks = [(kind, textwrap.dedent(text)) for kind, text in fence.findall(part)]
        if blocks:
            found[heading] = blocks
    return found


def commands(block):
    """Each command with the lines that are shown of its answer."""
    parts = re.split(r"(?m)^\$ ", block)
    assert not parts[0].strip(), f"a block begins with a command: {block}"
    for part in parts[1:]:
        command, *shown = part.rstrip("\n").split("\n")
        yield command, shown


def is_as_shown(shown, output):
    """Line by line, in order; `…` is anything, and alone any lines."""
    lines = iter(" ".join(line.split()) for line in output.splitlines())
    for wanted in (" ".join(line.split()) for line in shown if line.strip() != "…"):
        pattern = re.compile(".*".join(re.escape(piece.strip()) for piece in wanted.split("…")))
        if not any(pattern.search(line) for line in lines):
            return False
    return True


class Operator:
    """Who sits before the page, in the folder that has `.remit-dev`."""

    def __init__(self, folder, **variables):
        self.folder = folder
        path = f"{binary().parent}{os.pathsep}{os.environ['PATH']}"
        self.environment = environment(PATH=path, LC_ALL="C", **variables)

    def run(self, block):
        for command, shown in commands(block):
            self._run(command, shown)

    def _run(self, command, shown):
        wanted = 1 if shown and shown[0].startswith(DENIED) else 0
        deadline = time.monotonic() + (8 if READ_ONLY.match(command) else 0)
        while True:
            ran = subprocess.run(
                ["bash", "-c", command],
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=20,
            )
            if ran.returncode == wanted and is_as_shown(shown, ran.stdout):
                return
            assert time.monotonic() < deadline, f"$ {command}\n{ran.stdout}exit {ran.returncode}, {wanted} was wanted"
            time.sleep(0.2)

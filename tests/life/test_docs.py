"""The pages say what is so: settings are settings, commands show what they show, links and tests are there."""

import re
import subprocess
import textwrap

import pytest
from conftest import REPOSITORY
from remit_process import Remit
from test_cli import SECONDS, first_lines, paste, remit

PAGES = ["docs/configuration.md", "docs/identity.md", "docs/telemetry.md", "examples/python/propagation/README.md"]
# What a whole configuration has beside any part of it.
REQUIRED = {
    "REMIT_POLICY_FILE": "policy.json",
    "REMIT_KEY_FILE": "hmac.key",
    "REMIT_TLS_CERTIFICATE": "server.pem",
    "REMIT_TLS_KEY": "server.key",
    "REMIT_TLS_CLIENT_CA": "ca.pem",
    "REMIT_STATE_DIR": "state",
}


def shown(page):
    """The page's pieces of `remit.toml`; those in lists stand indented."""
    text = (REPOSITORY / page).read_text()
    return [textwrap.dedent(block) for block in re.findall(r"^ *```toml\n(.*?)^ *```", text, re.DOTALL | re.MULTILINE)]


@pytest.mark.parametrize("page", PAGES)
def test_what_a_page_shows_of_the_configuration_is_taken(page, tmp_path):
    pieces = shown(page)
    assert pieces, f"{page} shows none"
    for piece in pieces:
        # What is commented out is offered too.
        for text in (piece, re.sub(r"(?m)^# (?=\w+ = |\[)", "", piece)):
            (tmp_path / "remit.toml").write_text(text)
            ran = remit("serve", "--config", tmp_path / "remit.toml", "--print-config", cwd=tmp_path, **REQUIRED)
            assert ran.returncode == 0, f"{ran.stderr}\n{text}"


def session(page):
    """The commands that the page shows in a console, each with the lines that come of it."""
    shown = []
    for block in re.findall(r"```console\n(.*?)```", page, re.DOTALL):
        for line in block.splitlines():
            if line.startswith("$ "):
                shown.append((line[2:], []))
            elif line.strip() != "…":
                shown[-1][1].append(line)
    return shown


def test_the_readme_shows_what_comes(tmp_path):
    commands = session((REPOSITORY / "README.md").read_text())
    assert len(commands) == 5
    with Remit(tmp_path / ".remit-dev"):
        for command, shown in commands:
            process = paste(f"exec {command}" if " watch " in command else command, tmp_path)
            if " watch " in command:
                # One more than is shown: the policy that was loaded is the first event.
                printed = first_lines(process, len(shown) + 1)
            else:
                printed = process.communicate(timeout=SECONDS)[0].splitlines()
            for line in shown:
                wanted = ".*".join(map(re.escape, line.split("…")))
                assert any(re.fullmatch(wanted, found) for found in printed), f"{command}\n{line}\n{printed}"


def pages():
    listed = subprocess.run(["git", "ls-files", "*.md"], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    return listed.stdout.split()


def prose(text):
    return re.sub(r"```.*?```", "", text, flags=re.DOTALL)


def anchors(text):
    """What a heading is linked by, as the forges make it."""
    plain = (re.sub(r"[^\w\- ]", "", heading.strip().lower()) for heading in re.findall(r"^#+ (.*)$", prose(text), re.MULTILINE))
    return {heading.replace(" ", "-") for heading in plain}


@pytest.mark.parametrize("page", pages())
def test_every_link_leads_somewhere(page):
    text = (REPOSITORY / page).read_text()
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(text)):
        if not link.startswith(("http", "mailto")):
            file, _, anchor = link.partition("#")
            target = (REPOSITORY / page).parent / file if file else REPOSITORY / page
            assert target.exists(), link
            assert not anchor or anchor in anchors(target.read_text()), link


def is_there(file, name):
    """Whether the file has a test, or a case, of this name."""
    lines = (REPOSITORY / file).read_text().splitlines()
    if file.endswith(".yaml"):
        return any(line.strip().removeprefix("- name: ").strip('"') == name for line in lines)
    return any(re.search(rf"\b(fn|def) {re.escape(name)}\(", line) for line in lines)


@pytest.mark.parametrize("page", [page for page in pages() if "::" in (REPOSITORY / page).read_text()])
def test_every_test_that_a_page_names_is_there(page):
    named = re.findall(r"`((?:src|tests)/[\w/.]+)::([^`]+)`", (REPOSITORY / page).read_text())
    missing = [f"{file}::{name}" for file, name in named if not is_there(file, name)]
    assert not missing, missing


def test_every_attacker_and_every_lesson_has_a_test():
    text = (REPOSITORY / "SECURITY.md").read_text()
    for heading, least in (("Against whom", 13), ("Lessons that others paid for", 23)):
        rows = re.findall(r"^\| .*\|$", text.split(f"## {heading}\n")[1].split("\n## ")[0], re.MULTILINE)[1:]
        assert len(rows) >= least
        assert all("::" in row.split(" | ")[-1] for row in rows), heading


def test_every_law_that_the_promises_name_has_a_test():
    laws = set(re.findall(r"`(l\d+_)\*`", (REPOSITORY / "SECURITY.md").read_text()))
    assert laws, "the page names none"
    tests = "".join(path.read_text() for path in (REPOSITORY / "tests").rglob("*.rs"))
    assert all(f"fn {law}" in tests for law in laws)


def test_every_path_that_is_named_is_there():
    for page in ("SECURITY.md", "CONTRIBUTING.md", "README.md"):
        for path in re.findall(r"`((?:src|tests|docs|benches)/[\w./]+)(?:::|`)", (REPOSITORY / page).read_text()):
            assert (REPOSITORY / path).exists() or (REPOSITORY / f"{path}.rs").exists(), f"{page}: {path}"

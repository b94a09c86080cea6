"""Settings as the pages show them are settings."""

import re
import textwrap

import pytest
from conftest import REPOSITORY
from test_cli import remit

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

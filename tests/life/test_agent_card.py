"""`remit agent-card`: what it writes, the public A2A SDK reads."""

import json

import pytest
from a2a.client.card_resolver import parse_agent_card
from a2a.compat.v0_3 import types as v0_3
from test_cli import remit

CARD = {
    "name": "deployer",
    "description": "Rolls out what was reviewed.",
    "version": "1.0.0",
    "supportedInterfaces": [
        {"url": "https://deployer.example/a2a", "protocolBinding": "JSONRPC", "protocolVersion": "1.0"}
    ],
    "capabilities": {},
    "defaultInputModes": ["text/plain"],
    "defaultOutputModes": ["text/plain"],
    "skills": [{"id": "roll-out", "name": "roll out", "description": "Rolls out.", "tags": []}],
}
OLD_CARD = {key: value for key, value in CARD.items() if key != "supportedInterfaces"} | {
    "protocolVersion": "0.3.0",
    "url": "https://deployer.example/a2a",
    "securitySchemes": {"partner": {"type": "apiKey", "in": "header", "name": "X-Partner"}},
    "skills": [CARD["skills"][0] | {"security": [{"partner": []}]}],
}


class Cards:
    """`remit agent-card` with a folder's configuration, and this after it."""

    def __init__(self, folder, more=""):
        self.folder = folder
        with (folder / "remit.toml").open("a") as config:
            config.write(more)

    def run(self, card, *arguments):
        path = self.folder / "card.json"
        path.write_text(card if isinstance(card, str) else json.dumps(card))
        return remit("agent-card", "--in", path, "--config", self.folder / "remit.toml", *arguments)

    def filled(self, card, *arguments):
        ran = self.run(card, *arguments)
        assert ran.returncode == 0, ran.stderr
        return json.loads(ran.stdout)

    def refused(self, card):
        ran = self.run(card)
        assert (ran.returncode, ran.stdout) == (2, ""), ran
        return ran.stderr


@pytest.mark.parametrize("card", [CARD, OLD_CARD], ids=["1.0", "0.3"])
def test_the_sdk_reads_what_is_written_for_1_0(folder, card):
    written = Cards(folder).filled(card)
    assert "security" not in written
    read = parse_agent_card(written)
    assert read.security_schemes["mtls"].WhichOneof("scheme") == "mtls_security_scheme"
    assert list(read.security_requirements[0].schemes) == ["mtls"]
    for scheme in read.security_schemes.values():
        assert scheme.WhichOneof("scheme"), scheme
    if card is OLD_CARD:
        assert read.security_schemes["partner"].api_key_security_scheme.location == "header"
        assert list(read.skills[0].security_requirements[0].schemes) == ["partner"]
        assert read.supported_interfaces[0].url == OLD_CARD["url"]


def test_the_sdk_reads_what_is_written_for_0_3(folder):
    written = Cards(folder).filled(OLD_CARD, "--a2a", "0.3")
    assert "securityRequirements" not in written
    read = v0_3.AgentCard.model_validate(written)
    assert read.security_schemes["mtls"].root.type == "mutualTLS"
    assert read.security_schemes["partner"].root.in_ == v0_3.In.header
    assert {"mtls": []} in read.security
    assert read.skills[0].security == [{"partner": []}]
    # And what a reader of both makes of it is the same as of the card for 1.0.
    assert parse_agent_card(written) == parse_agent_card(Cards(folder).filled(OLD_CARD))


def test_all_else_stays_and_a_signature_goes(folder):
    card = CARD | {"x-own": {"a": [1, 2.5, None]}, "signatures": [{"protected": "e30", "signature": "AA"}]}
    ran = Cards(folder).run(card)
    written = json.loads(ran.stdout)
    assert {key: written[key] for key in written if not key.startswith("security")} == {
        key: card[key] for key in card if key != "signatures"
    }
    assert "signatures are dropped" in ran.stderr


def test_a_bad_card_is_told_where_and_why_and_the_output_stays(folder, tmp_path):
    cards = Cards(folder)
    assert "stands twice" in cards.refused('{"name": "a", "name": "b"}')
    undeclared = CARD | {"securityRequirements": [{"schemes": {"ghost": {"list": []}}}]}
    assert "securityRequirements[0]: it names the scheme ghost" in cards.refused(undeclared)
    for schemes in ({"own": {}}, {"own": {"mtlsSecurityScheme": {}, "httpAuthSecurityScheme": {"scheme": "Basic"}}}):
        assert "securitySchemes.own" in cards.refused(CARD | {"securitySchemes": schemes})
    out = tmp_path / "agent-card.json"
    out.write_text("as it was")
    assert cards.run(undeclared, "--out", out).returncode == 2
    assert out.read_text() == "as it was"
    assert cards.run(CARD, "--out", out).returncode == 0
    assert parse_agent_card(json.loads(out.read_text())).name == "deployer"


ISSUERS = """
[[identity.jwt]]
issuer = "https://login.example.com/"
audience = ["remit", "remit-2"]
discovery = true
agent_claim = "client_id"

[[identity.jwt]]
issuer = "https://keys.example.com"
audience = "remit"
jwks_uri = "https://keys.example.com/jwks"
agent_claim = "azp"

[[identity.jwt]]
issuer = "https://users.example.com"
audience = "remit"
discovery = true
"""


def test_every_kind_of_evidence_that_is_configured(folder):
    cards = Cards(folder, ISSUERS)
    with_keys = ("--set", "identity.api_keys_file=keys.txt")
    ran = cards.run(CARD, *with_keys)
    assert ran.returncode == 0, ran.stderr
    assert "https://users.example.com is left out" in ran.stderr
    read = parse_agent_card(json.loads(ran.stdout))
    schemes = read.security_schemes
    assert sorted(schemes) == ["apiKey", "bearer", "mtls", "oidc"]
    assert (
        schemes["oidc"].open_id_connect_security_scheme.open_id_connect_url
        == "https://login.example.com/.well-known/openid-configuration"
    )
    assert schemes["bearer"].http_auth_security_scheme.bearer_format == "JWT"
    assert "https://keys.example.com" in schemes["bearer"].http_auth_security_scheme.description
    key = schemes["apiKey"].api_key_security_scheme
    assert (key.location, key.name) == ("header", "x-api-key")
    alone = [list(requirement.schemes) for requirement in read.security_requirements]
    assert alone == [["mtls"], ["oidc"], ["bearer"], ["apiKey"]], "any of them will do"
    strict = parse_agent_card(cards.filled(CARD, *with_keys, "--set", "tls.client_auth=required"))
    assert all("mtls" in requirement.schemes for requirement in strict.security_requirements)
    old = v0_3.AgentCard.model_validate(cards.filled(OLD_CARD, *with_keys, "--a2a", "0.3"))
    kinds = {name: scheme.root.type for name, scheme in old.security_schemes.items()}
    assert kinds == {
        "apiKey": "apiKey",
        "bearer": "http",
        "mtls": "mutualTLS",
        "oidc": "openIdConnect",
        "partner": "apiKey",
    }

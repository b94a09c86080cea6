"""JWTs that must not be believed, each wrong in one thing, and what the log has to say of it."""

import hashlib
import hmac
import json
import secrets
import time

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, utils
from oidc import AUDIENCE, decode, encode, new_key, sign

ABSENT = object()


class Forge:
    """Makes tokens as the provider would, but for one thing."""

    def __init__(self, provider, client="agent-coordinator"):
        self.provider = provider
        self.client = client
        self.stranger = new_key("RS256")
        # Would show in a log that quotes a token, a claim or a header.
        self.planted = secrets.token_hex(12)

    def header(self, algorithm="RS256", **other):
        kid = self.provider.key(algorithm)["kid"]
        return changed({"alg": algorithm, "typ": "at+jwt", "kid": kid, "x-planted": self.planted}, other)

    def claims(self, **other):
        now = int(time.time())
        claims = {
            "iss": self.provider.issuer,
            "sub": self.client,
            "aud": AUDIENCE,
            "client_id": self.client,
            "iat": now,
            "exp": now + 120,
            "jti": secrets.token_hex(8),
            "planted": self.planted,
        }
        return changed(claims, {name: value(now) if callable(value) else value for name, value in other.items()})

    def token(self, algorithm="RS256", key=None, header=None, text=None, **claims):
        """Signed with the provider's own key, if none is given."""
        payload = text(json.dumps(self.claims(**claims))) if text else self.claims(**claims)
        return sign(self.header(algorithm, **(header or {})), payload, key or self.provider.key(algorithm))

    # What no library would make.

    def unsigned(self, algorithm):
        return f"{encode(json.dumps(self.header() | {'alg': algorithm}).encode())}.{encoded(self.claims())}."

    def signed_by_hmac(self, secret):
        text = f"{encode(json.dumps(self.header() | {'alg': 'HS256'}).encode())}.{encoded(self.claims())}"
        return f"{text}.{encode(hmac.new(secret, text.encode(), hashlib.sha256).digest())}"

    def public_pem(self):
        return self.provider.key("RS256").export_to_pem()

    def public_jwk(self, key):
        return key.export_public(as_dict=True)

    def key_for_another_algorithm(self):
        """PS256 by a key that is published for RS256."""
        text = f"{encode(json.dumps(self.header() | {'alg': 'PS256'}).encode())}.{encoded(self.claims())}"
        key = serialization.load_pem_private_key(self.provider.key("RS256").export_to_pem(True, None), None)
        pss = padding.PSS(mgf=padding.MGF1(hashes.SHA256()), salt_length=32)
        return f"{text}.{encode(key.sign(text.encode(), pss, hashes.SHA256()))}"

    def der_signature(self):
        """ES256 in the form of X.509, where JWS has two numbers side by side."""
        head, payload, signature = self.token("ES256").split(".")
        raw = decode(signature)
        numbers = [int.from_bytes(half) for half in (raw[:32], raw[32:])]
        return f"{head}.{payload}.{encode(utils.encode_dss_signature(*numbers))}"

    def zero_signature(self):
        """CVE-2022-21449."""
        head, payload, _ = self.token("ES256").split(".")
        return f"{head}.{payload}.{encode(bytes(64))}"

    def stray_bits(self):
        """The same bytes, spelled otherwise: the last letter's unused bits are set."""
        alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
        token = self.token("ES256")
        return token[:-1] + alphabet[alphabet.index(token[-1]) | 1]

    def other_claims_under_a_good_signature(self):
        head, _, signature = self.token().split(".")
        return f"{head}.{encoded(self.claims(sub='agent-deployer'))}.{signature}"


def changed(members, other):
    return {name: value for name, value in (members | other).items() if value is not ABSENT}


def encoded(claims):
    return encode(json.dumps(claims).encode())


def twice(name, value):
    """A text with this member once more at its end."""
    return lambda text: f'{text[:-1]}, "{name}": {json.dumps(value)}}}'


NOT_STRICT = "not strict JSON"
NOT_TAKEN = "algorithm is not taken"
OTHER_ALGORITHM = "algorithm is not that of its key"
DEMANDS = "demands what is not done here"
TYP = "typ is not that of an access token"
AUD = "aud is not a text or a list"

# The rule, how it is broken, and what the log says.
RULES = {
    # Whose it is, and for whom (RFC 8725 §3.8, §3.9).
    "aud is another": (lambda forge: forge.token(aud="somebody-else"), "not for this audience"),
    "aud is missing": (lambda forge: forge.token(aud=ABSENT), "has no aud"),
    "aud is an empty list": (lambda forge: forge.token(aud=[]), "not for this audience"),
    "aud is a number": (lambda forge: forge.token(aud=7), AUD),
    "aud is an object": (lambda forge: forge.token(aud={AUDIENCE: True}), AUD),
    "aud has a number in it": (lambda forge: forge.token(aud=[AUDIENCE, 7]), AUD),
    "aud is written otherwise": (lambda forge: forge.token(aud=AUDIENCE.upper()), "not for this audience"),
    "iss is another": (lambda forge: forge.token(iss="https://idp.example"), "issuer is not configured"),
    "iss has a slash more": (lambda forge: forge.token(iss=f"{forge.provider.issuer}/"), "issuer is not configured"),
    "iss is a list": (lambda forge: forge.token(iss=[forge.provider.issuer]), "iss is not a text"),
    "iss is a number": (lambda forge: forge.token(iss=1), "iss is not a text"),
    "iss is missing": (lambda forge: forge.token(iss=ABSENT), "iss is not a text"),
    "sub is missing": (lambda forge: forge.token(sub=ABSENT), "has no sub"),
    "sub is a number": (lambda forge: forge.token(sub=7), "sub is not a text"),
    "sub has a line break": (lambda forge: forge.token(sub="a\nb"), "sub is not a text"),
    "the agent is a list": (lambda forge: forge.token(client_id=["agent-coordinator"]), "not a text"),
    # When (RFC 7519 §4.1.4 to §4.1.6).
    "it is expired": (
        lambda forge: forge.token(iat=lambda now: now - 120, exp=lambda now: now - 1),
        "is expired",
    ),
    "exp is missing": (lambda forge: forge.token(exp=ABSENT), "has no exp"),
    "exp is a text": (lambda forge: forge.token(exp=lambda now: str(now + 60)), "exp is not in whole seconds"),
    "exp is a fraction": (lambda forge: forge.token(exp=lambda now: now + 60.5), "exp is not in whole seconds"),
    "exp is null": (lambda forge: forge.token(exp=None), "exp is not in whole seconds"),
    "exp is negative": (lambda forge: forge.token(exp=-1), "exp is not in whole seconds"),
    "exp is 2^64 - 1": (lambda forge: forge.token(exp=2**64 - 1), "exp is not in whole seconds"),
    "it is for later": (lambda forge: forge.token(nbf=lambda now: now + 60), "not valid yet"),
    "nbf is a text": (lambda forge: forge.token(nbf=lambda now: str(now)), "nbf is not in whole seconds"),
    "it is from the future": (
        lambda forge: forge.token(iat=lambda now: now + 60, exp=lambda now: now + 120),
        "issued in the future",
    ),
    "iat is missing": (lambda forge: forge.token(iat=ABSENT), "has no iat"),
    "it lives too long": (lambda forge: forge.token(exp=lambda now: now + 86_400), "longer than max_lifetime_seconds"),
    # What it is (RFC 8725 §3.11, §3.12; RFC 9068 §2).
    "its typ is that of our identities": (lambda forge: forge.token(header={"typ": "remit-identity+jwt"}), TYP),
    "its typ is that of a security event": (lambda forge: forge.token(header={"typ": "secevent+jwt"}), TYP),
    "its typ is that of a logout": (lambda forge: forge.token(header={"typ": "logout+jwt"}), TYP),
    "its typ is a number": (lambda forge: forge.token(header={"typ": 7}), TYP),
    "it is an ID token": (lambda forge: forge.token(header={"typ": "JWT"}, nonce="n"), "is an ID token"),
    "it is bound to a key": (lambda forge: forge.token(cnf={"jkt": "x"}), "bound to a key"),
    "it is a security event": (lambda forge: forge.token(events={}), "security event"),
    "an access token without jti": (lambda forge: forge.token(jti=ABSENT), "without jti or client_id"),
    # What it demands (RFC 7515 §4.1.11, RFC 7797).
    "crit has a name": (lambda forge: forge.token(header={"crit": ["x-planted"]}), DEMANDS),
    "crit is empty": (lambda forge: forge.token(header={"crit": []}), DEMANDS),
    "crit names exp": (lambda forge: forge.token(header={"crit": ["exp"], "exp": 1}), DEMANDS),
    "b64 is false": (lambda forge: forge.token(header={"b64": False}), DEMANDS),
    "it is compressed": (lambda forge: forge.token(header={"zip": "DEF"}), DEMANDS),
    # How it is signed (RFC 8725 §3.1, §3.2).
    "none": (lambda forge: forge.unsigned("none"), NOT_TAKEN),
    "None": (lambda forge: forge.unsigned("None"), NOT_TAKEN),
    "nOnE": (lambda forge: forge.unsigned("nOnE"), NOT_TAKEN),
    "the signature is left away": (lambda forge: forge.token().rsplit(".", 1)[0] + ".", "signature"),
    "the algorithm is missing": (lambda forge: forge.token(header={"alg": ABSENT}), NOT_TAKEN),
    "the algorithm is in small letters": (lambda forge: forge.token(header={"alg": "rs256"}), NOT_TAKEN),
    "the public key as the secret of an HMAC": (lambda forge: forge.signed_by_hmac(forge.public_pem()), NOT_TAKEN),
    "an empty secret of an HMAC": (lambda forge: forge.signed_by_hmac(b""), NOT_TAKEN),
    "a key for another algorithm": (lambda forge: forge.key_for_another_algorithm(), OTHER_ALGORITHM),
    "a key of another kind": (lambda forge: forge.token("ES256", header={"alg": "RS256"}), OTHER_ALGORITHM),
    "a signature as X.509 writes it": (lambda forge: forge.der_signature(), "signature"),
    "a signature of zeros": (lambda forge: forge.zero_signature(), "signature"),
    "a stranger's signature": (lambda forge: forge.token(key=forge.stranger), "signature"),
    "a stranger's key by its own name": (
        lambda forge: forge.token(key=forge.stranger, header={"kid": forge.stranger["kid"]}),
        "no such key",
    ),
    "other claims under a good signature": (lambda forge: forge.other_claims_under_a_good_signature(), "signature"),
    # Keys that it brings (RFC 8725 §3.10).
    "a key in the header": (
        lambda forge: forge.token(key=forge.stranger, header={"jwk": forge.public_jwk(forge.stranger)}),
        "signature",
    ),
    "a key in the header and no name": (
        lambda forge: forge.token(key=forge.stranger, header={"jwk": forge.public_jwk(forge.stranger), "kid": ABSENT}),
        "no such key",
    ),
    "an address of keys in the header": (
        lambda forge: forge.token(
            key=forge.stranger, header={"jku": f"{forge.provider.issuer}/strangers", "kid": forge.stranger["kid"]}
        ),
        "no such key",
    ),
    "kid is a path": (lambda forge: forge.token(header={"kid": "../../../../dev/null"}), "no such key"),
    "kid is a number": (lambda forge: forge.token(header={"kid": 7}), "kid is not a text"),
    "kid is very long": (lambda forge: forge.token(header={"kid": "k" * 1000}), "kid is not a text"),
    # How it is written (RFC 8725 §2.4, RFC 7515 §2).
    "a claim stands twice": (lambda forge: forge.token(text=twice("sub", "agent-deployer")), NOT_STRICT),
    "a claim of its own stands twice": (lambda forge: forge.token(text=twice("planted", 1)), NOT_STRICT),
    "a claim stands twice, the second time escaped": (
        lambda forge: forge.token(text=lambda text: text[:-1] + ', "\\u0073ub": "x"}'),
        NOT_STRICT,
    ),
    "text after the claims": (lambda forge: forge.token(text=lambda text: text + " {}"), NOT_STRICT),
    "claims are a list": (lambda forge: forge.token(text=lambda text: f"[{text}]"), NOT_STRICT),
    "claims are nested deeply": (lambda forge: forge.token(deep=json.loads("[" * 30 + "]" * 30)), NOT_STRICT),
    "two parts": (lambda forge: forge.token().rsplit(".", 1)[0], "three parts"),
    "four parts": (lambda forge: forge.token() + ".", "three parts"),
    "no part": (lambda forge: forge.planted, "three parts"),
    "padding": (lambda forge: forge.token("ES256") + "==", "not strict base64url"),
    "another alphabet": (lambda forge: "+" + forge.token()[1:], "not strict base64url"),
    "stray bits": (lambda forge: forge.stray_bits(), "not strict base64url"),
    "longer than 8 KiB": (lambda forge: forge.token(filler="x" * 8192), "over 8 KiB"),
}

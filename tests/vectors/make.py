#!/usr/bin/env python3
"""Writes the token vectors beside this file. Standard library only; nothing of Remit's is used.

A token is base64url(payload) "." hex(HMAC-SHA-256(key, payload)), with padding and lower-case digits. The vectors
say for each token, byte for byte, whether a service that holds `keys` accepts it at the second `now` from its holder,
before it asks its policy and its ledger, and if not, for which reason.

Run it after a change (`python3 tests/vectors/make.py`); the files are checked in, and `cargo test` reads only them.
"""

import base64
import hashlib
import hmac
import json
import pathlib

NOW = 1_795_297_903  # 2026-11-21T21:51:43Z
KEY = bytes(range(32))
OTHER_KEY = bytes(range(100, 164))
ID = "0123456789abcdef0123456789abcdef"
ROOT = "000102030405060708090a0b0c0d0e0f"
PARENT = "f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff"

FOREIGN = {
    "iss": "agent-coordinator",
    "sub": "agent-deployer",
    "cap": ["kubectl_get"],
    "res": ["prod/*"],
    "max_uses": 1,
    "iat": NOW,
    "exp": NOW + 300,
    "delegatable": False,
}
OURS = {
    **FOREIGN,
    "jti": ID,
    "kid": "00000000",
    "chain": ["agent-coordinator", "agent-deployer"],
    "root": ID,
    "par": [],
    "max_depth": 2,
}
CHILD = {
    **OURS,
    "iss": "agent-deployer",
    "sub": "agent-validator",
    "chain": ["agent-coordinator", "agent-deployer", "agent-validator"],
    "root": ROOT,
    "par": [ROOT],
}
HEX = "0123456789abcdef"


def seal(payload: bytes, key: bytes = KEY) -> str:
    return hmac.new(key, payload, hashlib.sha256).hexdigest()


def token(payload: bytes, key: bytes = KEY) -> str:
    return base64.urlsafe_b64encode(payload).decode() + "." + seal(payload, key)


def python_dumps(claims: dict) -> bytes:
    """As the source document writes a payload."""
    return json.dumps(claims, sort_keys=True).encode()


def compact(claims: dict) -> bytes:
    return json.dumps(claims, separators=(",", ":")).encode()


def without(claims: dict, name: str) -> dict:
    return {key: value for key, value in claims.items() if key != name}


def vector(name, payload, reason="ALLOWED", text=None, note="", now=NOW, max_ttl=300, keys=((KEY, True),), **accepted):
    """One vector; `text` is the token where it is not simply the payload's."""
    text = token(payload) if text is None else text
    try:
        shown = {"payload": payload.decode()}
    except UnicodeDecodeError:
        shown = {"payload_hex": payload.hex()}
    return {
        "name": name,
        "keys": [{"hex": key.hex(), "foreign": foreign} for key, foreign in keys],
        "now": now,
        "max_ttl_seconds": max_ttl,
        **shown,
        "token": text,
        "verdict": "accept" if reason == "ALLOWED" else "refuse",
        "reason": reason,
        "note": note,
        **accepted,
    }


def derived_id(text: str) -> str:
    """The id of a token without jti: the first half of SHA-256 over its seal's 32 bytes."""
    return hashlib.sha256(bytes.fromhex(text.split(".")[1])).hexdigest()[:32]


def good():
    seed, spaced = python_dumps(FOREIGN), b" { " + compact(FOREIGN)[1:-1] + b"\n}\t"
    two = ["agent-coordinator", "agent-deployer"]
    three = two + ["agent-validator"]
    escaped = compact(FOREIGN).replace(b'"exp"', b'"\\u0065xp"').replace(b"prod/*", b"prod\\/*")
    yield vector("the source document's token", seed, id=derived_id(token(seed)), chain=two)
    yield vector("compact", compact(FOREIGN), id=derived_id(token(compact(FOREIGN))), chain=two)
    yield vector("space between all", spaced, id=derived_id(token(spaced)), chain=two)
    yield vector("escapes in names and texts", escaped, id=derived_id(token(escaped)), chain=two, note="\\u0065xp is exp")
    yield vector("a root of ours", compact(OURS), id=ID, chain=two)
    yield vector("claims in any order", python_dumps(OURS), id=ID, chain=two)
    yield vector("a child of ours", compact(CHILD), id=ID, chain=three)
    deep = {
        **CHILD,
        "iss": "c",
        "sub": "d",
        "chain": ["a", "b", "c", "d"],
        "par": [ROOT, PARENT],
        "max_depth": 16,
    }
    yield vector("a grandchild of ours", compact(deep), id=ID, chain=["a", "b", "c", "d"])
    yield vector("no chain is iss and sub", compact(without(OURS, "chain")), id=ID, chain=two)
    yield vector("no root and no par in a root", compact(without(without(OURS, "root"), "par")), id=ID, chain=two)
    more = {**OURS, "aud": ["gate", "mesh"], "obo": "user:ada", "task": "größer als 3 €"}
    yield vector("audience, on behalf of, task", json.dumps(more, ensure_ascii=False).encode(), id=ID, chain=two)
    yield vector("the most uses", compact({**OURS, "max_uses": 2**32 - 1}), id=ID, chain=two)
    for extra, what in (("", "none"), (" ", "two"), ("  ", "one")):
        payload = compact(FOREIGN).ljust(165) + extra.encode()
        name = f"a payload of {len(payload)} bytes"
        yield vector(name, payload, id=derived_id(token(payload)), chain=two, note=f"padding: {what}")
    shape = {**FOREIGN, "task": "?>?>?>?~?~?~"}
    payload = compact(shape)
    yield vector("- and _ in base64url", payload, id=derived_id(token(payload)), chain=two)
    rotated = ((OTHER_KEY, False), (KEY, True))
    yield vector("sealed by the second key", seed, keys=rotated, id=derived_id(token(seed)), chain=two)
    sealed = token(compact(OURS), OTHER_KEY)
    yield vector("ours by a key of 64 bytes that is not foreign", compact(OURS), keys=rotated, text=sealed, id=ID, chain=two)
    patterns = ["*", "/*", "db:orders", "record:*", "k8s://prod/deployments/web", "/a/b.c/~d/*"]
    yield vector("every form of a pattern", compact({**OURS, "res": patterns}), id=ID, chain=two)


def framing():
    payload = python_dumps(FOREIGN)
    head, tail = token(payload).split(".")
    bad = "TOKEN_MALFORMED"
    at = next(index for index, digit in enumerate(tail) if digit in "abcdef")
    for name, text in [
        ("nothing", ""),
        ("a dot", "."),
        ("no dot", head + tail),
        ("no payload", "." + tail),
        ("no seal", head + "."),
        ("a dot at the end", f"{head}.{tail}."),
        ("a dot at the start", f".{head}.{tail}"),
        ("three parts like a JWT", f"e30=.{head}.{tail}"),
        ("an upper-case seal", f"{head}.{tail.upper()}"),
        ("one upper-case digit", f"{head}.{tail[:at]}{tail[at].upper()}{tail[at + 1:]}"),
        ("63 digits", f"{head}.{tail[:-1]}"),
        ("65 digits", f"{head}.{tail}0"),
        ("a letter that is no digit", f"{head}.g{tail[1:]}"),
        ("a seal in base64", f"{head}.{base64.urlsafe_b64encode(bytes.fromhex(tail)).decode()}"),
        ("a space before", f" {head}.{tail}"),
        ("a space after", f"{head}.{tail} "),
        ("a newline after", f"{head}.{tail}\n"),
        ("a newline in the payload", f"{head[:76]}\n{head[76:]}.{tail}"),
        ("Bearer before", f"Bearer {head}.{tail}"),
        ("padding more", f"{head}=.{tail}"),
        ("not base64", f"!{head[1:]}.{tail}"),
        ("another alphabet's letter", f"ä{head}.{tail}"),
        ("over 4 KiB", f"{'A' * 4096}.{tail}"),
    ]:
        yield vector(name, payload, bad, text)
    for extra in (b" ", b"  "):
        padded = payload.ljust(165) + extra
        head, tail = token(padded).split(".")
        yield vector(f"padding missing after {len(padded)} bytes", padded, bad, f"{head.rstrip('=')}.{tail}")
    padded = payload.ljust(165) + b" "
    head, tail = token(padded).split(".")
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    bits = head.rstrip("=")
    bent = bits[:-1] + letters[letters.index(bits[-1]) + 1] + "=="
    yield vector("bits set after the last byte", padded, bad, f"{bent}.{tail}", "two texts for one payload are refused")
    shape = compact({**FOREIGN, "task": "?>?>?>?~?~?~"})
    standard = base64.b64encode(shape).decode()
    assert "+" in standard or "/" in standard
    yield vector("the alphabet with + and /", shape, bad, f"{standard}.{seal(shape)}")


def seals():
    payload = python_dumps(FOREIGN)
    head, tail = token(payload).split(".")
    bad = "TOKEN_SEAL_INVALID"
    yield vector("another key's seal", payload, bad, token(payload, OTHER_KEY))
    yield vector("a seal of zeros", payload, bad, f"{head}.{'0' * 64}")
    for place in (0, 31, 63):
        digit = HEX[int(tail[place], 16) ^ 1]
        yield vector(f"a bit of digit {place} flipped", payload, bad, f"{head}.{tail[:place]}{digit}{tail[place + 1:]}")
    text = base64.urlsafe_b64encode(payload).decode()
    yield vector("a seal over the text instead of its bytes", payload, bad, f"{text}.{seal(text.encode())}")
    plain = hashlib.sha256(KEY + payload).hexdigest()
    yield vector("SHA-256 of key and payload", payload, bad, f"{text}.{plain}", "no HMAC: open to length extension")
    sha1 = hmac.new(KEY, payload, hashlib.sha512).hexdigest()[:64]
    yield vector("half an HMAC-SHA-512", payload, bad, f"{text}.{sha1}")
    wider = python_dumps({**FOREIGN, "cap": ["kubectl_apply"]})
    text = base64.urlsafe_b64encode(wider).decode()
    yield vector("another payload under a good seal", wider, bad, f"{text}.{tail}")
    yield vector("a key that was dropped", payload, bad, keys=((OTHER_KEY, True),))
    garbage = b'{"iss": 1}'
    text = base64.urlsafe_b64encode(garbage).decode()
    yield vector("no claims under no seal", garbage, bad, f"{text}.{'0' * 64}", "the seal is checked before the claims")


def claims():
    base = compact(FOREIGN)

    def swap(name, old, new, note=""):
        assert old in base, old
        return vector(name, base.replace(old, new, 1), "TOKEN_MALFORMED", note=note)

    exp, iat = b'"exp":%d' % (NOW + 300), b'"iat":%d' % NOW
    for name, number in [
        ("1e10", b"1e10"),
        ("a float", b"%d.0" % (NOW + 300)),
        ("an exponent of 0", b"%de0" % (NOW + 300)),
        ("-1", b"-1"),
        ("-0", b"-0"),
        ("a text", b'"%d"' % (NOW + 300)),
        ("null", b"null"),
        ("true", b"true"),
        ("a list", b"[%d]" % (NOW + 300)),
        ("2^53", b"%d" % 2**53),
        ("2^53 + 1", b"%d" % (2**53 + 1)),
        ("2^64 - 1", b"%d" % (2**64 - 1)),
        ("2^64", b"%d" % 2**64),
        ("a leading zero", b"0%d" % (NOW + 300)),
        ("NaN", b"NaN"),
        ("iat", b"%d" % NOW),
    ]:
        yield swap(f"exp is {name}", exp, b'"exp":' + number)
    yield swap("exp is missing", b"," + exp, b"")
    yield swap("exp is there twice", exp, exp + b"," + exp)
    yield swap("exp is there twice, once with an escape", exp, exp + b',"\\u0065xp":%d' % (NOW + 300))
    yield swap("EXP", b'"exp"', b'"EXP"')
    yield swap("iat is missing", b"," + iat, b"")
    for name in ("iss", "sub", "cap", "res", "max_uses", "delegatable"):
        yield vector(f"{name} is missing", compact(without(FOREIGN, name)), "TOKEN_MALFORMED")
    for name, change in [
        ("no uses", {"max_uses": 0}),
        ("2^32 uses", {"max_uses": 2**32}),
        ("uses as a text", {"max_uses": "1"}),
        ("delegatable as 1", {"delegatable": 1}),
        ("no capabilities", {"cap": []}),
        ("a capability that is no list", {"cap": "kubectl_get"}),
        ("an empty capability", {"cap": [""]}),
        ("a capability with a quote", {"cap": ['a"b']}),
        ("a capability of 129 bytes", {"cap": ["x" * 129]}),
        ("no resources", {"res": []}),
        ("a wildcard inside a segment", {"res": ["/data/rep*"]}),
        ("a double wildcard", {"res": ["/data/**"]}),
        ("a wildcard before the end", {"res": ["/data/*/x"]}),
        ("a resource with dots", {"res": ["/data/../x"]}),
        ("a resource with an empty segment", {"res": ["/data//x"]}),
        ("a resource with a slash at the end", {"res": ["/data/"]}),
        ("a resource with an escape", {"res": ["/data/%41"]}),
        ("a resource with a NUL", {"res": ["/data/\0"]}),
        ("a resource of 1025 bytes", {"res": ["/" + "x" * 1024]}),
        ("an empty resource", {"res": [""]}),
        ("an empty issuer", {"iss": ""}),
        ("a holder with a space", {"sub": "agent deployer"}),
        ("a holder of 257 bytes", {"sub": "x" * 257}),
        ("a holder with an umlaut", {"sub": "agent-ä"}),
        ("a holder that is a list", {"sub": ["agent-deployer"]}),
        ("an unknown claim", {"nbf": NOW}),
        ("an audience of nobody", {"aud": []}),
        ("an audience that is a text", {"aud": "gate"}),
        ("an audience that is null", {"aud": None}),
        ("a task with a newline", {"task": "a\nb"}),
        ("an empty task", {"task": ""}),
        ("a task of 257 bytes", {"task": "x" * 257}),
        ("a depth of 0", {"max_depth": 0}),
        ("a depth of 17", {"max_depth": 17}),
        ("an id that is null", {"jti": None}),
        ("an id in upper case", {"jti": ID.upper()}),
        ("an id of 31 digits", {"jti": ID[1:]}),
    ]:
        yield vector(name, compact({**FOREIGN, **change}), "TOKEN_MALFORMED")
    duplicate = base.replace(b'"cap":["kubectl_get"]', b'"cap":["read"],"cap":["kubectl_get"]')
    yield vector("cap is there twice", duplicate, "TOKEN_MALFORMED", note="parsers differ in which one counts")
    for name, payload in [
        ("a list around the object", b"[" + base + b"]"),
        ("two objects", base + base),
        ("a byte after the object", base + b"x"),
        ("a comma at the end", base[:-1] + b",}"),
        ("a comment", b"/**/" + base),
        ("a byte order mark", b"\xef\xbb\xbf" + base),
        ("not UTF-8", base.replace(b"kubectl_get", b"kubectl\xff")),
        ("half a surrogate", base.replace(b"kubectl_get", b"kubectl\\ud800")),
        ("an empty object", b"{}"),
        ("nothing but a text", b'"x"'),
        ("a depth of 200", base[:-1] + b',"x":' + b"[" * 200 + b"]" * 200 + b"}"),
    ]:
        yield vector(name, payload, "TOKEN_MALFORMED")


def stories():
    for name, changed in [
        ("the chain ends with another holder", {**OURS, "sub": "agent-validator"}),
        ("the chain has another issuer", {**OURS, "iss": "agent-validator"}),
        ("a chain of one", {**OURS, "chain": ["agent-deployer"]}),
        ("a chain of 18", {**OURS, "chain": [f"a{n}" for n in range(16)] + ["agent-coordinator", "agent-deployer"]}),
        ("an ancestor too many", {**OURS, "par": [ROOT], "root": ROOT}),
        ("an ancestor too few", {**CHILD, "par": [], "root": ID}),
        ("a root that is not the first ancestor", {**CHILD, "root": PARENT}),
        ("a root's root that is another", {**OURS, "root": ROOT}),
        ("its own ancestor", {**CHILD, "root": ID, "par": [ID]}),
        ("a max_depth below its own depth", {**CHILD, "max_depth": 1}),
        ("a chain of three without an id", without(CHILD, "jti")),
        ("an ancestor without an id", {**FOREIGN, "par": [ROOT]}),
        ("a root without an id", {**FOREIGN, "root": ROOT}),
    ]:
        yield vector(name, compact(changed), "TOKEN_MALFORMED")
    own = ((KEY, False),)
    yield vector("another issuer's under a key of ours alone", python_dumps(FOREIGN), "TOKEN_MALFORMED", keys=own)


def times():
    two = ["agent-coordinator", "agent-deployer"]
    ours, foreign = compact(OURS), python_dumps(FOREIGN)
    yield vector("in its last second", ours, now=NOW + 299, id=ID, chain=two)
    yield vector("at exp", ours, "TOKEN_EXPIRED", now=NOW + 300)
    yield vector("long after exp", ours, "TOKEN_EXPIRED", now=NOW + 10_000_000)
    yield vector("ours, five seconds early", ours, now=NOW - 5, id=ID, chain=two)
    yield vector("ours, six seconds early", ours, "TOKEN_NOT_YET_VALID", now=NOW - 6)
    yield vector("another issuer's, on time", foreign, id=derived_id(token(foreign)), chain=two)
    yield vector("another issuer's, a second early", foreign, "TOKEN_NOT_YET_VALID", now=NOW - 1)
    yield vector("a lifetime a second too long", ours, "TOKEN_LIFETIME_TOO_LONG", max_ttl=299)
    yield vector("expired before too long", ours, "TOKEN_EXPIRED", now=NOW + 300, max_ttl=299)
    latest = compact({**OURS, "exp": 2**53 - 1})
    yield vector("the latest exp that can be read", latest, "TOKEN_LIFETIME_TOO_LONG", max_ttl=3600)
    hour = compact({**OURS, "exp": NOW + 3600})
    yield vector("an hour where policy allows it", hour, max_ttl=3600, id=ID, chain=two)


def write(name, about, vectors):
    vectors = list(vectors)
    names = [vector["name"] for vector in vectors]
    assert len(set(names)) == len(names), name
    path = pathlib.Path(__file__).parent / f"{name}.json"
    text = json.dumps({"about": about, "vectors": vectors}, indent=1, ensure_ascii=True)
    path.write_text(text + "\n", encoding="ascii")
    print(f"{path.name}: {len(vectors)}")


if __name__ == "__main__":
    write("good", "tokens that open", good())
    write("framing", "texts that are not exactly a token", framing())
    write("seals", "seals that no live key made", seals())
    write("claims", "payloads under a good seal that are not a token's", claims())
    write("stories", "claims that are each of their form and don't agree with each other", stories())
    write("times", "good tokens too early, too late or too long", times())

"""Tokens as somebody makes and checks them who has the source document, the shared key, and not Remit.

The format is that of `capability_token.py` in the agent-to-agent trust document: JSON, base64url with padding, a dot,
and the JSON's HMAC-SHA256 in hex.
"""

import base64
import hashlib
import hmac
import json
import time


def seal(key, claims):
    body = json.dumps(claims, sort_keys=True).encode()
    return seal_bytes(key, body)


def seal_bytes(key, body):
    mac = hmac.new(key, body, hashlib.sha256).hexdigest()
    return f"{base64.urlsafe_b64encode(body).decode()}.{mac}"


def issue(key, issuer, holder, capabilities, resources, max_uses=1, ttl_seconds=300, **changes):
    """A token of another issuer; `changes` replaces claims."""
    now = int(time.time())
    claims = {
        "iss": issuer,
        "sub": holder,
        "cap": list(capabilities),
        "res": list(resources),
        "max_uses": max_uses,
        "iat": now,
        "exp": now + ttl_seconds,
        "delegatable": False,
    }
    return seal(key, claims | changes)


class Invalid(Exception):
    """Why such a validator refuses."""


def validate(key, token, presenter, capability, resource):
    """The claims, if the token is good for this in these hands."""
    body, dot, mac = token.partition(".")
    if not dot or "." in mac:
        raise Invalid("not two parts")
    payload = base64.urlsafe_b64decode(body)
    if not hmac.compare_digest(mac, hmac.new(key, payload, hashlib.sha256).hexdigest()):
        raise Invalid("signature")
    claims = json.loads(payload)
    if time.time() > claims["exp"]:
        raise Invalid("expired")
    if claims["sub"] != presenter:
        raise Invalid("holder")
    if capability not in claims["cap"]:
        raise Invalid("capability")
    if not any(covers(pattern, resource) for pattern in claims["res"]):
        raise Invalid("resource")
    return claims


def covers(pattern, resource):
    if pattern.endswith("*"):
        return resource.startswith(pattern.removesuffix("*"))
    return resource == pattern

"""The agent at the end of the queue. It believes no name: it verifies who called, by itself."""

import json
import sys
import time
from dataclasses import dataclass

import jwt  # PyJWT; any JWT library does

import mailbox


@dataclass
class Caller:
    issuer: str  # who vouched for the caller: the identity provider
    subject: str  # the caller, in the provider's words
    agent: str  # the caller, in policy's words
    on_behalf_of: str | None  # the user at the root of the chain
    chain: list  # from the first agent to the caller
    claims: dict  # what the provider says of the caller, as far as Remit carries it on
    is_self_asserted: bool


class Verifier:
    """Takes what Remit signed for this agent, once."""

    def __init__(self, me, issuer, jwks_uri):
        self.me = me
        self.issuer = issuer
        self.keys = jwt.PyJWKClient(jwks_uri, lifespan=60)  # no longer than Remit's Cache-Control says
        self.seen = {}

    def caller(self, token):
        if jwt.get_unverified_header(token).get("typ") != "remit-identity+jwt":
            raise jwt.InvalidTokenError("it is another kind of JWT")
        told = jwt.decode(
            token,
            self.keys.get_signing_key_from_jwt(token).key,
            algorithms=["EdDSA", "ES256"],
            issuer=self.issuer,
            audience=self.me,
            options={"require": ["exp", "iat", "iss", "aud", "sub", "jti"], "strict_aud": True},
        )
        self._once(told["jti"], told["exp"])
        # Nobody but Remit and the provider said any of this: that, and nothing in the message, makes it False.
        return Caller(
            issuer=told["idp"],
            subject=told["sub"],
            agent=told["agent"],
            on_behalf_of=told.get("obo"),
            chain=chain(told.get("act")) or [told["agent"]],
            claims=told.get("claims", {}),
            is_self_asserted=False,
        )

    def _once(self, jti, exp):
        now = time.time()
        self.seen = {jti: exp for jti, exp in self.seen.items() if exp > now}
        if jti in self.seen:
            raise jwt.InvalidTokenError("it was shown before")
        self.seen[jti] = exp


def chain(act):
    """`act` has the latest agent outermost (RFC 8693 section 4.1)."""
    return chain(act.get("act")) + [act["sub"]] if act else []


def main(me, issuer, jwks_uri, folder):
    verifier = Verifier(me, issuer, jwks_uri)
    while (message := mailbox.take(folder)) is not None:
        headers, body = message
        try:
            caller = verifier.caller(headers.get("x-remit-identity", ""))
        except jwt.PyJWTError as error:
            print(json.dumps({"refused": str(error)}), flush=True)
            continue
        print(json.dumps(vars(caller) | {"body": body}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])

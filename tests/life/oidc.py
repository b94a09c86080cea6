"""A real OpenID provider, with keys that the test has too, so that it can sign what the provider never would."""

import base64
import json
import secrets
import shutil
import subprocess
import urllib.parse
import urllib.request
from pathlib import Path

from jwcrypto import jwk, jws

REPOSITORY = Path(__file__).resolve().parents[2]
NODE_FOLDER = REPOSITORY / ".cache" / "npm"
SCRIPT = Path(__file__).with_name("oidc_provider.mjs")
AUDIENCE = "remit"
START_SECONDS = 20
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def missing():
    """Why there can be no provider here, if so."""
    if not shutil.which("node"):
        return "there is no node"
    if not (NODE_FOLDER / "node_modules" / "oidc-provider").exists():
        return "oidc-provider is not installed: run tests/life/setup"
    return None


def new_key(algorithm):
    """A signing key of its own kid."""
    more = {"kid": secrets.token_urlsafe(8), "alg": algorithm, "use": "sig"}
    if algorithm in ("RS256", "PS256"):
        return jwk.JWK.generate(kty="RSA", size=2048, **more)
    curve = {"ES256": "P-256", "ES384": "P-384", "EdDSA": "Ed25519"}[algorithm]
    return jwk.JWK.generate(kty="OKP" if algorithm == "EdDSA" else "EC", crv=curve, **more)


def encode(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def decode(part):
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


def sign(header, payload, key):
    """A compact JWS of this text, whatever it says; `key` signs with its own algorithm."""
    header = header if isinstance(header, str) else json.dumps(header)
    payload = payload if isinstance(payload, str) else json.dumps(payload)
    # By hand, since a library would not sign what the hostile tests want.
    signing_input = f"{encode(header.encode())}.{encode(payload.encode())}"
    core = jws.JWSCore(key["alg"], key, json.dumps({"alg": key["alg"]}), b"")
    signature = core.engine.sign(key, signing_input.encode())
    return f"{signing_input}.{encode(signature)}"


class Provider:
    """`oidc-provider` in a process of its own, on a port that it keeps over a restart."""

    def __init__(self, folder, clients, ttl=300):
        self.folder = Path(folder)
        self.clients = {name: secrets.token_urlsafe(24) for name in clients}
        self.claims = clients
        self.ttl = ttl
        self.keys = [new_key("RS256"), new_key("ES256")]
        self.port = 0
        self.process = None

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.end()

    # Its life.

    def start(self):
        assert self.process is None, "it runs already"
        clients = [{"id": name, "secret": secret, "claims": self.claims[name]} for name, secret in self.clients.items()]
        settings = {"port": self.port, "keys": self._jwks(), "audience": AUDIENCE, "ttl": self.ttl, "clients": clients}
        with (self.folder / "oidc-provider.log").open("ab") as log:
            self.process = subprocess.Popen(
                ["node", SCRIPT, NODE_FOLDER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
            )
        self.process.stdin.write(json.dumps(settings))
        self.process.stdin.close()
        line = self.process.stdout.readline()
        assert line.strip(), (self.folder / "oidc-provider.log").read_text()
        self.port = int(line)
        return self

    def end(self):
        """As a crash does: at once."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process.stdout.close()
            self.process = None

    # What it offers.

    @property
    def issuer(self):
        return f"http://127.0.0.1:{self.port}"

    def token(self, client, algorithm="RS256", user=None):
        """An access token from the token endpoint."""
        form = {"grant_type": "client_credentials", "resource": f"urn:alg:{algorithm}"}
        if user is not None:
            form |= {"grant_type": "urn:test:user", "user": user}
        basic = base64.b64encode(f"{client}:{self.clients[client]}".encode()).decode()
        request = urllib.request.Request(
            f"{self.issuer}/token",
            data=urllib.parse.urlencode(form).encode(),
            headers={"authorization": f"Basic {basic}"},
        )
        with OPENER.open(request, timeout=5) as answer:
            return json.load(answer)["access_token"]

    def fetches(self, path="/jwks"):
        """How often its keys, or another page, were asked for since it started."""
        with OPENER.open(f"{self.issuer}/control", timeout=5) as answer:
            return json.load(answer).get(path, 0)

    # Its keys.

    def key(self, algorithm):
        """The key that it signs with."""
        return next(key for key in self.keys if key["alg"] == algorithm)

    def publish(self, key):
        """A key that it will sign with later."""
        self.keys.append(key)
        self._control()

    def sign_with(self, key):
        """It signs with this key from now on, and publishes the others as before."""
        self.keys.remove(key)
        self.keys.insert(0, key)
        self._control()

    def retire(self, key):
        self.keys.remove(key)
        self._control()

    def _jwks(self):
        return {"keys": [key.export_private(as_dict=True) for key in self.keys]}

    def _control(self):
        request = urllib.request.Request(f"{self.issuer}/control", data=json.dumps(self._jwks()).encode())
        OPENER.open(request, timeout=5).close()

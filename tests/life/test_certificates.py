"""Certificates and authorities change under load: no request of a valid client fails, and who is not valid any more is out.

`REMIT_ROTATION_SECONDS` says for how long (10).
"""

import os
import socket
import ssl
import threading
import time

import grpc
from assurance import assure
from certificates import Authority
from remit_client import Client, Refused, reason
from seed_policy import DEPLOYER
from test_identity import credentials, put
from waiting import wait_until

SECONDS = float(os.environ.get("REMIT_ROTATION_SECONDS", "10"))
ROTATION_SECONDS = 2
REFUSED_WITHIN_SECONDS = 5
OVER = (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.UNAVAILABLE)


class Valid:
    """Calls without pause on two threads, one on a connection that lasts and one on new ones, with the certificate of the
    day; every failure is kept."""

    def __init__(self, connect, issued):
        self.connect = connect
        self.issued = issued
        self.calls = 0
        self.failures = []
        self.stop = threading.Event()
        self.holds = {}
        self.threads = [threading.Thread(target=self._run, args=(lasting,)) for lasting in (True, False)]

    def _run(self, lasting):
        client = None
        while not self.stop.is_set():
            issued = self.issued
            try:
                if client is None or not lasting or self.holds[lasting] is not issued:
                    if client:
                        client.close()
                    client = self.connect(issued)
                assert is_let_in(client)
                self.holds[lasting] = issued
            except Exception as error:  # noqa: BLE001  Whatever it was, the test shows it.
                self.failures.append(error)
            self.calls += 1
        client.close()

    def change_to(self, issued):
        """When this returns, nobody uses the certificate before."""
        self.issued = issued
        wait_until(lambda: set(map(id, self.holds.values())) == {id(issued)}, "the certificate of the day is used")

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        wait_until(lambda: len(self.holds) == 2, "both are let in", REFUSED_WITHIN_SECONDS)
        return self

    def __exit__(self, *_):
        self.stop.set()
        for thread in self.threads:
            thread.join()


def is_let_in(client):
    return reason(client.authorize("kubectl_get", "prod/web")) == "TOKEN_REQUIRED"


def refusal(client):
    try:
        is_let_in(client)
    except Refused as over:
        return over
    return None


class ServerCertificates:
    """Another certificate of the server every two seconds, each of which has been shown by the time of the next."""

    def __init__(self, world, authority):
        self.world = world
        self.authority = authority
        self.seen = [self.shown()]
        self.failures = []
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self._run)

    def _run(self):
        folder = self.world.remit.folder
        while not self.stop.is_set():
            issued = self.authority.server()
            put(folder / "server.key", issued.key)
            put(folder / "server.pem", issued.certificate)
            self.stop.wait(ROTATION_SECONDS)
            try:
                now = wait_until(self.another, "the new certificate is shown", REFUSED_WITHIN_SECONDS)
                self.seen.append(now)
            except Exception as error:  # noqa: BLE001  Whatever it was, the test shows it.
                self.failures.append(error)

    def another(self):
        now = self.shown()
        return now if now != self.seen[-1] else None

    def shown(self):
        """The serial number of the certificate that a stranger is shown."""
        context = ssl.create_default_context(cadata=self.authority.certificate.decode())
        context.set_alpn_protocols(["h2"])
        with socket.create_connection(("127.0.0.1", self.world.remit.ports["grpc"]), timeout=5) as plain:
            with context.wrap_socket(plain, server_hostname="localhost") as tls:
                return tls.getpeercert()["serialNumber"]

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        self.thread.join()


def test_certificates_and_authorities_change_under_load(serve):
    world = serve(is_dev=False, REMIT_POLICY_POLL_SECONDS="1")
    folder, began = world.remit.folder, time.monotonic()
    first = Authority.of_folder(folder)
    address, root = world.address(), first.certificate

    def connect(issued):
        return Client(address, credentials(folder, issued, root=root))

    def lets_in(issued):
        with connect(issued) as client:
            return refusal(client) is None

    def succeed(load, authority, number):
        """The next authority is trusted, then the one before is not; how long it took until that was out."""
        before, following = load.issued, Authority.new(f"CA {number}")
        issued = following.agent(DEPLOYER)
        put(folder / "ca.pem", authority.certificate + following.certificate)
        wait_until(lambda: lets_in(issued), "the next authority is trusted", REFUSED_WITHIN_SECONDS)
        with connect(before) as living:
            assert is_let_in(living), "while both are trusted, so is the one before"
            load.change_to(issued)
            put(folder / "ca.pem", following.certificate)
            removed = time.monotonic()
            over = wait_until(lambda: refusal(living), "a living connection of the removed ends", REFUSED_WITHIN_SECONDS)
            assert over.code in OVER, over
            assert not lets_in(before), "the removed authority is let in again"
            return following, time.monotonic() - removed

    authority, took = first, []
    with ServerCertificates(world, first) as servers, Valid(connect, first.agent(DEPLOYER)) as load:
        while time.monotonic() - began < SECONDS:
            authority, seconds = succeed(load, authority, len(took))
            took.append(seconds)
    assert not load.failures, load.failures[:3]
    assert not servers.failures, servers.failures[:3]
    assert max(took) <= REFUSED_WITHIN_SECONDS
    assure(
        "certificates",
        server_certificates=len(servers.seen) - 1,
        authorities=len(took),
        calls=load.calls,
        failures_of_valid_clients=0,
        slowest_refusal_of_a_removed_authority=round(max(took), 2),
        seconds=round(time.monotonic() - began, 1),
    )

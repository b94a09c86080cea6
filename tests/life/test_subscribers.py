"""Many who watch, and badly: nobody decides later for it, and each is told exactly what it missed."""

import json
import os
import socket
import subprocess
import sys
import threading
import time

import pytest
from conftest import HERE, STUBS
from event_source import EventSource, api_key
from remit_process import environment
from seed_policy import deployer_token
from waiting import wait_until

SECONDS = float(os.environ.get("REMIT_SUBSCRIBERS_SECONDS", "6"))
STALLED = 16
# What a subscriber may be behind before it misses something, where nothing can be read again.
RING = 2048


def load(world, seconds):
    """Decisions for so long; what `load.py` says of them."""
    command = [sys.executable, HERE / "load.py", world.remit.folder, str(world.remit.ports["grpc"]), str(seconds)]
    path = os.pathsep.join([str(STUBS), str(HERE)])
    ran = subprocess.run(command, env=environment(PYTHONPATH=path), capture_output=True, text=True, timeout=seconds + 60)
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


class Account:
    """What a subscriber got: each number once and in order, delivered or reported missing."""

    def __init__(self, begin):
        self.begin = self.last = begin
        self.delivered = self.missing = 0

    def event(self, sequence):
        assert sequence == self.last + 1, (sequence, self.last)
        self.last = sequence
        self.delivered += 1

    def gap(self, begin, end):
        assert begin == self.last + 1 and end >= begin, (begin, end, self.last)
        self.last = end
        self.missing += end - begin + 1

    def is_exact(self, produced):
        return self.last >= produced and self.delivered + self.missing == self.last - self.begin


def take_grpc(watching, account):
    item = next(watching)
    if item.DESCRIPTOR.name == "Gap":
        account.gap(getattr(item, "from"), item.to)
    else:
        account.event(item.sequence)


def take_sse(source, account):
    kind, data = next(source)
    account.gap(data["from"], data["to"]) if kind == "gap" else account.event(data["sequence"])


class Stalled:
    """Connected, and not reading until it is told to."""

    def __init__(self, world, over_http, after):
        self.world, self.over_http, self.account = world, over_http, Account(after)
        if over_http:
            self.socket = socket.socket()
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            self.socket.connect(("127.0.0.1", world.remit.ports["http"]))
            who = f"x-api-key: {api_key(world.remit.folder)}"
            self.socket.sendall(f"GET /v1/events?after={after} HTTP/1.0\r\nhost: localhost\r\n{who}\r\n\r\n".encode())
        else:
            self.client = world.fresh("ops-admin")
            self.watching = self.client.watch(after_sequence=after, seconds=SECONDS * 4 + 60)

    def read_until(self, produced):
        if not self.over_http:
            while self.account.last < produced:
                take_grpc(self.watching, self.account)
            return
        self.socket.settimeout(20)
        lines = self.socket.makefile("rb")
        kind = None
        while self.account.last < produced:
            line = lines.readline()
            assert line, "the stream goes on"
            if line.startswith(b"event: "):
                kind = line[7:].strip()
            elif line.startswith(b"data: ") and kind != b"heartbeat":
                data = json.loads(line[6:])
                self.account.gap(data["from"], data["to"]) if kind == b"gap" else self.account.event(data["sequence"])

    def close(self):
        if self.over_http:
            self.socket.close()
        else:
            self.watching.call.cancel()
            self.client.close()


class Crowd:
    """Those who read, in threads; `produced` is told when there will be no more."""

    def __init__(self, world, after):
        self.world = world
        self.produced = None
        self.failures = []
        self.accounts = {name: Account(after) for name in ("grpc", "sse", "resuming")}
        self.resumed = self.left = 0
        runs = [self.read_grpc, self.read_sse, self.resume, self.disconnect]
        self.threads = [threading.Thread(target=self._kept, args=(run,)) for run in runs]
        for thread in self.threads:
            thread.start()

    def _kept(self, run):
        try:
            run()
        except Exception as error:  # noqa: BLE001: said by the thread that waits
            self.failures.append((run.__name__, error))

    def is_over(self, account):
        return self.produced is not None and account.last >= self.produced

    def read_grpc(self):
        account, client = self.accounts["grpc"], self.world.fresh("ops-admin")
        with client, client.watch(after_sequence=account.begin, seconds=SECONDS * 4 + 60) as watching:
            while not self.is_over(account):
                take_grpc(watching, account)

    def read_sse(self):
        account = self.accounts["sse"]
        with EventSource(self.world.remit, after=account.begin) as source:
            while not self.is_over(account):
                take_sse(source, account)

    def resume(self):
        """Comes back after each 50 events, by the other wire."""
        account, stream_id = self.accounts["resuming"], self.world.administrator().status().stream_id
        while not self.is_over(account):
            self.resumed += 1
            if self.resumed % 2:
                with EventSource(self.world.remit, last=f"{stream_id}:{account.last}") as source:
                    self.some(take_sse, source, account)
            else:
                with self.world.fresh("ops-admin") as client:
                    with client.watch(stream_id=stream_id, after_sequence=account.last) as watching:
                        self.some(take_grpc, watching, account)

    def some(self, take, source, account):
        for _ in range(50):
            if self.is_over(account):
                return
            take(source, account)

    def disconnect(self):
        """Goes in the middle of it, again and again."""
        while self.produced is None:
            self.left += 1
            with EventSource(self.world.remit, after=1) as source:
                source.take(10)
            time.sleep(0.05)

    def finish(self, produced):
        self.produced = produced
        # Whoever has all of it already waits for one more.
        deployer_token(self.world)
        for thread in self.threads:
            thread.join(SECONDS * 4 + 60)
        assert not self.failures, self.failures
        for name, account in self.accounts.items():
            assert account.is_exact(produced), (name, vars(account), produced)


@pytest.mark.parametrize("log", ["file", "pipe"])
def test_stalled_leaving_and_resuming_subscribers(serve, log):
    settings = {} if log == "file" else {"REMIT_AUDIT_FILE": "-"}
    world = serve(REMIT_EVENTS_RING=str(RING), **settings)
    alone = load(world, max(SECONDS / 2, 3))
    begin = world.administrator().status().event_sequence
    stalled = [Stalled(world, over_http=number % 2 == 0, after=begin) for number in range(STALLED)]
    wait_until(lambda: world.remit.metrics()["remit_subscribers"] == STALLED, "the stalled ones watch")
    # Until what is on the way to them is full, they are served.
    load(world, max(SECONDS / 2, 3))
    beside_stalled = load(world, max(SECONDS / 2, 3))
    crowd = Crowd(world, world.administrator().status().event_sequence)
    wait_until(lambda: world.remit.metrics()["remit_subscribers"] >= STALLED + 3, "all watch")
    watched = load(world, SECONDS)
    produced = world.administrator().status().event_sequence
    crowd.finish(produced)
    # Where files are read, each of them would read all of it: two tell what all would.
    for one in stalled if log == "pipe" else stalled[:2]:
        one.read_until(produced)
        assert one.account.is_exact(produced), vars(one.account)
    told = [one.account.missing for one in stalled]
    assert (sum(told) > 0) == (log == "pipe"), "a pipe can't be read again, and files can"
    assert produced - begin >= watched["decided"]
    for one in stalled:
        one.close()
    wait_until(lambda: world.remit.metrics()["remit_subscribers"] == 0, "their places are free", 10)
    figures = {
        "what": f"16 stalled subscribers, log to a {log}",
        "seconds": SECONDS,
        "events": produced - begin,
        "resumed": crowd.resumed,
        "left": crowd.left,
        "missed_by_the_stalled": sum(told),
        "alone": alone,
        "beside_stalled": beside_stalled,
        "beside_all": watched,
    }
    print(f"ASSURE {json.dumps(figures)}")

"""That the epoch's check in the scripts is what keeps a failover from giving a use twice.

The product's own scripts run in real stores, once as they are and once without the part between two marks, which asks
which primary this is. Without it the same failover gives uses twice.
"""

import re
import secrets
import time
from concurrent.futures import ThreadPoolExecutor

from conftest import REPOSITORY
from stores import Store, Wire
from waiting import wait_until

SCRIPTS = REPOSITORY / "src/state/valkey/lua"
CHECK = re.compile(r"-- The epoch's check begins.*?-- The epoch's check ends[^\n]*\n", re.DOTALL)
TOKENS, USES, TRIES = 40, 2, 3


def text(name, is_checked):
    """A script as the product puts it together; or without the check."""
    before = ["prelude", "news"] if name == "poll" else ["prelude", "token"]
    whole = "".join((SCRIPTS / f"{part}.lua").read_text() for part in [*before, name])
    assert len(CHECK.findall(whole)) == 1, "the check stands between its two marks"
    return "#!lua flags=allow-oom\n" + (whole if is_checked else CHECK.sub("", whole))


class Node:
    """What a node asks, over one connection that stays open."""

    def __init__(self, store, is_checked):
        self.connection = store.connect()
        self.is_checked = is_checked
        self.epoch = ""

    def run(self, name, keys, *arguments, is_checked=None):
        """The script's answer in the epoch in force, as soon as there is one that answers."""
        script = text(name, self.is_checked if is_checked is None else is_checked)
        while True:
            names = ["record", *(f"{self.epoch}:{key}" for key in keys)]
            first = [secrets.token_hex(16), self.epoch, 0]
            answer = self.connection.call("EVAL", script, len(names), *names, *first, *arguments)
            if answer[0] == b"epoch":
                self.epoch = answer[1].decode()
            elif answer[0] == b"wait":
                time.sleep(answer[1] / 1000 + 0.01)
            else:
                return [part.decode() if isinstance(part, bytes) else part for part in answer]

    def begin(self):
        """There is a record, and both variants go on from it."""
        self.run("poll", ["agents", "changes", "quarantines"], 0, is_checked=True)

    def counter(self):
        return self.run("poll", ["agents", "changes", "quarantines"], 0)[3]

    def token(self, name, token, born):
        expires = int(time.time()) + 300
        keys = ["agents", "unknown", f"token:{token}"]
        return self.run(name, keys, f"tag of {token}", USES, expires, "", born, token, 0, 2, "a", "b", "get")

    def spend(self, token):
        return self.token("spend", token, 0)[0] == "left"


def drive(folder, kind, is_checked):
    """Uses that were given twice: after a promotion, by the old primary beside the new one, and after a failback."""
    allowed = dict.fromkeys((f"{number:032x}" for number in range(TOKENS)), 0)

    def try_all(node, times=TRIES):
        for token in allowed:
            allowed[token] += sum(node.spend(token) for _ in range(times))
        return sum(max(0, uses - USES) for uses in allowed.values())

    with Store(folder, kind) as first, Store(folder, kind) as second, Wire(first.port) as wire:
        second.replicate(wire.port)
        before = Node(first, is_checked)
        before.begin()
        born = before.counter()
        for token in allowed:
            assert before.token("mint", token, born)[0] == "left"
        wait_until(lambda: second.call("DBSIZE") == first.call("DBSIZE"), "the replica has the tokens")
        # Open before the promotion.
        after = Node(second, is_checked)
        after.epoch = before.epoch

        wire.hold()
        assert try_all(before, times=1) == 0 and sum(allowed.values()) == TOKENS
        wire.cut()
        second.promote()
        twice = {"promotion of a lagging replica": try_all(after), "both asked": try_all(before)}
        first.replicate(second.port)
        first.promote()
        twice["failback"] = try_all(before)
        assert sum(allowed.values()) >= TOKENS * USES, "each use was given"
        return twice


def prove(folder):
    """By kind of store: what was given twice without the check, and with it."""
    with ThreadPoolExecutor() as pool:
        runs = {
            kind: [pool.submit(drive, folder, kind, is_checked) for is_checked in (False, True)]
            for kind in ("redis", "valkey")
        }
        return {kind: [run.result() for run in both] for kind, both in runs.items()}

"""Delegations, decisions and revocations at a steady rate, every answer checked, from a process of its own.

    steady.py FOLDER PORT CALLS_A_SECOND SECONDS SEED     as fast as possible, if calls a second are 0

It prints how many calls there were, how many were refused for want of time, and what was wrong with answers.
"""

import json
import random
import sys
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

from remit_client import Refused, World, reason
from seed_policy import COORDINATOR, DEPLOYER, VALIDATOR

# Short, so that what is live is as much after ten seconds as after an hour.
LIFE_SECONDS = 5
EXPIRED = "TOKEN_EXPIRED"
# What a machine answers that has too much else to do: it allows nothing, and says why.
UNDECIDED = {"AUDIT_UNAVAILABLE", "DEADLINE_EXCEEDED"}
# So that connections come and go as well.
CONNECTION_SECONDS = 7
WRONG_TOLD = 5


class Steady:
    def __init__(self, remit, calls_a_second, seconds, seed):
        self.remit = remit
        self.pause = 1 / calls_a_second if calls_a_second else 0
        self.chance = random.Random(seed)
        self.began = self.due = time.monotonic()
        self.end = self.began + seconds
        self.answers = Counter()
        self.wrong = []
        self.undecided = 0

    def run(self):
        while time.monotonic() < self.end:
            with World(self.remit) as world:
                renew = time.monotonic() + CONNECTION_SECONDS
                while time.monotonic() < min(self.end, renew):
                    self.tell(world)
        seconds = time.monotonic() - self.began
        calls = self.answers.total()
        told = {"undecided": self.undecided, "wrong": self.wrong, "answers": self.answers}
        return {"calls": calls, "seconds": seconds} | told

    def wait(self):
        """Until the next call is due. Of what was missed, a second is made up for and no more."""
        now = time.monotonic()
        if self.due > now:
            time.sleep(self.due - now)
        self.due = max(self.due, now - 1) + self.pause

    def tell(self, world):
        """A story to its end, or to an answer that leaves nothing to go on with."""
        began = time.monotonic()
        for call, arguments, wanted in self.story(world):
            self.wait()
            try:
                answered = call(*arguments)
            except Refused as refusal:
                answered = refusal.reason or refusal.code.name
            self.answers[answered if isinstance(answered, str) else answered[0]] += 1
            if answered != wanted:
                # On a machine that stood still meanwhile.
                is_late = answered == EXPIRED and time.monotonic() - began > LIFE_SECONDS - 1
                if answered in UNDECIDED or is_late:
                    self.undecided += 1
                else:
                    self.wrong = [*self.wrong, f"wanted {wanted}, answered {answered}"][:WRONG_TOLD]
                return

    def story(self, world):
        """A chain from its root to its end, call by call, and what has to be answered to each."""
        uses, part = self.chance.randint(2, 5), self.chance.randint(1, 2)
        part = min(part, uses - 1)
        tokens = {}

        def delegate(name, by, to, uses, parent):
            more = {"parent": tokens[parent]} if parent else {"ttl": LIFE_SECONDS, "delegatable": True}
            given = world[by].delegate(to, ["kubectl_get"], ["prod/*"], max_uses=uses, **more)
            tokens[name] = given.token
            return "delegated", given.max_uses

        def use(name, by, resource="prod/web"):
            answer = world[by].authorize("kubectl_get", resource, tokens[name])
            name = reason(answer)
            return (name, answer.remaining_uses) if name == "ALLOWED" else name

        def revoke(name):
            world[COORDINATOR].revoke(token=tokens[name])
            return "revoked"

        yield delegate, ("root", COORDINATOR, DEPLOYER, uses, None), ("delegated", uses)
        yield delegate, ("child", DEPLOYER, VALIDATOR, part, "root"), ("delegated", part)
        yield use, ("root", VALIDATOR), "TOKEN_WRONG_HOLDER"
        yield use, ("root", DEPLOYER, "dev/web"), "RESOURCE_NOT_GRANTED"
        for left in reversed(range(part)):
            yield use, ("child", VALIDATOR, f"prod/{left}"), ("ALLOWED", left)
        yield use, ("child", VALIDATOR), "TOKEN_USES_EXHAUSTED"
        is_revoked = self.chance.random() < 0.3
        for left in reversed(range(uses - part)):
            if is_revoked and left == 0:
                yield revoke, ("root",), "revoked"
                yield use, ("root", DEPLOYER), "TOKEN_REVOKED"
                yield use, ("child", VALIDATOR), "TOKEN_REVOKED"
                return
            yield use, ("root", DEPLOYER), ("ALLOWED", left)
        yield use, ("root", DEPLOYER), "TOKEN_USES_EXHAUSTED"


if __name__ == "__main__":
    folder, port, calls_a_second, seconds, seed = sys.argv[1:]
    remit = SimpleNamespace(folder=Path(folder), ports={"grpc": int(port)})
    print(json.dumps(Steady(remit, float(calls_a_second), float(seconds), int(seed)).run()))

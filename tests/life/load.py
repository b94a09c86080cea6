"""Decisions without a pause, from a process of their own: `load.py FOLDER PORT SECONDS` prints how long they took."""

import json
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

from remit_client import World, authorize_request, reason
from seed_policy import DEPLOYER, deployer_token

THREADS = 2
BATCH = 50
# Beside the questions that are timed, so that there are more events than a subscriber's buffers take.
BATCHES_A_SECOND = 20
WARM_UP_SECONDS = 0.5
NEW_TOKEN_SECONDS = 20


class Load:
    def __init__(self, world, seconds):
        self.world = world
        self.begin = time.monotonic() + WARM_UP_SECONDS
        self.end = self.begin + seconds
        self.took = []
        self.decided = 0
        self.lock = threading.Lock()

    def run(self):
        threads = [threading.Thread(target=self.until_the_end, args=(self.ask,)) for _ in range(THREADS)]
        threads.append(threading.Thread(target=self.until_the_end, args=(self.ask_for_many,)))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        took = sorted(self.took)
        at = lambda share: round(took[int(len(took) * share)] * 1000, 3)  # noqa: E731
        return {"decided": self.decided, "timed": len(took), "p50_ms": at(0.5), "p99_ms": at(0.99)}

    def until_the_end(self, ask):
        client, token, took, decided, renew = self.world.fresh(DEPLOYER), "", [], 0, 0.0
        while (now := time.monotonic()) < self.end:
            if now >= renew:
                with self.lock:
                    token, renew = deployer_token(self.world).token, now + NEW_TOKEN_SECONDS
                now = time.monotonic()
            decided += ask(client, token)
            if now > self.begin and ask == self.ask:
                took.append(time.monotonic() - now)
        client.close()
        with self.lock:
            self.took += took
            self.decided += decided

    @staticmethod
    def ask(client, token):
        assert reason(client.authorize("kubectl_get", "prod/web", token, dry_run=True)) == "ALLOWED"
        return 1

    @staticmethod
    def ask_for_many(client, token):
        requests = [authorize_request("kubectl_get", "prod/web", token, dry_run=True)] * BATCH
        assert {reason(answer) for answer in client.batch_authorize(requests)} == {"ALLOWED"}
        time.sleep(1 / BATCHES_A_SECOND)
        return BATCH


if __name__ == "__main__":
    folder, port, seconds = sys.argv[1:]
    with World(SimpleNamespace(folder=Path(folder), ports={"grpc": int(port)})) as world:
        print(json.dumps(Load(world, float(seconds)).run()))

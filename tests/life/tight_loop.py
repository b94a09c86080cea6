"""An agent that malfunctions: it asks the same again and again, 16 questions at a time.

Each line of standard input is a loop as JSON: `address`, `folder`, `agent`, `token`, for how many `seconds`; optionally at
how many `per_second` (as fast as it can, if it says none), `until` which reason comes, and with `dry_run`. Prints "begun"
after the first answer, and at the end what it was told: each reason when it first came, and how often it came.
"""

import json
import sys
import time
from collections import Counter

from remit_client import Client, authorize_request, certificate_credentials, reason

IN_FLIGHT = 16


def loop(address, folder, agent, token, seconds, per_second=None, until=None, dry_run=False):
    with Client(address, certificate_credentials(folder, agent)) as client:
        question = authorize_request("kubectl_get", "prod/web", token, dry_run=dry_run)
        counts = Counter()
        # The first use alone, so that the order of what is told is known.
        counts[reason(client.call(client.decisions.Authorize, question))] += 1
        print("begun", flush=True)
        began = time.monotonic()
        while until not in counts and (passed := time.monotonic() - began) < seconds:
            early = counts.total() / per_second - passed if per_second else 0
            if early > 0:
                time.sleep(early)
            asked = [client.decisions.Authorize.future(question, timeout=10) for _ in range(IN_FLIGHT)]
            counts.update(reason(answer.result()) for answer in asked)
        seconds = time.monotonic() - began
        return {
            "order": list(counts),
            "counts": counts,
            "seconds": round(seconds, 2),
            "per_second": round(counts.total() / seconds),
        }


if __name__ == "__main__":
    for line in sys.stdin:
        print(json.dumps(loop(**json.loads(line))), flush=True)

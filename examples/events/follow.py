"""Follows the decisions of a Remit and never loses its place: what was seen last stands in a file.

    python follow.py http://127.0.0.1:7480 .remit-dev/api_keys/ops-admin.key place.txt
"""

import json
import sys
import time
import urllib.request
from pathlib import Path

server, key, place = sys.argv[1], Path(sys.argv[2]).read_text().strip(), Path(sys.argv[3])


def follow():
    headers = {"x-api-key": key}
    if place.exists():
        headers["Last-Event-ID"] = place.read_text()
    query = "" if place.exists() else "?after=0"
    request = urllib.request.Request(f"{server}/v1/events{query}", headers=headers)
    with urllib.request.urlopen(request, timeout=60) as lines:
        event = {}
        for line in lines:
            name, _, value = line.decode().rstrip("\n").partition(": ")
            if line.startswith(b":"):  # a comment
                continue
            if name:
                event[name] = value
                continue
            act(event["event"], json.loads(event["data"]))
            if "id" in event:  # only now: what is not acted on comes again
                place.write_text(event["id"])
            event = {}


def act(kind, data):
    if kind == "decision":
        print(data["sequence"], data["result"], data["reason"], data["from_agent"], flush=True)
    elif kind == "gap":
        print("MISSED", data["from"], "to", data["to"], "of", data["stream_id"], flush=True)


while True:
    try:
        follow()
    except OSError as error:
        print(f"lost: {error}", file=sys.stderr)
    time.sleep(1)

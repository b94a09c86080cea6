"""A queue: a folder in which each message is a file. Any broker with headers does."""

import json
import os
import uuid
from pathlib import Path


def put(folder, headers, body):
    message = Path(folder) / f"{uuid.uuid4()}.part"
    with open(os.open(message, os.O_CREAT | os.O_WRONLY, 0o600), "w") as file:
        json.dump({"headers": headers, "body": body}, file)
    message.rename(message.with_suffix(".json"))


def take(folder):
    """The oldest message's headers and body, or None."""
    for path in sorted(Path(folder).glob("*.json"), key=lambda path: path.stat().st_mtime_ns):
        message = json.loads(path.read_text())
        path.unlink()
        return message["headers"], message["body"]
    return None

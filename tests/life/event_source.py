"""`/v1/events` as a client reads it that nobody here wrote: sseclient-py over urllib."""

import json
import urllib.parse
import urllib.request

import sseclient


def api_key(folder, name="ops-admin"):
    return (folder / "api_keys" / f"{name}.key").read_text().strip()


class EventSource:
    """A connection to the stream. An error status is a `urllib.error.HTTPError`."""

    def __init__(self, remit, name="ops-admin", last=None, seconds=20, **query):
        headers = {"x-api-key": api_key(remit.folder, name)} if name else {}
        if last:
            headers["Last-Event-ID"] = last
        url = f"http://127.0.0.1:{remit.ports['http']}/v1/events?{urllib.parse.urlencode(query, doseq=True)}"
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        self.response = opener.open(urllib.request.Request(url, headers=headers), timeout=seconds)
        self.events = sseclient.SSEClient(self.response).events()
        self.last = last

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.response.close()

    def __iter__(self):
        return self

    def any(self):
        """The next event of whatever kind: its name and its data."""
        event = next(self.events)
        self.last = event.id or self.last
        return event.event, json.loads(event.data)

    def __next__(self):
        """The next decision or gap."""
        while (item := self.any())[0] == "heartbeat":
            pass
        return item

    def take(self, count):
        return [next(self) for _ in range(count)]


def place(line):
    """The id of a line's event."""
    return f"{line['stream_id']}:{line['sequence']}"

"""How fast `remit audit verify` is: makes a log of N events and checks it. Not a test; one line says the figures.

    REMIT_VERIFY_EVENTS=1000000 .cache/venv/bin/python tests/life/measure_verify.py [target/release/remit]

Without a name it takes the release build, or, where there is none, that of the tests.
"""

import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

LINE = (
    '{{"timestamp":"2026-11-21T21:51:43Z","event":"agent.communication","from_agent":"agent-deployer",'
    '"to_agent":"svc-demo","message_type":"capability_request","delegation_chain":["agent-coordinator","agent-deployer"],'
    '"delegation_depth":1,"capabilities_used":["kubectl_get"],"token_id":"{0:032x}","result":"accepted",'
    '"stream_id":"00000000000000ff","sequence":{0},"decision_id":"00000000000000ff{0:016x}","reason":"ALLOWED",'
    '"caller":"svc-demo","identity_method":"SPIFFE","issuer":"spiffe://cluster.local","resource":"prod/web",'
    '"remaining_uses":0,"policy_revision":5,"policy_digest":"{1}","request_id":"r-{0}","prev_hash":"{2}"'
)


def write(file, events):
    """A log as the recorder writes it, of lines of common length; its last hash."""
    head, digest = "0" * 64, hashlib.sha256(b"policy").hexdigest()
    with file.open("w") as out:
        for number in range(1, events + 1):
            body = LINE.format(number, digest, head)
            head = hashlib.sha256(body.encode()).hexdigest()
            out.write(f'{body},"hash":"{head}"}}\n')
    return head


def built():
    """The release build, or that of the tests."""
    repository = Path(__file__).resolve().parents[2]
    target = repository / os.environ.get("CARGO_TARGET_DIR", "target")
    return next(path for path in (target / "release/remit", target / "debug/remit") if path.exists())


def main(binary, events):
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "audit.jsonl"
        head = write(file, events)
        seconds = []
        for _ in range(3):
            begun = time.monotonic()
            command = [binary, "audit", "verify", str(file), "--head", head, "--output", "json"]
            answer = subprocess.run(command, capture_output=True, text=True, check=True)
            seconds.append(time.monotonic() - begun)
            report = json.loads(answer.stdout)
            assert report["intact"] and report["events"] == events, report
        best = min(seconds)
        build = "release" if "release" in Path(binary).parts else "tests'"
        figures = {"what": "audit verify", "build": build, "events": events, "bytes": file.stat().st_size, "seconds": round(best, 3)}
        print("ASSURE", json.dumps(figures | {"events_per_second": round(events / best)}))


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else str(built()), int(os.environ.get("REMIT_VERIFY_EVENTS", "100000")))

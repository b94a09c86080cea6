"""The audit log's chain: checked by the command, and by six lines of Python that know nothing but the rule."""

import contextlib
import hashlib
import json
import os
import pty
import re
import subprocess

import jwt
from remit_client import reason
from remit_process import binary, environment
from seed_policy import DEPLOYER, VALIDATOR, deployer_token, validator_token
from test_cli import remit
from test_events import decide
from waiting import wait_until


def follow(lines, head="0" * 64):
    """What `docs/events.md` says, and no more."""
    for line in lines:
        body, _, rest = line.rpartition(b',"hash":"')
        assert hashlib.sha256(body).hexdigest() == rest[:64].decode()
        assert json.loads(line)["prev_hash"] == head
        head = json.loads(line)["hash"]
    return head


def verify(*files):
    answer = remit("audit", "verify", *files, "--output", "json")
    return answer.returncode, json.loads(answer.stdout)


def test_the_chain_goes_on_over_a_stop_a_crash_and_rotation(serve):
    world = serve(REMIT_AUDIT_ROTATE_BYTES="4096")
    file = world.remit.folder / "audit.jsonl"
    files = lambda: [*sorted(file.parent.glob("audit.jsonl.*")), file]  # noqa: E731
    for end in (world.remit.stop, world.remit.kill):
        for _ in range(3):
            token = deployer_token(world).token
            assert reason(world[DEPLOYER].authorize("kubectl_get", "prod/web", token)) == "ALLOWED"
        status = world.administrator().status()
        last = f'"stream_id":"{status.stream_id}","sequence":{status.event_sequence},'
        wait_until(lambda: any(last in path.read_text() for path in files()), "the last event is written")
        world.close()
        end()
        world.remit.start()
    assert world.remit.stop() == 0
    assert len(files()) > 2
    code, report = verify(*reversed(files()))
    assert (code, report["intact"], report["begins_with_the_log"]) == (0, True, True), report
    lines = [line for path in map(str, report["files"]) for line in open(path, "rb").read().splitlines()]
    assert follow(lines) == report["last_hash"] and report["events"] == len(lines)


def test_a_changed_log_is_found_out(serve):
    world = serve()
    for _ in range(3):
        deployer_token(world)
    world.close()
    assert world.remit.stop() == 0
    file = world.remit.folder / "audit.jsonl"
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join(lines).replace(b'"accepted"', b'"denied"', 1))
    code, report = verify(file)
    assert code == 1 and report["faults"][0]["sequence"] == 1 and "was changed" in report["faults"][0]["what"]
    file.write_bytes(b"".join(lines[1:]))
    code, report = verify(file)
    assert (code, report["begins_with_the_log"]) == (0, False)
    file.write_bytes(b"".join([lines[0], *lines[2:]]))
    assert verify(file)[0] == 1
    assert remit("audit", "verify", file.parent / "nothing").returncode == 2


def test_a_watcher_gets_the_hashes(serve):
    world = serve()
    token = deployer_token(world)
    with world["ops-admin"].watch(after_sequence=0) as watching:
        seen = [next(watching) for _ in range(2)]
    assert seen[1].token_id == token.token_id
    assert (seen[0].prev_hash, seen[1].prev_hash) == ("0" * 64, seen[0].hash)
    lines = wait_until(lambda: world.remit.audit()[:2], "the file has them")
    assert [line["hash"] for line in lines] == [event.hash for event in seen]


def test_checkpoints_are_signed_and_prove_the_log(serve):
    world = serve(REMIT_AUDIT_CHECKPOINT_EVENTS="5")
    token = deployer_token(world).token
    for _ in range(8):
        world[DEPLOYER].authorize("kubectl_get", "prod/web", token)
    keys = json.loads(world.remit.http("/.well-known/jwks.json")[2])
    kept = world.remit.folder.parent / "jwks.json"
    kept.write_text(json.dumps(keys))
    world.close()
    assert world.remit.stop() == 0
    file = world.remit.folder / "audit.jsonl"
    lines = [json.loads(line) for line in file.read_bytes().splitlines()]
    checkpoints = [line for line in lines if line["message_type"] == "checkpoint"]
    assert len(checkpoints) >= 2 and lines[-1] in checkpoints, "the last line of an orderly stop"
    for line in checkpoints:
        header = jwt.get_unverified_header(line["checkpoint"])
        assert header["typ"] == "remit-checkpoint+jwt"
        key = jwt.PyJWKSet.from_dict(keys)[header["kid"]]
        told = jwt.decode(line["checkpoint"], key, algorithms=[key.algorithm_name], issuer="https://localhost")
        assert {name: told[name] for name in ("stream_id", "sequence", "prev_hash")} == {
            name: line[name] for name in ("stream_id", "sequence", "prev_hash")
        }
    code, report = verify(file, "--jwks", kept)
    found = report["signatures"]
    assert (code, found["good"], found["events_after_last_good"]) == (0, len(checkpoints), 0), report
    assert verify(file)[1]["signatures"] == {
        "checked": False,
        "checkpoints": len(checkpoints),
        "good": None,
        "last_good_stream_id": None,
        "last_good_sequence": None,
        "events_after_last_good": None,
    }
    assert "not checked" in remit("audit", "verify", file).stdout

    forge(file, lambda line: line.replace(b'"kubectl_get"', b'"kubectl_delete"', 1))
    assert verify(file)[0] == 0, "the chain alone doesn't show it"
    code, report = verify(file, "--jwks", kept)
    assert code == 1 and report["faults"][0]["sequence"] == checkpoints[0]["sequence"], report
    assert "for another line" in report["faults"][0]["what"]
    assert remit("audit", "verify", file, "--jwks", file).returncode == 2


def test_who_looks_on_sees_how_far_the_check_of_a_long_log_is(tmp_path):
    line = b'{"timestamp":"2026-11-21T21:51:43Z","note":"' + b"x" * 60_000 + b'"}\n'
    file = tmp_path / "audit.jsonl"
    file.write_bytes(line * (70 * 1024 * 1024 // len(line)))
    terminal, its_end = pty.openpty()
    with (tmp_path / "told").open("w") as told:
        ran = subprocess.Popen([binary(), "audit", "verify", file], env=environment(), stdout=told, stderr=its_end)
    os.close(its_end)
    shown = b""
    # Linux says so when the other end of a terminal is closed.
    with contextlib.suppress(OSError):
        while part := os.read(terminal, 4096):
            shown += part
    os.close(terminal)
    assert ran.wait(60) == 1 and "not as they were written" in (tmp_path / "told").read_text()
    percents = [int(percent) for percent in re.findall(rb"\r\[[# ]{50}\] +(\d+) % of \d+ MB", shown)]
    assert len(percents) == 2 and 40 < percents[0] < percents[1] <= 100, shown
    assert shown.endswith(b"\r\x1b[K"), "and nothing stays of it"
    silent = remit("audit", "verify", file)
    assert silent.stderr == "", "nobody looks on"


def forge(file, change):
    """Changes lines and makes the chain anew, as whoever may write the file can."""
    head, forged = "0" * 64, []
    for line in file.read_bytes().splitlines():
        body = change(line).rpartition(b',"prev_hash":"')[0] + b',"prev_hash":"' + head.encode() + b'"'
        head = hashlib.sha256(body).hexdigest()
        forged.append(body + b',"hash":"' + head.encode() + b'"}\n')
    file.write_bytes(b"".join(forged))


def test_the_chain_of_a_token_and_the_doings_of_an_agent_are_shown(serve):
    world = serve()
    root, child = validator_token(world)
    other = deployer_token(world)
    world[VALIDATOR].authorize("kubectl_get", "prod/web", child.token)
    world[DEPLOYER].authorize("kubectl_get", "prod/web", other.token)
    world.close()
    assert world.remit.stop() == 0
    file = world.remit.folder / "audit.jsonl"

    def shown(*arguments):
        answer = remit("audit", "show", file, "--output", "json", *arguments)
        assert answer.returncode == 0, answer.stderr
        return [json.loads(line) for line in answer.stdout.splitlines()]

    lines = shown()
    assert lines == [json.loads(line) for line in file.read_bytes().splitlines()]
    for token in (root, child):
        told = [(line["message_type"], line["token_id"]) for line in shown("--chain", token.token_id)]
        assert told == [
            ("delegate", root.token_id),
            ("delegate", child.token_id),
            ("capability_request", child.token_id),
        ]
    assert next(line for line in lines if line["token_id"] == child.token_id)["target"] == root.token_id
    assert {line["token_id"] for line in shown("--agent", VALIDATOR)} == {child.token_id}
    assert shown("--until", lines[0]["timestamp"]) == []
    assert shown("--since", lines[0]["timestamp"]) == lines
    assert root.token_id in remit("audit", "show", file, "--chain", child.token_id).stdout
    assert remit("audit", "show", file, "--chain", "x").returncode == 2


def test_a_watcher_gets_from_the_files_what_memory_forgot(serve):
    world = serve(REMIT_EVENTS_RING="64", REMIT_EVENTS_SUBSCRIBER_BUFFER="16", REMIT_AUDIT_ROTATE_BYTES="16384")
    for _ in range(150):
        decide(world)
    last = world.administrator().status().event_sequence
    assert last > 64 * 2
    with world["ops-admin"].watch(after_sequence=0) as watching:
        events = watching.take(last)
    assert [event.sequence for event in events] == list(range(1, last + 1))
    assert all(later.prev_hash == event.hash for event, later in zip(events, events[1:]))
    with world["ops-admin"].watch(after_sequence=7) as watching:
        assert next(watching).sequence == 8

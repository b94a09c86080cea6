"""The audit log's chain: checked by the command, and by six lines of Python that know nothing but the rule."""

import hashlib
import json

from remit_client import reason
from seed_policy import DEPLOYER, deployer_token
from test_cli import remit
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

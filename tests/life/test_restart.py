"""What a crash and a second start leave as it was, and what they end."""

import hashlib
import json

from remit_client import World, reason, refused
from remit_process import Remit
from seed_policy import COORDINATOR, DEPLOYER, VALIDATOR, deployer_token, validator_token


def contents(folder):
    """The folder's files that the first start made for good."""
    kept = [path for path in folder.rglob("*") if path.is_file() and "state" not in path.parts]
    kept = [path for path in kept if path.name not in ("audit.jsonl", "ports.json")]
    return {
        str(path.relative_to(folder)): (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mode)
        for path in kept
    }


def test_tokens_from_before_a_crash_are_fenced(serve):
    world = serve()
    unused, spent = deployer_token(world).token, deployer_token(world).token
    root, child = validator_token(world)
    assert reason(world[DEPLOYER].authorize("kubectl_get", "prod/web", spent)) == "ALLOWED"
    events = world.administrator().status()
    world.close()

    world.remit.kill()
    world.remit.start()

    for token in (unused, spent, root.token):
        assert reason(world[DEPLOYER].authorize("kubectl_get", "prod/web", token)) == "TOKEN_FENCED"
    assert reason(world[VALIDATOR].authorize("kubectl_get", "prod/web", child.token)) == "TOKEN_FENCED"
    with refused("TOKEN_FENCED"):
        world[DEPLOYER].delegate(VALIDATOR, ["kubectl_get"], ["prod/web"], parent=root.token)
    status = world.administrator().status()
    assert status.fence.seconds >= events.fence.seconds and status.stream_id != events.stream_id
    assert reason(world[DEPLOYER].authorize("kubectl_get", "prod/web", deployer_token(world).token)) == "ALLOWED"


def test_the_audit_file_goes_on(serve):
    world = serve()
    deployer_token(world)
    world.close()
    assert world.remit.stop() == 0
    before = world.remit.audit_lines()
    assert before

    world.remit.start()
    deployer_token(world)
    world.close()
    assert world.remit.stop() == 0

    after = world.remit.audit_lines()
    assert after[: len(before)] == before and len(after) > len(before)
    streams = list(dict.fromkeys(line["stream_id"] for line in world.remit.audit()))
    assert len(streams) == 2, "each start has a stream of its own"
    for stream in streams:
        numbers = [line["sequence"] for line in world.remit.audit() if line["stream_id"] == stream]
        assert numbers == list(range(1, len(numbers) + 1))


def test_half_a_line_of_a_crash_does_not_spoil_the_next(serve):
    world = serve()
    deployer_token(world)
    world.close()
    assert world.remit.stop() == 0
    with (world.remit.folder / "audit.jsonl").open("ab") as file:
        file.write(b'{"timestamp":"2026-')
    world.remit.start()
    made = deployer_token(world)
    world.close()
    assert world.remit.stop() == 0
    whole = [json.loads(line) for line in world.remit.audit_lines() if line.endswith("}")]
    assert any(line["token_id"] == made.token_id for line in whole), "the new lines stand on their own"


def test_a_second_start_keeps_everything(tmp_path):
    remit = Remit(tmp_path / "new" / "dev")
    with remit, World(remit) as world:
        deployer_token(world)
        first = contents(remit.folder)
        # Somebody edits what is there.
        policy = remit.policy_file.read_text().replace('"max_delegation_depth": 2', '"max_delegation_depth": 1')
        remit.policy_file.write_text(policy)
        gone = remit.folder / "agents" / f"{DEPLOYER}.pem"
        gone_too = gone.with_suffix(".key")
        world.close()
        assert remit.stop() == 0
        gone.unlink()
        gone_too.unlink()

        remit.start()
        second = contents(remit.folder)
        assert second.keys() == first.keys(), "what is missing is made"
        changed = {name for name in first if first[name] != second[name]}
        assert changed == {"policy.json", f"agents/{gone.name}", f"agents/{gone_too.name}"}
        assert reason(world[DEPLOYER].authorize("kubectl_get", "prod/web", deployer_token(world).token)) == "ALLOWED"
        token = world[COORDINATOR].delegate(DEPLOYER, ["kubectl_get"], ["prod/web"], delegatable=True).token
        with refused("DELEGATION_DEPTH_EXCEEDED"):
            world[DEPLOYER].delegate(VALIDATOR, ["kubectl_get"], ["prod/web"], parent=token)


def test_secrets_are_for_their_owner_alone(template):
    for path in [*template.rglob("*.key")]:
        assert path.stat().st_mode & 0o077 == 0, path
    assert len(list(template.rglob("*.key"))) >= 9


def test_a_policy_laid_there_before_the_first_start(tmp_path):
    folder = tmp_path / "dev"
    folder.mkdir()
    (folder / "policy.json").write_text(
        '{"delegation_rules": {"boss": {"can_delegate_to": ["worker"], "max_capability_set": ["x"]}}}'
    )
    remit = Remit(folder)
    with remit, World(remit) as world:
        token = world["boss"].delegate("worker", ["x"], ["y"]).token
        assert reason(world["worker"].authorize("x", "y", token)) == "ALLOWED"

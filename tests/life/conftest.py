"""Servers for the tests: real ones, from the binary that `cargo test` built."""

import json
import os
import shutil
import sys
from pathlib import Path

import pytest
from grpc_tools import protoc
import grpc_tools

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]
STUBS = REPOSITORY / ".cache" / "stubs"


def make_stubs():
    """Python from `proto/`, new at each run, so that it can't be older than the protocol."""
    shutil.rmtree(STUBS, ignore_errors=True)
    STUBS.mkdir(parents=True)
    proto = REPOSITORY / "proto"
    # `proto/google` comes with a package.
    ours = [path for name in ("remit", "envoy") for path in (proto / name).rglob("*.proto")]
    files = sorted(str(path.relative_to(proto)) for path in ours)
    known = Path(grpc_tools.__file__).parent / "_proto"
    arguments = [f"-I{REPOSITORY / 'proto'}", f"-I{known}", f"--python_out={STUBS}", f"--grpc_python_out={STUBS}"]
    if protoc.main(["protoc", *arguments, *files]) != 0:
        raise RuntimeError("no stubs could be made from proto/")


make_stubs()
sys.path.insert(0, str(STUBS))

import oidc  # noqa: E402
from remit_client import World  # noqa: E402
from remit_process import Remit, copy_folder  # noqa: E402


def cannot(why):
    """A part of the world that can't be had: said loudly, and in CI a failure."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"in CI every test has to run: {why}")
    pytest.skip(why)


@pytest.fixture(scope="session")
def need_node():
    """For tests with an OpenID provider."""
    if why := oidc.missing():
        cannot(why)


@pytest.fixture(scope="session")
def template(tmp_path_factory):
    """A dev folder as the first start makes it; never served from."""
    folder = tmp_path_factory.mktemp("template") / "dev"
    remit = Remit(folder)
    with remit:
        assert remit.stop() == 0
    return folder


@pytest.fixture(scope="session")
def trusting(template, tmp_path_factory):
    """A dev folder whose policy gives the deployer and the validator more than one use; never served from."""
    folder = copy_folder(template, tmp_path_factory.mktemp("trusting") / "dev")
    policy = json.loads((folder / "policy.json").read_text())
    for giver, taker in (("agent-coordinator", "agent-deployer"), ("agent-deployer", "agent-validator")):
        policy["delegation_rules"][giver]["trusted_pairs"] = [taker]
    (folder / "policy.json").write_text(json.dumps(policy))
    return folder


@pytest.fixture
def folder(template, tmp_path):
    """A dev folder of the test's own."""
    return copy_folder(template, tmp_path / "dev")


@pytest.fixture(scope="module")
def shared(template, tmp_path_factory):
    """One `serve --dev` for the module, and its clients."""
    folder = copy_folder(template, tmp_path_factory.mktemp("shared") / "dev")
    with Remit(folder) as remit, World(remit) as world:
        yield world


@pytest.fixture
def serve(folder):
    """Starts servers in the test's folder, `serve(is_dev=False, REMIT_…="…")`; all end with the test."""
    started = []

    def start(**how):
        remit = Remit(folder, **how)
        world = World(remit)
        started.append((remit, world))
        remit.start()
        return world

    yield start
    for remit, world in reversed(started):
        world.close()
        remit.end()

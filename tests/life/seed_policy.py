"""The agents of the example policy, and how a chain is begun under it."""

COORDINATOR, DEPLOYER, VALIDATOR = "agent-coordinator", "agent-deployer", "agent-validator"
ANALYST, WRITER = "agent-analyst", "agent-writer"
AGENTS = [COORDINATOR, DEPLOYER, VALIDATOR, ANALYST, WRITER]


def deployer_token(world, capabilities=("kubectl_get",), resources=("prod/*",), **more):
    """What the coordinator gives the deployer."""
    return world[COORDINATOR].delegate(DEPLOYER, capabilities, resources, **more)


def validator_token(world, **more):
    """What the deployer makes of such a token for the validator: a chain of two hops."""
    root = deployer_token(world, delegatable=True)
    return root, world[DEPLOYER].delegate(VALIDATOR, ["kubectl_get"], ["prod/web"], parent=root.token, **more)

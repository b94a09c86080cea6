//! Decision cases: a policy, requests, the wanted answers and the wanted events.

#[cfg(test)]
#[expect(dead_code, reason = "each test crate uses its own part")]
mod harness;

#[cfg(test)]
mod tests {
    use crate::harness::{Setup, World, wish};
    use remit::engine::AuthorizeRequest;

    #[test]
    fn smoke() {
        let mut world = World::of(Setup::policy(include_str!("../examples/policy.json")));
        let coordinator = world.caller("agent-coordinator");
        let wish = wish("agent-deployer", &["kubectl_get"], &["prod/*"]);
        let token = world.delegate(&coordinator, &world.root(wish)).outcome.unwrap().token;
        let ask = AuthorizeRequest { token: Some(&token), ..world.ask("kubectl_get", "prod/web") };
        assert!(world.authorize(&world.caller("agent-deployer"), &ask).outcome.is_ok());
        assert_eq!(world.events().len(), 2);
        assert_eq!(world.metric("agent_token_reuse_attempts_total", &[("agent_id", "agent-deployer")]), Some(0.0));
    }
}

//! Who comes late: the engine's clock moves on at each look, as if every check took long.

#[cfg(test)]
#[expect(dead_code, reason = "each test crate uses its own part")]
mod harness;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use remit::domain::chain::Wish;
    use remit::domain::reason::{Denial, Reason};
    use remit::domain::time::Timestamp;
    use remit::engine::{AuthorizeRequest, DelegateRequest};

    use crate::harness::{Setup, World, wish};

    const POLICY: &str = r#"{
        "delegation_rules": {
            "coordinator": {"can_delegate_to": ["deployer"], "max_capability_set": ["get"], "trusted_pairs": ["deployer"]},
            "deployer": {"max_capability_set": ["get"]}
        },
        "grants": [{"agent": "coordinator", "capabilities": ["get"], "resources": ["x/*"]}]
    }"#;
    /// What the engine takes between two looks at the clock.
    const STEP: Duration = Duration::from_secs(1);

    fn slow(policy: &str) -> World {
        World::of(Setup { tick: STEP, ..Setup::policy(policy) })
    }

    /// So many looks at the clock after the next one there is no time left.
    fn after_looks(world: &World, looks: u32) -> Timestamp {
        world.now().after(STEP * (looks + 1))
    }

    fn reason(outcome: &Result<(), Denial>) -> Reason {
        outcome.as_ref().map_or_else(Denial::reason, |()| Reason::Allowed)
    }

    #[test]
    fn a_use_is_not_spent_when_the_checks_took_all_the_time() {
        let world = slow(POLICY);
        let root = DelegateRequest { deadline: after_looks(&world, 100), ..world.root(wish("deployer", &["get"], &["x/*"])) };
        let token = world.delegate(&world.caller("coordinator"), &root).outcome.unwrap().token;
        let deployer = world.caller("deployer");
        let mut answers = Vec::new();
        // The later looks at the clock are each late in turn; the token has one use.
        for looks in 0..6 {
            let ask = AuthorizeRequest { token: Some(&token), ..world.ask("get", "x/y") };
            let ask = AuthorizeRequest { deadline: after_looks(&world, looks), ..ask };
            answers.push(reason(&world.authorize(&deployer, &ask).outcome));
        }
        // The question's beginning, before the conditions, before the use.
        let late = Reason::DeadlineExceeded;
        assert_eq!(answers, [late, late, late, Reason::Allowed, Reason::TokenUsesExhausted, Reason::TokenUsesExhausted]);
    }

    #[test]
    fn a_token_is_not_minted_when_the_checks_took_all_the_time() {
        let world = slow(POLICY);
        let coordinator = world.caller("coordinator");
        let mut answers = Vec::new();
        for looks in 0..4 {
            let wish = Wish { ..wish("deployer", &["get"], &["x/*"]) };
            let request = DelegateRequest { deadline: after_looks(&world, looks), ..world.root(wish) };
            answers.push(reason(&world.delegate(&coordinator, &request).outcome.map(|_| ())));
        }
        let late = Reason::DeadlineExceeded;
        assert_eq!(answers, [late, late, Reason::Allowed, Reason::Allowed]);
    }

    #[test]
    fn conditions_are_not_evaluated_for_what_is_late() {
        let policy = POLICY.replace(r#""resources": ["x/*"]}"#, r#""resources": ["x/*"], "when": "context.env == 'eu'"}"#);
        let world = slow(&policy);
        let coordinator = world.caller("coordinator");
        let ask = |looks| {
            let ask = AuthorizeRequest { deadline: after_looks(&world, looks), ..world.ask("get", "x/y") };
            reason(&world.authorize(&coordinator, &ask).outcome)
        };
        assert_eq!(ask(1), Reason::DeadlineExceeded);
        assert_eq!(ask(2), Reason::ConditionNotMet);
    }
}

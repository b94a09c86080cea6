//! An answer under a shared store is never one of a copy that became fresh after it was looked at.
//!
//! The store is played here, so that its answer comes exactly between two looks.

#[cfg(test)]
#[expect(dead_code, reason = "each test crate uses its own part")]
mod harness;

#[cfg(test)]
#[path = "harness/played_store.rs"]
mod played_store;

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    use parking_lot::Mutex;
    use remit::domain::reason::{Denial, Reason};
    use remit::domain::time::Timestamp;
    use remit::state::{Directory, State};

    use crate::harness::{NOW, Setup, World, wish};
    use crate::played_store::PlayedStore;

    const POLICY: &str = r#"{
        "delegation_rules": {
            "coordinator": {"can_delegate_to": ["deployer"], "max_capability_set": ["get"]},
            "deployer": {"max_capability_set": ["get"]}
        },
        "grants": [{"agent": "coordinator", "capabilities": ["get"], "resources": ["x/*"]}]
    }"#;

    type Hook = Arc<Mutex<Option<Box<dyn FnOnce() + Send>>>>;

    /// A world on a played store, and what happens when a request looks how old the copy is.
    struct Played {
        _folder: tempfile::TempDir,
        world: World,
        store: PlayedStore,
        state: State,
        now: Arc<AtomicU64>,
        at_the_look: Hook,
    }

    fn played() -> Played {
        let folder = tempfile::tempdir().unwrap();
        let store = PlayedStore::start();
        let now = Arc::new(AtomicU64::new(NOW));
        let at_the_look = Hook::default();
        let (time, hook, request) = (Arc::clone(&now), Arc::clone(&at_the_look), std::thread::current().id());
        let clock = move || {
            let hook = (std::thread::current().id() == request).then(|| hook.lock().take()).flatten();
            if let Some(hook) = hook {
                hook();
            }
            Timestamp::from_seconds(time.load(Ordering::SeqCst))
        };
        let directory = Directory::open(&folder.path().join("state")).unwrap();
        let state = State::in_store(directory, store.settings(), clock, || [7; 16]).unwrap();
        let world = World::of(Setup { state: Some(state.clone()), ..Setup::policy(POLICY) });
        until(|| state.accepts().is_ok());
        Played { _folder: folder, world, store, state, now, at_the_look }
    }

    impl Played {
        /// The copy grows old, another node puts the agent under quarantine, and this one hears of it when a request
        /// that began before looks how old the copy is.
        fn quarantined_at_the_look(&self, agent: &str) {
            self.store.hold();
            self.store.quarantine(agent);
            self.now.fetch_add(5, Ordering::SeqCst);
            assert!(self.state.accepts().is_err(), "the copy is old");
            let (store, state) = (self.store.clone(), self.state.clone());
            *self.at_the_look.lock() = Some(Box::new(move || {
                store.let_go();
                until(|| state.accepts().is_ok());
            }));
        }
    }

    fn until(is_true: impl Fn() -> bool) {
        for _ in 0..5000 {
            if is_true() {
                return;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        panic!("it did not come to pass");
    }

    fn reason<T>(outcome: &Result<T, Denial>) -> Reason {
        outcome.as_ref().map_or_else(Denial::reason, |_| Reason::Allowed)
    }

    #[test]
    fn a_use_is_not_allowed_by_a_copy_that_became_fresh_after_it_was_looked_at() {
        let played = played();
        let coordinator = played.world.caller("coordinator");
        let ask = || reason(&played.world.authorize(&coordinator, &played.world.ask("get", "x/y")).outcome);
        assert_eq!(ask(), Reason::Allowed);
        played.quarantined_at_the_look("coordinator");
        assert_eq!(ask(), Reason::AgentQuarantined);
        assert!(played.at_the_look.lock().is_none(), "it was heard in the middle of the request");
    }

    #[test]
    fn a_token_is_not_minted_by_a_copy_that_became_fresh_after_it_was_looked_at() {
        let played = played();
        let coordinator = played.world.caller("coordinator");
        let root = || played.world.root(wish("deployer", &["get"], &["x/*"]));
        let mint = || reason(&played.world.delegate(&coordinator, &root()).outcome);
        assert_eq!(mint(), Reason::Allowed);
        played.quarantined_at_the_look("deployer");
        assert_eq!(mint(), Reason::AgentQuarantined, "whoever it is for counts too");
        assert!(played.at_the_look.lock().is_none(), "it was heard in the middle of the request");
    }

    #[test]
    fn nothing_is_allowed_by_a_copy_that_became_old_after_it_was_looked_at() {
        let played = played();
        let coordinator = played.world.caller("coordinator");
        let (store, now) = (played.store.clone(), Arc::clone(&played.now));
        *played.at_the_look.lock() = Some(Box::new(move || {
            store.hold();
            now.fetch_add(5, Ordering::SeqCst);
        }));
        let answer = played.world.authorize(&coordinator, &played.world.ask("get", "x/y"));
        assert_eq!(reason(&answer.outcome), Reason::StateUnavailable);
    }
}

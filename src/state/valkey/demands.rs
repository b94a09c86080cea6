//! What the store has to be set to, and what holds without it.

use super::link::Looked;
use super::settings::StoreSettings;

/// The settings that are looked at.
pub(super) const SETTINGS: [&str; 4] =
    ["min-replicas-to-write", "min-replicas-max-lag", "maxmemory-policy", "repl-backlog-ttl"];

/// The longest that a replica may be behind and count, in seconds: an old primary stops after it, before a new one
/// answers.
const MAX_LAG: u64 = 2;

/// How the store is set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Verdict {
    /// What is wrong and how to set it right.
    pub(super) wrong: Vec<String>,
    /// Whether tokens of other issuers can be counted: nothing that was entered is evicted, or lost by a change of
    /// primary.
    pub(super) counts_foreign: bool,
}

/// Compares what the store runs with to what it has to.
pub(super) fn judge(settings: &StoreSettings, looked: &Looked) -> Verdict {
    let value = |name: &str| {
        let found = looked.settings.iter().find(|(known, _)| known == name);
        found.map_or("", |(_, value)| value.as_str())
    };
    let number = |name: &str| value(name).parse::<u64>().unwrap_or_default();
    let least = settings.least_replicas();
    let (insists, lag) = (number("min-replicas-to-write") >= least, number("min-replicas-max-lag"));
    let is_soon = least == 0 || (1..=MAX_LAG).contains(&lag);
    let keeps = value("maxmemory-policy") == "noeviction";
    let stays = value("repl-backlog-ttl") == "0";
    let wrong = |name: &str, wanted: &str, without: &str| {
        format!(
            "the store's {name} is {:?} and has to be {wanted} (CONFIG SET {name} {wanted}): {without}",
            value(name)
        )
    };
    let is_told = looked.replicas <= u64::from(settings.replicas);
    let foreign = "until then tokens of other issuers are refused";
    let found = [
        (!is_told).then(|| {
            let (listed, told) = (looked.replicas, settings.replicas);
            format!("the store has {listed} replicas and [state] replicas is {told}: write {listed}, and set min-replicas-to-write for them; until then a change of primary may lose what was revoked, and tokens of other issuers are refused")
        }),
        (!insists).then(|| {
            let without = "until then two primaries may both answer, and tokens of other issuers are refused";
            wrong("min-replicas-to-write", &least.to_string(), without)
        }),
        (!is_soon).then(|| wrong("min-replicas-max-lag", &MAX_LAG.to_string(), foreign)),
        (!keeps).then(|| wrong("maxmemory-policy", "noeviction", foreign)),
        (!stays).then(|| {
            wrong("repl-backlog-ttl", "0", "until then every token ends when no replica was there for so long")
        }),
    ];
    Verdict { wrong: found.into_iter().flatten().collect(), counts_foreign: is_told && insists && is_soon && keeps }
}

/// The same where the store does not let its settings be read.
pub(super) fn unseen(said: &str) -> Verdict {
    let wrong = format!(
        "the store's settings can't be read ({said}): give the user of [state] the rules in docs/operations.md, `+config|get` included; until then tokens of other issuers are refused"
    );
    Verdict { wrong: vec![wrong], counts_foreign: false }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::state::valkey::settings::{Login, Place, StoreAddress};

    fn settings(replicas: u32) -> StoreSettings {
        let address = StoreAddress { host: "store".to_owned(), port: 6379, tls: false, database: 0 };
        StoreSettings {
            place: Place::At(address),
            login: Login::default(),
            sentinel_login: Login::default(),
            tls: None,
            prefix: "remit".to_owned(),
            replicas,
            timeout: Duration::from_millis(200),
        }
    }

    fn looked(values: [&str; 4]) -> Looked {
        let settings =
            SETTINGS.iter().zip(values).map(|(name, value)| ((*name).to_owned(), value.to_owned())).collect();
        Looked { settings, keys: 0, replicas: 0 }
    }

    #[test]
    fn most_of_the_servers_have_to_have_a_write() {
        let least = [0, 1, 2, 3, 4].map(|replicas| settings(replicas).least_replicas());
        assert_eq!(least, [0, 1, 1, 2, 2], "half of one, two, three, four and five servers");
        let good = looked(["1", "2", "noeviction", "0"]);
        assert_eq!(judge(&settings(2), &good), Verdict { wrong: vec![], counts_foreign: true });
        assert!(!judge(&settings(4), &good).counts_foreign, "five servers need two");
    }

    #[test]
    fn replicas_that_the_configuration_does_not_know_of_are_named() {
        let seen = Looked { replicas: 2, ..looked(["1", "2", "noeviction", "0"]) };
        let untold = judge(&settings(0), &seen);
        assert_eq!((untold.wrong.len(), untold.counts_foreign), (1, false));
        assert!(untold.wrong[0].contains("write 2"), "{:?}", untold.wrong);
        assert!(judge(&settings(2), &seen).counts_foreign);
    }

    #[test]
    fn what_is_wrong_is_named_with_what_to_write() {
        let fresh = judge(&settings(2), &looked(["0", "10", "noeviction", "3600"]));
        assert_eq!((fresh.wrong.len(), fresh.counts_foreign), (3, false));
        assert!(fresh.wrong[0].contains("CONFIG SET min-replicas-to-write 1"), "{:?}", fresh.wrong);
        let never = judge(&settings(2), &looked(["1", "0", "noeviction", "0"]));
        assert!(!never.counts_foreign, "a lag of 0 switches the demand off");
        let evicts = judge(&settings(0), &looked(["0", "10", "allkeys-lru", "0"]));
        assert_eq!((evicts.wrong.len(), evicts.counts_foreign), (1, false));
        assert!(judge(&settings(0), &looked(["0", "10", "noeviction", "3600"])).counts_foreign);
    }
}

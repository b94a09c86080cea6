//! That the protocol's laws hold, and that they don't without each of its rules.

use crate::rules::{self, Rules, Scope};
use crate::scopes;
use crate::search::{Searched, search};

/// Searches it, and says what was searched.
fn searched(scope: &Scope) -> Searched {
    let searched = search(&scope.start(), scope);
    if let Some((law, steps)) = &searched.broken {
        println!("{} ({}):", law, scope.name);
        for step in steps {
            println!("  {step:?}");
        }
    }
    searched
}

/// The laws hold in every state of this scope.
fn holds(scope: Scope) {
    let scope = if std::env::var_os("REMIT_MODEL_MORE").is_some() { scope.with_more() } else { scope };
    let Searched { states, depth, seconds, broken } = searched(&scope);
    println!(
        "ASSURE {{\"what\": \"model\", \"scope\": \"{}\", \"states\": {states}, \"depth\": {depth}, \"broken\": {}, \"seconds\": {seconds:.1}}}",
        scope.name,
        u8::from(broken.is_some()),
    );
    assert!(broken.is_none(), "{}: {broken:?}", scope.name);
    assert!(depth > 5, "something happens in {}", scope.name);
}

/// Without this rule this law is broken.
fn needs(scope: Scope, law: &str, switch_off: impl FnOnce(&mut Rules)) {
    let broken = searched(&scope.without(switch_off)).broken;
    assert_eq!(broken.map(|(law, _)| law), Some(law), "{}", scope.name);
}

const TWICE: &str = "a use was given twice";
const LOST: &str = "a token was honoured though the store had lost what came after it";
const REVOKED: &str = "a token was allowed after its revocation was answered";
const OVERDUE: &str = "a node goes on for an agent after its quarantine was answered";
const LIFTED: &str = "a quarantine was lifted by a word of before";
const UNTOLD: &str = "a quarantine was lifted before the store was told of it";
const LATE: &str = "a reinstatement lifted a newer quarantine";
const WEDGED: &str = "nodes don't serve again in time though nothing more happens";

#[test]
fn no_use_is_given_twice_by_two_primaries_a_failback_or_an_emptied_store() {
    holds(scopes::uses());
}

#[test]
fn no_use_is_given_twice_by_a_store_that_evicts() {
    holds(scopes::evicted_uses());
}

#[test]
fn no_use_is_given_twice_by_a_store_that_starts_with_what_it_saved() {
    holds(scopes::restarts());
}

#[test]
fn what_is_revoked_stays_so_over_a_failover_where_the_old_primary_stops() {
    holds(scopes::revocation());
}

#[test]
fn what_is_revoked_stays_so_where_a_store_evicts() {
    holds(scopes::eviction());
    holds(scopes::eviction_hours());
}

#[test]
fn a_mint_that_began_before_a_revocation_is_ended_by_it_in_any_epoch() {
    holds(scopes::numbers());
}

#[test]
fn a_quarantine_lasts_until_somebody_lifts_this_one() {
    holds(scopes::reinstatement());
    holds(scopes::emptied());
}

#[test]
fn a_quarantine_lasts_that_was_entered_where_the_store_was_out_of_reach_or_its_clock_behind() {
    holds(scopes::away());
    holds(scopes::emptied_hours());
}

#[test]
fn a_quarantine_comes_back_from_nodes_to_a_store_that_forgot_it() {
    holds(scopes::republished());
    holds(scopes::evicted_quarantine());
}

#[test]
fn a_quarantine_that_was_answered_outlives_the_primary_and_the_node_that_asked() {
    holds(scopes::quarantine_failover());
}

#[test]
fn no_token_of_another_issuer_is_taken_twice() {
    holds(scopes::foreign());
    holds(scopes::foreign_flush());
    holds(scopes::foreign_hours());
}

#[test]
fn nodes_serve_again_whatever_the_clocks_say() {
    holds(scopes::serving());
}

#[test]
fn an_epoch_has_to_end_with_its_primary() {
    needs(scopes::uses(), LOST, |rules| rules.replid = false);
    needs(scopes::restarts(), LOST, |rules| rules.replid = false);
}

#[test]
fn an_epochs_id_has_to_be_random_where_its_record_can_be_evicted() {
    needs(scopes::evicted_uses(), LOST, |rules| rules.random_id = false);
}

#[test]
fn a_new_epoch_has_to_wait_until_the_old_primary_stopped() {
    needs(scopes::revocation(), REVOKED, |rules| rules.serve_after = false);
}

#[test]
fn an_old_primary_has_to_stop_without_its_replicas() {
    let scope = Scope { min_replicas: false, ..scopes::revocation() };
    needs(scope, REVOKED, |_| {});
}

#[test]
fn an_epoch_has_to_end_where_revocations_were_evicted() {
    needs(scopes::eviction_hours(), REVOKED, |rules| rules.evicted_revocations = false);
}

#[test]
fn evicted_revocations_have_to_be_missed_for_as_long_as_they_are_kept() {
    needs(scopes::eviction(), REVOKED, |rules| rules.looked_for = rules::LIFE);
}

#[test]
fn an_epoch_has_to_end_where_quarantines_were_evicted() {
    needs(scopes::evicted_quarantine(), OVERDUE, |rules| rules.evicted_quarantines = false);
}

#[test]
fn an_epoch_that_would_wait_too_long_has_to_end() {
    needs(scopes::serving(), WEDGED, |rules| rules.longest_wait = false);
}

#[test]
fn an_epoch_that_saw_a_later_second_has_to_end() {
    needs(scopes::foreign_hours(), TWICE, |rules| rules.seen = false);
}

#[test]
fn the_fence_has_to_lie_after_every_second_that_was_seen() {
    needs(scopes::foreign_hours(), TWICE, |rules| rules.fence = false);
}

#[test]
fn the_numbers_of_two_epochs_have_to_lie_apart() {
    needs(scopes::numbers(), REVOKED, |rules| rules.numbers_apart = false);
}

#[test]
fn a_request_that_began_in_another_epoch_has_to_be_refused() {
    needs(scopes::numbers(), REVOKED, |rules| rules.strange = false);
}

#[test]
fn nodes_have_to_tell_a_store_what_it_forgot_of_quarantines() {
    needs(scopes::republished(), OVERDUE, |rules| rules.republish = false);
}

#[test]
fn a_quarantine_has_to_be_on_the_replica_before_it_is_answered() {
    needs(scopes::quarantine_failover(), OVERDUE, |rules| rules.replicated = false);
}

#[test]
fn a_reinstatement_has_to_name_the_quarantine_that_it_means() {
    needs(scopes::reinstatement(), LATE, |rules| rules.meant = false);
}

#[test]
fn a_new_quarantine_has_to_be_newer_than_every_word_of_an_earlier_epoch() {
    needs(scopes::emptied(), LIFTED, |rules| rules.later_version = false);
}

#[test]
fn a_quarantine_has_to_be_newer_than_all_that_the_store_says_until_it_was_told() {
    needs(scopes::away(), UNTOLD, |rules| rules.untold = false);
}

#[test]
fn what_a_node_kept_has_to_lift_no_quarantine_of_a_clock_that_was_behind() {
    needs(scopes::emptied_hours(), LIFTED, |rules| rules.entered_lasts = false);
}

/// What is looked for in the scripts, so that the model's numbers stand to each other as the protocol's do.
const NUMBERS: [(&str, &str); 6] = [
    ("prelude", "wait > 5000 or now < seen - 5"),
    ("prelude", "'fence', math.max(tonumber(record[3] or '0'), now + 15, seen + 15)"),
    ("prelude", "'serve_after', millis + 4000"),
    ("token", "return tonumber(expires) > now + 3610"),
    ("token", "redis.call('EXPIREAT', key, tonumber(expires) + 20)"),
    ("revoke", "redis.call('EXPIREAT', KEYS[2], latest + 3630)"),
];

#[test]
fn the_numbers_of_the_model_stand_to_each_other_as_the_protocols_do() {
    let scripts = [
        ("prelude", include_str!("../../src/state/valkey/lua/prelude.lua")),
        ("token", include_str!("../../src/state/valkey/lua/token.lua")),
        ("revoke", include_str!("../../src/state/valkey/lua/revoke.lua")),
    ];
    for (name, text) in NUMBERS {
        let script = scripts.iter().find(|(script, _)| *script == name).map_or("", |(_, script)| script);
        assert!(script.contains(text), "{name}.lua no longer says {text:?}: change the model with it");
    }
    // The primary's settings, and the clocks that are promised for other issuers' tokens: docs/operations.md.
    let protocol = [1, 3, 4, 5, 5, 5, 15, 3600, 10, 20, 3630];
    let model = [
        rules::FRESH,
        rules::STOPS,
        rules::WAIT,
        rules::LONGEST_WAIT,
        rules::OFF,
        rules::BACK,
        rules::FENCE,
        rules::LIFE,
        rules::SKEW,
        rules::GRACE,
        rules::KEPT,
    ];
    for numbers in [protocol, model] {
        let [fresh, stops, wait, longest_wait, off, back, fence, life, skew, grace, kept] = numbers;
        assert!(fresh <= stops && stops < wait && wait < longest_wait, "{numbers:?}");
        assert!(back >= off && fence > stops + 2 * off, "{numbers:?}");
        assert_eq!(kept, life + skew + grace);
    }
}

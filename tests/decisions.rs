//! Decision cases: a policy, requests, the wanted answers and the wanted events, in `tests/decisions/*.yaml`.
//!
//! A case is data. What it may say is in `decisions/case.rs`; how its steps are taken is in `decisions/play.rs`.

#[cfg(test)]
#[path = "decisions/answers.rs"]
mod answers;
#[cfg(test)]
#[path = "decisions/callers.rs"]
mod callers;
#[cfg(test)]
#[path = "decisions/case.rs"]
mod case;
#[cfg(test)]
#[path = "decisions/compare.rs"]
mod compare;
#[cfg(test)]
#[expect(dead_code, reason = "each test crate uses its own part")]
mod harness;
#[cfg(test)]
#[path = "decisions/names.rs"]
mod names;
#[cfg(test)]
#[path = "decisions/play.rs"]
mod play;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use remit::domain::reason::Reason;

    use crate::{case, play};

    /// Fewer than these would be a sign that files are not found.
    const CASES: usize = 150;

    /// Reasons that no case wants, and why.
    const NOT_WANTED: [(Reason, &str); 2] = [
        (Reason::ConditionNotMet, "this version has no conditions: a policy with `conditions` is refused"),
        (Reason::StateUnavailable, "this version's only ledger is in memory, and memory is always there"),
    ];

    #[test]
    fn every_case_holds() {
        let cases = case::load();
        let failures: Vec<String> = cases.iter().filter_map(|case| play::play(case).err()).collect();
        let (failed, all) = (failures.len(), cases.len());
        assert!(failures.is_empty(), "{failed} of {all} cases fail\n\n{}\n", failures.join("\n\n"));
        assert!(all >= CASES, "only {all} cases were found");
    }

    #[test]
    fn every_reason_is_wanted_by_a_case() {
        let wanted: BTreeSet<String> = case::load().iter().flat_map(case::Case::wanted_reasons).collect();
        let never = Reason::ALL.iter().filter(|reason| !wanted.contains(reason.as_str()));
        let excused = NOT_WANTED.map(|(reason, _)| reason);
        assert_eq!(never.copied().collect::<Vec<_>>(), excused, "reasons that no case wants");
    }

    #[test]
    fn names_of_cases_are_unique() {
        let mut seen = BTreeSet::new();
        for case in case::load() {
            assert!(seen.insert(case.name.clone()), "there are two cases of this name: {}", case.name);
        }
    }
}

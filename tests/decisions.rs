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
    const NOT_WANTED: [(Reason, &str); 1] =
        [(Reason::StateUnavailable, "this version's only ledger is in memory, and memory is always there")];

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

    fn parse(step: &str) {
        case::parse("x.yaml", &format!("{{about: x, policy: {{}}, cases: [{{name: x, steps: [{step}]}}]}}"));
    }

    #[test]
    #[should_panic(expected = "step 1: a verb states the wanted event")]
    fn a_verb_without_a_wanted_event_is_refused() {
        parse("{by: a, reinstate: {agent: b}, want: ALLOWED}");
    }

    #[test]
    #[should_panic(expected = "step 1: a verb states the wanted event")]
    fn an_event_of_which_nothing_is_wanted_is_refused() {
        parse("{by: a, reinstate: {agent: b}, want: ALLOWED, event: {}}");
    }

    #[test]
    #[should_panic(expected = "unknown field `evnt`")]
    fn a_step_with_an_unknown_key_is_refused() {
        parse("{by: a, reinstate: {agent: b}, want: ALLOWED, event: none, evnt: none}");
    }

    #[test]
    #[should_panic(expected = "unknown field `reinstate`")]
    fn a_step_with_two_actions_is_refused() {
        parse("{by: a, reinstate: {agent: b}, want: ALLOWED, event: none, advance: 1s}");
    }

    #[test]
    fn a_case_that_does_not_hold_says_where() {
        let text = "{about: x, policy: {administrators: [a]}, cases: [{name: wrong, steps: [
            {by: a, reinstate: {agent: b}, want: {reason: TOKEN_EXPIRED, number: 7}, event: {result: denied, note: z}}]}]}";
        let found = play::play(&case::parse("x.yaml", text)[0]).unwrap_err();
        for part in [
            "x.yaml: wrong",
            "step 1: ",
            "answer.reason: wanted \"TOKEN_EXPIRED\", found \"ALLOWED\"",
            "answer.number: wanted 7, found 0",
            "event.result: wanted \"denied\", found \"accepted\"",
            "event.note: wanted \"z\", found null",
            "the answer: {",
            "the event:  {",
        ] {
            assert!(found.contains(part), "{part} is missing in\n{found}");
        }
    }
}

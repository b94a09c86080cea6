use tokio::time::Instant;

use super::*;
use crate::domain::reason::Reason;
use crate::events::event::{MessageType, Outcome};
use crate::events::trial::Trial;

const FROM_THE_EARLIEST: Since<'_> = Since::After { stream_id: "", sequence: 0 };

fn allow(trial: &mut Trial, count: usize) {
    for _ in 0..count {
        trial.allow("agent-a");
        trial.recorder.turn();
    }
}

/// Numbers as `7`, gaps as `3-6`, heartbeats as `♥6`, until a heartbeat.
async fn seen(watch: &mut Subscription) -> String {
    let mut seen = Vec::new();
    watch.heartbeat_after(Duration::from_millis(5));
    loop {
        match watch.next().await {
            Some(Item::Event(event)) => seen.push(event.sequence().to_string()),
            Some(Item::Gap { from, to, .. }) => seen.push(format!("{from}-{to}")),
            Some(Item::Heartbeat { sequence, .. }) => {
                return [seen, vec![format!("♥{sequence}")]].concat().join(" ");
            }
            None => return seen.join(" "),
        }
    }
}

#[tokio::test]
async fn a_slow_subscriber_is_told_exactly_what_it_missed() {
    let mut trial = Trial::unwritten(64);
    let mut watch = trial.events.subscribe(Since::Now, Filter::default()).unwrap();
    allow(&mut trial, 3);
    assert_eq!(seen(&mut watch).await, "1 2 3 ♥3");
    allow(&mut trial, 70);
    let rest: Vec<_> = (10..=73).map(|number: u64| number.to_string()).collect();
    assert_eq!(seen(&mut watch).await, format!("4-9 {} ♥73", rest.join(" ")));
    assert_eq!((trial.events.numbers().gaps, trial.events.numbers().missed), (1, 6));
}

#[tokio::test]
async fn a_subscriber_begins_where_it_says() {
    let mut trial = Trial::unwritten(64);
    allow(&mut trial, 66);
    let own = trial.events.stream_id().to_string();
    let events = trial.events.clone();
    let watch = |since| events.subscribe(since, Filter::default()).unwrap();
    let after = |stream_id, sequence| Since::After { stream_id, sequence };
    let rest: Vec<_> = (4..=66).map(|number: u64| number.to_string()).collect();
    let rest = rest.join(" ");
    assert_eq!(seen(&mut watch(Since::Now)).await, "♥66");
    assert_eq!(seen(&mut watch(after("", 64))).await, "65 66 ♥66");
    assert_eq!(seen(&mut watch(after(&own, 64))).await, "65 66 ♥66");
    assert_eq!(seen(&mut watch(after(&own, 0))).await, format!("3 {rest} ♥66"), "the earliest that is kept");
    assert_eq!(seen(&mut watch(after(&own, 1))).await, format!("2-2 3 {rest} ♥66"), "the second is gone");
    assert_eq!(seen(&mut watch(after("another", 64))).await, format!("0-0 1-2 3 {rest} ♥66"), "another stream");
    let mut unwritten = watch(after(&own, 67));
    assert_eq!(seen(&mut unwritten).await, format!("0-0 1-2 3 {rest} ♥66"), "a number that nobody has");
    let committed = trial.allow("agent-a");
    let mut unwritten = watch(after(&own, committed));
    assert_eq!(seen(&mut unwritten).await, "♥66");
    allow(&mut trial, 2);
    assert_eq!(seen(&mut unwritten).await, "68 69 ♥69");
}

#[tokio::test]
async fn a_number_of_before_a_restart_is_a_gap_and_all_of_this_process_s_events() {
    let mut trial = Trial::unwritten(64);
    let own = trial.events.stream_id().to_string();
    for stream_id in ["", &own] {
        let since = Since::After { stream_id, sequence: 500 };
        let mut watch = trial.events.subscribe(since, Filter::default()).unwrap();
        assert_eq!(seen(&mut watch).await, if stream_id.is_empty() { "0-0 ♥0" } else { "0-0 1 2 3 ♥3" });
        allow(&mut trial, 3);
        let rest = if stream_id.is_empty() { "1 2 3 ♥3" } else { "4 5 6 ♥6" };
        assert_eq!(seen(&mut watch).await, rest, "it goes on");
    }
    let since = Since::After { stream_id: "", sequence: u64::MAX };
    let mut watch = trial.events.subscribe(since, Filter::default()).unwrap();
    let gap = Item::Gap { stream_id: own.as_str().into(), from: 0, to: 0 };
    assert_eq!(watch.next().await, Some(gap));
    assert_eq!(seen(&mut watch).await, "1 2 3 4 5 6 ♥6");
}

#[tokio::test]
async fn another_stream_is_a_gap_even_where_nothing_of_this_one_is_missing() {
    let mut trial = Trial::unwritten(64);
    allow(&mut trial, 2);
    let since = Since::After { stream_id: "another", sequence: 9 };
    let mut watch = trial.events.subscribe(since, Filter::default()).unwrap();
    assert_eq!(watch.next().await, Some(Item::Gap { stream_id: "another".into(), from: 0, to: 0 }));
    assert_eq!(seen(&mut watch).await, "1 2 ♥2");
    assert_eq!((trial.events.numbers().gaps, trial.events.numbers().missed), (1, 0));
}

#[tokio::test]
async fn only_what_is_written_is_shown() {
    let mut trial = Trial::unwritten(64);
    let mut watch = trial.events.subscribe(Since::Now, Filter::default()).unwrap();
    trial.allow("agent-a");
    assert_eq!(seen(&mut watch).await, "♥0");
    trial.recorder.turn();
    assert_eq!(seen(&mut watch).await, "1 ♥1");
}

#[tokio::test]
async fn a_filter_lets_pass_what_each_list_has_and_gaps_count_all() {
    let mut trial = Trial::unwritten(64);
    let with = |change: fn(&mut Filter)| {
        let mut filter = Filter::default();
        change(&mut filter);
        trial.events.subscribe(FROM_THE_EARLIEST, filter).unwrap()
    };
    let mut coordinator = with(|filter| filter.agents = vec!["agent-coordinator".into()]);
    let mut a = with(|filter| filter.agents = vec!["agent-a".into(), "agent-x".into()]);
    let mut demo = with(|filter| filter.agents = vec!["svc-demo".into()]);
    let mut denied = with(|filter| filter.results = vec![Outcome::Denied]);
    let mut expired = with(|filter| filter.reasons = vec![Reason::TokenExpired]);
    let mut revoked = with(|filter| filter.message_types = vec![MessageType::Revoke]);
    let mut both = with(|filter| {
        filter.results = vec![Outcome::Denied];
        filter.agents = vec!["agent-a".into()];
    });
    trial.allow("agent-a");
    trial.events.deny(trial.event("agent-b", Reason::TokenExpired));
    trial.events.deny(trial.event("agent-a", Reason::TokenRevoked));
    trial.recorder.turn();
    assert_eq!(seen(&mut coordinator).await, "1 2 3 ♥3", "in the chain");
    assert_eq!(seen(&mut a).await, "1 3 ♥3", "acts");
    assert_eq!(seen(&mut demo).await, "1 2 3 ♥3", "is acted on");
    assert_eq!(seen(&mut denied).await, "2 3 ♥3");
    assert_eq!(seen(&mut expired).await, "2 ♥3");
    assert_eq!(seen(&mut revoked).await, "♥3");
    assert_eq!(seen(&mut both).await, "3 ♥3");
    allow(&mut trial, 67);
    assert_eq!(seen(&mut both).await, "4-6 ♥70");
}

#[tokio::test]
async fn a_heartbeat_comes_although_events_pass_by() {
    let mut trial = Trial::unwritten(64);
    let filter = Filter { results: vec![Outcome::Error], ..Filter::default() };
    let mut watch = trial.events.subscribe(Since::Now, filter).unwrap();
    watch.heartbeat_after(Duration::from_millis(100));
    let before = Instant::now();
    let Trial { events, recorder, .. } = &mut trial;
    let busy = async {
        loop {
            let event = crate::events::trial::event(events, "agent-a", Reason::Allowed, recorder.now());
            events.try_reserve(super::super::Share::Answer).unwrap().commit(event);
            recorder.turn();
            tokio::task::yield_now().await;
        }
    };
    let item = tokio::select! { item = watch.next() => item, () = busy => None };
    let Some(Item::Heartbeat { sequence, .. }) = item else { panic!("{item:?}") };
    assert!(sequence > 1, "{sequence}");
    assert!(before.elapsed() >= Duration::from_millis(100));
}

#[tokio::test]
async fn so_many_may_watch_and_places_come_back() {
    let trial = Trial::unwritten(64);
    let watch = || trial.events.subscribe(Since::Now, Filter::default());
    let mut all: Vec<_> = (0..64).map(|_| watch().unwrap()).collect();
    assert_eq!(watch().err(), Some(TooManySubscribers { limit: 64 }));
    assert_eq!(trial.events.numbers().subscribers, 64);
    all.pop();
    assert!(watch().is_ok());
}

//! Several requests in one: they wait together, and each is told what it would have been told alone.
//!
//! Items begin in their order. What needs no wait is answered before the next one begins; the others wait for the disk or
//! the store together. Only one thing that an answer leaves behind is not there before its wait is over: that a use of its
//! token was answered for, without which a reuse speaks against nobody (`speaks_against_holder` in `detection`). So a run
//! of items ends before one whose refusal may count by what the run has begun, and after one whose refusal may count.

use std::collections::HashMap;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;

use futures_util::future::{MaybeDone, join_all, maybe_done};

use super::Engine;
use crate::domain::policy::Policy;
use crate::domain::token::TokenId;

/// One of a batch. It has no `Debug`: it holds a token.
pub struct BatchItem<'t, F> {
    /// The text of the token whose uses it takes.
    pub token: Option<&'t str>,
    /// As many of them as it may take.
    pub uses: u32,
    /// The answer, which has not begun.
    pub answer: F,
}

/// A token whose reuse may count.
#[derive(Clone, Copy)]
struct Watched {
    id: TokenId,
    max_uses: u32,
}

impl Engine {
    /// The answers to the items of a batch, in their order.
    pub async fn answer_batch<'t, F: Future>(
        &self,
        policy: &Policy,
        items: impl Iterator<Item = BatchItem<'t, F>>,
    ) -> Vec<F::Output> {
        let is_at_once = self.answers_at_once();
        let mut answers = Vec::with_capacity(items.size_hint().0);
        let mut run = Run::new();
        for (index, BatchItem { token, uses, answer }) in items.enumerate() {
            give_way(index).await;
            if is_at_once {
                answers.push(answer.await);
                continue;
            }
            let token = self.watched(policy, token);
            if token.is_some_and(|token| run.has(token) && self.may_count(token, run.uses_of(token))) {
                run.end(&mut answers).await;
            }
            let is_last = token.is_some_and(|token| self.may_count(token, 0));
            run.begin(token, uses, answer).await;
            if is_last {
                run.end(&mut answers).await;
            }
        }
        run.end(&mut answers).await;
        answers
    }

    /// A token that does not open is refused for that, and its reuse never counts.
    fn watched(&self, policy: &Policy, token: Option<&str>) -> Option<Watched> {
        policy.quarantine_after?;
        let mut buffer = Vec::new();
        let token = self.keyring.load().open(token?, &mut buffer).ok()?;
        Some(Watched { id: token.id(), max_uses: token.claims().max_uses })
    }

    /// Whether a refusal of one more use may speak against the holder, where the run takes so many uses before.
    fn may_count(&self, token: Watched, in_run: u32) -> bool {
        self.answered.has_all(token.id, token.max_uses.saturating_sub(in_run))
    }
}

/// Items that wait together.
struct Run<F: Future> {
    begun: Vec<Pin<Box<MaybeDone<F>>>>,
    /// What they take at most of each token.
    taken: HashMap<TokenId, u32>,
}

impl<F: Future> Run<F> {
    fn new() -> Self {
        Self { begun: Vec::new(), taken: HashMap::new() }
    }

    fn has(&self, token: Watched) -> bool {
        self.taken.contains_key(&token.id)
    }

    fn uses_of(&self, token: Watched) -> u32 {
        self.taken.get(&token.id).copied().unwrap_or_default()
    }

    /// Goes as far with it as it goes without a wait.
    async fn begin(&mut self, token: Option<Watched>, uses: u32, answer: F) {
        if let Some(Watched { id, .. }) = token {
            let in_run = self.taken.entry(id).or_default();
            *in_run = in_run.saturating_add(uses);
        }
        let mut answer = Box::pin(maybe_done(answer));
        poll_fn(|context| {
            // Where it is not done, the end of the run asks again.
            let _ = answer.as_mut().poll(context);
            Poll::Ready(())
        })
        .await;
        self.begun.push(answer);
    }

    /// Waits for all of them; the next run is empty.
    async fn end(&mut self, answers: &mut Vec<F::Output>) {
        join_all(self.begun.iter_mut().map(Pin::as_mut)).await;
        answers.extend(self.begun.drain(..).filter_map(|mut answer| answer.as_mut().take_output()));
        self.taken.clear();
    }
}

/// What goes through many things does not keep the other requests of its thread waiting.
pub async fn give_way(index: usize) {
    if index % 8 == 7 {
        tokio::task::yield_now().await;
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use tokio::sync::Barrier;

    use super::*;

    #[tokio::test]
    async fn items_of_a_run_begin_in_their_order_wait_together_and_are_answered_in_their_order() {
        let (begun, all) = (&RefCell::new(Vec::new()), &Barrier::new(40));
        let begun_so_far = || begun.borrow().clone();
        let mut run = Run::new();
        for index in 0..50 {
            let answer = async move {
                begun.borrow_mut().push(index);
                // Each fifth needs no wait; of the others none goes on before the last has come.
                if index % 5 != 0 {
                    all.wait().await;
                }
                index
            };
            run.begin(None, 1, answer).await;
            assert_eq!(begun_so_far(), (0..=index).collect::<Vec<_>>());
        }
        let mut answers = Vec::new();
        run.end(&mut answers).await;
        assert_eq!(answers, (0..50).collect::<Vec<_>>());
        assert!(run.begun.is_empty() && run.taken.is_empty(), "the next run is another");
    }

    #[tokio::test]
    async fn what_a_run_takes_of_a_token_adds_up() {
        let watched = |number: u8| Watched { id: TokenId::from_bytes([number; 16]), max_uses: 5 };
        let mut run = Run::new();
        for (token, uses) in [(Some(watched(1)), 2), (None, 9), (Some(watched(2)), u32::MAX), (Some(watched(2)), 1)] {
            run.begin(token, uses, std::future::ready(())).await;
        }
        run.begin(Some(watched(1)), 1, std::future::ready(())).await;
        assert_eq!([1, 2, 3].map(|number| run.uses_of(watched(number))), [3, u32::MAX, 0]);
        assert_eq!([1, 2, 3].map(|number| run.has(watched(number))), [true, true, false]);
        run.end(&mut Vec::new()).await;
        assert_eq!(run.uses_of(watched(1)), 0);
    }
}

//! The scripts in `src/state/valkey/lua`, line by line as far as the model goes: each is one step.

use crate::rules::{BACK, FENCE, GRACE, KEPT, LIFE, LONGEST_WAIT, NUMBERS, Rules, SKEW, STOPS, Scope, WAIT};
use crate::state::{Cut, Data, Entry, Id, Record, State, Time, Token, Word};

/// Why a script answers nothing, or another thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    Replica,
    NoReplicas,
    Epoch(Id),
    Wait,
    Strange,
    Clocks,
    Fenced,
    Revoked,
    Exhausted,
    Changed(Time),
}

/// Who asks.
#[derive(Clone, Copy)]
pub struct Caller {
    pub server: usize,
    pub epoch: Id,
    pub number: Time,
}

/// A server in the middle of a script whose prelude let it go on.
pub struct Script<'s> {
    data: &'s mut Data,
    pub record: Record,
    clock: Time,
    rules: &'s Rules,
}

/// `prelude.lua`.
pub fn begin<'s>(state: &'s mut State, scope: &'s Scope, caller: Caller) -> Result<Script<'s>, Refusal> {
    let (now, clock, rules) = (state.now, state.clock(caller.server), &scope.rules);
    let fresh = state.ids + 1;
    let server = &mut state.servers[caller.server];
    if !server.is_primary {
        return Err(Refusal::Replica);
    }
    if scope.min_replicas && server.left_alone.is_some_and(|since| now - since > STOPS) {
        return Err(Refusal::NoReplicas);
    }
    let (record, replid) = (server.data.record, server.replid);
    let known = record.filter(|record| {
        let is_other = record.replid == 0 || rules.replid && record.replid != replid;
        let waits_too_long = rules.longest_wait && record.serve_after - clock > LONGEST_WAIT;
        let went_back = rules.seen && clock < record.seen - BACK;
        !(is_other || waits_too_long || went_back)
    });
    let Some(record) = known else {
        let id = if rules.random_id { fresh } else { record.map_or(1, |record| record.id + 1) };
        server.data.record = Some(next_epoch(record, rules, clock, replid, id, caller.number));
        server.data.forget_other_epochs(rules, id);
        state.ids = fresh;
        return Err(Refusal::Epoch(id));
    };
    if record.serve_after > clock {
        return Err(Refusal::Wait);
    }
    if record.id != caller.epoch {
        return Err(Refusal::Epoch(record.id));
    }
    Ok(Script { data: &mut server.data, record, clock, rules })
}

fn next_epoch(old: Option<Record>, rules: &Rules, clock: Time, replid: Id, id: Id, number: Time) -> Record {
    let of = |field: fn(Record) -> Time| old.map_or(0, field);
    let greatest = of(|old| old.counter).max(number).max(clock * NUMBERS);
    let base = if rules.numbers_apart { (greatest / NUMBERS + 1) * NUMBERS } else { 0 };
    let seen = if rules.fence { of(|old| old.seen) + FENCE } else { 0 };
    Record {
        replid,
        id,
        fence: of(|old| old.fence).max(clock + FENCE).max(seen),
        serve_after: if rules.serve_after { clock + WAIT } else { clock },
        base,
        counter: base,
        latest: of(|old| old.latest).max(clock),
        seen: clock,
        quarantines: false,
    }
}

impl Data {
    /// Names of another epoch's keys are never used again, so that they need not be told apart.
    fn forget_other_epochs(&mut self, rules: &Rules, id: Id) {
        if rules.random_id {
            self.entries.retain(|entry| entry.epoch == id);
            self.cuts.retain(|cut| cut.epoch == id);
        }
    }

    /// What has outlived its time by the server's clock.
    pub fn expire(&mut self, clock: Time) {
        self.entries.retain(|entry| clock < entry.expires + GRACE);
        self.cuts.retain(|cut| clock < cut.gone_at);
    }
}

impl Script<'_> {
    fn write(&mut self) {
        self.data.record = Some(self.record);
    }

    fn end_epoch(&mut self) -> Refusal {
        self.record.replid = 0;
        self.write();
        Refusal::Wait
    }

    fn cut(&self) -> Option<Cut> {
        self.data.cuts.iter().copied().find(|cut| cut.epoch == self.record.id)
    }

    fn entry(&mut self, token: Token) -> Option<&mut Entry> {
        let id = self.record.id;
        self.data.entries.iter_mut().find(|entry| entry.epoch == id && entry.token == token)
    }

    fn revocations_lost(&mut self) -> Option<Refusal> {
        let is_lost = self.record.counter > self.record.base
            && self.clock < self.record.latest + self.rules.looked_for
            && self.cut().is_none();
        (is_lost && self.rules.evicted_revocations).then(|| self.end_epoch())
    }

    fn quarantines_lost(&mut self) -> Option<Refusal> {
        let held = self.data.quarantine.is_some();
        if self.record.quarantines && !held && self.rules.evicted_quarantines {
            return Some(self.end_epoch());
        }
        self.record.quarantines = held;
        self.write();
        None
    }

    /// `poll.lua` and `read.lua`: what nodes keep a copy of.
    pub fn news(&mut self, is_poll: bool) -> Result<Option<Word>, Refusal> {
        if let Some(lost) = self.quarantines_lost() {
            return Err(lost);
        }
        if is_poll {
            self.record.seen = self.record.seen.max(self.clock);
            self.write();
        }
        Ok(self.data.quarantine)
    }

    fn ended(&mut self, number: Option<Time>, second: Option<Time>) -> Result<(), Refusal> {
        if let Some(cut) = self.cut() {
            let by_second = second.is_some_and(|second| second <= cut.moment + SKEW);
            if number.is_some_and(|number| number < cut.number) || by_second {
                return Err(Refusal::Revoked);
            }
        }
        self.revocations_lost().map_or(Ok(()), Err)
    }

    fn judge(&mut self, token: Token, expires: Time, issued: Option<Time>) -> Result<(u8, Option<Time>), Refusal> {
        if expires + GRACE <= self.clock {
            return Err(Refusal::Fenced);
        }
        let held = self.entry(token).copied();
        match issued {
            Some(issued) if issued <= self.record.fence => return Err(Refusal::Fenced),
            None if held.is_none() => return Err(Refusal::Fenced),
            _ => {}
        }
        if held.is_some_and(|held| held.revoked) {
            return Err(Refusal::Revoked);
        }
        if token == Token::Child {
            let root = self.entry(Token::Root).ok_or(Refusal::Fenced)?;
            if root.revoked {
                return Err(Refusal::Revoked);
            }
        }
        let number = held.map(|held| held.number);
        self.ended(number, issued)?;
        Ok((held.map_or(1, |held| held.left), number))
    }

    fn is_strange(&self, born: Time) -> bool {
        self.rules.strange && (born < self.record.base || born > self.record.counter)
    }

    fn outlives(&self, expires: Time) -> bool {
        expires > self.clock + LIFE + SKEW
    }

    fn enter(&mut self, token: Token, left: u8, number: Time, expires: Time) {
        let entry = Entry { epoch: self.record.id, token, left, number, expires, revoked: false };
        self.data.entries.push(entry);
        self.data.entries.sort_by_key(|entry| (entry.epoch, entry.token));
    }

    /// `mint.lua`.
    pub fn mint(&mut self, born: Time, expires: Time) -> Result<(), Refusal> {
        if self.is_strange(born) {
            return Err(Refusal::Strange);
        }
        self.ended(Some(born), None)?;
        if self.outlives(expires) {
            return Err(Refusal::Clocks);
        }
        if self.entry(Token::Root).is_some() || expires + GRACE <= self.clock {
            return Err(Refusal::Fenced);
        }
        self.enter(Token::Root, 2, born, expires);
        Ok(())
    }

    /// `move.lua`.
    pub fn move_uses(&mut self, expires: Time) -> Result<(), Refusal> {
        let (left, number) = self.judge(Token::Root, expires, None)?;
        if self.entry(Token::Child).is_some() {
            return Err(Refusal::Fenced);
        }
        if left < 1 {
            return Err(Refusal::Exhausted);
        }
        if let Some(root) = self.entry(Token::Root) {
            root.left -= 1;
        }
        self.enter(Token::Child, 1, number.unwrap_or_default(), expires);
        Ok(())
    }

    /// `spend.lua`. `issued`: when another issuer made it.
    pub fn spend(&mut self, token: Token, expires: Time, issued: Option<Time>, born: Time) -> Result<(), Refusal> {
        let (left, number) = self.judge(token, expires, issued)?;
        if left < 1 {
            return Err(Refusal::Exhausted);
        }
        if number.is_some() {
            if let Some(entry) = self.entry(token) {
                entry.left -= 1;
            }
            return Ok(());
        }
        if self.is_strange(born) {
            return Err(Refusal::Strange);
        }
        if self.outlives(expires) {
            return Err(Refusal::Clocks);
        }
        self.enter(token, left - 1, born, expires);
        Ok(())
    }

    /// `end.lua`, of a token that is held; whether it is.
    pub fn end(&mut self, token: Token) -> bool {
        self.entry(token).map(|entry| entry.revoked = true).is_some()
    }

    fn note_cut(&mut self) {
        self.record.counter += 1;
        self.record.latest = self.record.latest.max(self.clock).max(self.record.seen);
        let Record { id, counter, latest, .. } = self.record;
        self.data.cuts.retain(|cut| cut.epoch != id);
        self.data.cuts.push(Cut { epoch: id, number: counter, moment: latest, gone_at: latest + KEPT });
        self.data.cuts.sort_by_key(|cut| cut.epoch);
        self.write();
    }

    /// `revoke.lua`, of an agent.
    pub fn revoke(&mut self) -> Result<(), Refusal> {
        self.lost()?;
        self.note_cut();
        Ok(())
    }

    fn lost(&mut self) -> Result<(), Refusal> {
        self.quarantines_lost().map_or(Ok(()), Err)?;
        self.revocations_lost().map_or(Ok(()), Err)
    }

    fn store(&mut self, word: Word) {
        self.data.quarantine = Some(word);
        self.record.quarantines = true;
        if word.is_quarantine {
            self.note_cut();
        }
        self.write();
    }

    /// `revoke.lua`, of a quarantine; `version`: the least that it has.
    pub fn quarantine(&mut self, version: Time) -> Result<Word, Refusal> {
        self.lost()?;
        let stored = self.data.quarantine.unwrap_or_default();
        let later = if self.rules.later_version { self.record.base } else { 0 };
        let word = Word { version: (stored.version + 1).max(version).max(later), is_quarantine: true };
        self.store(word);
        Ok(word)
    }

    /// `revoke.lua`, again: what a node kept.
    pub fn again(&mut self, word: Word) -> Result<(), Refusal> {
        let stored = self.data.quarantine.unwrap_or_default();
        let entered = stored.is_quarantine && stored.version >= self.record.base;
        let is_raised = self.rules.entered_lasts && entered && !word.is_quarantine && word.version > stored.version;
        let word = if is_raised { Word { version: word.version + 1, is_quarantine: true } } else { word };
        if word.is_quarantine {
            self.lost()?;
        } else if let Some(lost) = self.quarantines_lost() {
            return Err(lost);
        }
        let is_newer = word.version > stored.version
            || word.version == stored.version && word.is_quarantine && !stored.is_quarantine;
        if is_newer {
            self.store(word);
        }
        Ok(())
    }

    /// `revoke.lua`, of a quarantine's end; whether there was one.
    pub fn reinstate(&mut self, version: Time) -> Result<(Word, bool), Refusal> {
        if let Some(lost) = self.quarantines_lost() {
            return Err(lost);
        }
        let stored = self.data.quarantine.unwrap_or_default();
        if self.rules.meant && stored.version != version {
            return Err(Refusal::Changed(stored.version));
        }
        if !stored.is_quarantine {
            return Ok((stored, false));
        }
        let word = Word { version: stored.version + 1, is_quarantine: false };
        self.store(word);
        Ok((word, true))
    }
}

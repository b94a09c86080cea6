//! What revoking, quarantine, reinstating and reloading do.

use super::{Oracle, Policy, Shown, Target, Verdict};

impl Oracle {
    pub fn revoke(&self, caller: &str, target: &Target) -> Verdict {
        let mut faults = self.standing_faults(&[caller]);
        if !faults.is_empty() {
            return Verdict::deny(faults);
        }
        let administrator = self.policy.administrators.contains(caller);
        let theirs = |id: usize| administrator || self.tokens[id].chain.iter().any(|agent| agent == caller);
        let may = match target {
            Target::Token(shown) => {
                faults = self.opening_faults(*shown);
                match shown {
                    Shown::Token(id) => theirs(*id),
                    Shown::Garbage => true,
                }
            }
            Target::Id(id) => administrator || (theirs(*id) && self.tokens[*id].born.is_some()),
            Target::UnknownId | Target::Quarantine(_) | Target::All => administrator,
            Target::Agent(agent) => administrator || agent == caller,
        };
        // A token whose time is over may be forgotten, and needs no revoking: its own agents hear either.
        let over = match target {
            Target::Token(Shown::Token(_)) => may && !faults.is_empty(),
            Target::Id(id) => may && self.tokens[*id].exp * 1000 <= self.now,
            Target::Token(Shown::Garbage)
            | Target::UnknownId
            | Target::Agent(_)
            | Target::Quarantine(_)
            | Target::All => false,
        };
        if !may || (over && faults.is_empty()) {
            faults.push("CALLER_NOT_AUTHORIZED");
        }
        Verdict { allowed: may && (over || faults.is_empty()), ..Verdict::deny(faults) }
    }

    /// What follows a granted revocation.
    pub fn end(&mut self, target: &Target) {
        match target {
            Target::Token(Shown::Token(id)) | Target::Id(id) => {
                self.revoked.insert(*id);
            }
            Target::Token(Shown::Garbage) | Target::UnknownId => {}
            Target::Agent(agent) => self.revoke_numbered(Some(agent)),
            Target::Quarantine(agent) => {
                self.revoke_numbered(Some(agent));
                self.quarantined.insert(agent.clone());
            }
            Target::All => self.revoke_numbered(None),
        }
    }

    pub(super) fn revoke_numbered(&mut self, agent: Option<&String>) {
        self.counter += 1;
        self.numbered.push((agent.cloned(), self.counter, self.now / 1000));
    }

    pub fn reinstate(&self, caller: &str, agent: &str) -> Verdict {
        let faults = self.standing_faults(&[caller]);
        if !faults.is_empty() {
            return Verdict::deny(faults);
        }
        if !self.policy.administrators.contains(caller) {
            return Verdict::deny(["CALLER_NOT_AUTHORIZED"]);
        }
        // The file's word is lifted in the file.
        Verdict::unless(if self.policy.quarantined.contains(agent) { vec!["AGENT_QUARANTINED"] } else { vec![] })
    }

    /// What follows a granted Reinstate.
    pub fn lift(&mut self, agent: &str) {
        self.quarantined.remove(agent);
    }

    /// Another policy comes in force.
    pub fn reload(&mut self, policy: Policy) {
        let before = std::mem::replace(&mut self.policy, policy);
        for agent in self.policy.quarantined.difference(&before.quarantined).cloned().collect::<Vec<_>>() {
            self.revoke_numbered(Some(&agent));
        }
    }
}

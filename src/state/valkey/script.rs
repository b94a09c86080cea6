//! The scripts that the store runs: each is one step, and begins with the same question.

use redis::Cmd;

/// Runs also while the store's memory is full: it frees, takes little, or must not fail for want of memory. Like every
/// script that may write it is refused by a replica, and where too few replicas are in reach.
const ALWAYS: &str = "#!lua flags=allow-oom\n";
/// Takes memory for as long as a token lives: refused while it is full, before anything is done.
const WITH_ROOM: &str = "#!lua\n";

const PRELUDE: &str = include_str!("lua/prelude.lua");
const TOKEN: &str = include_str!("lua/token.lua");
const NEWS: &str = include_str!("lua/news.lua");

/// A script and the name under which the store keeps it.
pub(super) struct Script {
    text: String,
    hash: String,
}

impl Script {
    fn new(parts: &[&str]) -> Self {
        let text = parts.concat();
        let hash = redis::Script::new(&text).get_hash().to_owned();
        Self { text, hash }
    }
}

/// All of them.
pub(super) struct Scripts {
    pub(super) spend: Script,
    /// The same for another issuer's token, which may have to be entered.
    pub(super) spend_foreign: Script,
    pub(super) check: Script,
    pub(super) mint: Script,
    pub(super) move_uses: Script,
    pub(super) end: Script,
    pub(super) revoke: Script,
    pub(super) poll: Script,
    pub(super) read: Script,
    pub(super) look_up: Script,
}

impl Scripts {
    pub(super) fn new() -> Self {
        let spend = include_str!("lua/spend.lua");
        Self {
            spend: Script::new(&[ALWAYS, PRELUDE, TOKEN, spend]),
            spend_foreign: Script::new(&[WITH_ROOM, PRELUDE, TOKEN, spend]),
            check: Script::new(&[ALWAYS, PRELUDE, TOKEN, include_str!("lua/check.lua")]),
            mint: Script::new(&[WITH_ROOM, PRELUDE, TOKEN, include_str!("lua/mint.lua")]),
            move_uses: Script::new(&[WITH_ROOM, PRELUDE, TOKEN, include_str!("lua/move.lua")]),
            end: Script::new(&[ALWAYS, PRELUDE, NEWS, include_str!("lua/end.lua")]),
            revoke: Script::new(&[ALWAYS, PRELUDE, NEWS, include_str!("lua/revoke.lua")]),
            poll: Script::new(&[ALWAYS, PRELUDE, NEWS, include_str!("lua/poll.lua")]),
            read: Script::new(&[ALWAYS, PRELUDE, include_str!("lua/read.lua")]),
            look_up: Script::new(&[ALWAYS, PRELUDE, include_str!("lua/look_up.lua")]),
        }
    }

    /// Every script's text, to be loaded when a connection begins.
    pub(super) fn texts(&self) -> impl Iterator<Item = &str> {
        let Self { spend, spend_foreign, check, mint, move_uses, end, revoke, poll, read, look_up } = self;
        [spend, spend_foreign, check, mint, move_uses, end, revoke, poll, read, look_up]
            .into_iter()
            .map(|script| script.text.as_str())
    }
}

/// One run of a script.
pub(super) struct Call<'s> {
    script: &'s Script,
    keys: Vec<String>,
    arguments: Vec<Vec<u8>>,
}

impl<'s> Call<'s> {
    pub(super) fn new<const N: usize>(script: &'s Script, keys: [&str; N]) -> Self {
        Self { script, keys: keys.map(ToOwned::to_owned).to_vec(), arguments: Vec::with_capacity(16) }
    }

    pub(super) fn key(&mut self, key: String) {
        self.keys.push(key);
    }

    /// The next argument.
    pub(super) fn with(mut self, argument: impl AsRef<[u8]>) -> Self {
        self.arguments.push(argument.as_ref().to_vec());
        self
    }

    /// The next argument, a number.
    pub(super) fn number(self, number: u64) -> Self {
        self.with(number.to_string())
    }

    /// By the script's name.
    pub(super) fn by_hash(&self) -> Cmd {
        self.command("EVALSHA", &self.script.hash)
    }

    /// By its text, for a store that doesn't know the name.
    pub(super) fn by_text(&self) -> Cmd {
        self.command("EVAL", &self.script.text)
    }

    fn command(&self, name: &str, script: &str) -> Cmd {
        let mut command = redis::cmd(name);
        command.arg(script).arg(self.keys.len());
        for key in &self.keys {
            command.arg(key);
        }
        for argument in &self.arguments {
            command.arg(argument.as_slice());
        }
        command
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::limits;

    #[test]
    fn the_bounds_in_the_scripts_are_the_bounds() {
        let (agents, unknown) = (limits::AGENT_REVOCATIONS, limits::UNKNOWN_REVOCATIONS);
        assert!(TOKEN.contains(&format!("local AGENTS, UNKNOWN = {agents}, {unknown}\n")));
        assert!(include_str!("lua/revoke.lua").contains(&format!("local AGENTS = {agents}\n")));
        assert!(include_str!("lua/end.lua").contains(&format!("local UNKNOWN = {unknown}\n")));
        let outlived = limits::UNKNOWN_REVOCATION_SECONDS + 20;
        let revoke = include_str!("lua/revoke.lua");
        assert!(revoke.contains(&format!("redis.call('EXPIREAT', KEYS[2], latest + {outlived})")));
        // As long as they are kept they are missed.
        let missed = format!("now < latest + {outlived} and redis.call('EXISTS', KEYS[2]) == 0");
        assert!(revoke.contains(&missed) && TOKEN.contains(&missed));
    }

    #[test]
    fn every_script_begins_with_the_question_which_epoch_this_is() {
        let scripts = Scripts::new();
        assert_eq!(scripts.texts().count(), 10);
        for text in scripts.texts() {
            let (shebang, body) = text.split_once('\n').unwrap();
            assert!(shebang.starts_with("#!lua"), "{shebang}");
            assert!(body.starts_with(PRELUDE));
        }
    }
}

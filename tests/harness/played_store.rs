//! A store that is played: it speaks RESP2, has one epoch and no memory, and can be held.

use std::io::{BufRead, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use remit::state::{Login, Place, StoreAddress, StoreSettings};

const EPOCH: &str = "abababababababababababababababab";
const COUNTER: u64 = 1_048_576;

/// A store that is played. It listens until the process ends.
#[derive(Clone)]
pub(crate) struct PlayedStore {
    port: u16,
    played: Arc<Played>,
}

#[derive(Default)]
struct Played {
    state: Mutex<State>,
    is_let_go: Condvar,
}

#[derive(Default)]
struct State {
    is_held: bool,
    /// Agents that were put under quarantine, in their order.
    quarantined: Vec<String>,
}

impl PlayedStore {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let played = Arc::new(Played::default());
        let store = Self { port, played: Arc::clone(&played) };
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let played = Arc::clone(&played);
                std::thread::spawn(move || played.serve(&stream));
            }
        });
        store
    }

    /// Where it is, with more time for an operation than any test takes.
    pub(crate) fn settings(&self) -> StoreSettings {
        let address = StoreAddress { host: "127.0.0.1".to_owned(), port: self.port, tls: false, database: 0 };
        StoreSettings {
            place: Place::At(address),
            login: Login::default(),
            sentinel_login: Login::default(),
            tls: None,
            prefix: "remit".to_owned(),
            replicas: 0,
            timeout: Duration::from_mins(1),
        }
    }

    /// Questions wait for their answers.
    pub(crate) fn hold(&self) {
        self.played.state.lock().is_held = true;
    }

    /// They no longer do.
    pub(crate) fn let_go(&self) {
        self.played.state.lock().is_held = false;
        self.played.is_let_go.notify_all();
    }

    /// Another node puts this agent under quarantine.
    pub(crate) fn quarantine(&self, agent: &str) {
        self.played.state.lock().quarantined.push(agent.to_owned());
    }
}

impl Played {
    fn serve(&self, stream: &TcpStream) {
        let mut reader = BufReader::new(stream);
        let mut writer = stream;
        while let Some(words) = read(&mut reader) {
            let mut state = self.state.lock();
            while state.is_held {
                self.is_let_go.wait(&mut state);
            }
            let answer = answer(&state, &words);
            drop(state);
            if writer.write_all(answer.as_bytes()).is_err() {
                return;
            }
        }
    }
}

fn answer(state: &State, words: &[String]) -> String {
    let words = words.iter().map(String::as_str).collect::<Vec<_>>();
    match words.as_slice() {
        ["ROLE"] => list(&[text("master"), number(0), list(&[])]),
        ["SCRIPT", ..] => text("loaded"),
        ["CONFIG", ..] => list(&[]),
        ["DBSIZE"] => number(0),
        ["EVALSHA", _hash, keys, rest @ ..] => script(state, &rest[keys.parse::<usize>().unwrap()..]),
        other => panic!("nobody plays {other:?}"),
    }
}

/// Which script it is, its arguments tell: these begin with a random id, the epoch, and the last number.
fn script(state: &State, arguments: &[&str]) -> String {
    match arguments {
        [_, epoch, ..] if *epoch != EPOCH => list(&[text("epoch"), text(EPOCH)]),
        [_, _, _, since] => news(state, since.parse().unwrap()),
        [_, _, _, _which, _page] => list(&[text("page"), number(state.changes()), text("0"), list(&[])]),
        _ => list(&[text("left"), number(1)]),
    }
}

fn news(state: &State, since: usize) -> String {
    let entries = state.quarantined.iter().enumerate().skip(since).map(|(at, agent)| {
        let change = u64::try_from(at).unwrap().saturating_add(1);
        let revocation = COUNTER.saturating_add(change).to_string();
        let fields = ["k", "quarantine", "a", agent, "n", &revocation, "t", "1795297900", "v", "1"];
        list(&[text(&format!("{change}-0")), list(&fields.map(text))])
    });
    let entries = entries.collect::<Vec<_>>();
    let counter = COUNTER.saturating_add(state.changes());
    list(&[text("news"), number(counter), number(0), number(counter), number(state.changes()), list(&entries)])
}

impl State {
    fn changes(&self) -> u64 {
        u64::try_from(self.quarantined.len()).unwrap()
    }
}

fn text(text: &str) -> String {
    format!("${}\r\n{text}\r\n", text.len())
}

fn number(number: u64) -> String {
    format!(":{number}\r\n")
}

fn list(items: &[String]) -> String {
    format!("*{}\r\n{}", items.len(), items.concat())
}

/// A command: a list of texts. What isn't text is nothing that is looked at.
fn read(reader: &mut impl BufRead) -> Option<Vec<String>> {
    let count = length(reader, '*')?;
    (0..count)
        .map(|_| {
            let mut bytes = vec![0; length(reader, '$')?];
            reader.read_exact(&mut bytes).ok()?;
            reader.read_exact(&mut [0; 2]).ok()?;
            Some(String::from_utf8_lossy(&bytes).into_owned())
        })
        .collect()
}

fn length(reader: &mut impl BufRead, kind: char) -> Option<usize> {
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    line.trim_end().strip_prefix(kind)?.parse().ok()
}

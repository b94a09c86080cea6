//! Uses in a shared store: a Valkey of this bench's own, on 127.0.0.1, in memory alone.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use remit::engine::Engine;
use remit::engine::chance::Chance;
use remit::state::{Directory, Login, Place, State, StoreAddress, StoreSettings};

use super::{Rounds, Took, authorize, in_turn, tokens};
use crate::fixture::{self, now};

const IN_FLIGHT: usize = 64;
const A_ROUND: usize = 8_000;
/// A new epoch waits four seconds before it is served.
const PATIENCE: Duration = Duration::from_secs(20);
/// One read and one write, as the spending of a use has at least.
const SCRIPT: &str = "local record = redis.call('HMGET', KEYS[1], 'replid', 'id', 'fence')
if record[1] then return {'other'} end
return {'left', redis.call('HINCRBY', KEYS[4], 'l', -1)}";

pub(crate) async fn rows() {
    let Some(program) = program() else {
        println!("P10 valkey: skipped, there is no valkey-server: tests/life/setup installs it");
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&program, dir.path());
    let bare = server.connect().await;
    let engine = fixture::engine_on(fixture::POLICY, &dir.path().join("audit.jsonl"), |clock| {
        let time = clock.clone();
        let directory = Directory::open(&dir.path().join("state")).unwrap();
        let chance = Chance::seeded(2);
        State::in_store(directory, server.settings(), move || time.now(), move || chance.bytes()).unwrap()
    });
    until_served(&engine).await;
    println!(
        "P10 valkey: authorize beside a bare EVALSHA of as many keys and words (goal: at least 0.8 as many a second)"
    );
    let mut rounds = Rounds::default();
    let mut round = 0;
    while !rounds.are_done() {
        round += 1;
        let wanted = tokens(&engine, A_ROUND).await;
        let own = authorize(&engine, wanted, IN_FLIGHT).await;
        let bare = evaluate(&bare, round).await;
        rounds.add(own, bare).await;
    }
    rounds.tell(IN_FLIGHT, "EVALSHA");
}

async fn until_served(engine: &Engine) {
    let began = now();
    while let Err(refused) = engine.state().accepts() {
        assert!(began.elapsed() < PATIENCE, "the store is not served: {}", refused.denial().message());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Runs the bare script as often as a round spends, on one connection as the engine has one.
async fn evaluate(connection: &MultiplexedConnection, round: usize) -> Took {
    let work = (0..A_ROUND).map(|number| format!("{{remit}}:token:{round:08x}{number:024x}")).collect();
    let script = redis::Script::new(SCRIPT);
    in_turn(
        work,
        IN_FLIGHT,
        move |connection: &MultiplexedConnection, key: String| {
            let (mut connection, script) = (connection.clone(), script.clone());
            async move {
                let mut call = script.prepare_invoke();
                call.key("{remit}:record").key("{remit}:cutoffs").key("{remit}:unknown").key(&key);
                for word in ["0123456789abcdef", "0123456789abcdef", "16", "1", "1795297893", "", "0", "2"] {
                    call.arg(word);
                }
                call.arg("0123456789abcdef0123456789abcdef").arg("agent-coordinator").arg("agent-deployer");
                let answer: (String, i64) = call.invoke_async(&mut connection).await.unwrap();
                assert_eq!(answer, ("left".to_owned(), -1));
            }
        },
        connection,
    )
    .await
}

/// The machine's own, or what `tests/life/setup` unpacked.
fn program() -> Option<PathBuf> {
    let unpacked = Path::new(env!("CARGO_MANIFEST_DIR")).join(".cache/valkey-server/usr/bin/valkey-server");
    [unpacked, PathBuf::from("/usr/bin/valkey-server")].into_iter().find(|path| path.exists())
}

/// A server that ends with this.
struct Server {
    process: Child,
    port: u16,
}

impl Server {
    fn start(program: &Path, folder: &Path) -> Self {
        let port = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
        let settings = [
            ("--bind", "127.0.0.1"),
            ("--port", &port.to_string()),
            ("--save", ""),
            ("--appendonly", "no"),
            ("--maxmemory-policy", "noeviction"),
            ("--repl-backlog-ttl", "0"),
        ];
        let libraries = program.ancestors().nth(2).unwrap().join("lib/x86_64-linux-gnu");
        let process = Command::new(program)
            .args(settings.iter().flat_map(|(name, value)| [name, value]))
            .current_dir(folder)
            .env("LD_LIBRARY_PATH", libraries)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Self { process, port }
    }

    async fn connect(&self) -> MultiplexedConnection {
        let client = redis::Client::open(("127.0.0.1", self.port)).unwrap();
        let began = now();
        loop {
            match client.get_multiplexed_async_connection().await {
                Ok(connection) => return connection,
                Err(error) => assert!(began.elapsed() < PATIENCE, "the store does not answer: {error}"),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn settings(&self) -> StoreSettings {
        let address = StoreAddress { host: "127.0.0.1".to_owned(), port: self.port, tls: false, database: 0 };
        StoreSettings {
            place: Place::At(address),
            login: Login::default(),
            sentinel_login: Login::default(),
            tls: None,
            prefix: "remit".to_owned(),
            replicas: 0,
            timeout: Duration::from_secs(1),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself; there is nothing left to do then.
        let _ = (self.process.kill(), self.process.wait());
    }
}

//! A connection to the primary: found, opened, looked over.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, ClientTlsConfig, Cmd, ConnectionAddr, IntoConnectionInfo as _, RedisConnectionInfo,
    TlsCertificates, Value,
};

use zeroize::Zeroizing;

use super::reply::pairs;
use super::script::{Call, Scripts};
use super::settings::{Login, Place, StoreAddress, StoreSettings, StoreTls};
use super::trouble::{Trouble, tls_advice};

/// How long opening a connection may take: longer than a try at a store that doesn't answer, shorter than the time in
/// which it has to be found again.
const CONNECT: Duration = Duration::from_secs(1);
/// How long a Sentinel may take: the next one may know.
const SENTINEL: Duration = Duration::from_millis(400);
/// Requests that wait to be written to a connection.
const QUEUE: usize = 1024;
/// How long replicas have to acknowledge a quarantine, and the store to say so.
const WAIT: Duration = Duration::from_secs(1);
const WAIT_ANSWER: Duration = Duration::from_millis(1500);

/// A connection for what requests ask, and one for what may take longer.
pub(super) struct Link {
    requests: MultiplexedConnection,
    control: MultiplexedConnection,
    timeout: Duration,
    /// Where it leads.
    pub(super) address: StoreAddress,
}

/// The settings of the store that count.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Looked {
    /// Names and values.
    pub(super) settings: Vec<(String, String)>,
    /// Keys in the database.
    pub(super) keys: u64,
    /// Replicas that are connected to it.
    pub(super) replicas: u64,
}

impl Link {
    /// Finds the primary and connects to it.
    pub(super) async fn open(settings: &StoreSettings, scripts: &Scripts) -> Result<Self, Trouble> {
        let address = match &settings.place {
            Place::At(address) => address.clone(),
            Place::AskSentinels { sentinels, service } => primary(settings, sentinels, service).await?,
        };
        let requests = connect(settings, &address, &settings.login, CONNECT, settings.timeout).await?;
        let control = connect(settings, &address, &settings.login, CONNECT, WAIT_ANSWER).await?;
        let link = Self { requests, control, timeout: settings.timeout, address };
        // A Sentinel may be late, and a name may lead to a replica.
        // What is refused by a server that wants a certificate is refused with the first answer.
        let role = run(&link.control, &redis::cmd("ROLE")).await.map_err(|trouble| at(&link.address, trouble))?;
        if !is_primary(&role) {
            return Err(Trouble::Replica);
        }
        for text in scripts.texts() {
            run(&link.control, redis::cmd("SCRIPT").arg("LOAD").arg(text)).await?;
        }
        Ok(link)
    }

    /// Runs a script, within the time that an operation has. What may have been done is not asked for again: only a
    /// store that doesn't know the script has done nothing.
    pub(super) async fn run(&self, call: &Call<'_>) -> Result<Value, Trouble> {
        let asked = tokio::time::timeout(self.timeout, run_script(&self.requests, call));
        asked.await.unwrap_or(Err(Trouble::Slow))
    }

    /// Runs a script on the other connection, on which [`Link::replicated`] is asked for it.
    pub(super) async fn run_replicated(&self, call: &Call<'_>) -> Result<Value, Trouble> {
        run_script(&self.control, call).await
    }

    /// How many replicas have everything that was done on the other connection.
    pub(super) async fn replicated(&self, wanted: u32) -> Result<u64, Trouble> {
        let millis = u64::try_from(WAIT.as_millis()).unwrap_or(u64::MAX);
        let answer = run(&self.control, redis::cmd("WAIT").arg(wanted).arg(millis)).await?;
        let Value::Int(replicas) = answer else { return Err(odd("WAIT")) };
        u64::try_from(replicas).map_err(|_| odd("WAIT"))
    }

    /// Leaves a word that no script reads.
    pub(super) async fn note(&self, key: &str, field: &str, word: &str) -> Result<(), Trouble> {
        run(&self.control, redis::cmd("HSET").arg(key).arg(field).arg(word)).await.map(|_| ())
    }

    /// Reads such words, one for each field where there is one.
    pub(super) async fn noted(&self, key: &str, fields: &[&str]) -> Result<Vec<Option<String>>, Trouble> {
        let answer = run(&self.control, redis::cmd("HMGET").arg(key).arg(fields)).await?;
        let Value::Array(words) = answer else { return Err(odd("HMGET")) };
        Ok(words.iter().map(text).collect())
    }

    /// Looks at the settings that the store runs with.
    pub(super) async fn look(&self) -> Result<Looked, Trouble> {
        let mut get = redis::cmd("CONFIG");
        get.arg("GET");
        for name in super::demands::SETTINGS {
            get.arg(name);
        }
        let settings = pairs(&run(&self.control, &get).await?).ok_or_else(|| odd("CONFIG GET"))?;
        let Value::Int(keys) = run(&self.control, &redis::cmd("DBSIZE")).await? else { return Err(odd("DBSIZE")) };
        let role = run(&self.control, &redis::cmd("ROLE")).await?;
        let replicas = replicas(&role).ok_or_else(|| odd("ROLE"))?;
        Ok(Looked { settings, keys: u64::try_from(keys).unwrap_or_default(), replicas })
    }
}

fn odd(command: &str) -> Trouble {
    Trouble::Odd(format!("the answer to {command} has another form"))
}

fn text(value: &Value) -> Option<String> {
    let Value::BulkString(bytes) = value else { return None };
    String::from_utf8(bytes.clone()).ok()
}

fn is_primary(role: &Value) -> bool {
    let Value::Array(parts) = role else { return false };
    parts.first().is_some_and(|role| *role == Value::BulkString(b"master".to_vec()))
}

/// How many replicas a primary lists.
fn replicas(role: &Value) -> Option<u64> {
    let Value::Array(parts) = role else { return None };
    let [_, _, Value::Array(replicas), ..] = parts.as_slice() else { return None };
    u64::try_from(replicas.len()).ok()
}

async fn run_script(connection: &MultiplexedConnection, call: &Call<'_>) -> Result<Value, Trouble> {
    match run(connection, &call.by_hash()).await {
        Err(Trouble::NoScript) => run(connection, &call.by_text()).await,
        answered => answered,
    }
}

async fn run(connection: &MultiplexedConnection, command: &Cmd) -> Result<Value, Trouble> {
    let answered = connection.clone().send_packed_command(command).await;
    let value = answered.and_then(Value::extract_error);
    value.map_err(|error| Trouble::of(&error))
}

/// Asks one Sentinel after the other where the primary is.
async fn primary(settings: &StoreSettings, sentinels: &[StoreAddress], service: &str) -> Result<StoreAddress, Trouble> {
    let mut last = Trouble::Odd("no Sentinel is configured".to_owned());
    for sentinel in sentinels {
        match ask_sentinel(settings, sentinel, service).await {
            Ok(address) => return Ok(address),
            Err(trouble) => last = Trouble::Broken(format!("the Sentinel {sentinel}: {}", trouble.of_sentinel())),
        }
    }
    Err(last)
}

async fn ask_sentinel(
    settings: &StoreSettings,
    sentinel: &StoreAddress,
    service: &str,
) -> Result<StoreAddress, Trouble> {
    let connection = connect(settings, sentinel, &settings.sentinel_login, SENTINEL, SENTINEL).await?;
    let mut ask = redis::cmd("SENTINEL");
    ask.arg("GET-MASTER-ADDR-BY-NAME").arg(service);
    let answer = run(&connection, &ask).await.map_err(|trouble| at(sentinel, trouble))?;
    let parts = if let Value::Array(parts) = &answer { parts.as_slice() } else { &[] };
    let [host, port] = parts else {
        return Err(Trouble::Odd(format!("it knows no primary named {service:?}: see [state] sentinel_service")));
    };
    let (host, port) = (text(host), text(port).and_then(|port| port.parse().ok()));
    let (Some(host), Some(port)) = (host, port) else { return Err(odd("SENTINEL GET-MASTER-ADDR-BY-NAME")) };
    Ok(StoreAddress { host, port, tls: sentinel.tls, database: 0 })
}

async fn connect(
    settings: &StoreSettings,
    address: &StoreAddress,
    login: &Login,
    within: Duration,
    answer: Duration,
) -> Result<MultiplexedConnection, Trouble> {
    let client = client(settings, address, login)?;
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(within))
        .set_response_timeout(Some(answer))
        .set_pipeline_buffer_size(QUEUE);
    let connected = client.get_multiplexed_async_connection_with_config(&config).await;
    connected.map_err(|error| {
        let trouble = Trouble::of(&error);
        if trouble == Trouble::Slow {
            // A server that speaks no TLS waits for more of what it takes for a command.
            let advice = if address.tls { ": if it speaks no TLS there, write its tls-port, or redis://" } else { "" };
            return Trouble::Broken(format!("{address} did not answer within {} ms{advice}", within.as_millis()));
        }
        at(address, trouble)
    })
}

/// Where a connection was not to be had, and what to do.
fn at(address: &StoreAddress, trouble: Trouble) -> Trouble {
    if let Trouble::Broken(said) | Trouble::Odd(said) = &trouble {
        let advice = tls_advice(said).map(|advice| format!(": {advice}")).unwrap_or_default();
        return Trouble::Broken(format!("{address}: {said}{advice}"));
    }
    trouble
}

fn client(settings: &StoreSettings, address: &StoreAddress, login: &Login) -> Result<Client, Trouble> {
    let misconfigured = |error: redis::RedisError| Trouble::of(&error);
    let mut hello = RedisConnectionInfo::default().set_db(i64::from(address.database)).set_skip_set_lib_name();
    if let Some(username) = &login.username {
        hello = hello.set_username(username);
    }
    if let Some(read) = &login.password {
        hello = hello.set_password(read().map_err(Trouble::Files)?.reveal());
    }
    let (host, port) = (address.host.clone(), address.port);
    let place = if address.tls {
        ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None }
    } else {
        ConnectionAddr::Tcp(host, port)
    };
    let info = place.into_connection_info().map_err(misconfigured)?.set_redis_settings(hello);
    let Some(read) = settings.tls.as_ref().filter(|_| address.tls) else {
        return Client::open(info).map_err(misconfigured);
    };
    let StoreTls { ca, identity } = read().map_err(Trouble::Files)?;
    let shown = |(certificate, key): (Vec<u8>, Zeroizing<Vec<u8>>)| ClientTlsConfig {
        client_cert: certificate,
        client_key: key.to_vec(),
    };
    let certificates = TlsCertificates { client_tls: identity.map(shown), root_cert: ca };
    Client::build_with_tls(info, certificates).map_err(misconfigured)
}

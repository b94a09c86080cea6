use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::state::{Place, StoreAddress};

/// Every key once.
pub(super) const EVERYTHING: &str = r#"
[grpc]
listen = "127.0.0.1:1"
max_connections = 2
max_concurrent_streams = 256
drain_seconds = 3
runtimes = 4
[tls]
certificate = "server.pem"
key = "server.key"
client_ca = "/etc/ca.pem"
crl = "crl.pem"
client_auth = "required"
[http]
listen = "[::1]:5"
public_url = "https://remit.example.com"
offline_jwt = true
tls_certificate = "http.pem"
tls_key = "http.key"
client_ca = "http-ca.pem"
[admin]
listen = "127.0.0.1:6"
client_auth = "optional"
[policy]
file = "policy.json"
poll_seconds = 7
max_age_seconds = 8
administrators = ["ops"]
auditors = ["eye"]
enforcement_points = ["gate"]
[[key]]
file = "a.key"
foreign = true
[[key]]
file = "b.key"
[state]
backend = "journal"
dir = "state"
capacity = 1000
per_agent_share = 0.5
[audit]
file = "audit.jsonl"
rotate_bytes = 9
keep = 10
checkpoint_events = 33
checkpoint_seconds = 34
on_failure = "count"
sync = "none"
mask = ["note", "resource=/patients/*"]
[events]
ring = 128
subscriber_buffer = 12
max_subscribers = 13
heartbeat_seconds = 14
[detection]
baseline = true
learn_seconds = 15
rate_factor = 16
rate_minimum = 17
[identity]
spiffe_templates = ["spiffe://a/{agent}"]
allow_dns_san = true
dns_templates = ["{agent}.a"]
allow_common_name = true
api_keys_file = "api_keys.txt"
[identity.forward]
signing_key = "forward.key"
issuer = "https://remit.example"
ttl_seconds = 30
also_published = ["next.pem"]
jwks_cache_seconds = 15
[[identity.jwt]]
issuer = "https://idp.example"
audience = "remit"
jwks_uri = "https://idp.example/keys"
algorithms = ["RS256", "EdDSA"]
agent_claim = "azp"
forward_claims = ["groups"]
privileged = true
id_tokens = true
max_lifetime_seconds = 600
refresh_seconds = 60
max_stale_seconds = 120
[[identity.jwt]]
issuer = "http://127.0.0.1:9"
audience = ["a", "b"]
discovery = true
[[identity.client]]
agent = "agent-deployer"
jwks_file = "deployer.json"
[ext_authz]
xfcc_from = ["edge"]
client_certificate_header = { gate = "x-remit-client-certificate" }
rules = [{ hosts = ["api"], methods = ["POST"], path = "/mcp/{db}", rpc = ["tools/call"], tools = ["query"], capability = "{tool}", resource = "db:{db}" }]
[telemetry]
log = "debug"
format = "text"
otlp_endpoint = "https://collector.example:4317"
otlp_ca = "collector-ca.pem"
otlp_headers_file = "otlp.headers"
otlp_sample_ratio = 0.5
"#;

/// The same with the keys that only a store has, which no configuration has all of.
pub(super) fn everything_of_every_backend() -> String {
    let store = r#"url = "redis://a"
sentinels = ["redis://a"]
sentinel_service = "remit"
username = "remit"
password_file = "password"
sentinel_username = "remit"
sentinel_password_file = "sentinel-password"
ca = "ca.pem"
certificate = "remit.pem"
key = "remit.key"
prefix = "remit"
replicas = 2
timeout_ms = 100
"#;
    EVERYTHING.replace("per_agent_share = 0.5\n", &format!("per_agent_share = 0.5\n{store}"))
}

const REQUIRED: &str = r#"
policy.file = "policy.json"
key = [{ file = "hmac.key" }]
tls = { certificate = "server.pem", key = "server.key", client_ca = "ca.pem" }
state.dir = "state"
"#;

struct Given {
    folder: tempfile::TempDir,
    sources: Sources,
}

impl Given {
    fn file(text: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("remit.toml");
        std::fs::write(&file, text).unwrap();
        Self { folder, sources: Sources { file: Some(file), ..Sources::default() } }
    }

    fn variable(mut self, name: &str, value: &str) -> Self {
        self.sources.environment.push((name.into(), value.into()));
        self
    }

    fn flag(mut self, flag: &str) -> Self {
        self.sources.flags.push(flag.to_owned());
        self
    }

    fn dev(mut self, text: &str) -> Self {
        self.sources.dev = Some(DevDefaults { text: text.to_owned(), folder: "/dev-folder".into() });
        self
    }

    fn config(&self) -> Config {
        Config::read(&self.sources).unwrap().0
    }

    fn error(&self) -> String {
        Config::read(&self.sources).unwrap_err().to_string()
    }
}

#[test]
fn every_key_arrives_in_its_place() {
    let given = Given::file(EVERYTHING);
    let config = given.config();
    let at = |name: &str| given.folder.path().join(name);
    assert_eq!(config.grpc.limits().streams, 256);
    assert_eq!(config.tls.files(false).certificate, at("server.pem"));
    assert_eq!(config.tls.client_ca, PathBuf::from("/etc/ca.pem"));
    assert_eq!(config.http.files(&config.tls).unwrap().key, at("http.key"));
    assert_eq!(config.policy.roles().enforcement_points[0].as_str(), "gate");
    assert_eq!(config.policy.max_age(), Some(std::time::Duration::from_secs(8)));
    let keys = config.key_files().0;
    assert_eq!((keys[0].path.clone(), keys[0].foreign), (at("a.key"), true));
    assert_eq!((keys[1].path.clone(), keys[1].foreign), (at("b.key"), false));
    assert_eq!(config.state.capacity(), crate::state::Capacity { entries: 1000, per_agent: 500 });
    assert_eq!((config.state.backend, config.state.dir.clone()), (Backend::Journal, at("state")));
    assert_eq!(config.audit.file, Some(at("audit.jsonl")));
    assert_eq!(config.telemetry.format, crate::telemetry::Format::Text);
    let [one, list] = &config.identity.jwt[..] else { panic!("two issuers") };
    assert_eq!((one.audience.0.as_slice(), one.max_stale_seconds), (["remit".to_owned()].as_slice(), 120));
    assert_eq!(list.audience.0, ["a", "b"]);
}

#[test]
fn an_issuer_without_an_audience_is_refused_with_what_to_write() {
    let given = format!("{REQUIRED}[[identity.jwt]]\nissuer = \"https://idp.example\"\ndiscovery = true\n");
    let error = Given::file(&given).error();
    assert!(error.contains("audience of \"https://idp.example\" is missing: write audience = "), "{error}");
}

#[test]
fn what_is_printed_is_the_same_configuration() {
    let config = Given::file(EVERYTHING).config();
    let printed = config.to_toml().unwrap();
    assert_eq!(Given::file(&printed).config(), config);
    let defaults = Given::file(REQUIRED).config();
    assert_eq!(Given::file(&defaults.to_toml().unwrap()).config(), defaults);
}

#[test]
fn what_is_printed_has_no_secret() {
    let given = Given::file(REQUIRED);
    let secret = "5ecre7".repeat(10);
    for name in ["hmac.key", "server.key"] {
        std::fs::write(given.folder.path().join(name), &secret).unwrap();
    }
    let given = given.variable("REMIT_TOKEN", &secret);
    let printed = given.config().to_toml().unwrap();
    assert!(printed.contains("hmac.key") && !printed.contains("5ecre7"), "{printed}");
}

#[test]
fn defaults_are_the_documented_ones() {
    let config = Given::file(REQUIRED).config();
    assert_eq!(config.grpc.listen.to_string(), "127.0.0.1:7443");
    assert_eq!(config.http.listen.to_string(), "127.0.0.1:7480");
    assert_eq!(config.admin.listen.to_string(), "127.0.0.1:7444");
    assert_eq!((config.grpc.max_concurrent_streams, config.grpc.drain_seconds, config.grpc.runtimes), (100, 30, 0));
    assert_eq!((config.policy.poll_seconds, config.policy.max_age()), (2, None));
    assert_eq!(config.state.capacity(), crate::state::Capacity { entries: 2_000_000, per_agent: 500_000 });
    assert!(!config.keys[0].foreign && config.http.files(&config.tls).is_none());
    assert_eq!((config.telemetry.log.as_str(), config.telemetry.format), ("info", crate::telemetry::Format::Json));
}

#[test]
fn flags_go_over_the_environment_over_the_file_over_dev() {
    let dev = "[grpc]\nlisten = \"127.0.0.1:1\"\ndrain_seconds = 1\nruntimes = 1\nmax_connections = 1\n\
        [audit]\nfile = \"audit.jsonl\"";
    let file = format!("{REQUIRED}grpc.drain_seconds = 2\ngrpc.runtimes = 2\ngrpc.max_connections = 2\n");
    let given = Given::file(&file)
        .dev(dev)
        .variable("REMIT_GRPC_RUNTIMES", "3")
        .variable("REMIT_GRPC_MAX_CONNECTIONS", "3")
        .flag("grpc.max_connections=4");
    let config = given.config();
    assert_eq!(config.grpc.listen.port(), 1);
    assert_eq!((config.grpc.drain_seconds, config.grpc.runtimes, config.grpc.max_connections), (2, 3, 4));
    assert_eq!(config.audit.file, Some("/dev-folder/audit.jsonl".into()));
}

#[test]
fn the_environment_speaks_every_kind() {
    let config = Given::file(REQUIRED)
        .variable("REMIT_POLICY_ADMINISTRATORS", "ops-a, ops-b")
        .variable("REMIT_KEY_FILE", "new.key,/run/old.key")
        .variable("REMIT_STATE_PER_AGENT_SHARE", "1")
        .variable("REMIT_IDENTITY_ALLOW_DNS_SAN", "true")
        .variable("REMIT_AUDIT_FILE", "-")
        .variable("REMIT_POLICY_AUDITORS", "")
        .variable("HOME", "/root")
        .config();
    let names: Vec<&str> = config.policy.administrators.iter().map(crate::domain::agent::AgentName::as_str).collect();
    assert_eq!(names, ["ops-a", "ops-b"]);
    let keys: Vec<&Path> = config.keys.iter().map(|key| key.file.as_path()).collect();
    assert_eq!(keys, [Path::new("new.key"), Path::new("/run/old.key")], "relative to the working directory");
    assert!(config.identity.allow_dns_san);
    assert_eq!(config.audit.file, Some("-".into()));
}

#[test]
fn a_dash_in_the_file_is_standard_output() {
    assert_eq!(Given::file(&format!("{REQUIRED}audit.file = \"-\"\n")).config().audit.file, Some("-".into()));
}

#[test]
fn a_bad_variable_or_flag_is_named() {
    for (name, value, wanted) in [
        ("REMIT_GRPC_LISTEN", "nowhere", "REMIT_GRPC_LISTEN: invalid socket address"),
        ("REMIT_GRPC_RUNTIMES", "many", "REMIT_GRPC_RUNTIMES: it has to be a whole number"),
        ("REMIT_GRPC_RUNTIMES", "-1", "REMIT_GRPC_RUNTIMES: invalid value"),
        ("REMIT_TLS_CRL", "", "REMIT_TLS_CRL: it is empty"),
        ("REMIT_POLICY_AUDITORS", "a b", "REMIT_POLICY_AUDITORS: \"a b\" is not an agent's name"),
        ("REMIT_IDENTITY_ALLOW_DNS_SAN", "yes", "REMIT_IDENTITY_ALLOW_DNS_SAN: it has to be true or false"),
    ] {
        let error = Given::file(REQUIRED).variable(name, value).error();
        assert!(error.starts_with(wanted), "{error}");
    }
    let flag = |flag: &str| Given::file(REQUIRED).flag(flag).error();
    assert!(flag("grpc.lisen=1").contains("did you mean grpc.listen?"));
    assert!(flag("grpc.listen").contains("SECTION.KEY=VALUE"));
    assert!(flag("grpc.listen=1").starts_with("--set grpc.listen: "));
}

#[test]
fn an_unknown_variable_is_a_warning() {
    let given = Given::file(REQUIRED)
        .variable("REMIT_PORT", "tcp://10.0.0.1:7443")
        .variable("REMIT_GRPC_LISTN", "x")
        .variable("REMIT_TOKEN", "secret");
    let (_, warnings) = Config::read(&given.sources).unwrap();
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(warnings[0].ends_with("(did you mean REMIT_GRPC_LISTEN?)"));
    assert!(warnings[1].contains("REMIT_PORT is not a setting") && !warnings[1].contains("10.0.0.1"));
}

#[test]
fn an_unknown_key_is_shown_at_its_place() {
    let error = Given::file("[grpc]\nlisten = \"127.0.0.1:0\"\ndrain_second = 5\n").error();
    for part in
        ["remit.toml", "line 3, column 1", "drain_second = 5", "^^^^^^^^^^^^", "help: did you mean `drain_seconds`?"]
    {
        assert!(error.contains(part), "{part}: {error}");
    }
    let section = Given::file("[telemtry]\nlog = \"info\"\n").error();
    assert!(section.contains("did you mean `telemetry`?"), "{section}");
    let later = Given::file("[policy]\ncandidate = \"x\"\n").error();
    assert!(later.contains("this version of Remit does not act on `candidate`: remove it"), "{later}");
    for text in [
        "[tls]\nclient_auth = \"perhaps\"\n",
        "[admin]\nclient_auth = \"perhaps\"\n",
        "[state]\nbackend = \"redis\"\n",
        "[[identity.jwt]]\naudiences = []\n",
        "[[identity.client]]\n",
        "x =",
    ] {
        assert!(Given::file(text).error().contains("line "), "{text}");
    }
}

#[test]
fn what_is_missing_is_said_all_at_once() {
    let error = Given::file("[tls]\nkey = \"server.key\"\n").error();
    assert_eq!(
        error,
        "the configuration lacks [policy] file, [[key]], [tls] certificate, [tls] client_ca, [state] dir; write in remit.toml:\n\
         \n[policy]\nfile = \"policy.json\"          # what agents may do\
         \n[[key]]\nfile = \"hmac.key\"             # made by `remit keygen --out hmac.key`\
         \n[tls]\ncertificate = \"server.pem\"    # the server's certificate\
         \nclient_ca = \"ca.pem\"          # who issues certificates to clients\
         \n[state]\ndir = \"state\"                 # where revocations are kept; one process a directory\n\
         \nor run `remit serve --dev`, which makes all of it for trying out"
    );
}

#[test]
fn plain_text_off_loopback_is_refused() {
    let with = |text: &str| Given::file(&format!("{REQUIRED}{text}\n"));
    let error = with("http.listen = \"0.0.0.0:7480\"").error();
    assert!(error.starts_with("[http] listen is 0.0.0.0:7480") && error.contains("tls_certificate"), "{error}");
    with("http = { listen = \"0.0.0.0:1\", tls_certificate = \"a\", tls_key = \"b\" }").config();
    assert!(with("http.tls_certificate = \"a\"").error().contains("tls_key"));
    assert!(with("http.tls_key = \"a\"").error().contains("tls_certificate"));
    assert!(with("http.client_ca = \"a\"").error().contains("client_ca"));
    with("grpc.listen = \"0.0.0.0:7443\"").config();
    let dev = with("grpc.listen = \"0.0.0.0:7443\"").dev("").error();
    assert!(dev.contains("[grpc] listen") && dev.contains("loopback"), "{dev}");
}

#[test]
fn numbers_have_ranges() {
    for (text, wanted) in [
        ("grpc.max_connections = 0", "[grpc] max_connections"),
        ("grpc.runtimes = 2000", "[grpc] runtimes"),
        ("policy.poll_seconds = 0", "[policy] poll_seconds"),
        ("policy.max_age_seconds = 1", "[policy] max_age_seconds"),
        ("state.capacity = 0", "[state] capacity"),
        ("state.per_agent_share = 0", "[state] per_agent_share"),
        ("state.per_agent_share = nan", "[state] per_agent_share"),
        ("state.per_agent_share = 1.5", "[state] per_agent_share"),
        ("events.ring = 1", "[events] ring"),
        ("identity.spiffe_templates = [\"x\"]", "[identity] spiffe_templates"),
    ] {
        let required = REQUIRED.replace("policy.file = \"policy.json\"\n", "");
        let error = Given::file(&format!("policy.file = \"p\"\n{required}{text}\n")).error();
        assert!(error.starts_with(wanted), "{text}: {error}");
    }
}

#[test]
fn a_store_is_told_where_it_is_and_nothing_about_it_is_guessed() {
    let no_password = |_, _| -> crate::state::ReadPassword { Arc::new(|| Err(String::new())) };
    let no_tls = |_| -> crate::state::ReadTls { Arc::new(|| Err(String::new())) };
    let read = |text: &str| Given::file(&format!("{REQUIRED}{text}\n")).config().state.store(no_password, no_tls);
    assert!(read("").unwrap().is_none());
    let valkey = "state.backend = \"valkey\"\nstate.replicas = 2\n";
    let settings =
        read(&format!("{valkey}state.url = \"rediss://store.example.com/3\"\nstate.ca = \"ca.pem\"")).unwrap().unwrap();
    let address = StoreAddress { host: "store.example.com".to_owned(), port: 6379, tls: true, database: 3 };
    assert_eq!(settings.place, Place::At(address));
    assert_eq!(
        (settings.replicas, settings.timeout, settings.prefix.as_str()),
        (2, Duration::from_millis(200), "remit")
    );
    let sentinels = "state.sentinels = [\"redis://one\", \"redis://[::1]:9\"]\nstate.sentinel_service = \"remit\"";
    let settings = read(&format!("{valkey}{sentinels}")).unwrap().unwrap();
    let Place::AskSentinels { sentinels, service } = settings.place else { panic!("{:?}", settings.place) };
    let found = sentinels.iter().map(|one| (one.host.as_str(), one.port)).collect::<Vec<_>>();
    assert_eq!((found, service.as_str()), (vec![("one", 26379), ("::1", 9)], "remit"));
}

#[test]
fn what_is_wrong_with_a_store_says_what_to_write_and_shows_no_password() {
    let valkey = "state.backend = \"valkey\"\n";
    let url = "state.url = \"redis://127.0.0.1\"\n";
    let both = format!("{valkey}state.replicas = 0\n{url}");
    let missing = format!("{valkey}state.replicas = 0\n");
    for (text, wanted) in [
        (format!("state.prefix = \"x\"\n{url}"), "[state] url is for backend = \"valkey\""),
        ("state.replicas = 1".to_owned(), "[state] replicas is for backend"),
        (format!("{valkey}{url}"), "[state] replicas is missing"),
        (missing.clone(), "[state] url is missing"),
        (format!("{missing}state.sentinels = [\"redis://a\"]"), "[state] sentinel_service is missing"),
        (
            format!("{missing}state.sentinels = [\"redis://a\"]\nstate.sentinel_service = \"a\""),
            "[state] replicas is 0 beside sentinels",
        ),
        (format!("{both}state.sentinels = [\"redis://a\"]"), "[state] url and sentinels are both there"),
        (format!("{both}state.sentinel_service = \"a\""), "[state] sentinel_service needs sentinels"),
        (format!("{missing}state.url = \"http://a\""), "[state] url: its scheme"),
        (format!("{missing}state.url = \"a:6379\""), "[state] url: "),
        (format!("{missing}state.url = \"redis://a/x\""), "[state] url: its path"),
        (
            format!("{missing}state.url = \"redis://user:secret@a\""),
            "[state] url: a user or password may not stand in it",
        ),
        (format!("{missing}state.url = \"redis://:secret@a\""), "[state] url: a user or password may not stand in it"),
        (format!("{missing}state.url = \"redis://a?password=secret\""), "[state] url: nothing may follow"),
        (format!("{both}state.ca = \"ca.pem\""), "[state] ca is for TLS"),
        (format!("{both}state.certificate = \"a\"\nstate.key = \"b\""), "[state] certificate is for TLS"),
        (format!("{both}state.certificate = \"a\""), "[state] key is missing beside certificate"),
        (format!("{both}state.key = \"a\""), "[state] certificate is missing beside key"),
        (format!("{both}state.username = \"a\""), "[state] username needs password_file"),
        (format!("{both}state.sentinel_username = \"a\""), "[state] sentinel_username needs sentinel_password_file"),
        (format!("{both}state.sentinel_password_file = \"a\""), "[state] sentinel_password_file needs sentinels"),
        ("state.certificate = \"a\"".to_owned(), "[state] certificate is for backend"),
        (format!("{both}state.prefix = \"a:b\""), "[state] prefix"),
        (format!("{both}state.timeout_ms = 5"), "[state] timeout_ms is 5"),
        (format!("{both}state.capacity = 5"), "[state] capacity and per_agent_share don't hold"),
    ] {
        let error = Given::file(&format!("{REQUIRED}{text}\n")).error();
        assert!(error.starts_with(wanted), "{text}: {error}");
        assert!(!error.contains("secret"), "{error}");
    }
}

#[test]
fn an_unreadable_file_is_named() {
    let sources = Sources { file: Some("/nonexistent/remit.toml".into()), ..Sources::default() };
    let error = Config::read(&sources).unwrap_err().to_string();
    assert!(error.contains("/nonexistent/remit.toml"), "{error}");
}

#[test]
fn what_is_published_is_configured_or_local() {
    let at = |text: &str| text.parse::<std::net::SocketAddr>().unwrap();
    let mut http = HttpConfig::default();
    assert_eq!(http.published_at(at("127.0.0.1:9")).as_deref(), Some("http://localhost:9"));
    assert_eq!(http.published_at(at("10.0.0.1:9")), None);
    http.tls_certificate = Some("a.pem".into());
    assert_eq!(http.published_at(at("[::1]:9")).as_deref(), Some("https://localhost:9"));
    http.public_url = Some(PublicUrl::parse("https://remit.example.com").unwrap());
    assert_eq!(http.published_at(at("127.0.0.1:9")).as_deref(), Some("https://remit.example.com"));
}

#[test]
fn a_public_url_that_is_more_than_an_origin_is_refused_with_what_to_write() {
    let given = Given::file(&format!("{REQUIRED}http.public_url = \"https://remit.example.com/\"\n"));
    let refused = Config::read(&given.sources).unwrap_err().to_string();
    assert!(refused.contains("write https://remit.example.com"), "{refused}");
}

//! Fetching keys from a server that does as it likes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::testing::{ISSUER, SIGNER, Signer, claims, config, key_set, now};
use super::{Algorithm, Client, Config, Discovery, Issuers, Refresher};

/// An HTTP server that answers each path with what `answer` makes of it.
struct Server {
    at: String,
    asked: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A whole answer: its status line's end, more headers, its body.
type Answer = (&'static str, String, Vec<u8>);

fn ok(body: impl Into<Vec<u8>>) -> Answer {
    ("200 OK", String::new(), body.into())
}

impl Server {
    async fn start(answer: impl Fn(&str, &str) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = format!("http://{}", listener.local_addr().unwrap());
        let (base, asked) = (at.clone(), Arc::new(AtomicUsize::new(0)));
        let count = Arc::clone(&asked);
        let task = tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = [0; 2048];
                let length = stream.read(&mut request).await.unwrap();
                let request = String::from_utf8_lossy(&request[..length]).into_owned();
                let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
                count.fetch_add(1, Ordering::SeqCst);
                let (status, headers, body) = answer(&path, &base);
                let head = format!(
                    "HTTP/1.1 {status}\r\n{headers}content-length: {}\r\nconnection: close\r\n\r\n",
                    body.len()
                );
                let _ = stream.write_all(&[head.as_bytes(), &body].concat()).await;
            }
        });
        Self { at, asked, task }
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

fn refresher(issuers: &Issuers) -> Refresher {
    issuers.refreshers().remove(0)
}

fn by_key_set(at: &str) -> Config {
    Config { jwks_uri: Some(format!("{at}/keys")), ..config() }
}

fn by_discovery(issuer: &str, discovery: Discovery) -> Config {
    Config { issuer: issuer.to_owned(), jwks_uri: None, discovery: Some(discovery), ..config() }
}

/// The trouble after one fetch; none if it went well.
async fn fetch(config: Config) -> Option<String> {
    let issuers = Issuers::new(&[config]).unwrap();
    let went_well = refresher(&issuers).refresh(&Client::loopback().unwrap(), &now).await;
    let trouble = issuers.status(now()).remove(0).trouble;
    assert_eq!(went_well, trouble.is_none(), "{trouble:?}");
    trouble
}

#[tokio::test]
async fn keys_are_fetched_from_the_jwks_uri() {
    let server = Server::start(|path, _| {
        assert_eq!(path, "/keys");
        ok(key_set(&[SIGNER.jwk()]))
    })
    .await;
    let issuers = Issuers::new(&[by_key_set(&server.at)]).unwrap();
    assert!(refresher(&issuers).refresh(&Client::loopback().unwrap(), &now).await);
    assert!(issuers.verify(&SIGNER.sign(&claims()), now()).is_ok());
}

#[tokio::test]
async fn keys_are_found_by_discovery_after_the_issuer_or_at_a_url() {
    let server = Server::start(|path, at| match path {
        "/tenant/.well-known/openid-configuration" | "/elsewhere?p=1" => {
            ok(format!("{{\"issuer\":\"{at}/tenant\",\"jwks_uri\":\"{at}/keys\"}}"))
        }
        "/keys" => ok(key_set(&[SIGNER.jwk()])),
        _ => ("404 Not Found", String::new(), Vec::new()),
    })
    .await;
    let issuer = format!("{}/tenant", server.at);
    assert_eq!(fetch(by_discovery(&issuer, Discovery::Standard(true))).await, None);
    assert_eq!(fetch(by_discovery(&issuer, Discovery::Url(format!("{}/elsewhere?p=1", server.at)))).await, None);
}

#[tokio::test]
async fn metadata_of_another_issuer_is_refused() {
    for issuer in ["\"https://other.example\"", "[\"https://idp.example\"]", "\"https://idp.example/\"", "7"] {
        let server =
            Server::start(move |_, at| ok(format!("{{\"issuer\":{issuer},\"jwks_uri\":\"{at}/keys\"}}"))).await;
        let discovery = Discovery::Url(format!("{}/metadata", server.at));
        let trouble = fetch(by_discovery(ISSUER, discovery)).await.unwrap();
        assert!(trouble.contains("the metadata is that of another issuer"), "{trouble}");
        assert_eq!(server.asked(), 1, "its keys are not fetched");
    }
}

#[tokio::test]
async fn metadata_may_not_send_us_to_plain_text_off_loopback() {
    for (uri, why) in [
        ("http://idp.example/keys", "has to be https, or http on loopback"),
        ("file:///etc/keys", "has to be https, or http on loopback"),
        ("https://user:secret@idp.example/keys", "has to be without a user"),
        ("/keys", "is no URL"),
    ] {
        let text = format!("{{\"issuer\":\"{ISSUER}\",\"jwks_uri\":\"{uri}\"}}");
        let server = Server::start(move |_, _| ok(text.clone())).await;
        let trouble = fetch(by_discovery(ISSUER, Discovery::Url(server.at.clone()))).await.unwrap();
        assert!(trouble.contains(why), "{trouble}");
        assert!(!trouble.contains("secret"), "{trouble}");
    }
}

#[tokio::test]
async fn a_redirect_is_refused_and_not_followed() {
    for status in ["301 Moved Permanently", "302 Found", "307 Temporary Redirect", "308 Permanent Redirect"] {
        let server = Server::start(move |path, at| match path {
            "/keys" => (status, format!("location: {at}/elsewhere\r\n"), Vec::new()),
            _ => ok(key_set(&[SIGNER.jwk()])),
        })
        .await;
        let trouble = fetch(by_key_set(&server.at)).await.unwrap();
        assert!(trouble.contains(&format!("status {}", status.split(' ').next().unwrap())), "{trouble}");
        assert_eq!(server.asked(), 1);
    }
}

#[tokio::test]
async fn any_other_status_than_200_is_refused() {
    for status in ["201 Created", "204 No Content", "404 Not Found", "500 Internal Server Error"] {
        let server = Server::start(move |_, _| (status, String::new(), key_set(&[SIGNER.jwk()]))).await;
        assert!(fetch(by_key_set(&server.at)).await.unwrap().contains("and not 200"), "{status}");
    }
}

#[tokio::test]
async fn a_body_over_256_kib_is_refused() {
    let padded = |size: usize| {
        let mut body = key_set(&[SIGNER.jwk()]);
        body.resize(size, b' ');
        body
    };
    let server = Server::start(move |_, _| ok(padded(256 * 1024))).await;
    assert_eq!(fetch(by_key_set(&server.at)).await, None);
    let server = Server::start(move |_, _| ok(padded(256 * 1024 + 1))).await;
    assert!(fetch(by_key_set(&server.at)).await.unwrap().contains("the key set is over 256 KiB"));
}

#[tokio::test]
async fn nobody_there_is_trouble_that_names_no_address() {
    let trouble = fetch(by_key_set("http://127.0.0.1:1")).await.unwrap();
    assert!(trouble.contains("the key set can't be fetched: there is no connection"), "{trouble}");
    assert!(!trouble.contains("127.0.0.1:1"), "{trouble}");
}

/// Runs until something is so; the test's own time limit is far off.
async fn until(mut is_so: impl FnMut() -> bool) {
    for _ in 0..2000 {
        if is_so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("it never became so");
}

#[tokio::test]
async fn an_unknown_key_is_fetched_in_the_background_and_the_next_request_has_it() {
    let rotated = Signer::new(Algorithm::EdDsa, "key-2");
    let (jwk, answers) = (rotated.jwk(), Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&answers);
    let server = Server::start(move |_, _| match count.fetch_add(1, Ordering::SeqCst) {
        0 => ok(key_set(&[SIGNER.jwk()])),
        _ => ok(key_set(&[SIGNER.jwk(), jwk.clone()])),
    })
    .await;
    let issuers = Issuers::new(&[by_key_set(&server.at)]).unwrap();
    // Time that moves a second whenever it is looked at, so that 10 s pass in no time.
    let moves = AtomicUsize::new(0);
    let clock = move || {
        let seconds = moves.fetch_add(1, Ordering::SeqCst);
        now().after(Duration::from_secs(u64::try_from(seconds).unwrap()))
    };
    let task = tokio::spawn(refresher(&issuers).run(Client::loopback().unwrap(), clock));
    until(|| issuers.verify(&SIGNER.sign(&claims()), now()).is_ok()).await;
    let token = rotated.sign(&claims());
    until(|| issuers.verify(&token, now()).is_ok()).await;
    task.abort();
}

#[tokio::test]
async fn however_many_tokens_with_unknown_keys_come_the_issuer_is_not_asked_more() {
    let server = Server::start(|_, _| ok(key_set(&[SIGNER.jwk()]))).await;
    let issuers = Issuers::new(&[by_key_set(&server.at)]).unwrap();
    // Time stands still: within 10 s of the first fetch.
    let task = tokio::spawn(refresher(&issuers).run(Client::loopback().unwrap(), now));
    until(|| issuers.verify(&SIGNER.sign(&claims()), now()).is_ok()).await;
    let stranger = Signer::new(Algorithm::EdDsa, "key-2");
    for _ in 0..200 {
        assert!(issuers.verify(&stranger.sign(&claims()), now()).is_err());
        tokio::task::yield_now().await;
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(server.asked(), 1);
    task.abort();
}

#[tokio::test]
async fn keys_stay_while_the_issuer_is_away() {
    let answers = AtomicUsize::new(0);
    let server = Server::start(move |_, _| match answers.fetch_add(1, Ordering::SeqCst) {
        0 => ok(key_set(&[SIGNER.jwk()])),
        _ => ("503 Service Unavailable", String::new(), Vec::new()),
    })
    .await;
    let issuers = Issuers::new(&[by_key_set(&server.at)]).unwrap();
    let (refresher, client) = (refresher(&issuers), Client::loopback().unwrap());
    assert!(refresher.refresh(&client, &now).await);
    assert!(!refresher.refresh(&client, &now).await);
    assert!(issuers.verify(&SIGNER.sign(&claims()), now()).is_ok());
    let status = issuers.status(now()).remove(0);
    assert_eq!(status.refreshed_at, Some(now()));
    assert!(status.trouble.unwrap().contains("status 503"));
}

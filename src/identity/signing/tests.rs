use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519};

use super::*;

const NOW: Timestamp = Timestamp::from_seconds(1_780_000_000);
const CACHE: Duration = Duration::from_mins(1);

fn at(seconds: u64) -> Timestamp {
    NOW.after(Duration::from_secs(seconds))
}

struct Files {
    folder: tempfile::TempDir,
}

impl Files {
    fn new() -> Self {
        let files = Self { folder: tempfile::tempdir().unwrap() };
        files.write("forward.key", &ed25519());
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        write(&self.path(name), text, 0o600);
    }

    fn signer(&self, also: &[&str]) -> Result<Signer, SigningKeyError> {
        let also_published = also.iter().map(|name| self.path(name)).collect();
        Signer::new(SigningFiles { signing_key: self.path("forward.key"), also_published, cache: CACHE }, NOW)
    }
}

fn write(path: &Path, text: &str, mode: u32) {
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

fn ed25519() -> String {
    KeyPair::generate_for(&PKCS_ED25519).unwrap().serialize_pem()
}

fn claims() -> Map<String, Value> {
    Map::from_iter([("sub".to_owned(), "a".into())])
}

fn sign(signer: &Signer, now: Timestamp) -> String {
    signer.sign(JwtType::ForwardedIdentity, &claims(), now).unwrap()
}

fn open(signer: &Signer, jwt: &str, now: Timestamp) -> Result<Map<String, Value>, &'static str> {
    signer.open(JwtType::ForwardedIdentity, jwt, now)
}

fn header(jwt: &str) -> Value {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(jwt.split('.').next().unwrap()).unwrap()).unwrap()
}

fn kid(jwt: &str) -> String {
    header(jwt)["kid"].as_str().unwrap().to_owned()
}

fn published_ids(signer: &Signer, now: Timestamp) -> Vec<String> {
    let body: Value = serde_json::from_str(&signer.published(now).body).unwrap();
    body["keys"].as_array().unwrap().iter().map(|key| key["kid"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn what_it_signs_it_opens_with_either_kind_of_key() {
    for (pem, algorithm) in
        [(ed25519(), "EdDSA"), (KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap().serialize_pem(), "ES256")]
    {
        let files = Files::new();
        files.write("forward.key", &pem);
        let signer = files.signer(&[]).unwrap();
        let jwt = sign(&signer, NOW);
        assert_eq!(header(&jwt)["alg"], algorithm);
        assert_eq!(open(&signer, &jwt, NOW), Ok(claims()));
    }
}

#[test]
fn both_versions_of_pkcs8_are_read() {
    // RFC 8410 §10.3: the same key without and with its public half.
    let one = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n-----END PRIVATE KEY-----\n";
    let public = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n-----END PUBLIC KEY-----\n";
    let files = Files::new();
    files.write("forward.key", one);
    files.write("public.pem", public);
    let signer = files.signer(&["public.pem"]).unwrap();
    assert_eq!(published_ids(&signer, NOW).len(), 1, "both name one key, published once");

    let pair = KeyPair::generate_for(&PKCS_ED25519).unwrap();
    let second = pair.serialize_der();
    assert!(second.len() > 48, "rcgen writes version 2");
    let first = [&ed25519_head()[..], &second[16..48]].concat();
    let first_pem = ed25519_pem(&second).unwrap().to_string();
    assert_eq!(ed25519_pem(&first).as_deref(), Some(&first_pem), "what is written is version 1");
    let ids = [first_pem, pair.serialize_pem()].map(|pem| {
        files.write("forward.key", &pem);
        published_ids(&files.signer(&[]).unwrap(), NOW)
    });
    assert_eq!(ids[0], ids[1]);
}

fn ed25519_head() -> [u8; 16] {
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20]
}

#[test]
fn a_kid_is_the_keys_thumbprint() {
    // RFC 8037 appendix A.2 and A.3.
    let seed = URL_SAFE_NO_PAD.decode("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A").unwrap();
    let der = [&ed25519_head()[..], &seed].concat();
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let files = Files::new();
    files.write("forward.key", &format!("-----BEGIN PRIVATE KEY-----\n{text}\n-----END PRIVATE KEY-----\n"));
    let signer = files.signer(&[]).unwrap();
    assert_eq!(kid(&sign(&signer, NOW)), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
    let body: Value = serde_json::from_str(&signer.published(NOW).body).unwrap();
    assert_eq!(body["keys"][0]["x"], "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo");
}

#[test]
fn only_public_members_are_published() {
    let files = Files::new();
    files.write("other.key", &KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap().serialize_pem());
    let published = files.signer(&["other.key"]).unwrap().published(NOW);
    let body: Value = serde_json::from_str(&published.body).unwrap();
    let members = |key: &Value| key.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    let keys = body["keys"].as_array().unwrap();
    assert_eq!(members(&keys[0]), ["alg", "crv", "kid", "kty", "use", "x"]);
    assert_eq!(members(&keys[1]), ["alg", "crv", "kid", "kty", "use", "x", "y"]);
    assert!(keys.iter().all(|key| key["use"] == "sig"));
    assert_eq!((&keys[0]["alg"], &keys[1]["alg"]), (&"EdDSA".into(), &"ES256".into()));
    assert_eq!(published.max_age, CACHE);
}

#[test]
fn one_type_is_never_taken_for_another() {
    let signer = Files::new().signer(&[]).unwrap();
    for made in JwtType::ALL {
        let jwt = signer.sign(made, &claims(), NOW).unwrap();
        for wanted in JwtType::ALL {
            assert_eq!(signer.open(wanted, &jwt, NOW).is_ok(), made == wanted, "{made:?} as {wanted:?}");
        }
    }
}

/// A JWT of this header over the claims, signed by the file's key.
fn forged(files: &Files, header: &str, payload: &str) -> String {
    let key = SigningKey::read(&files.path("forward.key")).unwrap();
    let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload));
    format!("{message}.{}", key.sign(&message).unwrap())
}

#[test]
fn a_header_has_alg_kid_and_typ_and_nothing_else() {
    let files = Files::new();
    let signer = files.signer(&[]).unwrap();
    let kid = kid(&sign(&signer, NOW));
    let jwt = |header: &str| forged(&files, &header.replace("KID", &kid), r#"{"sub":"a"}"#);
    let good = r#"{"alg":"EdDSA","kid":"KID","typ":"remit-identity+jwt"}"#;
    assert!(open(&signer, &jwt(good), NOW).is_ok());
    for bad in [
        r#"{"alg":"none","kid":"KID","typ":"remit-identity+jwt"}"#,
        r#"{"alg":"eddsa","kid":"KID","typ":"remit-identity+jwt"}"#,
        r#"{"alg":"ES256","kid":"KID","typ":"remit-identity+jwt"}"#,
        r#"{"alg":"HS256","kid":"KID","typ":"remit-identity+jwt"}"#,
        r#"{"alg":"EdDSA","kid":"other","typ":"remit-identity+jwt"}"#,
        r#"{"alg":"EdDSA","kid":"KID"}"#,
        r#"{"alg":"EdDSA","typ":"remit-identity+jwt"}"#,
        r#"{"alg":"EdDSA","kid":"KID","typ":"JWT"}"#,
        r#"{"alg":"EdDSA","kid":"KID","typ":"Remit-Identity+JWT"}"#,
        r#"{"alg":"EdDSA","kid":"KID","typ":["remit-identity+jwt"]}"#,
        r#"{"alg":"EdDSA","kid":"KID","typ":"remit-identity+jwt","crit":["x"]}"#,
        r#"{"alg":"EdDSA","kid":"KID","typ":"remit-identity+jwt","b64":false}"#,
        r#"{"alg":"EdDSA","kid":"KID","typ":"remit-identity+jwt","jku":"https://evil.example"}"#,
        r#"{"alg":"none","alg":"EdDSA","kid":"KID","typ":"remit-identity+jwt"}"#,
        "[]",
        "",
    ] {
        assert!(open(&signer, &jwt(bad), NOW).is_err(), "{bad}");
    }
}

#[test]
fn duplicate_claims_are_refused_though_they_are_signed() {
    let files = Files::new();
    let signer = files.signer(&[]).unwrap();
    let header = format!(r#"{{"alg":"EdDSA","kid":"{}","typ":"remit-identity+jwt"}}"#, kid(&sign(&signer, NOW)));
    assert!(open(&signer, &forged(&files, &header, r#"{"sub":"a"}"#), NOW).is_ok());
    for payload in [r#"{"sub":"a","sub":"b"}"#, r#"{"c":{"x":1,"\u0078":2}}"#, "[]", "\"a\"", "", "{} {}"] {
        assert!(open(&signer, &forged(&files, &header, payload), NOW).is_err(), "{payload}");
    }
}

#[test]
fn the_compact_form_is_exact() {
    let signer = Files::new().signer(&[]).unwrap();
    let jwt = sign(&signer, NOW);
    let [header, payload, signature] = <[&str; 3]>::try_from(jwt.split('.').collect::<Vec<_>>()).unwrap();
    for bad in [
        String::new(),
        "..".to_owned(),
        format!("{header}.{payload}"),
        format!("{header}.{payload}."),
        format!("{jwt}."),
        format!("{jwt}.x"),
        format!("{jwt}="),
        format!("{jwt}\n"),
        format!(" {jwt}"),
        format!("{header}=.{payload}.{signature}"),
        format!("{header}.{payload}=.{signature}"),
        "a".repeat(JWT_BYTES + 1),
    ] {
        assert!(open(&signer, &bad, NOW).is_err(), "{bad}");
    }
    for place in 0..jwt.len() {
        let mut bytes = jwt.clone().into_bytes();
        bytes[place] = if bytes[place] == b'A' { b'B' } else { b'A' };
        assert!(open(&signer, &String::from_utf8(bytes).unwrap(), NOW).is_err(), "byte {place}");
    }
}

#[test]
fn what_is_too_long_for_a_header_is_not_signed() {
    let signer = Files::new().signer(&[]).unwrap();
    let long = Map::from_iter([("x".to_owned(), "x".repeat(JWT_BYTES).into())]);
    assert_eq!(signer.sign(JwtType::AccessToken, &long, NOW), Err(Unsigned::TooLong));
}

#[test]
fn a_new_key_is_published_before_it_signs_and_the_old_one_after() {
    let files = Files::new();
    let signer = files.signer(&[]).unwrap();
    let old_jwt = sign(&signer, NOW);
    let old = kid(&old_jwt);
    files.write("forward.key", &ed25519());
    assert!(signer.reload(at(10)).unwrap());
    let ids = published_ids(&signer, at(10));
    assert!(ids.len() == 2 && ids[0] == old, "published at once");
    let new = ids[1].clone();
    // A list that was fetched just before may be kept until 70, and clocks differ by 5.
    assert_eq!(kid(&sign(&signer, at(74))), old);
    assert!(!signer.reload(at(74)).unwrap(), "nothing is new the second time");
    let last_of_old = sign(&signer, at(74));
    assert_eq!(kid(&sign(&signer, at(75))), new);
    // The last one that it signed is good until 134; the list may be kept for 60 s.
    for seconds in [75, 134, 199] {
        signer.reload(at(seconds)).unwrap();
        assert_eq!(published_ids(&signer, at(seconds)).len(), 2, "{seconds}");
        assert!(open(&signer, &last_of_old, at(seconds)).is_ok());
    }
    assert_eq!(published_ids(&signer, at(200)), std::slice::from_ref(&new));
    assert!(open(&signer, &last_of_old, at(200)).is_err(), "also before the files are read again");
    signer.reload(at(200)).unwrap();
    assert_eq!(signer.keys.load().line.len(), 1, "the old key is wiped");
}

#[test]
fn a_key_that_waits_gives_way_and_the_old_one_can_come_back() {
    let files = Files::new();
    let signer = files.signer(&[]).unwrap();
    let old = kid(&sign(&signer, NOW));
    let old_pem = std::fs::read_to_string(files.path("forward.key")).unwrap();
    for _ in 0..20 {
        files.write("forward.key", &ed25519());
        assert!(signer.reload(at(1)).unwrap());
    }
    assert_eq!(published_ids(&signer, at(1)).len(), 2, "the line does not grow");
    files.write("forward.key", &old_pem);
    assert!(!signer.reload(at(2)).unwrap());
    assert_eq!(published_ids(&signer, at(2)), std::slice::from_ref(&old));
    assert_eq!(kid(&sign(&signer, at(1000))), old);
    files.write("forward.key", &ed25519());
    signer.reload(at(1000)).unwrap();
    files.write("forward.key", &old_pem);
    assert!(signer.reload(at(1070)).unwrap(), "back after the other has signed");
    let ids = published_ids(&signer, at(1070));
    assert_eq!(ids.iter().filter(|id| **id == old).count(), 1, "kids are unique");
    assert_eq!(kid(&sign(&signer, at(1135))), old);
}

#[test]
fn a_file_that_can_not_be_used_changes_nothing() {
    let files = Files::new();
    let signer = files.signer(&[]).unwrap();
    let before = signer.published(NOW);
    for text in ["", "no key", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"] {
        files.write("forward.key", text);
        assert!(signer.reload(at(1)).is_err());
        assert_eq!(signer.published(at(1)), before);
    }
    std::fs::remove_file(files.path("forward.key")).unwrap();
    assert!(signer.reload(at(1)).is_err());
    sign(&signer, at(1));
}

#[test]
fn keys_of_other_kinds_and_open_files_are_refused_without_being_shown() {
    let files = Files::new();
    let p384 = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap();
    files.write("forward.key", &p384.serialize_pem());
    let error = files.signer(&[]).err().unwrap().to_string();
    assert!(error.contains("no Ed25519 or P-256 key") && error.contains("openssl genpkey"), "{error}");
    let pair = KeyPair::generate_for(&PKCS_ED25519).unwrap();
    files.write("forward.key", &pair.public_key_pem());
    assert!(matches!(files.signer(&[]).err(), Some(SigningKeyError::Public(_))));
    write(&files.path("forward.key"), &ed25519(), 0o644);
    assert!(matches!(files.signer(&[]).err(), Some(SigningKeyError::File(ClosedFileError::Exposed(..)))));
    files.write("forward.key", &ed25519());
    write(&files.path("also.pem"), &ed25519(), 0o644);
    assert!(files.signer(&["also.pem"]).is_err(), "a private key that others can read");
    write(&files.path("also.pem"), &pair.public_key_pem(), 0o644);
    assert_eq!(published_ids(&files.signer(&["also.pem"]).unwrap(), NOW).len(), 2);
    write(&files.path("also.pem"), &p384.public_key_pem(), 0o644);
    assert!(files.signer(&["also.pem"]).is_err());
}

#[test]
fn the_tag_of_the_list_changes_with_the_list() {
    let files = Files::new();
    let signer = files.signer(&[]).unwrap();
    let before = signer.published(NOW);
    assert_eq!(signer.published(at(1)), before);
    files.write("forward.key", &ed25519());
    signer.reload(at(1)).unwrap();
    assert_ne!(signer.published(at(1)).tag, before.tag);
}

use crate::keyring::ClosedFileError;

#[test]
fn kept_keys_open_what_they_signed_and_nothing_else() {
    let files = Files::new();
    let signer = files.signer(&[]).unwrap();
    let mut kept = KeptKeys::default();
    kept.add(signer.published(NOW).body.as_bytes()).unwrap();
    let jwt = signer.sign(JwtType::Checkpoint, &claims(), NOW).unwrap();
    assert_eq!(kept.open(JwtType::Checkpoint, &jwt), Ok(claims()));
    assert!(kept.open(JwtType::ForwardedIdentity, &jwt).is_err(), "of another type");

    files.write("forward.key", &KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap().serialize_pem());
    let other = files.signer(&[]).unwrap();
    let by_other = other.sign(JwtType::Checkpoint, &claims(), NOW).unwrap();
    assert!(kept.open(JwtType::Checkpoint, &by_other).is_err(), "by another key");
    kept.add(other.published(NOW).body.as_bytes()).unwrap();
    assert_eq!(kept.open(JwtType::Checkpoint, &by_other), Ok(claims()));
    assert_eq!(kept.open(JwtType::Checkpoint, &jwt), Ok(claims()), "sets add up");
}

#[test]
fn what_is_no_set_of_remits_keys_is_refused() {
    let mut kept = KeptKeys::default();
    for (text, why) in [
        ("", InvalidKeys::NotASet),
        ("[]", InvalidKeys::NotASet),
        (r#"{"keys":{}}"#, InvalidKeys::NotASet),
        (r#"{"keys":[]}"#, InvalidKeys::Unsuitable),
        (r#"{"keys":[{"kty":"oct","k":"c2VjcmV0"}]}"#, InvalidKeys::Unsuitable),
    ] {
        assert_eq!(kept.add(text.as_bytes()), Err(why), "{text}");
    }
    let many = json!({ "keys": vec![json!({}); 65] }).to_string();
    assert_eq!(kept.add(many.as_bytes()), Err(InvalidKeys::TooMany));
}

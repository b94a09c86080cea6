//! Who somebody says to be: JWTs, as a text and as what an issuer may have signed, and SPIFFE IDs.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rcgen::{KeyPair, PKCS_ED25519, PublicKeyData as _, SigningKey as _};
use remit::domain::time::Timestamp;
use remit::identity::jwt::{Audience, Config, Issuers};
use remit::identity::spiffe::{Template, is_workload_id};
use serde_json::{Map, Value, json};

use crate::campaign::{Outcome, Target, kept};
use crate::texts::has_every_member;

const ISSUER: &str = "https://idp.example";
const US: &str = "https://remit.example";
const NOW: u64 = 1_795_297_399;
/// How far clocks may be apart.
const SKEW: u64 = 5;
const LONGEST_LIFE: u64 = 3600;

/// An issuer whose signatures are the same in every run.
struct Signer(KeyPair);

impl Signer {
    fn new() -> Self {
        // PKCS #8 of an Ed25519 key (RFC 8410 §7), whose 32 bytes follow.
        let mut der = vec![0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
        der.extend([7; 32]);
        Self(KeyPair::from_pkcs8_der_and_sign_algo(&der.into(), &PKCS_ED25519).unwrap())
    }

    fn issuers(&self) -> Issuers {
        let config = Config {
            issuer: ISSUER.to_owned(),
            audience: Audience(vec![US.to_owned()]),
            jwks_uri: Some("https://idp.example/keys".to_owned()),
            agent_claim: Some("agent".to_owned()),
            forward_claims: vec!["groups".to_owned()],
            ..Config::default()
        };
        let x = URL_SAFE_NO_PAD.encode(self.0.der_bytes());
        let key = json!({"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig", "kid": "key-1", "x": x});
        let issuers = Issuers::new(&[config]).unwrap();
        let set = json!({"keys": [key]}).to_string();
        issuers.install(ISSUER, set.as_bytes(), Timestamp::from_seconds(NOW)).unwrap();
        issuers
    }

    fn sign(&self, parts: &str) -> String {
        format!("{parts}.{}", URL_SAFE_NO_PAD.encode(self.0.sign(parts.as_bytes()).unwrap()))
    }

    /// A token of a header and claims, a line each.
    fn sign_lines(&self, lines: &[u8]) -> String {
        let mut lines = lines.splitn(2, |byte| *byte == b'\n').map(|line| URL_SAFE_NO_PAD.encode(line));
        let header = lines.next().unwrap_or_default();
        self.sign(&format!("{header}.{}", lines.next().unwrap_or_default()))
    }
}

fn now() -> Timestamp {
    Timestamp::from_seconds(NOW)
}

#[test]
fn a_jwt_that_is_taken_was_signed_byte_for_byte() {
    let target = Target { name: "jwt", longest: 8300, executions: 15_000, cost: 1 };
    let (signer, mut cases) = (Signer::new(), target.kept());
    let issuers = signer.issuers();
    cases.extend(kept("jwt-claims").iter().map(|lines| signer.sign_lines(lines).into_bytes()));
    target.run_over(cases, |input| {
        let Ok(text) = std::str::from_utf8(input) else { return Outcome::Refused };
        if issuers.verify(text, now()).is_err() {
            return Outcome::Refused;
        }
        let (parts, _) = text.rsplit_once('.').unwrap();
        assert_eq!(signer.sign(parts), text, "taken in another spelling than it was signed in");
        Outcome::Accepted
    });
}

#[test]
fn a_signed_jwt_that_is_taken_is_for_us_and_current_and_says_one_thing() {
    let target = Target { name: "jwt-claims", longest: 3000, executions: 8_000, cost: 1 };
    let signer = Signer::new();
    let issuers = signer.issuers();
    target.run(|input| {
        let Ok(taken) = issuers.verify(&signer.sign_lines(input), now()) else { return Outcome::Refused };
        let (header, claims) = input.split_at(input.iter().position(|byte| *byte == b'\n').unwrap());
        let read = |part: &[u8]| -> Map<String, Value> {
            let read: Value = serde_json::from_slice(part).unwrap();
            assert!(has_every_member(part, &read), "a name stands twice");
            read.as_object().unwrap().clone()
        };
        let (header, claims) = (read(header), read(&claims[1..]));
        assert_eq!(header["alg"], "EdDSA");
        assert!(!header.contains_key("crit") && header.get("kid").is_none_or(|kid| kid == "key-1"));
        let typ = header.get("typ").map(|typ| typ.as_str().unwrap().to_ascii_lowercase());
        assert!(typ.is_none_or(|typ| ["jwt", "at+jwt", "application/at+jwt"].contains(&&*typ)));
        assert_eq!((&claims["iss"], claims["sub"].as_str()), (&ISSUER.into(), Some(&*taken.subject)));
        let audience = &claims["aud"];
        assert!(audience == US || audience.as_array().is_some_and(|list| list.iter().any(|one| one == US)));
        let second = |name: &str| claims[name].as_f64().unwrap();
        let (now, skew, life) = (as_float(NOW), as_float(SKEW), as_float(LONGEST_LIFE));
        assert!(
            second("exp") > now - skew && second("iat") <= now + skew && second("exp") - second("iat") <= life + 1.0
        );
        assert!(!claims.contains_key("nbf") || second("nbf") <= now + skew);
        assert_eq!(claims.get("agent").map(|agent| agent.as_str().unwrap()), taken.agent.as_deref());
        assert!(!claims.contains_key("cnf") && !claims.contains_key("events"));
        Outcome::Accepted
    });
}

fn as_float(seconds: u64) -> f64 {
    f64::from(u32::try_from(seconds).unwrap())
}

#[test]
fn a_spiffe_id_is_an_url_in_its_one_spelling_and_its_agents_name_leads_back_to_it() {
    let target = Target { name: "spiffe", longest: 2200, executions: 150_000, cost: 1 };
    let templates = ["spiffe://cluster.local/ns/ai-agents/sa/{agent}-sa", "spiffe://a/{agent}"]
        .map(|text| Template::spiffe(text).unwrap());
    let mut named = 0_u64;
    target.run(|input| {
        let Ok(text) = std::str::from_utf8(input) else { return Outcome::Refused };
        let is_id = is_workload_id(text);
        for template in &templates {
            let Some(agent) = template.agent(text) else { continue };
            assert!(is_id, "an agent's name is found in what is no SPIFFE ID");
            assert_eq!(template.name_of(&agent).as_deref(), Some(text));
            assert!(!agent.as_str().contains('/'));
            named += 1;
        }
        if !is_id {
            return Outcome::Refused;
        }
        let url = url::Url::parse(text).unwrap();
        assert_eq!((url.as_str(), url.scheme()), (text, "spiffe"), "another reader spells it otherwise");
        assert!(url.username().is_empty() && url.password().is_none() && url.port().is_none());
        assert!(url.query().is_none() && url.fragment().is_none() && text.len() <= 2048);
        assert!(url.path_segments().unwrap().all(|segment| !["", ".", ".."].contains(&segment)));
        Outcome::Accepted
    });
    assert!(named > 0);
}

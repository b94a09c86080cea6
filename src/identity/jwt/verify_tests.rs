//! Which tokens are taken: RFC 8725's rules, each a test, and what the JWT crate takes by default.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::testing::{ISSUER, NOW, SIGNER, Signer, US, at, claims, config, issuers, issuers_with, key_set, now, with};
use super::{Algorithm, Config, Issuers, TokenType};

/// Why a token is refused.
fn refusal(token: &str) -> &'static str {
    issuers().verify(token, now()).unwrap_err()
}

/// Refused, and for the reason that is tested.
fn assert_refused(token: &str, why: &str) {
    let refusal = issuers().verify(token, now()).err();
    assert!(refusal.is_some_and(|refusal| refusal.contains(why)), "{refusal:?}, wanted {why:?} for {token}");
}

fn assert_claims_refused(changes: &Value, why: &str) {
    assert_refused(&SIGNER.sign(&with(changes)), why);
}

fn header_with(changes: &Value) -> Value {
    let mut header = SIGNER.header();
    for (name, value) in changes.as_object().unwrap() {
        header[name] = value.clone();
    }
    header
}

fn assert_header_refused(changes: &Value, why: &str) {
    assert_refused(&SIGNER.sign_under(&header_with(changes), &claims()), why);
}

#[test]
fn a_good_token_says_what_stands_in_it() {
    let act = json!({"sub": "svc-a", "act": {"sub": "svc-b"}});
    let more = json!({"act": act, "may_act": {"sub": "svc-c"}, "jti": "id-1", "scope": "read write", "azp": "web"});
    let jwt = issuers().verify(&SIGNER.sign(&with(&more)), now()).unwrap();
    assert_eq!((&*jwt.issuer, &*jwt.subject, jwt.agent.as_deref()), (ISSUER, "user-7", Some("agent-deployer")));
    assert_eq!(Value::Object((*jwt.claims).clone()), json!({"groups": ["ops"]}));
    assert_eq!((jwt.issued_at, jwt.expires_at, jwt.verified_at), (NOW - 10, NOW + 290, now()));
    assert_eq!((jwt.token_type, jwt.privileged), (TokenType::Access, false));
    assert_eq!(jwt.audiences, [Box::from(US)]);
    assert_eq!((jwt.actor.as_ref(), jwt.may_act.as_ref()), (Some(&act), Some(&json!({"sub": "svc-c"}))));
    let texts = (jwt.jti.as_deref(), jwt.scope.as_deref(), jwt.client.as_deref());
    assert_eq!(texts, (Some("id-1"), Some("read write"), Some("web")));
}

#[test]
fn an_issuer_that_names_users_alone_names_no_agent() {
    let issuers = issuers_with(Config { agent_claim: None, ..config() }, &[&SIGNER]);
    assert_eq!(issuers.verify(&SIGNER.sign(&claims()), now()).unwrap().agent, None);
    let without = with(&json!({"agent": null}));
    assert_eq!(self::issuers().verify(&SIGNER.sign(&without), now()).unwrap().agent, None);
    for wrong in [json!(7), json!(["a"]), json!(""), json!("a\nb"), json!("x".repeat(257))] {
        assert_claims_refused(&json!({"agent": wrong}), "claim of the agent");
    }
}

#[test]
fn every_algorithm_of_the_list_is_taken() {
    for algorithm in Algorithm::ALL {
        let signer = Signer::new(algorithm, "k");
        let issuers = issuers_with(config(), &[&signer]);
        issuers.verify(&signer.sign(&claims()), now()).unwrap_or_else(|why| panic!("{algorithm:?}: {why}"));
    }
}

#[test]
fn an_algorithm_that_is_not_the_issuers_is_refused() {
    let signer = Signer::new(Algorithm::Es256, "k");
    let only = Config { algorithms: vec![Algorithm::EdDsa], ..config() };
    let issuers = issuers_with(only, &[&signer, &SIGNER]);
    assert!(issuers.verify(&SIGNER.sign(&claims()), now()).is_ok());
    let why = issuers.verify(&signer.sign(&claims()), now()).unwrap_err();
    assert_eq!(why, "the JWT's algorithm is not taken from its issuer");
}

#[test]
fn a_key_is_bound_to_one_algorithm_whatever_the_header_says() {
    let rs256 = Signer::new(Algorithm::Rs256, "rsa");
    let issuers = issuers_with(config(), &[&rs256]);
    // The same key, and a signature that is good under the other algorithm.
    let ps256 = rs256.also(Algorithm::Ps256, "rsa");
    let why = issuers.verify(&ps256.sign(&claims()), now()).unwrap_err();
    assert_eq!(why, "the JWT's algorithm is not that of its key");
    let unnamed = json!({"alg": "PS256"});
    assert!(issuers.verify(&ps256.sign_under(&unnamed, &claims()), now()).is_err());
}

#[test]
fn none_in_any_spelling_and_no_algorithm_are_refused() {
    let payload = URL_SAFE_NO_PAD.encode(claims().to_string());
    for alg in ["none", "None", "nOnE", "NONE", ""] {
        let header = URL_SAFE_NO_PAD.encode(json!({"alg": alg, "kid": "key-1"}).to_string());
        assert_refused(&format!("{header}.{payload}."), "algorithm is not taken");
        assert_header_refused(&json!({"alg": alg}), "algorithm is not taken");
    }
    assert_refused(&SIGNER.sign_under(&json!({"kid": "key-1"}), &claims()), "algorithm is not taken");
    assert_header_refused(&json!({"alg": ["EdDSA"]}), "algorithm is not taken");
    let header = URL_SAFE_NO_PAD.encode(SIGNER.header().to_string());
    assert_refused(&format!("{header}.{payload}."), "signature is not its key's");
}

#[test]
fn algorithms_are_compared_with_exact_case() {
    for alg in ["eddsa", "EDDSA", "EdDSA ", "Ed25519", "rs256"] {
        assert_header_refused(&json!({"alg": alg}), "algorithm is not taken");
    }
}

#[test]
fn hmac_is_never_taken_with_no_bytes_of_any_key() {
    let jwk = SIGNER.jwk();
    let secrets = [
        jwk.to_string().into_bytes(),
        URL_SAFE_NO_PAD.decode(jwk["x"].as_str().unwrap()).unwrap(),
        key_set(&[jwk]),
        Vec::new(),
    ];
    for alg in ["HS256", "HS384", "HS512"] {
        for secret in &secrets {
            let header = json!({"alg": alg, "kid": "key-1"}).to_string();
            let parts = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims().to_string()));
            let key = jsonwebtoken::EncodingKey::from_secret(secret);
            let mac = jsonwebtoken::crypto::sign(parts.as_bytes(), &key, alg.parse().unwrap()).unwrap();
            assert_refused(&format!("{parts}.{mac}"), "algorithm is not taken");
        }
    }
}

#[test]
fn kid_picks_a_key_by_its_exact_name_and_nothing_else() {
    for id in ["KEY-1", "key-1 ", "key-10", "../key-1", "key-1' or '1'='1", "file:///dev/null"] {
        assert_header_refused(&json!({"kid": id}), "has no such key");
    }
    for id in [json!(""), json!(7), json!(null), json!(["key-1"]), json!("x".repeat(257))] {
        assert_header_refused(&json!({"kid": id}), "kid is not a text");
    }
}

#[test]
fn keys_in_a_header_are_never_trusted() {
    let thief = Signer::new(Algorithm::EdDsa, "key-1");
    for (name, value) in [
        ("jwk", thief.jwk()),
        ("jku", json!("https://thief.example/keys")),
        ("x5u", json!("https://thief.example/chain")),
        ("x5c", json!(["MIIB"])),
    ] {
        let header = header_with(&json!({name: value}));
        assert_refused(&thief.sign_under(&header, &claims()), "signature is not its key's");
        // A true token that has one is as good as without.
        assert!(issuers().verify(&SIGNER.sign_under(&header, &claims()), now()).is_ok(), "{name}");
    }
}

#[test]
fn a_token_without_kid_is_tried_against_the_keys_of_its_algorithm() {
    let header = json!({"alg": "EdDSA"});
    assert!(issuers().verify(&SIGNER.sign_under(&header, &claims()), now()).is_ok());
    let other = Signer::new(Algorithm::EdDsa, "key-2");
    assert_refused(&other.sign_under(&header, &claims()), "has no such key");
    let many: Vec<Signer> = ["a", "b", "c", "d"].into_iter().map(|id| Signer::new(Algorithm::EdDsa, id)).collect();
    let all: Vec<&Signer> = many.iter().chain([&*SIGNER]).collect();
    let why = issuers_with(config(), &all).verify(&SIGNER.sign_under(&header, &claims()), now()).unwrap_err();
    assert_eq!(why, "the JWT names no key, and its issuer has many");
}

#[test]
fn whatever_is_critical_is_refused() {
    for crit in [json!([]), json!(["x"]), json!(["exp"]), json!(["b64"]), json!("x"), json!(null)] {
        assert_header_refused(&json!({"crit": crit, "x": 1}), "demands what is not done here");
    }
    assert_header_refused(&json!({"b64": false, "crit": ["b64"]}), "demands what is not done here");
    assert_header_refused(&json!({"b64": false}), "demands what is not done here");
    assert_header_refused(&json!({"zip": "DEF"}), "demands what is not done here");
}

#[test]
fn typ_is_that_of_an_access_token_in_any_case_or_absent() {
    let whole = with(&json!({"jti": "1", "client_id": "web"}));
    for typ in ["JWT", "jwt", "at+jwt", "at+JWT", "application/at+jwt", "Application/AT+JWT"] {
        let token = SIGNER.sign_under(&header_with(&json!({"typ": typ})), &whole);
        assert!(issuers().verify(&token, now()).is_ok(), "{typ}");
    }
    assert!(issuers().verify(&SIGNER.sign_under(&json!({"alg": "EdDSA", "kid": "key-1"}), &whole), now()).is_ok());
}

#[test]
fn typ_of_anything_else_is_refused_our_own_kinds_first() {
    for typ in [
        json!("remit-identity+jwt"),
        json!("remit-access+jwt"),
        json!("remit-checkpoint+jwt"),
        json!("application/remit-identity+jwt"),
        json!("secevent+jwt"),
        json!("logout+jwt"),
        json!("txntoken+jwt"),
        json!("dpop+jwt"),
        json!("client-authentication+jwt"),
        json!("JOSE"),
        json!("at+jwt "),
        json!(""),
        json!(null),
        json!(["JWT"]),
    ] {
        assert_header_refused(&json!({"typ": typ}), "typ is not that of an access token");
    }
}

#[test]
fn an_id_token_is_no_access_token() {
    let marks =
        [("nonce", "n"), ("at_hash", "h"), ("c_hash", "h"), ("s_hash", "h"), ("typ", "ID"), ("token_use", "id")];
    for (name, value) in marks {
        assert_claims_refused(&json!({name: value}), "is an ID token");
    }
    assert_claims_refused(&json!({"aud": "web"}), "not for this audience");
    // A header that says at+jwt has said it all: some issuers keep a nonce.
    let marked = with(&json!({"nonce": "n", "jti": "1", "client_id": "web"}));
    let token = SIGNER.sign_under(&header_with(&json!({"typ": "at+jwt"})), &marked);
    assert!(issuers().verify(&token, now()).is_ok());
}

#[test]
fn refresh_and_logout_tokens_and_security_events_are_refused() {
    for kind in ["Refresh", "Offline", "Logout"] {
        assert_claims_refused(&json!({"typ": kind}), "no access token");
    }
    assert_claims_refused(&json!({"token_use": "refresh"}), "no access token");
    assert_claims_refused(&json!({"events": {}}), "security event");
}

#[test]
fn a_token_that_is_bound_to_a_key_is_no_bearer_token() {
    assert_claims_refused(&json!({"cnf": {"x5t#S256": "bwcK0esc3ACC3DB2Y5_lESsXE8o9ltc05O89jdN-dg2"}}), "cnf");
    assert_claims_refused(&json!({"cnf": {"jkt": "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"}}), "cnf");
}

#[test]
fn iss_is_one_exact_text() {
    for (iss, why) in [
        (json!(null), "iss is not a text"),
        (json!([ISSUER]), "iss is not a text"),
        (json!([ISSUER, "https://other.example"]), "iss is not a text"),
        (json!(7), "iss is not a text"),
        (json!({"a": ISSUER}), "iss is not a text"),
        (json!("https://idp.example/"), "issuer is not configured"),
        (json!("HTTPS://idp.example"), "issuer is not configured"),
        (json!("https://other.example"), "issuer is not configured"),
        (json!(""), "issuer is not configured"),
    ] {
        assert_claims_refused(&json!({"iss": iss}), why);
    }
}

#[test]
fn an_issuers_key_signs_for_that_issuer_alone() {
    let other = Config { issuer: "https://other.example".to_owned(), ..config() };
    let issuers = Issuers::new(&[config(), other]).unwrap();
    issuers.install(ISSUER, &key_set(&[SIGNER.jwk()]), now()).unwrap();
    let others_key = Signer::new(Algorithm::EdDsa, "key-1");
    issuers.install("https://other.example", &key_set(&[others_key.jwk()]), now()).unwrap();
    assert!(issuers.verify(&SIGNER.sign(&claims()), now()).is_ok());
    assert!(issuers.verify(&SIGNER.sign(&with(&json!({"iss": "https://other.example"}))), now()).is_err());
}

#[test]
fn aud_is_a_text_or_texts_and_has_one_of_ours() {
    for good in [json!(US), json!("remit"), json!([US]), json!(["other", US])] {
        assert!(issuers().verify(&SIGNER.sign(&with(&json!({"aud": good}))), now()).is_ok(), "{good}");
    }
    for (aud, why) in [
        (json!(null), "has no aud"),
        (json!(7), "aud is not a text"),
        (json!({"a": US}), "aud is not a text"),
        (json!([US, 7]), "aud is not a text"),
        (json!([[US]]), "aud is not a text"),
        (json!(vec![US; 33]), "aud is not a text"),
        (json!([]), "not for this audience"),
        (json!(""), "not for this audience"),
        (json!("other"), "not for this audience"),
        (json!("https://remit.example/"), "not for this audience"),
    ] {
        assert_claims_refused(&json!({"aud": aud}), why);
    }
}

#[test]
fn sub_is_required_bounded_and_free_of_control_characters() {
    assert_claims_refused(&json!({"sub": null}), "has no sub");
    for sub in [json!(""), json!(7), json!(["a"]), json!("a\u{0}"), json!("a\u{85}"), json!("x".repeat(257))] {
        assert_claims_refused(&json!({"sub": sub}), "sub is not a text");
    }
}

#[test]
fn exp_and_iat_are_required_whole_numbers_below_2_to_53() {
    for name in ["exp", "iat"] {
        let payload = claims();
        let good = payload[name].to_string();
        let mut payload = payload.to_string();
        assert_claims_refused(&json!({name: null}), &format!("has no {name}"));
        for bad in [
            "1e10",
            "1.0",
            "-1",
            "\"1795297399\"",
            "null",
            "true",
            "[1]",
            "9007199254740993",
            "9007199254740992",
            "18446744073709551615",
            "18446744073709551616",
            "1795297399e0",
            "1e18",
        ] {
            let member = format!("\"{name}\":{good}");
            let changed = payload.replace(&member, &format!("\"{name}\":{bad}"));
            assert_ne!(changed, payload);
            assert_refused(&SIGNER.sign_text(&SIGNER.header().to_string(), &changed), "in whole seconds");
        }
        // An escape is another spelling of the same name (RFC 8259 §8.3).
        payload = payload.replace("\"exp\"", "\"\\u0065xp\"");
        assert!(issuers().verify(&SIGNER.sign_text(&SIGNER.header().to_string(), &payload), now()).is_ok());
        let name = name.to_uppercase();
        let loud = claims().to_string().replace(&format!("\"{}\"", name.to_lowercase()), &format!("\"{name}\""));
        assert!(refusal(&SIGNER.sign_text(&SIGNER.header().to_string(), &loud)).contains("has no"));
    }
}

#[test]
fn a_token_is_over_at_exp_and_not_before() {
    let issuers = issuers();
    let token = SIGNER.sign(&claims());
    assert!(issuers.verify(&token, at(NOW + 289)).is_ok());
    for over in [NOW + 290, NOW + 291, NOW + 295, NOW + 300, NOW + 360] {
        assert_eq!(issuers.verify(&token, at(over)).unwrap_err(), "the JWT is expired");
    }
}

#[test]
fn nbf_and_iat_may_be_5_s_ahead_and_no_more() {
    for (name, why) in [("nbf", "not valid yet"), ("iat", "issued in the future")] {
        assert!(issuers().verify(&SIGNER.sign(&with(&json!({name: NOW + 5}))), now()).is_ok());
        assert_claims_refused(&json!({name: NOW + 6}), why);
    }
    for nbf in [json!("1"), json!(1.5), json!(-1), json!(u64::MAX)] {
        assert_claims_refused(&json!({"nbf": nbf}), "nbf is not in whole seconds");
    }
}

#[test]
fn a_token_lives_no_longer_than_the_cap() {
    let born = NOW - 10;
    assert!(issuers().verify(&SIGNER.sign(&with(&json!({"exp": born + 3600}))), now()).is_ok());
    assert_claims_refused(&json!({"exp": born + 3601}), "lives longer");
    assert_claims_refused(&json!({"exp": (1_u64 << 53) - 1}), "lives longer");
    assert_claims_refused(&json!({"iat": NOW + 4, "exp": NOW + 4}), "expires before");
    assert_claims_refused(&json!({"iat": NOW + 4, "exp": NOW + 1}), "expires before");
}

#[test]
fn an_at_jwt_has_jti_and_client_id() {
    let typed = header_with(&json!({"typ": "at+jwt"}));
    for absent in ["jti", "client_id"] {
        let mut claims = with(&json!({"jti": "1", "client_id": "web"}));
        claims.as_object_mut().unwrap().remove(absent);
        assert_refused(&SIGNER.sign_under(&typed, &claims), "without jti or client_id");
    }
    for name in ["jti", "client_id", "azp"] {
        assert_claims_refused(&json!({name: 7}), "not a text");
    }
}

#[test]
fn scope_act_and_may_act_are_of_their_kinds() {
    assert_claims_refused(&json!({"scope": ["read"]}), "scope is not a text");
    for wrong in [json!("svc"), json!(["svc"]), json!(7)] {
        assert_claims_refused(&json!({"act": wrong}), "act is no object");
        assert_claims_refused(&json!({"may_act": wrong}), "may_act is no object");
    }
    let empty = issuers().verify(&SIGNER.sign(&with(&json!({"scope": ""}))), now()).unwrap();
    assert_eq!(empty.scope, None);
}

#[test]
fn claims_that_are_carried_on_are_bounded() {
    let groups: Vec<String> = (0..200).map(|number| format!("group-{number}-of-many")).collect();
    assert_claims_refused(&json!({"groups": groups}), "over 2 KiB");
    // What is not carried may be as long as a token.
    assert!(issuers().verify(&SIGNER.sign(&with(&json!({"other": groups}))), now()).is_ok());
}

#[test]
fn there_are_exactly_three_parts() {
    let token = SIGNER.sign(&claims());
    let [header, payload, signature] = token.split('.').collect::<Vec<_>>()[..] else { panic!("{token}") };
    for bad in [
        String::new(),
        header.to_owned(),
        format!("{header}.{payload}"),
        format!("{token}."),
        format!(".{token}"),
        format!("{header}..{signature}"),
        format!("{header}.{payload}.{signature}.{signature}.{signature}"),
    ] {
        assert!(issuers().verify(&bad, now()).is_err(), "{bad}");
    }
}

#[test]
fn base64url_is_strict_in_every_part() {
    let token = SIGNER.sign(&claims());
    let parts: Vec<&str> = token.split('.').collect();
    for place in 0..3 {
        let part = parts[place];
        let spoil = |spoilt: String| {
            let mut parts: Vec<String> = parts.iter().map(|part| (*part).to_owned()).collect();
            parts[place] = spoilt;
            // Signed again, so that only the spelling can refuse it; a spoilt signature stays as it is.
            if place == 2 { parts.join(".") } else { SIGNER.sign_parts(&parts[..2].join(".")) }
        };
        for bad in
            [format!("{part}="), format!("{part}=="), format!(" {part}"), format!("{part}\n"), format!("{part}+/")]
        {
            assert_refused(&spoil(bad), "strict base64url");
        }
    }
}

#[test]
fn stray_bits_at_the_end_of_a_part_are_refused() {
    let token = SIGNER.sign(&claims());
    // 64 bytes end in a character of which two bits count.
    let (rest, last) = token.split_at(token.len() - 1);
    let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let place = alphabet.find(last).unwrap();
    assert_eq!(place % 16, 0);
    for stray in 1..16 {
        let other = char::from(alphabet.as_bytes()[place + stray]);
        assert_refused(&format!("{rest}{other}"), "strict base64url");
    }
}

#[test]
fn names_that_stand_twice_are_refused_in_header_and_claims() {
    let (header, payload) = (SIGNER.header().to_string(), claims().to_string());
    let twice = |text: &str, member: &str| format!("{},{member}}}", text.strip_suffix('}').unwrap());
    for member in ["\"alg\":\"EdDSA\"", "\"kid\":\"key-1\"", "\"\\u0061lg\":\"EdDSA\""] {
        assert_refused(&SIGNER.sign_text(&twice(&header, member), &payload), "header is not strict JSON");
    }
    for member in ["\"exp\":1", "\"sub\":\"root\"", "\"groups\":[]", "\"\\u0065xp\":1"] {
        assert_refused(&SIGNER.sign_text(&header, &twice(&payload, member)), "claims are not strict JSON");
    }
    let nested =
        with(&json!({"act": {"sub": "a"}})).to_string().replace("{\"sub\":\"a\"}", "{\"sub\":\"a\",\"sub\":\"b\"}");
    assert_refused(&SIGNER.sign_text(&header, &nested), "claims are not strict JSON");
}

#[test]
fn header_and_claims_are_objects_in_utf_8_of_16_levels_at_most() {
    let header = SIGNER.header().to_string();
    for payload in ["", "[]", "7", "null", "{} {}", "\u{feff}{}"] {
        assert_refused(&SIGNER.sign_text(&header, payload), "claims are not strict JSON");
        assert_refused(&SIGNER.sign_text(payload, &claims().to_string()), "header is not strict JSON");
    }
    let broken = [claims().to_string().as_bytes(), b"\xff"].concat();
    let parts = format!("{}.{}", URL_SAFE_NO_PAD.encode(&header), URL_SAFE_NO_PAD.encode(broken));
    assert_refused(&SIGNER.sign_parts(&parts), "claims are not strict JSON");
    let deep = |levels| {
        let nested = (0..levels).fold(json!(1), |inner, _| json!({ "a": inner }));
        SIGNER.sign(&with(&json!({"x": nested})))
    };
    assert!(issuers().verify(&deep(15), now()).is_ok());
    assert_refused(&deep(16), "claims are not strict JSON");
}

#[test]
fn a_token_over_8_kib_is_refused_unread() {
    let token = |filler: usize| SIGNER.sign(&with(&json!({"x": "a".repeat(filler)})));
    assert!(issuers().verify(&token(5500), now()).is_ok());
    assert_refused(&token(6200), "over 8 KiB");
    assert_refused(&"a".repeat(1_000_000), "over 8 KiB");
}

#[test]
fn a_changed_byte_anywhere_is_refused() {
    let token = SIGNER.sign(&claims());
    let issuers = issuers();
    for place in 0..token.len() {
        let mut changed = token.clone().into_bytes();
        changed[place] = if changed[place] == b'A' { b'B' } else { b'A' };
        assert!(issuers.verify(std::str::from_utf8(&changed).unwrap(), now()).is_err(), "{place}");
    }
}

/// What the JWT crate takes by default or when told to be strict (its version 11.1), refused one by one.
#[test]
fn what_the_jwt_crate_takes_is_refused() {
    for (name, changes) in [
        ("aud missing", json!({"aud": null})),
        ("aud a number", json!({"aud": 1})),
        ("aud an object", json!({"aud": {}})),
        ("iss missing", json!({"iss": null})),
        ("iss a number", json!({"iss": 1})),
        ("iss a list with ours in it", json!({"iss": [ISSUER]})),
        ("nbf far in the future", json!({"nbf": NOW + 1_000_000})),
        ("nbf a text", json!({"nbf": "1"})),
        ("exp a text", json!({"exp": "1795297999"})),
        ("exp the greatest number", json!({"exp": u64::MAX})),
        ("exp a fraction", json!({"exp": 1e18})),
        ("expired 30 s ago", json!({"exp": NOW - 30, "iat": NOW - 300})),
    ] {
        assert!(issuers().verify(&SIGNER.sign(&with(&changes)), now()).is_err(), "{name}");
    }
    for (name, changes) in [("crit", json!({"crit": ["x"]})), ("typ of something else", json!({"typ": "secevent+jwt"}))]
    {
        assert!(issuers().verify(&SIGNER.sign_under(&header_with(&changes), &claims()), now()).is_err(), "{name}");
    }
    let listed = with(&json!({"aud": ["other", US]}));
    assert!(issuers().verify(&SIGNER.sign(&listed), now()).is_ok(), "aud a list with ours in it is legal");
    let payload = claims().to_string();
    let twice = format!("{},\"cap\":[\"read\"],\"cap\":[\"*\"]}}", payload.strip_suffix('}').unwrap());
    assert!(issuers().verify(&SIGNER.sign_text(&SIGNER.header().to_string(), &twice), now()).is_err(), "a claim twice");
    let token = SIGNER.sign(&claims());
    for tail in ["=", ".", "\n", " "] {
        assert!(issuers().verify(&format!("{token}{tail}"), now()).is_err(), "{tail:?} after the end");
    }
}

fn id_tokens() -> Issuers {
    issuers_with(Config { id_tokens: true, ..config() }, &[&SIGNER])
}

fn id_token(changes: &Value) -> String {
    let mut claims = with(&json!({"aud": "web", "nonce": "n"}));
    for (name, value) in changes.as_object().unwrap() {
        claims[name] = value.clone();
    }
    SIGNER.sign(&claims)
}

#[test]
fn id_tokens_are_taken_for_the_client_they_were_issued_to_where_the_issuer_says_so() {
    let jwt = id_tokens().verify_id_token(&id_token(&json!({})), "web", now()).unwrap();
    assert_eq!((jwt.token_type, &*jwt.subject), (TokenType::Id, "user-7"));
    let why = issuers().verify_id_token(&id_token(&json!({})), "web", now()).unwrap_err();
    assert_eq!(why, "ID tokens of this issuer are not taken");
    let refused =
        |changes: Value, client: &str| id_tokens().verify_id_token(&id_token(&changes), client, now()).unwrap_err();
    assert_eq!(refused(json!({}), "other"), "the ID token is not for this client");
    assert_eq!(refused(json!({"azp": "other"}), "web"), "the ID token was issued to another client");
    assert!(refused(json!({"aud": ["web", "other"]}), "web").contains("does not say which client"));
    assert!(refused(json!({"token_use": "access"}), "web").contains("is an access token"));
    assert!(refused(json!({"typ": "Bearer"}), "web").contains("is an access token"));
    let several = id_token(&json!({"aud": ["web", "other"], "azp": "web"}));
    assert!(id_tokens().verify_id_token(&several, "web", now()).is_ok());
    let typed = with(&json!({"aud": "web", "jti": "1", "client_id": "web"}));
    let typed = SIGNER.sign_under(&header_with(&json!({"typ": "at+jwt"})), &typed);
    assert_eq!(id_tokens().verify_id_token(&typed, "web", now()).unwrap_err(), "the JWT is an access token");
}

#[test]
fn an_id_token_is_no_evidence_even_where_its_client_is_called_as_we_are() {
    let issuers = id_tokens();
    let token = id_token(&json!({"aud": US}));
    assert!(issuers.verify_id_token(&token, US, now()).is_ok());
    assert_eq!(issuers.verify(&token, now()).unwrap_err(), "the JWT is an ID token");
}

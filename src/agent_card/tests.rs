use serde_json::json;

use super::*;

fn everything() -> Offer {
    let text = |text: &str| text.to_owned();
    let oidc = |at: &str| Evidence::OpenIdConnect { discovery: text(at), description: text("a JWT") };
    let evidence = vec![
        Evidence::ClientCertificate,
        oidc("https://a/.well-known/openid-configuration"),
        oidc("https://b/.well-known/openid-configuration"),
        Evidence::BearerJwt { description: text("a JWT of c") },
        Evidence::ApiKey { header: text("x-api-key") },
    ];
    Offer { is_certificate_required: false, evidence }
}

fn certificate() -> Offer {
    Offer { is_certificate_required: true, evidence: vec![Evidence::ClientCertificate] }
}

fn filled(card: &Value, offer: &Offer, shape: Shape) -> Filled {
    fill(card.to_string().as_bytes(), offer, shape).unwrap()
}

fn refused(card: &Value) -> String {
    fill(card.to_string().as_bytes(), &certificate(), Shape::V1).unwrap_err().to_string()
}

/// A card of 0.3, with a scheme of its own that a skill requires.
fn old_card() -> Value {
    json!({
        "name": "deployer", "url": "https://deployer/a2a", "protocolVersion": "0.3.0", "x-mine": {"n": [1, 2.5, null]},
        "securitySchemes": {
            "partner": {"type": "apiKey", "in": "cookie", "name": "sid", "x-more": true},
            "login": {"type": "oauth2", "flows": {"clientCredentials": {"tokenUrl": "https://t", "scopes": {}}}},
        },
        "skills": [{"id": "s", "security": [{"partner": [], "login": ["read"]}]}, {"id": "t"}],
    })
}

fn same_card_in_v1() -> Value {
    let flows = json!({"clientCredentials": {"tokenUrl": "https://t", "scopes": {}}});
    let required = json!([{"schemes": {"login": {"list": ["read"]}, "partner": {"list": []}}}]);
    json!({
        "name": "deployer", "url": "https://deployer/a2a", "protocolVersion": "0.3.0", "x-mine": {"n": [1, 2.5, null]},
        "securitySchemes": {
            "partner": {"apiKeySecurityScheme": {"location": "cookie", "name": "sid", "x-more": true}},
            "login": {"oauth2SecurityScheme": {"flows": flows}},
        },
        "skills": [{"id": "s", "securityRequirements": required}, {"id": "t"}],
    })
}

#[test]
fn says_each_kind_of_evidence_in_the_words_of_1_0() {
    let Filled { card, schemes, warnings } = filled(&json!({"name": "x"}), &everything(), Shape::V1);
    let oidc = |at: &str| {
        let url = format!("https://{at}/.well-known/openid-configuration");
        json!({"openIdConnectSecurityScheme": {"openIdConnectUrl": url, "description": "a JWT"}})
    };
    let bearer = json!({"scheme": "Bearer", "bearerFormat": "JWT", "description": "a JWT of c"});
    let wanted = json!({
        "mtls": {"mtlsSecurityScheme": {}},
        "oidc": oidc("a"), "oidc2": oidc("b"),
        "bearer": {"httpAuthSecurityScheme": bearer},
        "apiKey": {"apiKeySecurityScheme": {"location": "header", "name": "x-api-key"}},
    });
    assert_eq!(card["securitySchemes"], wanted);
    assert_eq!(schemes, ["mtls", "oidc", "oidc2", "bearer", "apiKey"]);
    let one = |name: &str| json!({"schemes": {name: {"list": []}}});
    assert_eq!(card["securityRequirements"], json!(schemes.iter().map(|name| one(name)).collect::<Vec<_>>()));
    assert_eq!((&card["name"], warnings.len()), (&json!("x"), 0));
}

#[test]
fn says_each_kind_of_evidence_in_the_words_of_0_3() {
    let card = filled(&json!({}), &everything(), Shape::V03).card;
    let wanted = json!({
        "mtls": {"type": "mutualTLS"},
        "oidc": {"type": "openIdConnect", "openIdConnectUrl": "https://a/.well-known/openid-configuration", "description": "a JWT"},
        "oidc2": {"type": "openIdConnect", "openIdConnectUrl": "https://b/.well-known/openid-configuration", "description": "a JWT"},
        "bearer": {"type": "http", "scheme": "Bearer", "bearerFormat": "JWT", "description": "a JWT of c"},
        "apiKey": {"type": "apiKey", "in": "header", "name": "x-api-key"},
    });
    assert_eq!(card["securitySchemes"], wanted);
    let names = json!([{"mtls": []}, {"oidc": []}, {"oidc2": []}, {"bearer": []}, {"apiKey": []}]);
    assert_eq!(card["security"], names);
    assert!(!card.contains_key("securityRequirements"));
}

#[test]
fn a_certificate_that_is_required_stands_in_each_requirement() {
    let offer = Offer { is_certificate_required: true, ..everything() };
    let card = filled(&json!({}), &offer, Shape::V03).card;
    let names = json!([
        {"mtls": []}, {"mtls": [], "oidc": []}, {"mtls": [], "oidc2": []}, {"bearer": [], "mtls": []}, {"apiKey": [], "mtls": []}
    ]);
    assert_eq!(card["security"], names);
}

#[test]
fn either_shape_becomes_the_other_and_nothing_else_changes() {
    let to_v1 = filled(&old_card(), &certificate(), Shape::V1).card;
    assert_eq!(to_v1, filled(&same_card_in_v1(), &certificate(), Shape::V1).card);
    assert_eq!(to_v1["skills"], same_card_in_v1()["skills"]);
    assert_eq!(to_v1["securitySchemes"]["partner"], same_card_in_v1()["securitySchemes"]["partner"]);
    let to_v03 = filled(&same_card_in_v1(), &certificate(), Shape::V03).card;
    assert_eq!(to_v03, filled(&old_card(), &certificate(), Shape::V03).card);
    assert_eq!(to_v03["skills"], old_card()["skills"]);
    assert_eq!(to_v03["x-mine"], old_card()["x-mine"]);
}

#[test]
fn a_card_for_old_and_new_readers_at_once_is_read_and_loses_the_other_shape() {
    let card = json!({
        "securitySchemes": {"own": {"type": "http", "scheme": "Basic", "httpAuthSecurityScheme": {"scheme": "Basic"}}},
        "securityRequirements": [{"schemes": {"own": {}}}], "security": [{"own": []}],
    });
    let v1 = filled(&card, &certificate(), Shape::V1).card;
    assert_eq!(v1["securitySchemes"]["own"], json!({"httpAuthSecurityScheme": {"scheme": "Basic"}}));
    assert!(!v1.contains_key("security"));
    let v03 = filled(&card, &certificate(), Shape::V03).card;
    assert_eq!(v03["securitySchemes"]["own"], json!({"type": "http", "scheme": "Basic"}));
    assert!(!v03.contains_key("securityRequirements"));
}

#[test]
fn filling_again_changes_nothing_and_warns_of_nothing() {
    for shape in [Shape::V1, Shape::V03] {
        let once = filled(&old_card(), &everything(), shape);
        let twice = filled(&Value::Object(once.card.clone()), &everything(), shape);
        assert_eq!((twice.card, twice.warnings), (once.card, Vec::new()));
    }
}

#[test]
fn signatures_stay_on_a_card_that_says_it_already() {
    let mut signed = filled(&old_card(), &everything(), Shape::V1).card;
    signed.insert("signatures".to_owned(), json!([{"protected": "e30", "signature": "AA"}]));
    let again = filled(&Value::Object(signed.clone()), &everything(), Shape::V1);
    assert_eq!((again.card, again.warnings), (signed.clone(), Vec::new()));
    let changed = filled(&Value::Object(signed), &certificate(), Shape::V1);
    assert!(!changed.card.contains_key("signatures") && changed.warnings[1].contains("sign it again"));
}

#[test]
fn a_skill_that_is_in_shape_stays_to_the_letter() {
    let skills = json!([{"id": "s", "securityRequirements": [{"schemes": {"own": {}}}, {}]}]);
    let card = json!({"securitySchemes": {"own": {"mtlsSecurityScheme": {}}}, "skills": skills});
    assert_eq!(filled(&card, &certificate(), Shape::V1).card["skills"], skills);
    let v03 = filled(&card, &certificate(), Shape::V03).card;
    assert_eq!(v03["skills"], json!([{"id": "s", "security": [{"own": []}, {}]}]));
}

#[test]
fn what_is_replaced_or_dropped_is_told() {
    let card = json!({
        "securitySchemes": {"mtls": {"type": "http", "scheme": "Basic"}},
        "security": [{}],
        "signatures": [{"protected": "e30", "signature": "AA"}],
    });
    let Filled { card, warnings, .. } = filled(&card, &certificate(), Shape::V1);
    assert!(!card.contains_key("signatures"));
    assert_eq!(card["securityRequirements"], json!([{"schemes": {"mtls": {"list": []}}}]));
    assert_eq!(warnings.len(), 3, "{warnings:?}");
    assert!(warnings[2].contains("signatures are dropped"), "{warnings:?}");
}

#[test]
fn a_scheme_has_exactly_one_kind() {
    let scheme = |scheme: Value| refused(&json!({"securitySchemes": {"own": scheme}}));
    let none = scheme(json!({"description": "x"}));
    assert!(none.starts_with("securitySchemes.own: it has no member that says its kind"), "{none}");
    let two = scheme(json!({"mtlsSecurityScheme": {}, "httpAuthSecurityScheme": {"scheme": "Basic"}}));
    assert!(two.contains("more than one kind: httpAuthSecurityScheme, mtlsSecurityScheme"), "{two}");
    let disagree = scheme(json!({"mtlsSecurityScheme": {}, "type": "http", "scheme": "Basic"}));
    assert!(disagree.contains("disagree"), "{disagree}");
    assert!(scheme(json!({"type": "saml"})).contains("its type has to be one of"));
}

#[test]
fn a_scheme_that_is_not_of_its_form_is_refused() {
    for (scheme, why) in [
        (json!([]), "has to be an object"),
        (json!({"mtlsSecurityScheme": []}), "mtlsSecurityScheme has to be an object"),
        (json!({"type": "apiKey", "in": "body", "name": "x"}), "query, header or cookie"),
        (json!({"type": "apiKey", "in": "header"}), "name has to be a text"),
        (json!({"apiKeySecurityScheme": {"in": "header", "name": "x"}}), "location has to be a text"),
        (json!({"type": "http"}), "scheme has to be a text"),
        (json!({"openIdConnectSecurityScheme": {}}), "openIdConnectUrl has to be a text"),
        (json!({"type": "oauth2", "flows": {}}), "flows has to name one of"),
        (json!({"oauth2SecurityScheme": {"flows": {"implicit": {}, "password": {}}}}), "implicit, password"),
    ] {
        let error = refused(&json!({"securitySchemes": {"own": scheme}}));
        assert!(error.contains(why), "{error}");
    }
}

#[test]
fn what_the_other_shape_has_no_words_for_is_refused() {
    let two = json!({"securitySchemes": {"own": {"type": "oauth2", "flows": {"implicit": {}, "password": {}}}}});
    assert!(refused(&two).contains("one flow a scheme"));
    assert!(fill(two.to_string().as_bytes(), &certificate(), Shape::V03).is_ok());
    let device = json!({"securitySchemes": {"own": {"oauth2SecurityScheme": {"flows": {"deviceCode": {}}}}}});
    let error = fill(device.to_string().as_bytes(), &certificate(), Shape::V03).unwrap_err().to_string();
    assert!(error.contains("no flow deviceCode"), "{error}");
    assert!(fill(device.to_string().as_bytes(), &certificate(), Shape::V1).is_ok());
}

#[test]
fn a_requirement_names_declared_schemes_alone() {
    for card in [
        json!({"security": [{"ghost": []}]}),
        json!({"securityRequirements": [{"schemes": {"ghost": {"list": []}}}]}),
        // Remit's own scheme is no excuse: the card never declared it.
        json!({"securityRequirements": [{"schemes": {"mtls": {}}}]}),
        json!({"skills": [{"security": [{}, {"ghost": []}]}]}),
    ] {
        let error = refused(&card);
        assert!(error.contains("which securitySchemes doesn't declare"), "{error}");
    }
}

#[test]
fn a_requirement_that_is_not_of_its_form_is_refused() {
    for (member, value, why) in [
        ("security", json!({}), "has to be a list"),
        ("security", json!([[]]), "has to be an object"),
        ("security", json!([{"own": [1]}]), "list of texts"),
        ("securityRequirements", json!([{"own": []}]), "only schemes belongs here"),
        ("securityRequirements", json!([{"schemes": {"own": []}}]), "an object with a list"),
        ("securityRequirements", json!([{"schemes": {"own": {"scopes": []}}}]), "only list belongs here"),
    ] {
        let error = refused(&json!({"securitySchemes": {"own": {"mtlsSecurityScheme": {}}}, member: value}));
        assert!(error.starts_with(member) && error.contains(why), "{error}");
    }
    let both = json!({
        "securitySchemes": {"own": {"mtlsSecurityScheme": {}}},
        "securityRequirements": [{"schemes": {"own": {}}}], "security": [{}],
    });
    assert!(refused(&both).contains("says something else than security"));
}

#[test]
fn a_card_is_one_strict_object() {
    let refused = |text: &str| fill(text.as_bytes(), &certificate(), Shape::V1).unwrap_err().to_string();
    assert!(refused(r#"{"a": 1, "\u0061": 2}"#).contains("twice"));
    for text in ["", "[]", "{} {}", "{\"skills\": {}}", "{\"skills\": [1]}", "{\"securitySchemes\": []}"] {
        refused(text);
    }
    assert!(refused(r#"{"security_schemes": {}}"#).contains("write securitySchemes"));
    assert!(refused(&format!("{}{}", "{\"a\":".repeat(40), "1".to_owned() + &"}".repeat(40))).contains("levels"));
}

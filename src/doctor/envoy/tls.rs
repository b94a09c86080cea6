//! Who a client is, and who Remit is.

use serde_json::Value;

use crate::doctor::Report;
use crate::doctor::reading::{at, field, is_message, is_set, items, may_be_set, text, word};

/// What a TLS context says of the other side's certificate.
struct Verified {
    contexts: Vec<Value>,
    /// A part of it stands elsewhere: where.
    unclear: Option<String>,
}

/// A filter chain whose manager asks.
pub(super) fn downstream(report: &mut Report, value: &Value, place: &str) {
    let Some(tls) = at(value, &["transport_socket", "typed_config"]) else {
        report.fatal(
            place,
            "without TLS nobody has a name",
            "transport_socket: DownstreamTlsContext with require_client_certificate",
        );
        return;
    };
    let tls = if is_message(tls, "QuicDownstreamTransport") {
        field(tls, "downstream_tls_context").unwrap_or(tls)
    } else if is_message(tls, "DownstreamTlsContext") {
        tls
    } else {
        report.fatal(
            place,
            "can't judge this transport_socket: look at it yourself, without TLS nobody has a name",
            "transport_socket: DownstreamTlsContext with require_client_certificate",
        );
        return;
    };
    if !is_set(tls, "require_client_certificate") {
        report.fatal(
            place,
            "no client certificate is required: who sends a request is not known",
            "require_client_certificate: true",
        );
        return;
    }
    let fix = "validation_context: { trusted_ca: … }";
    verification(report, field(tls, "common_tls_context"), place, "client certificates are not verified", fix);
}

/// A cluster, if it is one that is asked.
pub(super) fn asked_cluster(report: &mut Report, cluster: &Value, place: &str) {
    let name = text(cluster, "name").unwrap_or_default();
    if !report.survey.asked_clusters.iter().any(|asked| asked == name) || !is_cluster(cluster) {
        return;
    }
    report.seen_clusters.push(name.to_owned());
    if field(cluster, "transport_socket_matches").is_some() {
        report.warn(
            place,
            "can't judge transport_socket_matches: look at it yourself, each has to be TLS as in transport_socket",
            "remove transport_socket_matches",
        );
    }
    let socket = at(cluster, &["transport_socket", "typed_config"]);
    let socket = socket.filter(|socket| is_message(socket, "UpstreamTlsContext"));
    let Some((socket, tls)) = socket.and_then(|socket| Some((socket, field(socket, "common_tls_context")?))) else {
        report.fatal(
            place,
            "Remit is asked without TLS: it answers nobody",
            "transport_socket: UpstreamTlsContext with common_tls_context",
        );
        return;
    };
    own_certificate(report, tls, place);
    let newest = field(tls, "tls_params").and_then(|tls| word(tls, "tls_maximum_protocol_version"));
    if !newest.is_some_and(|newest| newest == "TLSv1_3" || newest == "4") {
        report.fatal(
            place,
            "Envoy speaks TLS 1.2 at most as a client, and Remit 1.3: every request is refused",
            "tls_maximum_protocol_version: TLSv1_3",
        );
    }
    let contexts = verification(
        report,
        Some(tls),
        place,
        "Remit's own certificate is not verified: anybody there may answer",
        "validation_context: { trusted_ca: …, match_typed_subject_alt_names: … }",
    );
    if let Some(contexts) = contexts
        && !(is_set(socket, "auto_sni_san_validation") && text(socket, "sni").is_some_and(|name| !name.is_empty()))
    {
        subject(report, &contexts, place);
    }
}

fn is_cluster(value: &Value) -> bool {
    let marks = ["load_assignment", "transport_socket", "connect_timeout", "type", "cluster_type", "lb_policy"];
    is_message(value, "cluster.v3.Cluster") || marks.iter().any(|mark| field(value, mark).is_some())
}

fn own_certificate(report: &mut Report, tls: &Value, place: &str) {
    let is_there =
        ["tls_certificates", "tls_certificate_sds_secret_configs"].iter().any(|name| items(tls, name).next().is_some())
            || field(tls, "tls_certificate_provider_instance").is_some();
    if !is_there {
        report.fatal(
            place,
            "Envoy shows no certificate of its own: Remit answers enforcement points alone",
            "tls_certificates: …",
        );
    }
}

/// Whether chains are verified; and what else is asked of a certificate, where that can be read.
fn verification(
    report: &mut Report,
    tls: Option<&Value>,
    place: &str,
    missing: &'static str,
    fix: &'static str,
) -> Option<Vec<Value>> {
    let verified = verified(report, tls);
    let contexts = verified.contexts;
    for context in &contexts {
        if word(context, "trust_chain_verification").is_some_and(|mode| mode != "VERIFY_TRUST_CHAIN" && mode != "0") {
            let what = "trust_chain_verification: a certificate of anybody's making is taken";
            report.fatal(place, what, "trust_chain_verification: VERIFY_TRUST_CHAIN");
        }
        if may_be_set(context, "allow_expired_certificate") {
            let what = "allow_expired_certificate: a certificate stays good for ever";
            report.fatal(place, what, "allow_expired_certificate: false");
        }
    }
    if let Some(unclear) = verified.unclear {
        let what = format!("can't judge whose certificates are taken, which {unclear} says: look at it yourself");
        report.warn(place, what, fix);
        return None;
    }
    if contexts.iter().any(has_authority) {
        return Some(contexts);
    }
    report.fatal(place, missing, fix);
    None
}

fn verified(report: &Report, tls: Option<&Value>) -> Verified {
    let mut verified = Verified { contexts: Vec::new(), unclear: None };
    let Some(tls) = tls else { return verified };
    let combined = field(tls, "combined_validation_context");
    verified.contexts.extend(field(tls, "validation_context").cloned());
    verified.contexts.extend(combined.and_then(|combined| field(combined, "default_validation_context")).cloned());
    let secrets = [Some(tls), combined].into_iter().flatten();
    for secret in secrets.filter_map(|part| field(part, "validation_context_sds_secret_config")) {
        let name = text(secret, "name").unwrap_or_default();
        match report.survey.secret(name) {
            Some(context) if field(secret, "sds_config").is_none() => verified.contexts.push(context.clone()),
            Some(_) | None => verified.unclear = Some(format!("the secret {name}")),
        }
    }
    for other in ["custom_validator_config", "ca_certificate_provider_instance"] {
        if verified.contexts.iter().any(|context| field(context, other).is_some()) {
            verified.unclear = Some(other.to_owned());
        }
    }
    verified
}

/// Certificates of an authority that are really named.
fn has_authority(context: &Value) -> bool {
    let sources = ["filename", "inline_string", "inline_bytes", "environment_variable"];
    field(context, "trusted_ca")
        .is_some_and(|authority| sources.iter().any(|name| text(authority, name).is_some_and(|text| !text.is_empty())))
}

/// Whether the certificate has to be Remit's and not only of the same authority.
fn subject(report: &mut Report, contexts: &[Value], place: &str) {
    let fix = "match_typed_subject_alt_names: [{ san_type: DNS, matcher: { exact: … } }]";
    let pinned = ["verify_certificate_spki", "verify_certificate_hash"];
    if contexts.iter().any(|context| pinned.iter().any(|name| items(context, name).next().is_some())) {
        return;
    }
    let typed = contexts.iter().flat_map(|context| items(context, "match_typed_subject_alt_names"));
    let typed = typed.filter_map(|one| field(one, "matcher"));
    let plain = contexts.iter().flat_map(|context| items(context, "match_subject_alt_names"));
    let matchers: Vec<&Value> = typed.chain(plain).collect();
    if matchers.is_empty() {
        let what = "without match_typed_subject_alt_names whoever has a certificate of the same authority may answer for Remit";
        report.fatal(place, what, fix);
    }
    if !matchers.iter().all(|matcher| text(matcher, "exact").is_some_and(|name| !name.is_empty())) {
        let what = "can't judge whose names match_typed_subject_alt_names takes: look at it yourself";
        report.warn(place, what, fix);
    }
}

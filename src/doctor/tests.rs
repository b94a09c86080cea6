use super::*;

const GOOD: &str = include_str!("../../deploy/envoy/envoy.yaml");

fn fatal(text: &str) -> Vec<String> {
    let findings = examine(text).unwrap();
    findings.into_iter().filter(|finding| finding.is_fatal).map(|finding| finding.what).collect()
}

#[test]
fn nothing_is_wrong_with_our_own_configuration() {
    assert_eq!(examine(GOOD), Ok(Vec::new()));
}

#[test]
fn c3_c9_c19_each_setting_that_opens_a_hole_is_named() {
    for (setting, instead, named) in [
        ("failure_mode_allow: false", "failure_mode_allow: true", "failure_mode_allow"),
        (
            "encode_raw_headers: true",
            "encode_raw_headers: true\n                      filter_enabled: {}",
            "filter_enabled",
        ),
        ("code: ServiceUnavailable", "code: OK", "status_on_error"),
        ("require_client_certificate: true", "require_client_certificate: false", "no client certificate"),
        ("forward_client_cert_details: SANITIZE", "forward_client_cert_details: APPEND_FORWARD", "APPEND_FORWARD"),
        ("tls_maximum_protocol_version: TLSv1_3", "tls_maximum_protocol_version: TLSv1_2", "TLS 1.2"),
        ("check_settings:", "disabled: true\n                              check_settings:", "not asked about"),
        (
            "                  # Before anything that acts on the request.",
            "                  - name: envoy.filters.http.lua",
            "envoy.filters.http.lua acts before ext_authz",
        ),
    ] {
        assert!(GOOD.contains(setting), "{setting}");
        let found = fatal(&GOOD.replace(setting, instead));
        assert!(found.len() == 1 && found[0].contains(named), "{setting}: {found:?}");
    }
}

#[test]
fn c3_c9_c13_what_is_only_worse_is_a_warning() {
    for (setting, instead, fix) in [
        ("                        timeout: 0.5s\n", "", "timeout: 0.5s"),
        ("normalize_path: true", "normalize_path: false", "normalize_path: true"),
        ("encode_raw_headers: true", "encode_raw_headers: false", "encode_raw_headers: true"),
        (
            "include_peer_certificate: true",
            "clear_route_cache: true\n                      include_peer_certificate: true",
            "remove clear_route_cache",
        ),
        ("allow_partial_message: false", "allow_partial_message: true", "allow_partial_message: false"),
        ("max_request_bytes: 65536", "max_request_bytes: 1048576", "max_request_bytes: 65536"),
    ] {
        assert!(GOOD.contains(setting), "{setting}");
        let found = examine(&GOOD.replace(setting, instead)).unwrap();
        assert!(found.iter().any(|finding| !finding.is_fatal && finding.fix == fix), "{setting}: {found:?}");
        assert!(found.iter().all(|finding| !finding.is_fatal), "{setting}: {found:?}");
    }
}

#[test]
fn istios_objects_are_read_too() {
    let mesh = r"
apiVersion: v1
kind: ConfigMap
data:
  mesh: |
    extensionProviders:
    - name: remit
      envoyExtAuthzGrpc: {service: remit.remit.svc.cluster.local, port: 7443, failOpen: true}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
spec: {mtls: {mode: PERMISSIVE}}
";
    let found = fatal(mesh);
    assert!(found.len() == 2 && found[0].contains("failOpen") && found[1].contains("PERMISSIVE"), "{found:?}");
    let good = mesh.replace("failOpen: true", "failOpen: false, timeout: 0.5s").replace("PERMISSIVE", "STRICT");
    assert_eq!(examine(&good), Ok(Vec::new()));
}

#[test]
fn a_file_in_which_nothing_is_asked_is_no_good_file() {
    for text in ["", "a: 1", "static_resources: {}", "kind: Pod"] {
        assert!(examine(text).is_err(), "{text}");
    }
    assert!(examine("a: [").is_err());
}

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
fn c03_c09_c19_each_setting_that_opens_a_hole_is_named() {
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
fn c03_c09_c13_what_is_only_worse_is_a_warning() {
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

/// A line of the filter's own settings, in place of a comment.
fn with_filter(line: &str) -> String {
    changed("# No answer is a no.", line)
}

fn changed(setting: &str, instead: &str) -> String {
    assert!(GOOD.contains(setting), "{setting}");
    GOOD.replace(setting, instead)
}

fn is_fatal(text: &str, named: &str) {
    let found = fatal(text);
    assert!(found.iter().any(|what| what.contains(named)), "{named}: {found:?}");
}

fn is_found(text: &str, named: &str) {
    let found = examine(text).unwrap();
    assert!(found.iter().any(|finding| finding.what.contains(named)), "{named}: {found:?}");
}

#[test]
fn c19_quoted_booleans_and_other_spellings_are_read_as_envoy_reads_them() {
    for instead in [r#"failure_mode_allow: "true""#, "failureModeAllow: true", "failure_mode_allow: 1"] {
        is_fatal(&changed("failure_mode_allow: false", instead), "failure_mode_allow");
    }
    is_fatal(&with_filter("failureModeAllow: true"), "failure_mode_allow");
    for same in [r#"failure_mode_allow: "false""#, "failure_mode_allow: null"] {
        assert_eq!(examine(&changed("failure_mode_allow: false", same)), Ok(Vec::new()), "{same}");
    }
    let quoted = changed("require_client_certificate: true", r#"require_client_certificate: "true""#);
    assert_eq!(examine(&quoted), Ok(Vec::new()));
}

#[test]
fn c04_c05_c08_what_remit_can_not_see_or_change_is_named() {
    for (line, named) in [
        ("decoder_header_mutation_rules: { disallow_all: true }", "disallow_all"),
        ("decoder_header_mutation_rules: { disallow_expression: { regex: x-.* } }", "disallow_expression"),
        ("allowed_headers: { patterns: [{ exact: authorization }] }", "allowed_headers"),
        ("disallowed_headers: { patterns: [{ prefix: x-remit }] }", "disallowed_headers"),
        ("filter_enabled_metadata: { filter: a }", "filter_enabled_metadata"),
        ("http_service: { server_uri: { uri: http://a } }", "http_service"),
    ] {
        is_fatal(&with_filter(line), named);
    }
    is_found(&with_filter("decoder_header_mutation_rules: { allow_expression: { regex: a } }"), "can't judge");
    is_found(&with_filter("enable_dynamic_metadata_ingestion: false"), "dynamic metadata");
    is_found(&changed("validate_mutations: true", "validate_mutations: false"), "validate_mutations");
    is_found(&changed("                      validate_mutations: true\n", ""), "validate_mutations");
}

#[test]
fn c02_no_success_is_an_error_by_name_or_number() {
    for code in ["Accepted", "SeeOther", "PermanentRedirect", "302", r#""200""#, "IMUsed"] {
        is_fatal(&changed("code: ServiceUnavailable", &format!("code: {code}")), "status_on_error");
    }
    assert_eq!(examine(&changed("code: ServiceUnavailable", "code: 503")), Ok(Vec::new()));
}

#[test]
fn c09_what_a_route_says_in_place_of_the_filter_is_judged() {
    let kind = "envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute";
    let off = "envoy.config.route.v3.FilterConfig\n                              disabled: true\n                              config: {}";
    let with_kind = |instead: &str| changed(kind, instead);
    is_fatal(&with_kind(off), "not asked about");
    is_fatal(&with_kind("envoy.extensions.filters.http.lua.v3.LuaPerRoute"), "can't judge LuaPerRoute");
    is_fatal(
        &changed(
            "check_settings:",
            "check_settings:\n                                http_service: { path_prefix: / }",
        ),
        "http_service",
    );
    is_found(
        &changed(
            "check_settings:",
            "check_settings:\n                                disable_request_body_buffering: true",
        ),
        "disable_request_body_buffering",
    );
    let elsewhere = changed("name: envoy.filters.http.ext_authz", "name: guard");
    let elsewhere = elsewhere.replace("envoy.filters.http.ext_authz:\n", "guard:\n").replace(kind, off);
    is_fatal(&elsewhere, "not asked about");
}

#[test]
fn c09_the_filter_has_to_stand_first_whatever_others_are_named() {
    let here = "                  # Before anything that acts on the request.";
    for (kind, named) in
        [("lua.v3.Lua", "Lua"), ("wasm.v3.Wasm", "Wasm"), ("ext_proc.v3.ExternalProcessor", "ExternalP")]
    {
        let filter = format!(
            "                  - name: envoy.filters.http.cors\n                    typed_config: {{ \"@type\": type.googleapis.com/envoy.extensions.filters.http.{kind} }}"
        );
        is_fatal(&changed(here, &filter), &format!("cors ({named}"));
    }
    let early = "                  - name: anything\n                    typed_config: { \"@type\": type.googleapis.com/envoy.extensions.filters.http.cors.v3.Cors }";
    assert_eq!(examine(&changed(here, early)), Ok(Vec::new()));
    let after = "                  - name: late\n                    typed_config: { \"@type\": type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua }\n                  - name: envoy.filters.http.router";
    is_found(&changed("                  - name: envoy.filters.http.router", after), "can't judge whether late (Lua)");
    is_fatal(
        &changed(
            "                http_filters:",
            "                upgrade_configs: [{ upgrade_type: websocket, filters: [{ name: a }] }]\n                http_filters:",
        ),
        "an upgrade",
    );
}

const ROUTE: &str =
    "                        - match: { prefix: / }\n                          route: { cluster: service";

/// A line of the last route, and one of what it does.
fn with_route(line: &str, action: &str) -> String {
    let line = if line.is_empty() { String::new() } else { format!("                          {line}\n") };
    let instead = ROUTE.replace("                          route:", &format!("{line}                          route:"));
    changed(ROUTE, &if action.is_empty() { instead } else { format!("{instead}, {action}") })
}

#[test]
fn what_a_route_does_after_the_decision_is_named() {
    for action in [
        "prefix_rewrite: /admin",
        "prefixRewrite: /admin",
        "regex_rewrite: { substitution: a }",
        "host_rewrite_literal: a",
        "host_rewrite_header: x-a",
        "host_rewrite_path_regex: {}",
        "auto_host_rewrite: true",
        "request_mirror_policies: [{ cluster: a }]",
        "retry_policy: { retry_on: 5xx }",
        "internal_redirect_policy: {}",
        "upgrade_configs: [{ upgrade_type: websocket }]",
    ] {
        let (name, _) = action.split_once(':').unwrap();
        let name = if name == "prefixRewrite" { "prefix_rewrite" } else { name };
        is_found(&with_route("", action), &format!("{name}: "));
    }
    is_found(&with_route("", "anything_new: {}"), "can't judge whether anything_new");
    is_found(&with_route("anything_new: {}", ""), "can't judge whether anything_new");
    for harmless in ["timeout: 1s", "hashPolicy: []", "auto_host_rewrite: false", "cors: {}"] {
        assert_eq!(examine(&with_route("", harmless)), Ok(Vec::new()), "{harmless}");
    }
}

#[test]
fn c05_a_route_that_sets_our_headers_is_fatal_wherever_it_stands() {
    let add = |name: &str| format!("request_headers_to_add: [{{ header: {{ key: {name}, value: '%REQ(x-who)%' }} }}]");
    for name in ["x-remit-agent", "X-Remit-Agent", "x_remit_new"] {
        is_fatal(&with_route(&add(name), ""), "request_headers_to_add sets x-remit-");
        let host = changed(
            "                      domains: [\"*\"]",
            &format!("                      domains: [\"*\"]\n                      {}", add(name)),
        );
        is_fatal(&host, "request_headers_to_add sets x-remit-");
    }
    let weighted = format!("weighted_clusters: {{ clusters: [{{ name: service, {} }}] }}", add("x-remit-agent"));
    is_fatal(&with_route("", &weighted), "request_headers_to_add sets x-remit-");
    is_found(&with_route(&add("x-envoy-retry-on"), ""), "sets x-envoy-retry-on");
    is_found(&with_route(&add("x-http-method-override"), ""), "sets x-http-method-override");
    assert_eq!(examine(&with_route(&add("x-team"), "")), Ok(Vec::new()));
}

#[test]
fn c15_what_lets_a_client_do_more_than_was_decided_about_is_named() {
    for (line, named) in [
        ("internal_address_config: { cidr_ranges: [] }", "internal_address_config"),
        ("http_protocol_options: { enable_trailers: true }", "enable_trailers"),
        ("strip_any_host_port: true", "strip_any_host_port"),
        ("http2_protocol_options: { allow_connect: true }", "allow_connect"),
        ("upgrade_configs: [{ upgrade_type: websocket }]", "upgrade_configs"),
    ] {
        let stat = "                stat_prefix: guarded";
        is_found(&changed(stat, &format!("{stat}\n                {line}")), named);
    }
    is_found(&changed("static_resources:", "dynamic_resources: { lds_config: {} }\nstatic_resources:"), "lds_config");
}

#[test]
fn c05_trailers_to_a_service_behind_http_2_lose_our_names() {
    let plain = "      connect_timeout: 1s";
    let options = |inner: &str| format!("{plain}\n      typed_extension_protocol_options: {{ a: {{ {inner} }} }}");
    let newer = [
        options("explicit_http_config: { http2_protocol_options: {} }"),
        options("auto_config: {}"),
        options("use_downstream_protocol_config: {}"),
        options("explicit_http_config: { http_protocol_options: { enable_trailers: true } }"),
        format!("{plain}\n      http2_protocol_options: {{}}"),
    ];
    let mutation = "remove_on_match: { key_matcher: { prefix: x-remit-, ignore_case: true } }";
    for newer in newer {
        let text = changed(plain, &newer);
        assert_eq!(examine(&text), Ok(Vec::new()), "{newer}");
        assert!(text.contains(mutation));
        is_found(&text.replace(mutation, "remove: x-remit-agent"), "the cluster service gets trailers");
        is_found(&text.replace(mutation, &mutation.replace("true", "false")), "the cluster service gets trailers");
    }
    is_found(
        &changed(mutation, "append: { header: { key: a, value: b } }"),
        "can't judge whether envoy.filters.http.header_mutation",
    );
    is_found(&changed("request_trailers_mutations:", "request_mutations:"), "can't judge whether");
}

#[test]
fn a_matcher_around_the_filter_is_doubt() {
    let text = r#"
http_filters:
  - name: guard
    typed_config:
      "@type": type.googleapis.com/envoy.extensions.common.matching.v3.ExtensionWithMatcher
      xds_matcher: {}
      extension_config:
        name: a
        typed_config: { "@type": type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz }
"@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
"#;
    is_fatal(text, "can't judge which requests guard (ExtensionWithMatcher)");
}

#[test]
fn a_typed_struct_is_the_message_that_it_stands_for() {
    let text = r#"
typed_config:
  "@type": type.googleapis.com/xds.type.v3.TypedStruct
  type_url: type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz
  value: { failure_mode_allow: true }
"#;
    is_fatal(text, "failure_mode_allow");
}

#[test]
fn c10_c11_certificates_that_prove_nothing_are_named() {
    let downstream = "                  trusted_ca: { filename: ca.pem }\n          filters:";
    let ours = "              trusted_ca: { filename: ca.pem }\n              match_typed";
    for (line, named) in [
        ("trust_chain_verification: ACCEPT_UNTRUSTED", "trust_chain_verification"),
        ("trust_chain_verification: 1", "trust_chain_verification"),
        ("allow_expired_certificate: \"true\"", "allow_expired_certificate"),
    ] {
        is_fatal(&changed(downstream, &format!("                  {line}\n{downstream}")), named);
        is_fatal(&changed(ours, &format!("              {line}\n{ours}")), named);
    }
    let commented =
        "                  trusted_ca: { }\n                  crl: { filename: trusted_ca }\n          filters:";
    is_fatal(&changed(downstream, commented), "client certificates are not verified");
    let names = "match_typed_subject_alt_names:\n                - { san_type: DNS, matcher: { exact: localhost } }";
    is_fatal(&changed(names, ""), "without match_typed_subject_alt_names");
    is_found(&changed("matcher: { exact: localhost }", "matcher: { prefix: \"\" }"), "can't judge whose names");
    is_fatal(&changed("v3.UpstreamTlsContext", "v3.RawBuffer"), "without TLS");
    is_found(
        &changed("cluster_name: remit }\n                        #", "cluster_name: other }\n #"),
        "isn't in this file",
    );
    let google = "google_grpc: { target_uri: a, stat_prefix: a }";
    is_fatal(&changed("envoy_grpc: { cluster_name: remit }", google), "google_grpc has no ssl_credentials");
    for details in ["1", "2", "4", "FORWARD_ONLY"] {
        let text = changed("forward_client_cert_details: SANITIZE", &format!("forward_client_cert_details: {details}"));
        is_fatal(&text, "lets clients write x-forwarded-client-cert");
    }
    let same = changed("forward_client_cert_details: SANITIZE", "forward_client_cert_details: 3");
    assert_eq!(examine(&same), Ok(Vec::new()));
}

#[test]
fn what_is_guarded_here_and_open_there_is_open() {
    let second = r#"  listeners:
    - name: open
      filter_chains:
        - filters:
            - name: a
              typed_config:
                "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
                route_config: { virtual_hosts: [{ routes: [{ route: { cluster: service } }] }] }
"#;
    let found = "the cluster service, guarded elsewhere";
    is_fatal(&changed("  listeners:\n", second), found);
    is_found(
        &changed("  listeners:\n", &second.replace("cluster: service", "cluster_header: x")),
        "can't judge what this way in",
    );
    let tcp = "  listeners:\n    - filter_chains: [{ filters: [{ typed_config: { \"@type\": a/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, cluster: service } }] }]\n";
    is_fatal(&changed("  listeners:\n", tcp), found);
    assert_eq!(examine(&changed("  listeners:\n", &second.replace("service", "other"))), Ok(Vec::new()));
    is_found(
        &changed("                route_config:", "                rds: {}\n                route_config:"),
        "can't judge the routes",
    );
}

#[test]
fn c21_headers_and_body_together_fit_into_what_remit_takes() {
    let headers = "                stat_prefix: guarded\n                max_request_headers_kb: 900";
    let text = changed("                stat_prefix: guarded", headers);
    assert_eq!(examine(&text), Ok(Vec::new()));
    is_found(&text.replace("max_request_bytes: 65536", "max_request_bytes: \"262144\""), "max_request_headers_kb");
}

const MESH: &str = r"
apiVersion: v1
kind: ConfigMap
data:
  mesh: |
    pathNormalization: {normalization: DECODE_AND_MERGE_SLASHES}
    extensionProviders:
    - name: remit
      envoyExtAuthzGrpc: {service: remit.remit.svc.cluster.local, port: 7443, failOpen: false, timeout: 0.5s}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
spec: {mtls: {mode: STRICT}}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: ask, namespace: shop}
spec: {action: CUSTOM, provider: {name: remit}, rules: [{}]}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
spec: {host: remit.remit.svc.cluster.local, trafficPolicy: {tls: {mode: ISTIO_MUTUAL}}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: remit}
spec: {template: {metadata: {labels: {sidecar.istio.io/inject: 'false'}}, spec: {containers: [{ports: [{containerPort: 7443}]}]}}}
";

fn mesh_with(setting: &str, instead: &str) -> String {
    assert!(MESH.contains(setting), "{setting}");
    MESH.replace(setting, instead)
}

#[test]
fn istios_objects_are_read_too() {
    assert_eq!(examine(MESH), Ok(Vec::new()));
    for (setting, instead, named) in [
        ("failOpen: false", "failOpen: true", "failOpen"),
        ("failOpen: false", "failOpen: \"true\"", "failOpen"),
        ("mode: STRICT", "mode: PERMISSIVE", "PERMISSIVE"),
        ("mode: STRICT", "mode: UNSET", "no PeerAuthentication is STRICT for the namespace shop"),
        ("kind: PeerAuthentication", "kind: Other", "no PeerAuthentication is STRICT"),
        ("spec: {mtls:", "spec: {selector: {}, mtls:", "no PeerAuthentication is STRICT"),
        ("spec: {mtls:", "metadata: {namespace: other}\nspec: {mtls:", "no PeerAuthentication is STRICT"),
        ("normalization: DECODE_AND_MERGE_SLASHES", "normalization: NONE", "pathNormalization is NONE"),
        ("normalization: DECODE_AND_MERGE_SLASHES", "normalization: BASE", "pathNormalization is BASE"),
        (", timeout: 0.5s", "", "no timeout"),
        ("timeout: 0.5s", "timeout: 600s", "its timeout"),
        ("timeout: 0.5s", "timeout: 1ms", "its timeout"),
    ] {
        is_found(&mesh_with(setting, instead), named);
    }
}

#[test]
fn the_holes_that_a_policy_leaves_are_named() {
    for (rules, named) in [
        ("rules: [{to: [{operation: {notPaths: [/healthz, /x*]}}]}]", "notPaths /healthz, /x*"),
        ("rules: [{to: [{operation: {paths: [/api/*]}}]}]", "paths /api/*"),
        ("rules: [{to: [{operation: {methods: [POST]}}]}]", "methods POST"),
        ("rules: [{from: [{source: {notPrincipals: [a]}}]}]", "notPrincipals a"),
        ("rules: [{when: [{key: request.headers}]}]", "requests when request.headers"),
        ("rules: []", "nothing is asked about"),
    ] {
        is_fatal(&mesh_with("rules: [{}]", rules), named);
    }
    assert_eq!(examine(&mesh_with("rules: [{}]", "rules: [{to: [{operation: {paths: [/a]}}]}, {}]")), Ok(Vec::new()));
}

#[test]
fn remits_port_is_reached_with_a_certificate_and_outside_the_sidecars_own_tls() {
    for (setting, instead, named) in [
        ("mode: ISTIO_MUTUAL", "mode: DISABLE", "without TLS"),
        ("mode: ISTIO_MUTUAL", "mode: SIMPLE", "tls SIMPLE"),
        (
            "{tls: {mode: ISTIO_MUTUAL}}",
            "{portLevelSettings: [{port: {number: 7443}, tls: {mode: DISABLE}}]}",
            "without TLS",
        ),
        ("host: remit.remit.svc.cluster.local", "host: other", "no DestinationRule for it"),
        ("inject: 'false'", "inject: 'true'", "inside the sidecar's own TLS"),
        ("{sidecar.istio.io/inject: 'false'}", "{}", "inside the sidecar's own TLS"),
    ] {
        is_found(&mesh_with(setting, instead), named);
    }
    // By a Service of another name.
    let text = mesh_with("service: remit.remit", "service: authz.remit");
    let text = text.replace("host: remit.remit", "host: authz.remit").replace("inject: 'false'", "inject: 'true'");
    assert_eq!(examine(&text), Ok(Vec::new()));
    let service = "---\napiVersion: v1\nkind: Service\nmetadata: {name: authz}\nspec: {selector: {sidecar.istio.io/inject: 'true'}}\n";
    is_found(&(text.clone() + service), "inside the sidecar's own TLS");
    assert_eq!(examine(&(text + &service.replace("'true'", "other"))), Ok(Vec::new()));
    let aside = "{traffic.sidecar.istio.io/excludeInboundPorts: '9090, 7443'}";
    assert_eq!(examine(&mesh_with("{sidecar.istio.io/inject: 'false'}", aside)), Ok(Vec::new()));
}

#[test]
fn files_are_judged_together_and_named() {
    let parts = MESH.split("---\n").collect::<Vec<_>>();
    let (mesh, others) = (parts[0].to_owned(), parts[1..].join("---\n"));
    assert!(!examine(&mesh).unwrap().is_empty());
    let files = |mesh: &str| [("mesh.yaml".to_owned(), mesh.to_owned()), ("others.yaml".to_owned(), others.clone())];
    assert_eq!(examine_all(&files(&mesh)), Ok(Vec::new()));
    let found = examine_all(&files(&mesh.replace("failOpen: false", "failOpen: true"))).unwrap();
    assert_eq!(found.len(), 1);
    assert!(found[0].place.starts_with("mesh.yaml."), "{}", found[0].place);
    let broken = [("mesh.yaml".to_owned(), mesh), ("b.yaml".to_owned(), "a: [".to_owned())];
    assert!(examine_all(&broken).unwrap_err().to_string().starts_with("b.yaml: it is no YAML"));
}

#[test]
fn a_file_in_which_nothing_is_asked_is_no_good_file() {
    for text in ["", "a: 1", "static_resources: {}", "kind: Pod"] {
        assert!(examine(text).is_err(), "{text}");
    }
    assert!(examine("a: [").is_err());
}

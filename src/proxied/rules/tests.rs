use super::*;

fn rules(text: &str) -> Result<Rules, String> {
    let config: Config = toml::from_str(text).unwrap();
    Rules::new(&config).map_err(|error| error.to_string())
}

fn target<'a>(method: &'a str, path: &'a str) -> Target<'a> {
    Target { method, host: "api".to_owned(), path, query: "" }
}

fn asked(rules: &Rules, method: &str, path: &str, body: Body<'_>) -> Result<Meaning, (Reason, String)> {
    let mut rpc = None;
    let meaning = rules.meaning(&target(method, path), body, &mut rpc);
    meaning.map_err(|denial| (denial.reason(), denial.message().to_string()))
}

fn uses(capability: &str, resource: &str) -> Meaning {
    Meaning::Use(capability.to_owned(), resource.to_owned())
}

const NO_BODY: Body<'static> = Body::Unknown("there is none");

#[test]
fn the_first_rule_that_fits_says_what_a_request_means() {
    let rules = rules(
        r#"
        rules = [
          { hosts = ["other"], path = "/reports/{name}", capability = "other", resource = "other" },
          { methods = ["GET", "HEAD"], path = "/reports/{name}", capability = "read", resource = "/data/{name}" },
          { path = "/reports/{name}", capability = "write", resource = "/data/{name}" },
          { hosts = ["API"], path = "/files/{path*}", capability = "read", resource = "files:{path}" },
          { path = "/open" },
        ]"#,
    )
    .unwrap();
    assert_eq!(asked(&rules, "GET", "/reports/q3", NO_BODY), Ok(uses("read", "/data/q3")));
    assert_eq!(asked(&rules, "PUT", "/reports/q3", NO_BODY), Ok(uses("write", "/data/q3")));
    assert_eq!(asked(&rules, "GET", "/files/a/b", NO_BODY), Ok(uses("read", "files:a/b")));
    for call in ["/open", "/", "/reports", "/reports/q3/x"] {
        assert_eq!(asked(&rules, "GET", call, NO_BODY), Ok(Meaning::Call), "{call}");
    }
}

const MCP: &str = r#"
    rules = [
      { methods = ["POST"], path = "/mcp", rpc = ["tools/call"], tools = ["query_database"], capability = "{tool}", resource = "db:{arguments.db}" },
      { methods = ["POST"], path = "/mcp", rpc = ["initialize", "tools/list"] },
      { path = "/a2a", rpc = ["message/send", "message/stream"] },
    ]"#;

fn body(method: &str, params: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{params}}}"#)
}

#[test]
fn c16_tools_and_messages_are_told_apart_by_the_body() {
    let rules = rules(MCP).unwrap();
    let ask = |path: &str, method: &str, params: &str| {
        asked(&rules, "POST", path, Body::Json(body(method, params).as_bytes()))
    };
    let call = r#"{"name":"query_database","arguments":{"db":"orders"}}"#;
    assert_eq!(ask("/mcp", "tools/call", call), Ok(uses("query_database", "db:orders")));
    assert_eq!(ask("/mcp", "tools/list", "{}"), Ok(Meaning::Call));
    assert_eq!(ask("/a2a", "message/send", "{}"), Ok(Meaning::Call));

    for (path, method, params) in [
        ("/mcp", "tools/call", r#"{"name":"drop_database"}"#),
        ("/mcp", "resources/read", "{}"),
        ("/a2a", "tasks/cancel", "{}"),
    ] {
        let (reason, message) = ask(path, method, params).unwrap_err();
        assert_eq!(reason, Reason::CapabilityNotGranted);
        assert!(message.starts_with(&format!("no rule of [ext_authz] is for {method}")), "{message}");
    }
}

#[test]
fn c16_a_body_that_is_unknown_denies_where_a_rule_needs_it_and_only_there() {
    let rules = rules(MCP).unwrap();
    let (reason, message) = asked(&rules, "POST", "/mcp", Body::Unknown("it was cut")).unwrap_err();
    assert_eq!(reason, Reason::RequestMalformed);
    assert!(message.ends_with("it was cut"), "{message}");
    assert_eq!(asked(&rules, "GET", "/elsewhere", NO_BODY), Ok(Meaning::Call));
    for bad in ["", "{", "[]", r#"{"jsonrpc":"2.0","method":"a","method":"tools/list"}"#] {
        assert_eq!(asked(&rules, "POST", "/mcp", Body::Json(bad.as_bytes())).unwrap_err().0, Reason::RequestMalformed);
    }
}

#[test]
fn no_method_or_host_makes_a_call_of_what_a_path_guards() {
    let rules = rules(
        r#"
        rules = [
          { methods = ["GET"], path = "/files/{name*}", capability = "read", resource = "/data/{name}" },
          { hosts = ["other"], path = "/reports", capability = "read", resource = "/reports" },
          { methods = ["POST"], path = "/mcp", rpc = ["tools/list"] },
          { methods = ["DELETE"], path = "/files/scratch" },
          { methods = ["GET"], path = "/open" },
        ]"#,
    )
    .unwrap();
    let list = body("tools/list", "{}");
    for (method, path) in [("HEAD", "/files/a"), ("DELETE", "/files/a/b"), ("GET", "/reports"), ("PUT", "/mcp")] {
        let (reason, message) = asked(&rules, method, path, Body::Json(list.as_bytes())).unwrap_err();
        assert_eq!(reason, Reason::CapabilityNotGranted, "{method} {path}");
        assert!(message.contains(method) && message.contains("api"), "{message}");
    }
    for (method, path) in [("DELETE", "/files/scratch"), ("PUT", "/open"), ("GET", "/files")] {
        assert_eq!(asked(&rules, method, path, NO_BODY), Ok(Meaning::Call), "{method} {path}");
    }
}

#[test]
fn c16_a_rule_for_everything_opens_nothing_that_a_nearer_rule_guards() {
    let guards = r#"
        { methods = ["GET"], path = "/files/{name*}", capability = "read", resource = "/data/{name}" },
        { methods = ["POST"], path = "/mcp", rpc = ["tools/call"], tools = ["query_database"], capability = "{tool}", resource = "db:x" },
        { methods = ["POST"], path = "/mcp", rpc = ["tools/list"] },"#;
    let all = r#"{ path = "/{rest*}" },"#;
    let call = body("tools/call", r#"{"name":"query_database"}"#);
    let drop = body("tools/call", r#"{"name":"drop_database"}"#);
    let (list, read) = (body("tools/list", "{}"), body("resources/read", "{}"));
    for order in [format!("{guards}{all}"), format!("{all}{guards}")] {
        let rules = rules(&format!("rules = [{order}]")).unwrap();
        let ask = |method: &str, path: &str, body: &str| asked(&rules, method, path, Body::Json(body.as_bytes()));
        for denied in [&drop, &read] {
            let (reason, message) = ask("POST", "/mcp", denied).unwrap_err();
            assert_eq!(reason, Reason::CapabilityNotGranted);
            assert!(message.starts_with("no rule of [ext_authz] is for"), "{message}");
        }
        for (method, path) in [("HEAD", "/files/a"), ("DELETE", "/files/a"), ("GET", "/mcp")] {
            assert_eq!(ask(method, path, &list).unwrap_err().0, Reason::CapabilityNotGranted, "{method} {path}");
        }
        assert_eq!(ask("POST", "/mcp", &call), Ok(uses("query_database", "db:x")));
        assert_eq!(ask("POST", "/mcp", &list), Ok(Meaning::Call));
        assert_eq!(ask("GET", "/files/a", ""), Ok(uses("read", "/data/a")));
        assert_eq!(ask("DELETE", "/other", ""), Ok(Meaning::Call));
    }
}

#[test]
fn c16_what_no_rule_that_looks_at_the_body_is_for_is_left_to_no_other_rule() {
    let rules = rules(
        r#"rules = [
          { path = "/mcp", rpc = ["tools/list"] },
          { path = "/mcp" },
          { path = "/{rest*}", capability = "any", resource = "/any/{rest}" },
        ]"#,
    )
    .unwrap();
    let other = body("resources/read", "{}");
    let (reason, message) = asked(&rules, "POST", "/mcp", Body::Json(other.as_bytes())).unwrap_err();
    assert_eq!(reason, Reason::CapabilityNotGranted);
    assert!(message.starts_with("no rule of [ext_authz] is for resources/read"), "{message}");
}

#[test]
fn an_open_rule_that_names_its_host_or_method_is_not_held_by_a_guard_for_others() {
    let rules = rules(
        r#"rules = [
          { hosts = ["files"], path = "/files/{name*}", capability = "read", resource = "/data/{name}" },
          { methods = ["GET"], path = "/reports/{name}", capability = "read", resource = "/data/{name}" },
          { hosts = ["api"], path = "/{rest*}" },
          { methods = ["OPTIONS"], path = "/{rest*}" },
        ]"#,
    )
    .unwrap();
    assert_eq!(asked(&rules, "GET", "/files/a", NO_BODY), Ok(Meaning::Call));
    assert_eq!(asked(&rules, "OPTIONS", "/reports/a", NO_BODY), Ok(Meaning::Call));
    assert!(asked(&rules, "HEAD", "/reports/a", NO_BODY).is_err());
}

#[test]
fn c13_a_path_that_only_case_separates_from_a_guarded_one_is_no_other_path() {
    let guards = r#"
        { methods = ["POST"], path = "/mcp", rpc = ["tools/list"] },
        { path = "/files/{name*}", capability = "read", resource = "/data/{name}" },
        { path = "/MINE" },
        { path = "/mine", capability = "read", resource = "/mine" },"#;
    for more in ["", r#"{ path = "/{rest*}" }"#] {
        let rules = rules(&format!("rules = [{guards}{more}]")).unwrap();
        for path in ["/MCP", "/Mcp", "/FILES/a", "/Files/a/b", "/Mine"] {
            let (reason, message) = asked(&rules, "POST", path, NO_BODY).unwrap_err();
            assert_eq!(reason, Reason::CapabilityNotGranted, "{path}");
            assert!(message.contains("in other letters"), "{path}: {message}");
        }
        // What the operator writes in these very letters is another path.
        assert_eq!(asked(&rules, "POST", "/MINE", NO_BODY), Ok(Meaning::Call));
        assert_eq!(asked(&rules, "GET", "/files/A", NO_BODY), Ok(uses("read", "/data/A")));
    }
}

#[test]
fn a_tool_is_one_segment_of_a_resource() {
    let rules =
        rules(r#"rules = [{ path = "/mcp", rpc = ["tools/call"], capability = "use", resource = "tools/{tool}" }]"#)
            .unwrap();
    let ask = |tool: &str| {
        let params = format!(r#"{{"name":"{tool}"}}"#);
        asked(&rules, "POST", "/mcp", Body::Json(body("tools/call", &params).as_bytes()))
    };
    assert_eq!(ask("a"), Ok(uses("use", "tools/a")));
    assert_eq!(ask("a/b").unwrap_err().0, Reason::RequestMalformed);
}

#[test]
fn an_argument_reaches_over_no_segment() {
    let rules = rules(MCP).unwrap();
    let params = r#"{"name":"query_database","arguments":{"db":"a/b"}}"#;
    let meaning = asked(&rules, "POST", "/mcp", Body::Json(body("tools/call", params).as_bytes()));
    assert_eq!(meaning.unwrap_err().0, Reason::RequestMalformed);
}

#[test]
fn a_rule_that_can_not_be_acted_on_is_an_error_that_says_what_to_write() {
    for (rule, why) in [
        (r#"path = """#, "it does not begin with /"),
        (r#"path = "/a/""#, "can't be a segment"),
        (r#"path = "/a", methods = []"#, "methods is empty"),
        (r#"path = "/a", methods = ["get"]"#, "not an HTTP method"),
        (r#"path = "/a", hosts = ["a:1"]"#, "without a port"),
        (r#"path = "/a", capability = "x""#, "go together"),
        (r#"path = "/a", resource = "x""#, "go together"),
        (r#"path = "/a", capability = "x", resource = "/b/{c}""#, "{c} is not in the path"),
        (r#"path = "/a", capability = "{tool}", resource = "/b""#, "need rpc"),
        (r#"path = "/a", rpc = ["tools/list"], tools = ["x"]"#, "tools needs rpc"),
        (r#"path = "/{a*}", capability = "{a}", resource = "/b""#, "can't be in a capability"),
        (r#"path = "/{a}", capability = "x y", resource = "/b""#, "capability"),
        (r#"path = "/{a}", capability = "x", resource = "/b/""#, "resource"),
        (r#"path = "/{a}", capability = "x", resource = "p-{a}""#, "before the first place"),
    ] {
        let error = rules(&format!("rules = [{{ {rule} }}]")).unwrap_err();
        assert!(error.starts_with("[ext_authz] rules, number 1: ") && error.contains(why), "{rule}: {error}");
    }
    assert!(rules(r#"xfcc_from = ["a b"]"#).unwrap_err().contains("xfcc_from"));
    assert!(toml::from_str::<Config>(r#"rules = [{ path = "/a", tool = "x" }]"#).is_err());
}

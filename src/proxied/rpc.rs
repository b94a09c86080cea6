//! A JSON-RPC 2.0 request in a body, as MCP and A2A send them, read so that no reader sees another in it: no name twice,
//! none that a reader that is lax about case would take for one of these, no batch.

use serde_json::{Map, Value};

use crate::domain::capability::Capability;
use crate::json;

/// Levels of objects and lists in a request.
const LEVELS: usize = 32;
/// A method's name, in bytes.
const METHOD_BYTES: usize = 128;
/// The method of MCP that calls a tool.
pub(super) const CALL_TOOL: &str = "tools/call";

/// A request.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct RpcRequest {
    pub(super) method: String,
    pub(super) params: Map<String, Value>,
    /// Of a call of a tool: its name.
    pub(super) tool: Option<String>,
}

impl RpcRequest {
    /// Reads a request.
    ///
    /// # Errors
    /// What is wrong with it; no part of it is shown.
    pub(super) fn parse(body: &[u8]) -> Result<Self, String> {
        let mut message = json::parse_object(body, LEVELS).map_err(|invalid| invalid.to_string())?;
        if let Some(name) = message.keys().find(|name| !["jsonrpc", "id", "method", "params"].contains(&name.as_str()))
        {
            let is_answer = ["result", "error"].contains(&name.as_str());
            return Err(if is_answer { "it is no request" } else { "it has a name that no request has" }.to_owned());
        }
        if message.get("jsonrpc") != Some(&Value::String("2.0".to_owned())) {
            return Err("it is not JSON-RPC 2.0".to_owned());
        }
        let Some(Value::String(method)) = message.remove("method") else {
            return Err("it has no method".to_owned());
        };
        if method.is_empty() || method.len() > METHOD_BYTES || !method.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("its method is not the name of one".to_owned());
        }
        let params = match message.remove("params") {
            None => Map::new(),
            Some(Value::Object(params)) => params,
            Some(Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_)) => {
                return Err("its params are no object".to_owned());
            }
        };
        let tool = if method == CALL_TOOL { Some(tool(&params)?) } else { None };
        Ok(Self { method, params, tool })
    }

    /// A text argument of the tool's call.
    ///
    /// # Errors
    /// There is none of this name, or one that could be taken for it beside it.
    pub(super) fn argument(&self, name: &str) -> Result<&str, String> {
        let Some(Value::Object(arguments)) = one(&self.params, "arguments")? else {
            return Err("it has no arguments".to_owned());
        };
        match one(arguments, name)? {
            Some(Value::String(text)) => Ok(text),
            _ => Err(format!("its argument {name} is no text")),
        }
    }
}

fn tool(params: &Map<String, Value>) -> Result<String, String> {
    match one(params, "name")? {
        Some(Value::String(name)) if Capability::check(name).is_ok() => Ok(name.clone()),
        _ => Err("it names no tool".to_owned()),
    }
}

/// The value of this name, if no other name is like it.
fn one<'p>(object: &'p Map<String, Value>, name: &str) -> Result<Option<&'p Value>, String> {
    let wanted = folded(name);
    if object.keys().any(|other| other != name && folded(other) == wanted) {
        return Err(format!("it has a name that is {name} but for its case"));
    }
    Ok(object.get(name))
}

/// Without case, as the laxest reader compares: `ſ` is an s, the Kelvin sign a k.
fn folded(name: &str) -> String {
    name.to_lowercase().to_uppercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(body: &str) -> String {
        RpcRequest::parse(body.as_bytes()).unwrap_err()
    }

    #[test]
    fn reads_a_call_of_a_tool_and_its_arguments() {
        let body = br#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"query_database","arguments":{"db":"orders","n":1}}}"#;
        let request = RpcRequest::parse(body).unwrap();
        assert_eq!(request.tool.as_deref(), Some("query_database"));
        assert_eq!(request.argument("db"), Ok("orders"));
        assert!(request.argument("n").is_err());
        assert!(request.argument("other").is_err());
    }

    #[test]
    fn reads_a_message_between_agents() {
        let body = br#"{"jsonrpc":"2.0","id":"a","method":"message/send","params":{"message":{"metadata":{"remit_token":"x"}}}}"#;
        assert_eq!(RpcRequest::parse(body).unwrap().tool, None);
    }

    #[test]
    fn c16_what_two_readers_would_read_differently_denies() {
        for body in [
            r#"{"jsonrpc":"2.0","method":"a","method":"b"}"#,
            r#"{"jsonrpc":"2.0","method":"a","Method":"b"}"#,
            r#"{"jsonrpc":"2.0","method":"tools/call","params":{"name":"a","NAME":"b"}}"#,
            r#"{"jsonrpc":"2.0","method":"tools/call","params":{"name":"a","name":"b"}}"#,
            r#"[{"jsonrpc":"2.0","method":"a"}]"#,
            r#"{"jsonrpc":"2.0","method":"a"} {"jsonrpc":"2.0","method":"b"}"#,
        ] {
            assert!(RpcRequest::parse(body.as_bytes()).is_err(), "{body}");
        }
        let body = r#"{"jsonrpc":"2.0","method":"tools/call","params":{"name":"a","arguments":{"db":"x","DB":"y"},"argumentſ":{}}}"#;
        assert!(RpcRequest::parse(body.as_bytes()).unwrap().argument("db").is_err());
        let body = r#"{"jsonrpc":"2.0","method":"tools/call","params":{"name":"a","arguments":{"db":"x","DB":"y"}}}"#;
        assert!(RpcRequest::parse(body.as_bytes()).unwrap().argument("db").is_err());
    }

    #[test]
    fn what_is_no_request_denies_and_says_why() {
        assert_eq!(error(r#"{"jsonrpc":"2.0","id":1,"result":{}}"#), "it is no request");
        assert_eq!(error(r#"{"jsonrpc":"1.0","method":"a"}"#), "it is not JSON-RPC 2.0");
        assert_eq!(error(r#"{"jsonrpc":"2.0","id":1}"#), "it has no method");
        assert_eq!(error(r#"{"jsonrpc":"2.0","method":"a b"}"#), "its method is not the name of one");
        assert_eq!(error(r#"{"jsonrpc":"2.0","method":"a","params":[1]}"#), "its params are no object");
        assert_eq!(error(r#"{"jsonrpc":"2.0","method":"tools/call"}"#), "it names no tool");
        assert_eq!(error(r#"{"jsonrpc":"2.0","method":"tools/call","params":{"name":"a b"}}"#), "it names no tool");
        assert!(!error(r#"{"secret"#).contains("secret"));
    }
}

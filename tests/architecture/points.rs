//! The contract with Envoy, point by point.

use std::path::Path;

use super::{rust_files, source};

/// What implementers of Envoy's `ext_authz` get wrong, point by point. The names of a point's tests begin with its number:
/// `c01_…` in Rust, `test_c01_…` in `tests/life`.
const POINTS: [&str; 21] = [
    "a status that is not set is code 0, which lets the request pass: status and answer agree",
    "a refusal is never answered with a success",
    "an error or a timeout is no refusal: what can't be decided is refused in an answer",
    "headers replace in both ways of saying so, since unset means to append in some releases",
    "what is ours and not set this time is removed, or the client's stays",
    "the decision is dynamic metadata, in the field that is not deprecated",
    "a refusal has headers of its own alone",
    "names and values are plain and short, and a refusal tells nothing of the policy",
    "a route that is chosen anew, or has the filter off, is not guarded",
    "the principal is the immediate peer's, one SPIFFE ID, without a NUL",
    "an encoded certificate is read as it is written; x-forwarded-client-cert counts from named proxies alone",
    "headers come in two forms, and a security header that is repeated denies",
    "a path that can be read in two ways denies",
    "a host has no case and no port, and pseudo-headers say what the fields say",
    "what a client can forge changes nothing",
    "a body that was cut, compressed or is of another form is unknown, never absent",
    "extensions are the operator's, from enforcement points alone, within their entry",
    "what other filters wrote is not read",
    "failure_mode_allow and its like are named, however they are spelt",
    "over HTTP nothing passes without what the proxy has to set",
    "large messages and many at once are answered, and one that is too large by Envoy as a failure",
];

/// The functions of a file whose name begins so, after `fn ` or `def test_`.
fn tests_of(text: &str, mark: &str, number: &str) -> usize {
    text.matches(&format!("{mark}{number}_")).count()
}

#[test]
fn every_point_of_envoys_contract_has_a_test_by_its_number() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let rust = rust_files(&source()).into_iter().chain(rust_files(&root.join("tests")));
    let mut files = rust.map(|file| ("fn ", std::fs::read_to_string(file).unwrap())).collect::<Vec<_>>();
    for entry in std::fs::read_dir(root.join("tests/life")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "py") {
            files.push(("def test_", std::fs::read_to_string(path).unwrap()));
        }
    }
    for (point, number) in POINTS.iter().zip(1..) {
        let number = format!("c{number:02}");
        let tests = files.iter().map(|(mark, text)| tests_of(text, mark, &number)).sum::<usize>();
        assert!(tests > 0, "{number} has no test: {point}");
    }
}

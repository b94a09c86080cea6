//! The form of a typed identity: one spelling for each, so that equal identities are equal texts.

/// Bytes in a typed identity, at most. A SPIFFE ID has at most 2,048 (SPIFFE-ID §2.3), a DNS name 253.
const IDENTITY_BYTES: usize = 2048;
const TRUST_DOMAIN_BYTES: usize = 255;
const DNS_NAME_BYTES: usize = 253;
const DNS_LABEL_BYTES: usize = 63;

/// The beginnings of typed identities.
pub(super) const KINDS: &str = "`spiffe://…`, `dns:…`, `cn:…`, `jwt:<issuer>#<value>` or `api-key:<id>`";

/// Checks the form of a typed identity.
///
/// # Errors
/// Says what is wrong with the text.
pub(super) fn check(text: &str) -> Result<(), String> {
    if text.len() > IDENTITY_BYTES {
        return Err(format!("it has at most {IDENTITY_BYTES} bytes"));
    }
    if let Some(rest) = text.strip_prefix("spiffe://") {
        return spiffe(rest);
    }
    match text.split_once(':') {
        Some(("dns", name)) => dns(name),
        Some(("cn", name)) => common_name(name),
        Some(("jwt", rest)) => jwt(rest),
        Some(("api-key", id)) => api_key(id),
        _ => Err(format!("it begins with none of {KINDS}")),
    }
}

/// SPIFFE-ID §2: a trust domain and a path, each in one spelling.
fn spiffe(rest: &str) -> Result<(), String> {
    let Some((domain, path)) = rest.split_once('/') else {
        return Err("it names a trust domain and no workload: write spiffe://domain/path".to_owned());
    };
    let of_domain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-._".contains(&byte);
    if domain.is_empty() || domain.len() > TRUST_DOMAIN_BYTES || !domain.bytes().all(of_domain) {
        return Err("a trust domain has 1 to 255 of a-z 0-9 . - _".to_owned());
    }
    let of_path = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    let good = |segment: &str| !matches!(segment, "" | "." | "..") && segment.bytes().all(of_path);
    if !path.split('/').all(good) {
        return Err("a path has segments of a-z A-Z 0-9 . - _, none empty, . or .., and no / at the end".to_owned());
    }
    Ok(())
}

fn dns(name: &str) -> Result<(), String> {
    if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Err(format!("write DNS names in lower case: dns:{}", name.to_ascii_lowercase()));
    }
    let of_label = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_".contains(&byte);
    let good = |label: &str| {
        (1..=DNS_LABEL_BYTES).contains(&label.len())
            && label.bytes().all(of_label)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if name.len() > DNS_NAME_BYTES || !name.split('.').all(good) {
        return Err("a DNS name has labels of a-z 0-9 - _, none empty, and no wildcard".to_owned());
    }
    Ok(())
}

fn common_name(name: &str) -> Result<(), String> {
    let printable = |byte: u8| byte.is_ascii_graphic() || byte == b' ';
    if name.is_empty() || name.trim() != name || !name.bytes().all(printable) {
        return Err("a common name has printable ASCII characters and no space at its ends".to_owned());
    }
    Ok(())
}

/// The first `#` ends the issuer: an issuer is a URL without a fragment (`OpenID` Connect Core §2).
fn jwt(rest: &str) -> Result<(), String> {
    let Some((issuer, value)) = rest.split_once('#') else {
        return Err("between issuer and value stands #: jwt:https://issuer.example#value".to_owned());
    };
    if issuer.is_empty() || !issuer.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("an issuer has printable ASCII characters and no space".to_owned());
    }
    if value.is_empty() || value.chars().any(char::is_control) {
        return Err("the claim's value is empty or has control characters".to_owned());
    }
    Ok(())
}

fn api_key(id: &str) -> Result<(), String> {
    if id.is_empty() || !id.bytes().all(|byte| byte.is_ascii_graphic() && !b"\"'\\".contains(&byte)) {
        return Err("an API key's id has printable ASCII characters without space, quotes and backslash".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::policy_file::diagnostics::cases::{Case, are_shown_at_their_place};

    const BAD: &[Case] = &[
        ("{\"principals\": {«\"agent-a\"»: \"a\"}}", "begins with none of `spiffe://…`", ""),
        ("{\"principals\": {«\"spiffe://prod\"»: \"a\"}}", "names a trust domain and no workload", ""),
        ("{\"principals\": {«\"spiffe://Prod/a\"»: \"a\"}}", "a trust domain has", ""),
        ("{\"principals\": {«\"spiffe://prod/a/../b\"»: \"a\"}}", "a path has segments", ""),
        ("{\"principals\": {«\"dns:A.example\"»: \"a\"}}", "dns:a.example", ""),
        ("{\"principals\": {«\"dns:*.example\"»: \"a\"}}", "no wildcard", ""),
        ("{\"principals\": {«\"cn: a\"»: \"a\"}}", "a common name has", ""),
        ("{\"principals\": {«\"jwt:https://issuer\"»: \"a\"}}", "between issuer and value stands #", ""),
        ("{\"principals\": {«\"jwt:#a\"»: \"a\"}}", "an issuer has", ""),
        ("{\"principals\": {«\"api-key:\"»: \"a\"}}", "an API key's id", ""),
    ];

    #[test]
    fn an_identity_has_one_spelling() {
        are_shown_at_their_place(BAD);
    }
}

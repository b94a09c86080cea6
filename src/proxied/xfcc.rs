//! `x-forwarded-client-cert`, as Envoy writes it: elements by commas, pairs by semicolons, values that have either in quotes.
//! Believed only from a proxy that the configuration names, and only with one element: others could be the client's.

/// The one URI of the one client that the header tells of.
///
/// # Errors
/// There is another number of clients or of URIs, or the header is not of its form.
pub(super) fn uri(header: &str) -> Result<String, &'static str> {
    let mut uris = Vec::new();
    let mut rest = header;
    loop {
        let (name, after) = rest.split_once('=').ok_or("it is not of its form")?;
        // Else an element without a value could hide where the next begins.
        if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Err("it is not of its form");
        }
        let (value, after) = value(after)?;
        if name.eq_ignore_ascii_case("uri") {
            uris.push(value);
        }
        match after.strip_prefix(';') {
            Some(next) => rest = next,
            None if after.is_empty() => break,
            None => {
                return Err(
                    "it tells of several clients: let the proxy before it write the header anew (SANITIZE_SET)",
                );
            }
        }
    }
    match <[String; 1]>::try_from(uris) {
        Ok([uri]) if !uri.is_empty() => Ok(uri),
        _ => Err("it does not have one URI"),
    }
}

/// A value and what comes after it.
fn value(text: &str) -> Result<(String, &str), &'static str> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([';', ',']).unwrap_or(text.len());
        let (value, after) = text.split_at_checked(end).unwrap_or((text, ""));
        return if value.contains('"') { Err("it is not of its form") } else { Ok((value.to_owned(), after)) };
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((place, character)) = characters.next() {
        match character {
            '"' => {
                let after = quoted.get(place.saturating_add(1)..).unwrap_or_default();
                let ends = after.is_empty() || after.starts_with([';', ',']);
                return if ends { Ok((value, after)) } else { Err("it is not of its form") };
            }
            '\\' => value.push(characters.next().ok_or("it is not of its form")?.1),
            other => value.push(other),
        }
    }
    Err("it is not of its form")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c11_one_element_with_one_uri_is_read() {
        for good in [
            "URI=spiffe://a/b",
            "By=spiffe://c/d;Hash=0a;URI=spiffe://a/b",
            r#"By=x;Subject="CN=\"a,b;URI=spiffe://evil/x\"";URI=spiffe://a/b;DNS=y;DNS=z"#,
            r#"uri="spiffe://a/b""#,
        ] {
            assert_eq!(uri(good).as_deref(), Ok("spiffe://a/b"), "{good}");
        }
    }

    #[test]
    fn c11_several_clients_or_uris_or_another_form_deny() {
        for bad in [
            "",
            "URI",
            "URI=",
            "By=x;Hash=0a",
            "URI=spiffe://a/b,URI=spiffe://a/c",
            "By=x,URI=spiffe://a/b",
            "URI=spiffe://a/b;URI=spiffe://a/c",
            r#"URI="spiffe://a/b"#,
            r#"URI="spiffe://a/b"x"#,
            r#"URI=spiffe://a/"b"#,
            "URI=spiffe://a/b;",
            "URI=spiffe://a/b,",
            "URI=spiffe://a/b;junk,By=x;Hash=0a",
            "URI=spiffe://a/b;junk;By=x",
            "URI=spiffe://a/b;=x",
            "URI=spiffe://a/b; By=x",
        ] {
            assert!(uri(bad).is_err(), "{bad}");
        }
    }
}

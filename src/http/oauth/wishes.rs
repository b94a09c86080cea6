//! What a token exchange wishes for: `scope` is capabilities, `resource` and `remit_resource` are resource patterns,
//! `audience` is where the token may be used.

use std::borrow::Cow;
use std::collections::HashSet;

use url::Url;

use super::form::Form;
use super::refusal::{Error, Refusal};
use crate::domain::agent::AgentName;
use crate::domain::capability::Capability;
use crate::domain::chain::Wish;
use crate::domain::limits;
use crate::domain::reason::Reason;
use crate::domain::resource::Pattern;

/// The wish of this form, for this target.
///
/// # Errors
/// `invalid_scope`, `invalid_target` or `invalid_request`, by the first parameter that is missing or not of its form.
pub(super) fn read<'f>(form: &'f Form, to: &'f str) -> Result<Wish<'f>, Refusal> {
    Ok(Wish {
        to,
        capabilities: capabilities(form)?,
        resources: resources(form)?,
        max_uses: number(form, "remit_max_uses")?,
        ttl_seconds: number(form, "remit_ttl_seconds")?.map(u64::from),
        max_depth: None,
        delegatable: flag(form, "remit_delegatable")?,
        audience: audience(form)?,
        task: None,
        on_behalf_of: None,
    })
}

/// `scope` (RFC 6749 §3.3): names with one space between.
fn capabilities(form: &Form) -> Result<Vec<Cow<'_, str>>, Refusal> {
    let refused = |why: String| Refusal::new(Error::InvalidScope, why);
    let scope = form.one("scope");
    let scope =
        scope.ok_or_else(|| refused("scope is missing: name the capabilities; there is no default".to_owned()))?;
    let names = scope.split(' ').map(Cow::Borrowed).collect::<Vec<_>>();
    if names.len() > limits::TOKEN_CAPABILITIES {
        return Err(refused(format!("scope has more than {} capabilities", limits::TOKEN_CAPABILITIES)));
    }
    for name in &names {
        Capability::check(name)
            .map_err(|invalid| refused(format!("scope has a name that is no capability: {invalid}")))?;
    }
    distinct(&names).map_err(|()| refused("scope names a capability twice".to_owned()))?;
    Ok(names)
}

/// `resource` (RFC 8707 §2), and patterns that are no URI.
fn resources(form: &Form) -> Result<Vec<Pattern<'_>>, Refusal> {
    let texts = form.all("resource").map(absolute_uri).chain(form.all("remit_resource").map(Ok));
    let texts = texts.collect::<Result<Vec<_>, _>>()?;
    if texts.is_empty() || texts.len() > limits::TOKEN_PATTERNS {
        let why = format!("1 to {} of resource and remit_resource say what the token is for", limits::TOKEN_PATTERNS);
        return Err(Refusal::new(Error::InvalidTarget, why));
    }
    distinct(&texts).map_err(|()| Refusal::new(Error::InvalidTarget, "a resource stands twice"))?;
    let parse = |text: &'_ str| {
        Pattern::parse(text.to_owned()).map_err(|invalid| {
            let why = format!("a resource is no pattern of resources: {invalid}");
            Refusal::new(Error::InvalidTarget, why).because(Reason::ResourceNotCanonical)
        })
    };
    texts.into_iter().map(parse).collect()
}

fn absolute_uri(text: &str) -> Result<&str, Refusal> {
    let is_good = Url::parse(text).is_ok() && !text.contains('#');
    if is_good {
        return Ok(text);
    }
    let why = "resource is not an absolute URI without a fragment: write other patterns as remit_resource";
    Err(Refusal::new(Error::InvalidTarget, why))
}

fn audience(form: &Form) -> Result<Vec<Cow<'_, str>>, Refusal> {
    let refused = |why: String| Refusal::new(Error::InvalidTarget, why);
    let places = form.all("audience").map(Cow::Borrowed).collect::<Vec<_>>();
    if places.len() > limits::TOKEN_AUDIENCE {
        return Err(refused(format!("at most {} audiences", limits::TOKEN_AUDIENCE)));
    }
    for place in &places {
        AgentName::check(place).map_err(|invalid| refused(format!("an audience is not a name: {invalid}")))?;
    }
    distinct(&places).map_err(|()| refused("an audience stands twice".to_owned()))?;
    Ok(places)
}

fn number(form: &Form, name: &'static str) -> Result<Option<u32>, Refusal> {
    let Some(text) = form.one(name) else { return Ok(None) };
    let digits = text.bytes().all(|byte| byte.is_ascii_digit()) && !text.starts_with('0');
    let number = text.parse().ok().filter(|_| digits);
    number
        .map(Some)
        .ok_or_else(|| Refusal::new(Error::InvalidRequest, format!("{name} is a whole number from 1 to 4294967295")))
}

fn flag(form: &Form, name: &'static str) -> Result<bool, Refusal> {
    match form.one(name) {
        None | Some("false") => Ok(false),
        Some("true") => Ok(true),
        Some(_) => Err(Refusal::new(Error::InvalidRequest, format!("{name} is true or false"))),
    }
}

/// What stands twice is asked twice, for nothing.
fn distinct<T: Eq + std::hash::Hash>(items: &[T]) -> Result<(), ()> {
    let mut seen = HashSet::with_capacity(items.len());
    if items.iter().all(|item| seen.insert(item)) { Ok(()) } else { Err(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Capabilities, resources, audience.
    type Wished = (Vec<String>, Vec<String>, Vec<String>);

    fn wished(text: &str) -> Result<Wished, Error> {
        let form = Form::parse(text.as_bytes()).unwrap();
        let wish = read(&form, "agent").map_err(|refusal| refusal.error())?;
        let texts = |texts: &[Cow<'_, str>]| texts.iter().map(ToString::to_string).collect();
        let resources = wish.resources.iter().map(ToString::to_string).collect();
        Ok((texts(&wish.capabilities), resources, texts(&wish.audience)))
    }

    #[test]
    fn scope_is_capabilities_and_resources_are_patterns() {
        let (capabilities, resources, audience) = wished(
            "scope=get+apply&resource=https://h/a&resource=k8s://prod/*&remit_resource=prod/web&audience=gate&audience=mesh",
        )
        .unwrap();
        assert_eq!(capabilities, ["get", "apply"]);
        assert_eq!(resources, ["https://h/a", "k8s://prod/*", "prod/web"]);
        assert_eq!(audience, ["gate", "mesh"]);
    }

    #[test]
    fn a_scope_has_no_default_no_empty_name_and_nothing_twice() {
        for scope in ["", "scope=get++apply", "scope=+get", "scope=get+get", "scope=a%22b", "scope=a%0Ab"] {
            assert_eq!(wished(&format!("{scope}&remit_resource=x")), Err(Error::InvalidScope), "{scope}");
        }
    }

    #[test]
    fn a_resource_is_an_absolute_uri_without_a_fragment() {
        for resource in [
            "",
            "resource=prod/web",
            "resource=/data/x",
            "resource=*",
            "resource=https://h/a%23f",
            "resource=https://h/a%23",
            "resource=https://h/a?q=1",
            "resource=https://h/../a",
            "resource=https://h/a&resource=https://h/a",
            "remit_resource=/data/rep*",
            "resource=https://h/a&remit_resource=https://h/a",
        ] {
            assert_eq!(wished(&format!("scope=get&{resource}")), Err(Error::InvalidTarget), "{resource}");
        }
    }

    #[test]
    fn numbers_and_flags_have_one_spelling() {
        for bad in [
            "remit_max_uses=0",
            "remit_max_uses=%2B1",
            "remit_ttl_seconds=1.5",
            "remit_ttl_seconds=01",
            "remit_delegatable=yes",
        ] {
            let text = format!("scope=get&remit_resource=x&{bad}");
            assert_eq!(wished(&text), Err(Error::InvalidRequest), "{bad}");
        }
    }
}

//! The page as `OpenMetrics` 1.0.0, for those who ask for it.

use std::borrow::Cow;
use std::fmt::Write as _;

use axum::http::{HeaderMap, header};

pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const MEDIA_TYPE: &str = "application/openmetrics-text";
/// Versions of which this is one, as scrapers write them.
const VERSIONS: [&str; 2] = ["1.0.0", "0.0.1"];
/// A name that ends so is measured in it.
const UNITS: [&str; 2] = ["seconds", "bytes"];

/// Whether the client takes it, and takes the other format no more gladly. One that doesn't say gets the other.
pub(super) fn is_asked_for(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let (mut open, mut plain) = (0_u16, 0_u16);
    for range in values.flat_map(|value| value.split(',')) {
        let mut parts = range.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default();
        let parameter = |key: &str| {
            let found = range.split(';').skip(1).filter_map(|pair| pair.trim().split_once('='));
            found.filter(|(name, _)| name.eq_ignore_ascii_case(key)).map(|(_, value)| value.trim_matches('"')).next()
        };
        let weight = parameter("q").map_or(1000, thousandths);
        if name.eq_ignore_ascii_case(MEDIA_TYPE) && parameter("version").is_none_or(|is| VERSIONS.contains(&is)) {
            open = open.max(weight);
        } else if name.eq_ignore_ascii_case("text/plain") {
            plain = plain.max(weight);
        }
    }
    open > 0 && open >= plain
}

/// A weight (RFC 9110 §12.4.2); what is none counts as the least.
fn thousandths(weight: &str) -> u16 {
    let (whole, fraction) = weight.split_once('.').unwrap_or((weight, ""));
    let digits = format!("{whole}{fraction:0<3}");
    let is_weight = fraction.len() <= 3 && digits.len() == 4;
    digits.parse().ok().filter(|weight| is_weight && *weight <= 1000).unwrap_or_default()
}

/// The same page, from the text of format 0.0.4: counters' families are named without `_total`, units stand by
/// themselves, bounds of buckets are floats, and the end is said.
pub(super) fn from_text(text: &str) -> String {
    let mut out = String::with_capacity(text.len().saturating_add(text.len() / 8));
    let mut counters = "";
    let mut help = ("", "");
    for line in text.lines() {
        let written = if let Some(rest) = line.strip_prefix("# HELP ") {
            help = rest.split_once(' ').unwrap_or((rest, ""));
            Ok(())
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap_or((rest, "unknown"));
            counters = if kind == "counter" { name } else { "" };
            family(&mut out, name.strip_suffix("_total").filter(|_| kind == "counter").unwrap_or(name), kind, help.1)
        } else {
            debug_assert!(counters.is_empty() || line.starts_with(counters), "samples follow on their family");
            writeln!(out, "{}", with_float_bound(line))
        };
        debug_assert!(written.is_ok(), "writing to a string can't fail");
    }
    out.push_str("# EOF\n");
    out
}

fn family(out: &mut String, name: &str, kind: &str, help: &str) -> std::fmt::Result {
    writeln!(out, "# TYPE {name} {kind}")?;
    let has_unit = |unit: &&&str| name.rsplit_once('_').is_some_and(|(_, last)| last == **unit);
    if let Some(unit) = UNITS.iter().find(has_unit) {
        writeln!(out, "# UNIT {name} {unit}")?;
    }
    writeln!(out, "# HELP {name} {}", help.replace('"', "\\\""))
}

/// `le="2"` as `le="2.0"`.
fn with_float_bound(line: &str) -> Cow<'_, str> {
    let Some((before, rest)) = line.split_once("le=\"").filter(|(before, _)| before.ends_with(['{', ','])) else {
        return Cow::Borrowed(line);
    };
    let Some((bound, after)) = rest.split_once('"') else { return Cow::Borrowed(line) };
    if bound.bytes().all(|byte| byte.is_ascii_digit()) {
        Cow::Owned(format!("{before}le=\"{bound}.0\"{after}"))
    } else {
        Cow::Borrowed(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(accept: &[&'static str]) -> bool {
        let mut headers = HeaderMap::new();
        for value in accept {
            headers.append(header::ACCEPT, header::HeaderValue::from_static(value));
        }
        is_asked_for(&headers)
    }

    #[test]
    fn only_who_asks_gets_it() {
        let prometheus = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
            application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        assert!(asked(&[prometheus]));
        assert!(asked(&["application/openmetrics-text"]));
        assert!(asked(&["text/plain;q=0.5", "Application/OpenMetrics-Text; version=\"1.0.0\""]));
        for plain in [
            "",
            "*/*",
            "text/plain",
            "text/html, */*",
            "application/openmetrics-text;q=0",
            "application/openmetrics-text;version=2.0.0",
            "application/openmetrics-text;q=0.1, text/plain;q=0.2",
            "application/openmetrics-text;q=nonsense",
            "application/openmetrics-text;q=1.1",
        ] {
            assert!(!asked(&[plain]), "{plain:?}");
        }
        assert!(!asked(&[]));
    }

    #[test]
    fn families_are_named_and_ended_as_the_format_wants() {
        let text = "# HELP a_total How \"many\".\n# TYPE a_total counter\na_total{b=\"c\"} 1\n\
            # HELP t_seconds Time.\n# TYPE t_seconds histogram\n\
            t_seconds_bucket{verb=\"x\",le=\"0.25\"} 1\nt_seconds_bucket{verb=\"x\",le=\"2\"} 1\n\
            t_seconds_bucket{verb=\"x\",le=\"+Inf\"} 1\nt_seconds_sum{verb=\"x\"} 0.1\nt_seconds_count{verb=\"x\"} 1\n\
            # HELP n_seconds_total Spent.\n# TYPE n_seconds_total counter\nn_seconds_total 2\n";
        let open = "# TYPE a counter\n# HELP a How \\\"many\\\".\na_total{b=\"c\"} 1\n\
            # TYPE t_seconds histogram\n# UNIT t_seconds seconds\n# HELP t_seconds Time.\n\
            t_seconds_bucket{verb=\"x\",le=\"0.25\"} 1\nt_seconds_bucket{verb=\"x\",le=\"2.0\"} 1\n\
            t_seconds_bucket{verb=\"x\",le=\"+Inf\"} 1\nt_seconds_sum{verb=\"x\"} 0.1\nt_seconds_count{verb=\"x\"} 1\n\
            # TYPE n_seconds counter\n# UNIT n_seconds seconds\n# HELP n_seconds Spent.\nn_seconds_total 2\n# EOF\n";
        assert_eq!(from_text(text), open);
    }
}

//! The log: what operators read. Tokens and keys have no way into it. Traces and log records for a collector are
//! sent elsewhere; here is only how.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use tracing_subscriber::EnvFilter;

/// `[telemetry]`.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// What is logged: a level, or filters as `info,policy=debug`.
    pub log: String,
    /// One JSON object a line, or text for people.
    pub format: Format,
    /// The collector to which events are sent, by OTLP over gRPC: `https://…`, or `http://…` on loopback. None by default:
    /// nothing is sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub otlp_endpoint: Option<String>,
    /// A PEM file with the CAs that the collector's certificate comes from. Default: the system's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub otlp_ca: Option<PathBuf>,
    /// A file with headers that go with each request to the collector, a line each, `name: value`; closed to others.
    /// None by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub otlp_headers_file: Option<PathBuf>,
    /// The part of the requests without a trace of their own for which one begins here, 0 to 1. Default 1.
    pub otlp_sample_ratio: f64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            log: "info".to_owned(),
            format: Format::Json,
            otlp_endpoint: None,
            otlp_ca: None,
            otlp_headers_file: None,
            otlp_sample_ratio: 1.0,
        }
    }
}

/// How a line of the log looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// One JSON object.
    #[default]
    Json,
    /// Text.
    Text,
}

/// Why there is no log.
#[derive(Debug)]
pub struct TelemetryError(String);

impl std::fmt::Display for TelemetryError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "[telemetry] log: {}", self.0)
    }
}

impl std::error::Error for TelemetryError {}

/// Begins to log, to standard error: standard output belongs to the audit log where it is `-`.
///
/// # Errors
/// The filter can't be read.
pub fn start(config: &Config) -> Result<(), TelemetryError> {
    let filter = EnvFilter::try_new(&config.log).map_err(|error| TelemetryError(error.to_string()))?;
    let is_terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(is_terminal);
    let started = match config.format {
        Format::Json => builder.json().flatten_event(true).with_current_span(false).try_init(),
        Format::Text => builder.with_target(false).try_init(),
    };
    // A second start in one process, as tests do, keeps the first.
    let _ = started;
    Ok(())
}

//! The log: what operators read. Tokens and keys have no way into it.

use serde::{Deserialize, Serialize};
use tracing_subscriber::EnvFilter;

/// `[telemetry]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// What is logged: a level, or filters as `info,policy=debug`.
    pub log: String,
    /// One JSON object a line, or text for people.
    pub format: Format,
}

impl Default for Config {
    fn default() -> Self {
        Self { log: "info".to_owned(), format: Format::Json }
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

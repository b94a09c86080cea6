//! `remit agent-card`: say in an A2A `AgentCard` how callers authenticate.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Value, json};

use super::output::{self, Answer, Output};
use super::{CliError, Outcome, warn};
use crate::agent_card::{self, Evidence, Filled, Offer, Shape};
use crate::config::{Config, Sources};
use crate::identity::API_KEY_HEADER;
use crate::identity::jwt::{self, Discovery};

/// The file that is read when none is named.
const CONFIG: &str = "remit.toml";

/// Where a provider describes itself (`OpenID` Connect Discovery §4.1).
const WELL_KNOWN: &str = "/.well-known/openid-configuration";

/// Fill the security part of an A2A agent card from the configuration.
#[derive(Args)]
#[command(
    after_help = "Examples:\n  remit agent-card --in card.json --config remit.toml\n  remit agent-card --in card.json --out .well-known/agent-card.json\n  remit agent-card --in card.json --a2a 0.3\n\nSchemes: a client certificate, each issuer of JWTs that names agents, API keys where a file of them is configured.\nSchemes of other names stay, the card's requirements are replaced, everything else stays as it is."
)]
pub(super) struct AgentCard {
    /// The card, in the shape of A2A 1.0 or 0.3 (`-`: standard input)
    #[arg(long = "in", value_name = "FILE")]
    input: PathBuf,
    /// Write the card to this file, new or not [default: standard output]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// The configuration [default: remit.toml, if there is one]; variables REMIT_<SECTION>_<KEY> count as in serve
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// A setting that counts before all others; may be repeated
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE")]
    settings: Vec<String>,
    /// The version of A2A that the card is written in
    #[arg(long, value_enum, default_value_t = Version::V1, value_name = "VERSION")]
    a2a: Version,
}

/// Versions of A2A.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Version {
    #[value(name = "1.0")]
    V1,
    #[value(name = "0.3")]
    V03,
}

impl AgentCard {
    pub(super) fn run(self, output: Output) -> Result<Outcome, CliError> {
        let (config, mut warnings) = Config::read(&self.sources(Sources::of_process()))?;
        let text = read(&self.input)?;
        let (offer, about_offer) = offer(&config);
        warnings.extend(about_offer);
        let shape = match self.a2a {
            Version::V1 => Shape::V1,
            Version::V03 => Shape::V03,
        };
        let Filled { card, schemes, warnings: about } = agent_card::fill(&text, &offer, shape)
            .map_err(|error| CliError::new(format!("the card {} is not usable", self.input.display()), error))?;
        warnings.extend(about);
        warn(&warnings);
        let card = Value::Object(card);
        let Some(path) = self.out else {
            let card = match output {
                Output::Text => format!("{card:#}"),
                Output::Json => card.to_string(),
            };
            output::say(&card)?;
            return Ok(Outcome::Done);
        };
        let unwritable = |error| CliError::new(format!("{} can't be written", path.display()), error);
        std::fs::write(&path, format!("{card:#}\n")).map_err(unwritable)?;
        let rows = vec![("schemes", schemes.join(", "))];
        let title = Some(format!("wrote {}", path.display()));
        Answer { title, rows, json: json!({"file": path.display().to_string(), "schemes": schemes}) }.print(output)?;
        Ok(Outcome::Done)
    }

    fn sources(&self, process: Sources) -> Sources {
        let usual = || Some(PathBuf::from(CONFIG)).filter(|path| path.exists());
        Sources { file: self.config.clone().or_else(usual), flags: self.settings.clone(), ..process }
    }
}

/// What the service takes as evidence under this configuration, and what its owner should know about that.
fn offer(config: &Config) -> (Offer, Vec<String>) {
    let identity = &config.identity;
    let (namers, others): (Vec<_>, Vec<_>) = identity.jwt.iter().partition(|issuer| issuer.agent_claim.is_some());
    let left_out = others.into_iter().map(|jwt::Config { issuer, .. }| {
        format!("{issuer} is left out: without an agent_claim its JWTs name users, and no caller")
    });
    let elsewhere = namers.iter().filter_map(|jwt::Config { issuer, discovery, .. }| match discovery {
        Some(Discovery::Url(url)) => Some(format!("for {issuer} the card names {url}: can callers reach that?")),
        Some(Discovery::Standard(_)) | None => None,
    });
    let warnings = left_out.chain(elsewhere).collect();
    let api_key = identity.api_keys_file.as_ref().map(|_| Evidence::ApiKey { header: API_KEY_HEADER.to_owned() });
    let evidence =
        [Evidence::ClientCertificate].into_iter().chain(namers.into_iter().map(by_jwt)).chain(api_key).collect();
    (Offer { is_certificate_required: config.requires_client_certificate(), evidence }, warnings)
}

fn by_jwt(config: &jwt::Config) -> Evidence {
    let jwt::Config { issuer, audience, discovery, .. } = config;
    let description = format!("a JWT of {issuer} for {}", audience.0.join(" or "));
    match discovery {
        Some(Discovery::Url(url)) => Evidence::OpenIdConnect { discovery: url.clone(), description },
        Some(Discovery::Standard(true)) => {
            Evidence::OpenIdConnect { discovery: format!("{}{WELL_KNOWN}", issuer.trim_end_matches('/')), description }
        }
        Some(Discovery::Standard(false)) | None => Evidence::BearerJwt { description },
    }
}

fn read(path: &Path) -> Result<Vec<u8>, CliError> {
    let unreadable = |error: io::Error| CliError::new(format!("the card {} can't be read", path.display()), error);
    let mut text = Vec::new();
    let most = agent_card::MOST_BYTES.saturating_add(1);
    if path == Path::new("-") {
        io::stdin().lock().take(most).read_to_end(&mut text)
    } else {
        File::open(path).and_then(|file| file.take(most).read_to_end(&mut text))
    }
    .map_err(unreadable)?;
    if u64::try_from(text.len()).is_ok_and(|length| length > agent_card::MOST_BYTES) {
        return Err(CliError(format!("the card {} has more than {} bytes", path.display(), agent_card::MOST_BYTES)));
    }
    Ok(text)
}

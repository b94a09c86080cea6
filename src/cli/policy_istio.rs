//! `remit policy export-istio` and `import-istio`: communication rules as Istio's objects, and back.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use super::output::{self, Output};
use super::{CliError, Outcome, warn};
use crate::config::{Config, Sources};
use crate::digest::sha256_hex;
use crate::identity::{self, spiffe::Template};
use crate::istio::{self, Imported, Names, Target};
use crate::policy_file::{ExtraRoles, LoadError, PolicyFile};

/// The file that is read when none is named.
const CONFIG: &str = "remit.toml";

/// Where the templates of SPIFFE IDs come from.
#[derive(Args)]
struct Templates {
    /// The configuration with the SPIFFE templates [default: remit.toml, if there is one, else the default template]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Write the `AuthorizationPolicy` objects that say the same as `communication_rules`, and what they need.
#[derive(Args)]
#[command(
    after_help = "Example:\n  remit policy export-istio policy.json --namespace ai-agents | kubectl apply -f -\n\nThe objects deny by default, ask Remit, and demand mTLS. What Istio can't say is left out, named, and the exit status is 1."
)]
pub(super) struct Export {
    /// The policy file
    file: PathBuf,
    /// The namespace of the agents
    #[arg(long, default_value = "ai-agents")]
    namespace: String,
    /// The provider in Istio's mesh configuration that is Remit
    #[arg(long, default_value = "remit")]
    provider: String,
    #[command(flatten)]
    templates: Templates,
}

/// Read `AuthorizationPolicy` objects, and write the `communication_rules` that say the same.
#[derive(Args)]
#[command(
    after_help = "Example:\n  kubectl -n ai-agents get authorizationpolicies -o yaml | remit policy import-istio -\n\nWhat rules can't say is left out, named, and the exit status is 1."
)]
pub(super) struct Import {
    /// Files with objects in YAML or JSON (`-`: standard input)
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// The policy file whose `principals` name agents too
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// The provider in Istio's mesh configuration that is Remit
    #[arg(long, default_value = "remit")]
    provider: String,
    #[command(flatten)]
    templates: Templates,
}

impl Export {
    pub(super) fn run(self, output: Output) -> Result<Outcome, CliError> {
        let templates = self.templates.read()?;
        let policy = load(self.file)?;
        let names = Names { templates: &templates, principals: &policy.principals };
        let target = Target { namespace: &self.namespace, provider: &self.provider };
        let exported = istio::export(policy.communication_rules.as_deref(), &names, target);
        if policy.communication_rules.is_none() {
            warn(
                &["the policy has no communication_rules: Istio asks Remit, and refuses nothing by itself".to_owned()],
            );
        }
        match output {
            Output::Json => {
                let list = json!({"apiVersion": "v1", "kind": "List", "items": exported.objects});
                output::say(&list.to_string())?;
            }
            Output::Text => {
                let text = istio::write(&exported.objects).map_err(|error| CliError(error.to_string()))?;
                output::say(text.trim_end())?;
            }
        }
        Ok(named("Istio", &exported.unsaid))
    }
}

impl Import {
    pub(super) fn run(self, output: Output) -> Result<Outcome, CliError> {
        let templates = self.templates.read()?;
        let principals = self.policy.map(load).transpose()?.map(|policy| policy.principals).unwrap_or_default();
        let mut objects = Vec::new();
        for file in &self.files {
            let unusable = |error: istio::NotObjects| CliError::new(file.display(), error);
            objects.extend(istio::read(&read(file)?).map_err(unusable)?);
        }
        let names = Names { templates: &templates, principals: &principals };
        let imported: Imported = istio::import(&objects, &names, &self.provider);
        let rules = imported.to_json();
        output::say(&match output {
            Output::Json => rules.to_string(),
            Output::Text => format!("{rules:#}"),
        })?;
        Ok(named("communication_rules", &imported.unsaid))
    }
}

impl Templates {
    fn read(&self) -> Result<Vec<Template>, CliError> {
        let usual = || Some(PathBuf::from(CONFIG)).filter(|path| path.exists());
        let file = self.config.clone().or_else(usual);
        let identity = if file.is_some() {
            let (config, warnings) = Config::read(&Sources { file, ..Sources::of_process() })?;
            warn(&warnings);
            config.identity
        } else {
            identity::Config::default()
        };
        let templates = identity.spiffe_templates.iter().map(|text| Template::spiffe(text));
        templates.collect::<Result<_, _>>().map_err(|error| CliError::new("[identity] spiffe_templates", error))
    }
}

fn load(file: PathBuf) -> Result<crate::domain::policy::Policy, CliError> {
    let loaded = PolicyFile::new(file, ExtraRoles::default(), sha256_hex).load(1);
    loaded.map(|compiled| compiled.policy).map_err(|error| match error {
        LoadError::Policy(error) => CliError(error.to_string()),
        LoadError::Read(error) => CliError(error.to_string()),
    })
}

fn read(file: &Path) -> Result<String, CliError> {
    let unreadable = |error| CliError::new(file.display(), error);
    if file != Path::new("-") {
        return std::fs::read_to_string(file).map_err(unreadable);
    }
    let mut text = String::new();
    std::io::stdin().lock().read_to_string(&mut text).map_err(unreadable)?;
    Ok(text)
}

/// Names what is left out. A part that is missing must not go unnoticed where a program reads only the exit status.
fn named(by: &str, unsaid: &[String]) -> Outcome {
    for what in unsaid {
        output::complain(&format!("{by} can't say: {what}"));
    }
    if unsaid.is_empty() { Outcome::Done } else { Outcome::Denied }
}

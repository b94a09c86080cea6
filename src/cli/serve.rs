//! `remit serve`: be the service.

mod greeting;

use std::path::PathBuf;

use clap::Args;
use tokio_util::sync::CancellationToken;

use super::{CliError, Outcome, keygen, output, warn};
use crate::config::{Config, ConfigError, Sources};
use crate::dev_folder::{self, DevFolder, Ports};
use crate::engine::clock::Clock;
use crate::server;

/// The file that is read when none is named.
const CONFIG: &str = "remit.toml";

/// Run the service.
#[derive(Args)]
#[command(
    after_help = "Examples:\n  remit serve --dev                  # needs nothing, on this machine alone, not for production\n  remit serve --config remit.toml\n  REMIT_GRPC_LISTEN=0.0.0.0:7443 remit serve --config remit.toml --print-config\n\nSettings come from the file, then from variables REMIT_<SECTION>_<KEY>, then from --set; the later ones count."
)]
pub(super) struct Serve {
    /// The configuration [default: remit.toml, if there is one; with --dev the dev folder's]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Make whatever is missing (CA, certificates, key, policy) in a folder, listen on loopback, believe names. Not for
    /// production
    #[arg(long)]
    dev: bool,
    /// The folder of --dev
    #[arg(long, value_name = "DIR", default_value = dev_folder::DEFAULT)]
    dev_dir: PathBuf,
    /// A setting that counts before all others; may be repeated
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE")]
    settings: Vec<String>,
    /// Show the configuration in force, and end
    #[arg(long)]
    print_config: bool,
}

/// All that is known before the service starts.
struct Prepared {
    config: Config,
    /// The folder that the configuration is of, if it is one that `--dev` made.
    folder: Option<DevFolder>,
    warnings: Vec<String>,
}

impl Serve {
    pub(super) fn run(self) -> Result<Outcome, CliError> {
        if self.print_config {
            let (config, warnings) = Config::read(&self.sources(Sources::of_process()))?;
            warn(&warnings);
            output::say(config.to_toml()?.trim_end())?;
            return Ok(Outcome::Done);
        }
        if self.dev {
            output::say(greeting::WARNING)?;
        }
        let Prepared { config, folder, warnings } = self.prepare(Sources::of_process())?;
        warn(&warnings);
        let is_dev = self.dev;
        let ready = move |ports: server::Ports| {
            let Some(folder) = folder else { return };
            tell_ports(&folder, ports);
            if is_dev {
                // The service works whether or not somebody reads this.
                let _ = output::say(&greeting::greeting(&folder, ports));
            }
        };
        let launch = server::Launch { config, is_dev, on_ready: Box::new(ready) };
        server::run(launch, CancellationToken::new()).map_err(|error| CliError(error.to_string()))?;
        Ok(Outcome::Done)
    }

    fn prepare(&self, process: Sources) -> Result<Prepared, CliError> {
        if !self.dev {
            let sources = self.sources(process);
            let (config, warnings) = Config::read(&sources)?;
            let folder = sources.file.as_deref().and_then(DevFolder::around);
            return Ok(Prepared { config, folder, warnings });
        }
        let failed = |error| CliError::new("the dev folder can't be laid out", error);
        let now = Clock::system().now();
        let folder = DevFolder::lay_out(&self.dev_dir, keygen::new_key, now).map_err(failed)?;
        let (config, mut warnings) = Config::read(&self.sources(process))?;
        warnings.extend(folder.certify_agents(&config, now).map_err(failed)?);
        Ok(Prepared { config, folder: Some(folder), warnings })
    }

    fn sources(&self, process: Sources) -> Sources {
        let usual = if self.dev { self.dev_dir.join(CONFIG) } else { PathBuf::from(CONFIG) };
        let file = self.config.clone().or_else(|| usual.exists().then_some(usual));
        let dev = self.dev.then(|| DevFolder::defaults_in(&self.dev_dir));
        Sources { dev, file, flags: self.settings.clone(), ..process }
    }
}

impl From<ConfigError> for CliError {
    fn from(error: ConfigError) -> Self {
        Self(error.to_string())
    }
}

fn tell_ports(folder: &DevFolder, ports: server::Ports) {
    let ports = Ports { grpc: ports.grpc.port(), http: ports.http.port(), admin: ports.admin.port() };
    if let Err(error) = ports.write(folder.path()) {
        output::complain(&format!("warning: {} can't be written: {error}", folder.file("ports.json").display()));
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn serve(dev_dir: &Path, settings: &[&str]) -> Serve {
        let settings = settings.iter().map(|setting| (*setting).to_owned()).collect();
        Serve { config: None, dev: true, dev_dir: dev_dir.to_owned(), settings, print_config: false }
    }

    #[test]
    fn dev_needs_nothing_and_its_file_says_the_same() {
        let place = tempfile::tempdir().unwrap();
        let dev = place.path().join("dev");
        let prepared = serve(&dev, &[]).prepare(Sources::default()).unwrap();
        assert!(prepared.warnings.is_empty());
        assert!(dev.join("agents/agent-deployer.pem").exists() && dev.join("agents/ops-admin.key").exists());
        let by_file = Serve { dev: false, config: Some(dev.join("remit.toml")), ..serve(&dev, &[]) };
        let by_file = by_file.prepare(Sources::default()).unwrap();
        assert_eq!(by_file.config, prepared.config);
        assert_eq!(by_file.folder, prepared.folder);
    }

    #[test]
    fn dev_takes_what_its_file_and_the_flags_say() {
        let place = tempfile::tempdir().unwrap();
        let text = "[grpc]\nlisten = \"127.0.0.1:0\"\n";
        std::fs::write(place.path().join("remit.toml"), text).unwrap();
        let prepared = serve(place.path(), &["http.listen=127.0.0.1:0"]).prepare(Sources::default()).unwrap();
        assert_eq!((prepared.config.grpc.listen.port(), prepared.config.http.listen.port()), (0, 0));
        assert_eq!(prepared.config.admin.listen.port(), 7444);
        assert_eq!(std::fs::read_to_string(place.path().join("remit.toml")).unwrap(), text);
        let error = serve(place.path(), &["grpc.listen=0.0.0.0:1"]).prepare(Sources::default()).err().unwrap();
        assert!(error.to_string().contains("loopback"), "{error}");
    }
}

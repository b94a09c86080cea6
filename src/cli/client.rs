//! The connection of a client command: where to, and as whom.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use zeroize::Zeroizing;

use super::refusal::causes;
use super::{CliError, Outcome};
use crate::api::admin_service_client::AdminServiceClient;
use crate::api::policy_decision_service_client::PolicyDecisionServiceClient;
use crate::dev_folder::{self, Ports};

/// A service that is there takes a connection at once.
const CONNECT: Duration = Duration::from_secs(5);
/// The service answers within 2 seconds or says that it can't.
const ANSWER: Duration = Duration::from_secs(10);
/// A silent connection is asked whether it is still there.
const KEEPALIVE: Duration = Duration::from_secs(20);

/// Where to connect, and as whom.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Connection")]
pub(super) struct ClientArgs {
    /// Address and port [default: what ports.json in the dev folder says, else 127.0.0.1:7443; admin: 7444]
    #[arg(long, value_name = "HOST:PORT")]
    server: Option<String>,
    /// The CA that issued the server's certificate [default: the dev folder's]
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// The client's certificate
    #[arg(long, value_name = "FILE", requires = "key")]
    cert: Option<PathBuf>,
    /// The private key of that certificate
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
    /// Be this agent, with its certificate from the dev folder
    #[arg(long = "as", value_name = "AGENT", conflicts_with_all = ["cert", "key"])]
    acting_as: Option<String>,
    /// The folder that `remit serve --dev` made
    #[arg(long, value_name = "DIR", default_value = dev_folder::DEFAULT)]
    dev_dir: PathBuf,
    /// The name that the server's certificate is for
    #[arg(long, value_name = "NAME", default_value = "localhost")]
    server_name: String,
}

/// Which listener.
#[derive(Clone, Copy)]
enum Listener {
    Grpc,
    Admin,
}

/// Runs a command that waits for answers.
pub(super) fn wait(command: impl Future<Output = Result<Outcome, CliError>>) -> Result<Outcome, CliError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| CliError::new("the runtime can't be started", error))?;
    runtime.block_on(command)
}

impl ClientArgs {
    /// A client of the decision service.
    ///
    /// # Errors
    /// There is no identity, or no connection: what to check stands in the text.
    pub(super) async fn decisions(&self) -> Result<PolicyDecisionServiceClient<Channel>, CliError> {
        Ok(PolicyDecisionServiceClient::new(self.connect(Listener::Grpc).await?))
    }

    /// A client of the admin service.
    ///
    /// # Errors
    /// As [`ClientArgs::decisions`].
    pub(super) async fn admin(&self) -> Result<AdminServiceClient<Channel>, CliError> {
        Ok(AdminServiceClient::new(self.connect(Listener::Admin).await?))
    }

    async fn connect(&self, listener: Listener) -> Result<Channel, CliError> {
        let ca = self.ca.clone().unwrap_or_else(|| self.dev_dir.join("ca.pem"));
        let trusted = Certificate::from_pem(read(&ca, "the CA")?.as_slice());
        let tls = ClientTlsConfig::new()
            .domain_name(self.server_name.clone())
            .ca_certificate(trusted)
            .identity(self.identity()?)
            .timeout(CONNECT);
        let server = self.address(listener);
        let unusable =
            |error: tonic::transport::Error| CliError::new(format!("{server} can't be connected to"), causes(&error));
        let endpoint = Endpoint::from_shared(format!("https://{server}"))
            .map_err(unusable)?
            .connect_timeout(CONNECT)
            .timeout(ANSWER)
            .http2_keep_alive_interval(KEEPALIVE)
            .tls_config(tls)
            .map_err(unusable)?;
        endpoint.connect().await.map_err(|error| unconnected(&server, &ca, &self.server_name, &error))
    }

    fn address(&self, listener: Listener) -> String {
        if let Some(server) = &self.server {
            return server.trim_start_matches("https://").trim_end_matches('/').to_owned();
        }
        let port = match (listener, Ports::read(&self.dev_dir)) {
            (Listener::Grpc, Some(ports)) => ports.grpc,
            (Listener::Grpc, None) => 7443,
            (Listener::Admin, Some(ports)) => ports.admin,
            (Listener::Admin, None) => 7444,
        };
        format!("127.0.0.1:{port}")
    }

    fn identity(&self) -> Result<Identity, CliError> {
        let (certificate, key) = match (&self.acting_as, &self.cert, &self.key) {
            (Some(agent), _, _) => self.agent_files(agent)?,
            (None, Some(certificate), Some(key)) => (certificate.clone(), key.clone()),
            _ => {
                return Err(CliError(
                    "say who is asking: --as AGENT takes the agent's certificate from the dev folder, --cert and --key name one"
                        .to_owned(),
                ));
            }
        };
        let certificate = read(&certificate, "the certificate")?;
        let key = read(&key, "the key")?;
        Ok(Identity::from_pem(certificate.as_slice(), key.as_slice()))
    }

    fn agent_files(&self, agent: &str) -> Result<(PathBuf, PathBuf), CliError> {
        let agents = self.dev_dir.join("agents");
        let at = |end: &str| agents.join(format!("{agent}.{end}"));
        let (certificate, key) = (at("pem"), at("key"));
        if !agent.contains('/') && certificate.exists() {
            return Ok((certificate, key));
        }
        let known = certified(&agents);
        let there = if known.is_empty() {
            format!(
                "there are no agents in {}: start `remit serve --dev` first, or name its folder with --dev-dir",
                agents.display()
            )
        } else {
            format!("{} has {}", agents.display(), known.join(", "))
        };
        Err(CliError(format!("there is no certificate for {agent}; {there}")))
    }
}

/// The agents that have a certificate.
fn certified(agents: &Path) -> Vec<String> {
    let name = |entry: std::fs::DirEntry| Some(entry.file_name().to_str()?.strip_suffix(".pem")?.to_owned());
    let mut names: Vec<String> =
        std::fs::read_dir(agents).into_iter().flatten().filter_map(|entry| name(entry.ok()?)).collect();
    names.sort_unstable();
    names
}

fn read(path: &Path, what: &str) -> Result<Zeroizing<Vec<u8>>, CliError> {
    let unreadable = |error| CliError::new(format!("{what} {} can't be read", path.display()), error);
    std::fs::read(path).map(Zeroizing::new).map_err(unreadable)
}

/// Why there is no connection, and what to check.
fn unconnected(server: &str, ca: &Path, name: &str, error: &tonic::transport::Error) -> CliError {
    let why = causes(error);
    let check = if why.contains("UnknownIssuer") || why.contains("BadSignature") {
        format!("its certificate is not from the CA {}: name the CA that issued it with --ca", ca.display())
    } else if why.contains("not valid for name") || why.contains("NotValidForName") {
        format!("its certificate is not for {name}: name what it is for with --server-name")
    } else if why.contains("Expired") {
        "its certificate has expired".to_owned()
    } else {
        "is Remit running there? `remit serve --dev` starts one, --server says where".to_owned()
    };
    CliError(format!("{server} can't be connected to: {why}\n{check}"))
}

//! The program itself, from its start to its first answer.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::fixture::{median, now};

const STARTS: usize = 7;
const PATIENCE: Duration = Duration::from_secs(20);
/// After which nothing of the start is going on any more.
const IDLE: Duration = Duration::from_secs(1);

pub(crate) fn rows(dir: &Path) {
    let folder = dir.join("dev");
    // The first start makes keys and certificates.
    Program::start(&folder).until_ready();
    let (mut starts, mut memory) = (Vec::new(), Vec::new());
    for _ in 0..STARTS {
        let program = Program::start(&folder);
        starts.push(program.until_ready());
        std::thread::sleep(IDLE);
        memory.push(program.resident_megabytes());
    }
    println!("P12 start to first answer      {:>9.3} s (goal: 0.5; median of {STARTS})", median(starts));
    println!("P12 memory when idle           {:>9.1} MB (goal: 30)", median(memory));
}

/// `remit serve --dev`, which ends with this.
struct Program {
    process: Child,
    ports: std::path::PathBuf,
    began: std::time::Instant,
}

impl Program {
    fn start(folder: &Path) -> Self {
        let ports = folder.join("ports.json");
        // It may be the first start.
        let _ = std::fs::remove_file(&ports);
        let began = now();
        let process = Command::new(env!("CARGO_BIN_EXE_remit"))
            .args(["serve", "--dev", "--dev-dir"])
            .arg(folder)
            .envs(["GRPC", "HTTP", "ADMIN"].map(|name| (format!("REMIT_{name}_LISTEN"), "127.0.0.1:0")))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self { process, ports, began }
    }

    /// Seconds from its start until it says that it is ready.
    fn until_ready(&self) -> f64 {
        while !self.is_ready().unwrap_or_default() {
            assert!(self.began.elapsed() < PATIENCE, "it is not ready");
            std::thread::sleep(Duration::from_millis(1));
        }
        self.began.elapsed().as_secs_f64()
    }

    fn is_ready(&self) -> Option<bool> {
        let ports = serde_json::from_slice::<serde_json::Value>(&std::fs::read(&self.ports).ok()?).ok()?;
        let port = u16::try_from(ports.get("http")?.as_u64()?).ok()?;
        let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
        stream.write_all(b"GET /readyz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(answer.starts_with("HTTP/1.1 200"))
    }

    fn resident_megabytes(&self) -> f64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap();
        let kilobytes = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        kilobytes.trim().trim_end_matches(" kB").parse::<f64>().unwrap() / 1000.0
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended by itself; there is nothing left to do then.
        let _ = (self.process.kill(), self.process.wait());
    }
}

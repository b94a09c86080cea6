//! Runs a test of this program under callgrind.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The function that is counted, with all that it calls. Its name is how callgrind knows it: it is to be alone with it.
#[inline(never)]
pub(crate) fn remit_counts_this(work: &mut dyn FnMut()) {
    work();
    // Not the last call: that one would take this function's place.
    std::hint::black_box(());
}

/// The program, and where its parts are if it is not installed.
pub(crate) struct Callgrind {
    program: PathBuf,
    parts: Option<PathBuf>,
}

impl Callgrind {
    /// The machine's own, or what `tests/life/setup` unpacked.
    pub(crate) fn find() -> Option<Self> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let installed = std::env::split_paths(&path).map(|folder| folder.join("valgrind")).find(|file| file.exists());
        if let Some(program) = installed {
            return Some(Self { program, parts: None });
        }
        let unpacked = Path::new(env!("CARGO_MANIFEST_DIR")).join(".cache/valgrind/usr");
        let program = unpacked.join("bin/valgrind");
        program.exists().then(|| Self { program, parts: Some(unpacked.join("libexec/valgrind")) })
    }

    /// Whether this machine has the instructions that the figures were made with: base64 and memory copies have several
    /// ways, and take the best.
    pub(crate) fn is_usual() -> bool {
        cfg!(target_arch = "x86_64")
            && std::fs::read_to_string("/proc/cpuinfo").is_ok_and(|text| text.contains(" avx2 "))
    }

    /// Instructions in [`remit_counts_this`] of this test, which is an ignored one.
    pub(crate) fn count(&self, test: &str, (name, value): (&str, &str)) -> u64 {
        let mut command = Command::new(&self.program);
        command.args(["--tool=callgrind", "--callgrind-out-file=/dev/null", "--read-inline-info=no"]);
        command.arg("--toggle-collect=*remit_counts_this*");
        command.arg(std::env::current_exe().unwrap()).args(["--exact", test, "--ignored"]).env(name, value);
        if let Some(parts) = &self.parts {
            command.env("VALGRIND_LIB", parts);
        }
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{value}: {said}{}", String::from_utf8_lossy(&output.stdout));
        let collected = said.lines().find_map(|line| line.split_once("Collected :")).map(|(_, figure)| figure.trim());
        let counted = collected.and_then(|figure| figure.parse().ok()).unwrap_or_default();
        assert!(counted > 0, "{value}: callgrind counted nothing: {said}");
        counted
    }
}

/// `rustc 1.95.0`.
pub(crate) fn compiler() -> String {
    let output = Command::new("rustc").arg("--version").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.split(" (").next().unwrap_or_default().trim().to_owned()
}

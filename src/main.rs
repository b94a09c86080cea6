//! Arguments, command, exit code.

use std::process::ExitCode;

/// Requests make many small allocations on many threads at once.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    remit::cli::run(std::env::args_os())
}

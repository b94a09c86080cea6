//! What one operation costs in instructions, counted by callgrind and held to the budgets in `cost/budgets.toml`.
//!
//! Times move with the machine; instructions don't. Each piece of work runs in a process of its own under callgrind, which
//! counts one thread and one function: neither the start nor the recorder is in the figure.
//!
//! `cargo test --test cost` counts the build that tests run on, `cargo test --release --test cost` the one that answers.
//! With `REMIT_COST=write` the figures become the budgets.

#[cfg(test)]
#[expect(dead_code, reason = "each test crate uses its own part")]
mod harness;

#[cfg(test)]
#[path = "cost/callgrind.rs"]
mod callgrind;

#[cfg(test)]
#[path = "cost/work.rs"]
mod work;

/// The program's own: what it asks for is counted with it.
#[cfg(test)]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::PathBuf;

    use serde::{Deserialize, Serialize};

    use crate::callgrind::{Callgrind, compiler};
    use crate::work::{TIMES, WORK, of_name};

    /// Names the work to the process that callgrind runs.
    const NAME: &str = "REMIT_COST_OF";
    const BUILD: &str = if cfg!(debug_assertions) { "debug" } else { "release" };

    /// `cost/budgets.toml`.
    #[derive(Deserialize, Serialize)]
    struct Budgets {
        /// More than this above its budget is a failure.
        margin_percent: u64,
        /// With which the figures were made: another makes others.
        compiler: String,
        /// Instructions of one operation.
        debug: BTreeMap<String, u64>,
        release: BTreeMap<String, u64>,
    }

    impl Budgets {
        fn file() -> PathBuf {
            PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/cost/budgets.toml")
        }

        fn read() -> Self {
            toml::from_str(&std::fs::read_to_string(Self::file()).unwrap()).unwrap()
        }

        fn of_build(&mut self) -> &mut BTreeMap<String, u64> {
            if BUILD == "debug" { &mut self.debug } else { &mut self.release }
        }
    }

    #[test]
    fn no_operation_costs_more_than_its_budget() {
        let Some(callgrind) = Callgrind::find() else {
            let is_ci = std::env::var("CI").is_ok_and(|word| word == "true");
            assert!(!is_ci, "in CI every test has to run: there is no valgrind");
            println!("nothing is counted: there is no valgrind (tests/life/setup installs it)");
            return;
        };
        let mut budgets = Budgets::read();
        let (margin, is_same) = (budgets.margin_percent, budgets.compiler == compiler());
        let budget = budgets.of_build();
        let mut beyond = Vec::new();
        for (name, _) in WORK {
            let cost = callgrind.count("tests::is_counted", (NAME, name)) / TIMES;
            let before = budget.insert((*name).to_owned(), cost).unwrap_or_default();
            println!("{BUILD} {name:<18} {cost:>8} instructions, budget {before:>8}");
            // What has no budget yet is only told.
            if before > 0 && cost > before * (100 + margin) / 100 {
                beyond.push(format!("{name}: {cost} instructions, budget {before}"));
            }
        }
        if std::env::var("REMIT_COST").is_ok_and(|word| word == "write") {
            budgets.compiler = compiler();
            let head = "# Written by `REMIT_COST=write cargo test --test cost`, and again with --release.\n";
            std::fs::write(Budgets::file(), head.to_owned() + &toml::to_string(&budgets).unwrap()).unwrap();
            return;
        }
        if !is_same || !Callgrind::is_usual() {
            println!("not held to the budgets: they are of {}, with AVX2", budgets.compiler);
            return;
        }
        let help = "save it elsewhere, or raise the budget with REMIT_COST=write and say in the commit what it buys";
        assert!(beyond.is_empty(), "dearer by more than {margin} %: {beyond:#?}\n{help}");
    }

    #[test]
    #[ignore = "for callgrind, which the other test starts"]
    fn is_counted() {
        of_name(&std::env::var(NAME).unwrap())();
    }
}

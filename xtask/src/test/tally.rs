//! Counts tests by reading what the harnesses print.

use std::fmt::Write as _;

/// What became of the tests so far.
#[derive(Debug, Default)]
pub struct Tally {
    passed: usize,
    failed: Vec<String>,
    skipped: Vec<String>,
    /// Those that failed at first, and why.
    again: Vec<String>,
    /// Whether the program that is read now has reported a failed test.
    explained: bool,
}

impl Tally {
    /// Takes a line of a harness: `test NAME ... ok`, `FAILED`, or `ignored` or `failed once` with a reason.
    pub fn read(&mut self, line: &str) {
        let Some((name, outcome)) = line.strip_prefix("test ").and_then(|line| line.split_once(" ... ")) else {
            return;
        };
        let name = name.trim();
        if outcome == "ok" {
            self.passed += 1;
        } else if outcome.starts_with("FAILED") {
            self.failed.push(name.to_owned());
            self.explained = true;
        } else if let Some(reason) = outcome.strip_prefix("failed once: ") {
            self.again.push(format!("{name}: {reason}"));
        } else if let Some(reason) = outcome.strip_prefix("ignored") {
            self.skip(name, reason.trim_matches([',', ' ', '(', ')']));
        }
    }

    /// Counts a test that was not run.
    pub fn skip(&mut self, name: &str, reason: &str) {
        let reason = if reason.is_empty() { "ignored by default" } else { reason };
        self.skipped.push(format!("{name}: {reason}"));
    }

    /// Takes the end of a program; one that fails without a failed test could not be built or has crashed.
    pub fn ended(&mut self, program: &str, success: bool) {
        if !success && !self.explained {
            self.failed.push(format!("`{program}` did not come to its end"));
        }
        self.explained = false;
    }

    /// Whether nothing failed.
    pub fn is_good(&self) -> bool {
        self.failed.is_empty()
    }

    /// What was skipped, failed once and failed, by name, and the plain line of counts.
    pub fn report(&self) -> String {
        let mut text = String::new();
        for (title, tests) in [("skipped", &self.skipped), ("failed once", &self.again), ("failed", &self.failed)] {
            for test in tests {
                writeln!(text, "{title}: {test}").expect("a string takes all that is written to it");
            }
        }
        let (failed, skipped) = (self.failed.len(), self.skipped.len());
        text + &format!("{} passed, {failed} failed, {skipped} skipped", self.passed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_harnesses_are_understood() {
        let mut tally = Tally::default();
        for line in [
            "running 6 tests",
            "test text::tests::stay ... ok",
            "test slow ... ignored",
            "test later ... ignored, needs a network",
            "test containers::crun       ... ignored (crun is not installed)",
            "test disturbed ... failed once: 12 ms ... instead of 10",
            "test disturbed       ... ok",
            "test broken ... FAILED",
            "test result: FAILED. 2 passed; 1 failed; 3 ignored; 0 measured",
        ] {
            tally.read(line);
        }
        tally.ended("cargo test", false);
        let expected = "skipped: slow: ignored by default\nskipped: later: needs a network\n\
                        skipped: containers::crun: crun is not installed\n\
                        failed once: disturbed: 12 ms ... instead of 10\nfailed: broken\n2 passed, 1 failed, 3 skipped";
        assert_eq!(tally.report(), expected);
    }

    #[test]
    fn a_program_that_cannot_be_built_is_a_failure() {
        let mut tally = Tally::default();
        tally.ended("cargo test", false);
        assert!(!tally.is_good());
        assert_eq!(tally.report(), "failed: `cargo test` did not come to its end\n0 passed, 1 failed, 0 skipped");
    }
}

//! Reads folded stacks: one line for each, root first, its frames joined by `;`, then a space and its count.

use anyhow::{Context, Result, ensure};

/// All stacks of a recording.
#[derive(Debug)]
pub struct Folded {
    stacks: Vec<(Vec<String>, u64)>,
}

impl Folded {
    /// Reads the text of a file.
    pub fn parse(text: &str) -> Result<Self> {
        let stack = |line: &str| -> Result<(Vec<String>, u64)> {
            let (frames, count) = line.rsplit_once(' ').with_context(|| format!("no count in {line:?}"))?;
            let count = count.parse().with_context(|| format!("no number ends {line:?}"))?;
            Ok((frames.split(';').map(str::to_owned).collect(), count))
        };
        let stacks = text.lines().map(stack).collect::<Result<Vec<_>>>()?;
        ensure!(!stacks.is_empty(), "no stacks at all");
        Ok(Self { stacks })
    }

    /// The stacks, root first, with their counts.
    pub fn stacks(&self) -> impl Iterator<Item = (&[String], u64)> {
        self.stacks.iter().map(|(frames, count)| (frames.as_slice(), *count))
    }

    /// All counts together.
    pub fn total(&self) -> u64 {
        self.stacks.iter().map(|(_, count)| count).sum()
    }

    /// The share of the counts whose stack fulfils a condition, from 0 to 1.
    pub fn share(&self, condition: impl Fn(&[String]) -> bool) -> f64 {
        let fulfilled: u64 = self.stacks().filter(|(frames, _)| condition(frames)).map(|(_, count)| count).sum();
        fulfilled as f64 / self.total() as f64
    }

    /// The share of the counts whose stack has a frame with this text in its name.
    pub fn share_of(&self, name: &str) -> f64 {
        self.share(|frames| frames.iter().any(|frame| frame.contains(name)))
    }

    /// Fails unless a frame with this text in its name has at least this share.
    pub fn expect(&self, name: &str, least: f64) -> Result<()> {
        let share = self.share_of(name);
        ensure!(
            share >= least,
            "{name:?} has a share of {share:.3}, {least:.3} at least expected in:\n{}",
            self.show()
        );
        Ok(())
    }

    /// The heaviest stacks, for messages.
    pub fn show(&self) -> String {
        let mut stacks: Vec<_> = self.stacks.iter().collect();
        stacks.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        let line = |(frames, count): &(Vec<String>, u64)| {
            let text = frames.join(";");
            let cut: String = text.chars().take(400).collect();
            format!("  {count:6} {cut}{}", if cut.len() < text.len() { "…" } else { "" })
        };
        stacks.iter().take(10).map(|stack| line(stack)).collect::<Vec<_>>().join("\n")
    }
}

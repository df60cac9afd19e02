//! What an alert says to people, the same on every channel; only markup and limits differ.

use super::fit::{Escape, Measure, cut};
use super::{Notice, NoticeKind};
use crate::snapshot::Timestamp;

/// Where snapshots are seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Links {
    /// The address by which people reach the server; without one a snapshot's folder is named.
    pub external_url: Option<String>,
}

impl Links {
    /// The page of the snapshot.
    pub(super) fn page(&self, notice: &Notice) -> Option<String> {
        let (url, snapshot) = (self.external_url.as_ref()?, notice.snapshot.as_ref()?);
        Some(format!("{}/snapshots/{}", url.trim_end_matches('/'), snapshot.id))
    }

    /// The page, or the folder; empty without a snapshot.
    pub(super) fn place(&self, notice: &Notice) -> String {
        let folder = || notice.snapshot.as_ref().map(|snapshot| snapshot.path.display().to_string());
        self.page(notice).or_else(folder).unwrap_or_default()
    }
}

/// A message to a channel.
#[derive(Clone, Copy, Debug)]
pub(super) struct Batch<'a> {
    /// Name of the channel.
    pub(super) channel: &'a str,
    /// At least one, the oldest first, each of another alert.
    pub(super) notices: &'a [Notice],
    pub(super) links: &'a Links,
}

impl Batch<'_> {
    /// Is it good news only?
    pub(super) fn is_resolved(&self) -> bool {
        self.notices.iter().all(Notice::is_resolved)
    }

    /// One line for all.
    pub(super) fn title(&self) -> String {
        match self.notices {
            [notice] => title(notice),
            notices => {
                let firing = notices.iter().filter(|notice| !notice.is_resolved() && !notice.is_brief()).count();
                format!("{firing} firing, {} resolved", notices.len() - firing)
            }
        }
    }
}

/// The markup of a channel.
pub(super) struct Style {
    pub(super) escape: Escape,
    pub(super) newline: &'static str,
    /// Around titles.
    pub(super) bold: (&'static str, &'static str),
    /// A link to a page, by its address and its words; both are ours.
    pub(super) link: fn(&str, &str) -> String,
    pub(super) measure: Measure,
}

impl Style {
    /// No markup at all.
    pub(super) const PLAIN: Self = Self {
        escape: super::fit::plain,
        newline: "\n",
        bold: ("", ""),
        link: |url, words| format!("{words}: {url}"),
        measure: Measure::Bytes,
    };

    /// The message within a limit. Each alert has its share of it, and in it its link, if that fits at all.
    pub(super) fn compose(&self, batch: &Batch<'_>, limit: usize) -> String {
        let mut text = String::new();
        let gap = self.newline.repeat(2);
        for (index, notice) in batch.notices.iter().enumerate() {
            if index > 0 {
                text.push_str(&gap);
            }
            let left = limit.saturating_sub(self.measure.of(&text));
            let others = batch.notices.len() - index - 1;
            let share = (left / (others + 1)).saturating_sub(if others > 0 { self.measure.of(&gap) } else { 0 });
            text.push_str(&self.block(notice, batch.links, share));
        }
        text
    }

    fn block(&self, notice: &Notice, links: &Links, limit: usize) -> String {
        let link = self.snapshot(notice, links, limit);
        let mut left = limit.saturating_sub(self.measure.of(&link));
        let (before, after) = self.bold;
        let mut text = String::new();
        let marks = self.measure.of(before) + self.measure.of(after);
        if left > marks {
            let title = cut(&title(notice), left - marks, self.measure, self.escape);
            text = format!("{before}{title}{after}");
            left -= self.measure.of(&text);
        }
        for (name, value) in lines(notice) {
            let newline = self.measure.of(self.newline);
            let line = cut(&format!("{name}: {value}"), left.saturating_sub(newline), self.measure, self.escape);
            if line.is_empty() {
                break;
            }
            text.push_str(self.newline);
            text.push_str(&line);
            left = left.saturating_sub(newline + self.measure.of(&line));
        }
        text + &link
    }

    /// The last line; empty if there is nothing to link to or no room for it.
    fn snapshot(&self, notice: &Notice, links: &Links, limit: usize) -> String {
        let text = match (links.page(notice), &notice.snapshot) {
            (Some(page), _) => (self.link)(&page, "Snapshot"),
            (None, Some(snapshot)) => {
                let words = format!("Snapshot: {} on {}", snapshot.path.display(), notice.host.name);
                cut(&words, limit / 2, self.measure, self.escape)
            }
            (None, None) => return String::new(),
        };
        let line = format!("{}{text}", self.newline);
        if self.measure.of(&line) <= limit { line } else { String::new() }
    }
}

/// What has happened, of which rule, to whom.
pub(super) fn title(notice: &Notice) -> String {
    let Notice { rule, target, host, .. } = notice;
    format!("[{}] {rule}: {target} on {}", word(notice), host.name)
}

/// The state in a word.
pub(super) fn word(notice: &Notice) -> &'static str {
    match notice.kind {
        _ if notice.is_completion && notice.culprit.is_empty() => "UPDATE",
        _ if notice.is_completion => "CULPRIT",
        NoticeKind::Firing if notice.is_brief() => "FIRED BRIEFLY",
        NoticeKind::Firing => "FIRING",
        NoticeKind::Skipped => "NOT PROFILED",
        NoticeKind::Resolved => "RESOLVED",
    }
}

/// The measured value against the threshold: `cpu 97.5 above 80 percent of one core`.
pub(super) fn compared(notice: &Notice) -> String {
    let of = notice.function.as_ref().map_or(String::new(), |function| format!(" of {function}"));
    format!("{}{of} {}", notice.metric, notice.compared)
}

/// The facts, the most telling first.
pub(super) fn lines(notice: &Notice) -> Vec<(&'static str, String)> {
    let Notice { host, process, culprit, note, started_at, resolved_at, labels, .. } = notice;
    let mut lines = vec![("Value", compared(notice))];
    match notice.kind {
        NoticeKind::Skipped => lines.push(("Note", "too busy to be profiled: there is no snapshot".to_owned())),
        _ if !culprit.is_empty() => lines.push(("Culprit", culprit.clone())),
        _ => {}
    }
    let notes = notice.brevity().into_iter().chain((!note.is_empty()).then(|| note.clone()));
    lines.extend(notes.map(|note| ("Note", note)));
    let ip = if host.ip.is_empty() { String::new() } else { format!(" ({})", host.ip) };
    let (own, of_host) = (process.cpu_percent, process.cpu_percent_of_host);
    // They were measured when it began.
    let (of_all, cpu) = match notice.is_resolved() {
        true => (String::new(), String::new()),
        false => (
            format!(", CPU {:.1} %", host.cpu_percent),
            format!(", CPU {own:.1} % of one core, {of_host:.1} % of the host"),
        ),
    };
    lines.push(("Host", format!("{}{ip}{of_all}", host.name)));
    lines.push(("Process", format!("pid {} {}{cpu}", process.pid, process.exe)));
    if let Some(container) = &process.container {
        let pod = process.pod.as_ref().map_or(String::new(), |pod| format!(", pod {pod}"));
        lines.push(("Container", format!("{container}{pod}")));
    }
    lines.push(("Since", seconds(*started_at)));
    lines.extend(resolved_at.map(|at| ("Until", seconds(at))));
    lines.extend((!labels.is_empty()).then(|| ("Labels", joined(notice))));
    lines
}

fn joined(notice: &Notice) -> String {
    notice.labels.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(", ")
}

/// A time to the second.
fn seconds(time: Timestamp) -> String {
    humantime::format_rfc3339_seconds(time.system()).to_string()
}

/// All of it in one line, for logs.
pub fn sentence(notice: &Notice, links: &Links) -> String {
    let Notice { rule, target, host, process, culprit, note, snapshot, .. } = notice;
    let culprit = if culprit.is_empty() { String::new() } else { format!(": {culprit}") };
    let end = match (notice.kind, snapshot) {
        (NoticeKind::Resolved, _) if !notice.is_completion => "back to normal".to_owned(),
        (NoticeKind::Skipped, _) => "too busy to be profiled".to_owned(),
        (_, Some(snapshot)) => format!("snapshot {} in {}", snapshot.id, links.place(notice)),
        (_, None) => "there is no snapshot".to_owned(),
    };
    let notes = notice.brevity().into_iter().chain((!note.is_empty()).then(|| note.clone()));
    let end = notes.fold(end, |end, note| format!("{end}; {note}"));
    format!("{rule}: {target} (pid {} on {}): {}{culprit}; {end}", process.pid, host.name, compared(notice))
}

#[cfg(test)]
mod tests;

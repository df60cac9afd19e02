//! What was told before, as the journal has it: for people who ask later than it happened.

use std::io;
use std::path::Path;

use ulid::Ulid;

use super::{Notice, disk};

/// The newest `limit` notices of a journal's folder that are older than `before`, the newest first. What is damaged, or goes
/// meanwhile, is left out. A folder that is not there has none.
pub fn history(journal: &Path, before: Option<Ulid>, limit: usize) -> io::Result<Vec<Notice>> {
    let ids = disk::ids(journal)?;
    let older = ids.into_iter().rev().filter(|id| before.is_none_or(|before| *id < before));
    let read = |id: Ulid| Some(Notice { id, ..disk::read::<Notice>(&journal.join(disk::file(id))).ok()? });
    Ok(older.filter_map(read).take(limit).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::Journal;

    #[test]
    fn the_newest_come_first_a_page_at_a_time() {
        let folder = tempfile::tempdir().expect("a folder");
        assert!(history(&folder.path().join("none"), None, 5).expect("none").is_empty());
        let journal = Journal::open(folder.path(), None).expect("opens");
        for rule in ["one", "two", "three"] {
            journal.append(&Notice { rule: rule.into(), ..Notice::default() }.identify());
        }
        std::fs::write(folder.path().join(format!("{}.json", Ulid::new())), "{").expect("written");
        let rules = |notices: &[Notice]| notices.iter().map(|notice| notice.rule.clone()).collect::<Vec<_>>();
        let page = history(folder.path(), None, 2).expect("read");
        assert_eq!(rules(&page), ["three", "two"]);
        assert_eq!(rules(&history(folder.path(), Some(page[1].id), 2).expect("read")), ["one"]);
    }
}

//! `probe snapshots ls`.

use std::fmt::Write as _;

use anyhow::Result;
use ulid::Ulid;

use super::{Filter, Place, warn_of};
use crate::cli::columns;
use crate::cli::print;
use crate::snapshot::{Damaged, Query, Sidecar, Store};

/// Snapshots that are read at a time.
const PAGE: usize = 100;

/// Flags of `probe snapshots ls`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    filter: Filter,
    /// Most snapshots that are listed [default: all]
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Only those older than this one, the last of an earlier list
    #[arg(long, value_name = "ID")]
    before: Option<String>,
    #[command(flatten)]
    place: Place,
    /// Print the sidecars as a JSON list
    #[arg(long)]
    json: bool,
}

/// Runs `probe snapshots ls`.
pub(super) fn run(args: Args) -> Result<()> {
    let Args { filter, limit, before, place, json } = args;
    let store = place.open()?;
    let before = before.map(|id| store.id_of(&id)).transpose()?;
    let limit = limit.unwrap_or(usize::MAX);
    let (text, damaged) = if json {
        let (sidecars, damaged) = collect(&store, filter.query(), (before, limit), |sidecar| sidecar)?;
        (format!("{}\n", serde_json::to_string_pretty(&sidecars)?), damaged)
    } else {
        let (rows, damaged) = collect(&store, filter.query(), (before, limit), |sidecar| row(&sidecar))?;
        (table(rows), damaged)
    };
    warn_of(&store, &damaged);
    print(&text)
}

/// Goes through the pages and keeps of each snapshot what is needed.
fn collect<T>(
    store: &Store,
    mut query: Query,
    (before, limit): (Option<Ulid>, usize),
    keep: impl Fn(Sidecar) -> T,
) -> Result<(Vec<T>, Vec<Damaged>)> {
    let (mut kept, mut damaged) = (Vec::new(), Vec::new());
    query.before = before;
    loop {
        query.limit = PAGE.min(limit.saturating_sub(kept.len()));
        let page = store.query(&query)?;
        damaged.extend(page.damaged);
        kept.extend(page.snapshots.into_iter().map(&keep));
        match page.next {
            Some(next) if kept.len() < limit => query.before = Some(next),
            _ => return Ok((kept, damaged)),
        }
    }
}

fn row(snapshot: &Sidecar) -> [String; 6] {
    let culprit = snapshot.culprits.first();
    [
        snapshot.id.to_string(),
        humantime::format_rfc3339_seconds(snapshot.breached_at.system()).to_string(),
        snapshot.target.clone(),
        snapshot.rule.clone(),
        format!("{} {}", snapshot.metric.name(), snapshot.metric.show(snapshot.value)),
        culprit.map_or("-".to_owned(), |culprit| format!("{} {:.0} %", columns::fit(&culprit.function), culprit.share)),
    ]
}

fn table(mut rows: Vec<[String; 6]>) -> String {
    rows.insert(0, ["ID", "TIME", "TARGET", "RULE", "VALUE", "TOP CULPRIT"].map(str::to_owned));
    let mut widths = [0; 6];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(columns::width(cell));
        }
    }
    let mut text = String::new();
    for row in &rows {
        let cells: Vec<String> = row.iter().zip(widths).map(|(cell, width)| columns::left(cell, width)).collect();
        let _ = writeln!(text, "{}", cells.join("  ").trim_end());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::tests::sidecar;
    use crate::snapshot::{Limits, Profiles};

    #[test]
    fn the_table_has_a_line_for_each_snapshot() {
        let text = table(vec![row(&sidecar(Ulid::from_parts(1_700_000_035_000, 7)))]);
        let expected = "\
ID                          TIME                  TARGET    RULE          VALUE     TOP CULPRIT
01HF7YBW5R0000000000000007  2023-11-14T22:13:55Z  checkout  checkout-cpu  cpu 97.5  match_rules 88 %
";
        assert_eq!(text, expected);
    }

    #[test]
    fn pages_are_one_list_up_to_its_limit() {
        let folder = tempfile::tempdir().expect("a folder");
        let forever = Limits { max_age: std::time::Duration::MAX, ..Limits::default() };
        let store = Store::open(folder.path(), forever).expect("opens");
        let ids: Vec<Ulid> = (0..2 * PAGE + 5).map(|n| Ulid::from_parts(1_700_000_000_000 - n as u64, 0)).collect();
        for (place, &id) in ids.iter().enumerate() {
            store.put(&sidecar(id), &Profiles::default()).expect("stored");
            if place % 50 == 3 {
                std::fs::write(store.folder(id).join("snapshot.json"), "{").expect("written");
            }
        }
        let whole: Vec<Ulid> =
            ids.iter().copied().enumerate().filter(|(place, _)| place % 50 != 3).map(|(_, id)| id).collect();
        let list = |before, limit| {
            let (found, damaged) =
                collect(&store, Query::default(), (before, limit), |sidecar| sidecar.id).expect("listed");
            (found, damaged.len())
        };
        assert_eq!(list(None, usize::MAX), (whole.clone(), 5));
        assert_eq!(list(None, 3), (whole[..3].to_vec(), 0));
        assert_eq!(list(None, 150), (whole[..150].to_vec(), 3));
        assert_eq!(list(Some(whole[149]), 150), (whole[150..].to_vec(), 2));
        assert_eq!(list(None, 0), (vec![], 0));
    }
}

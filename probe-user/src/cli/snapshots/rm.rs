//! `probe snapshots rm`.

use anyhow::{Result, bail};
use ulid::Ulid;

use super::{Filter, Place};
use crate::cli::tell;
use crate::problem::{Exit, Problem};
use crate::snapshot::{Query, Store};

/// Flags of `probe snapshots rm`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Their ids
    #[arg(value_name = "ID")]
    ids: Vec<String>,
    #[command(flatten)]
    filter: Filter,
    #[command(flatten)]
    place: Place,
}

/// Runs `probe snapshots rm`.
pub(super) fn run(args: Args) -> Result<()> {
    let Args { ids, filter, place } = args;
    let query = filter.query();
    let has_filter = query != Query::default();
    let refuse = |message: &str| {
        let hint = "give ids, or any of --target, --rule, --since and --until";
        bail!(Problem::new(Exit::Usage, message, hint))
    };
    match (ids.is_empty(), has_filter) {
        (true, false) => return refuse("neither ids nor a filter say which snapshots are to be removed"),
        (false, true) => return refuse("both ids and a filter say which snapshots are to be removed"),
        _ => {}
    }
    let store = place.open()?;
    let ids = ids.iter().map(|id| store.id_of(id)).collect::<Result<Vec<_>>>()?;
    for &id in &ids {
        store.remove(id)?;
    }
    if has_filter {
        let removed = remove_all(&store, query)?;
        tell(&format!("removed {removed} {}", if removed == 1 { "snapshot" } else { "snapshots" }));
    }
    Ok(())
}

/// Removes what a filter finds; of what is damaged it cannot be sure.
fn remove_all(store: &Store, query: Query) -> Result<usize> {
    let found: Vec<Ulid> =
        store.query(&Query { limit: usize::MAX, ..query })?.snapshots.iter().map(|sidecar| sidecar.id).collect();
    let mut removed = 0;
    for id in found {
        match store.remove(id) {
            Ok(()) => removed += 1,
            // By the limits, or somebody else.
            Err(_) if !store.folder(id).exists() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(removed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::tests::sidecar;
    use crate::snapshot::{Limits, Profiles, Sidecar};

    #[test]
    fn a_filter_removes_what_it_finds_and_nothing_else() {
        let folder = tempfile::tempdir().expect("a folder");
        let forever = Limits { max_age: std::time::Duration::MAX, ..Limits::default() };
        let store = Store::open(folder.path(), forever).expect("opens");
        let ids: Vec<Ulid> = (0..4).map(|n| Ulid::from_parts(1_700_000_000_000 - n, 0)).collect();
        for (id, target) in ids.iter().zip(["checkout", "search", "checkout", "checkout"]) {
            let sidecar = Sidecar { target: target.into(), ..sidecar(*id) };
            store.put(&sidecar, &Profiles::default()).expect("stored");
        }
        std::fs::write(store.folder(ids[3]).join("snapshot.json"), "{").expect("written");
        let checkout = || Query { target: Some("checkout".into()), ..Query::default() };
        assert_eq!(remove_all(&store, Query { until: Some(ids[0].datetime()), ..checkout() }).expect("removed"), 1);
        assert_eq!(remove_all(&store, checkout()).expect("removed"), 1);
        let left = store.list().expect("listed");
        assert_eq!(left.snapshots.iter().map(|sidecar| sidecar.id).collect::<Vec<_>>(), [ids[1]]);
        assert_eq!(left.damaged.iter().map(|damaged| damaged.id).collect::<Vec<_>>(), [ids[3]]);
    }

    #[test]
    fn without_ids_or_with_both_it_is_a_usage_error() {
        #[derive(Debug, clap::Parser)]
        struct Line {
            #[command(flatten)]
            args: Args,
        }
        let id = "01HF7YBW5R0000000000000007";
        for line in [&["rm"] as &[&str], &["rm", id, "--target", "checkout"]] {
            let line = <Line as clap::Parser>::parse_from(line);
            let error = run(line.args).expect_err("refused");
            assert_eq!(error.downcast_ref::<Problem>().map(|problem| problem.exit), Some(Exit::Usage));
        }
    }
}

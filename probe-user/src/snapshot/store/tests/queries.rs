//! Looking for snapshots, with and without an index.

use super::*;

/// Twelve snapshots, a minute apart, of two targets and three rules in turn; newest first.
fn twelve(store: &Store) -> Vec<Ulid> {
    let ids: Vec<Ulid> = (0..12).map(|n| id(60 * n + 1)).collect();
    for (n, &id) in ids.iter().enumerate() {
        let target = if n % 2 == 0 { "checkout" } else { "search" };
        store.put(&of(id, target, &format!("rule-{}", n % 3)), &profiles()).expect("stored");
    }
    ids
}

/// The same with the index, without it, and with one that knows half of them.
fn each_way(store: &Store, check: impl Fn(&Store)) {
    let read = || Store::read(store.path(), Limits::default());
    let index = store.path().join("index.sqlite");
    assert!(index::read(store.path(), (Ulid::nil(), Ulid::from(u128::MAX))).is_ok());
    check(&read());
    let ids = store.ids().expect("read");
    store.forget(&ids[..ids.len() / 2]);
    check(&read());
    fs::remove_file(index).expect("removed");
    check(&read());
    store.maintain();
}

#[test]
fn an_id_may_be_shortened_as_long_as_it_is_the_only_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(folder.path());
    // Two of the same 32 milliseconds differ in the tenth character, and in the last one.
    let now_ms = id(1).timestamp_ms() & !31;
    let ids = [0, 1].map(|n| Ulid::from_parts(now_ms + n, 0xabcde + u128::from(n)));
    for id in ids {
        store.put(&of(id, "checkout", "rule"), &profiles()).expect("stored");
    }
    let id = ids[0].to_string();
    let meant = |text: &str| store.id_of(text).map(|id| id.to_string());
    for text in [&id, &id[..10], &id[22..], &id[20..].to_lowercase()] {
        assert_eq!(meant(text).expect("the only one"), id, "{text}");
    }
    // A whole one need not be there.
    assert!(meant("01ARZ3NDEKTSV4RRFFQ69G5FAV").is_ok());
    for (text, reason) in [
        (&id[..9], "2 snapshots have an id"),
        ("zzzz", "there is no snapshot `zzzz`"),
        (&id[..3], "is not the id"),
        ("../../etc", "is not the id"),
    ] {
        assert!(meant(text).expect_err("none or several").to_string().contains(reason), "{text}");
    }
}

#[test]
fn filters_choose() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(folder.path());
    let ids = twelve(&store);
    let pick = |places: &[usize]| places.iter().map(|&place| ids[place]).collect::<Vec<_>>();
    let any = Query::default;
    let text = |text: &str| Some(text.to_owned());
    let time = |place: usize| Some(ids[place].datetime());
    each_way(&store, |read| {
        for (query, expected) in [
            (any(), pick(&[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11])),
            (Query { target: text("checkout"), ..any() }, pick(&[0, 2, 4, 6, 8, 10])),
            (Query { target: text("check"), ..any() }, vec![]),
            (Query { rule: text("rule-1"), ..any() }, pick(&[1, 4, 7, 10])),
            (Query { target: text("search"), rule: text("rule-1"), ..any() }, pick(&[1, 7])),
            (Query { since: time(2), ..any() }, pick(&[0, 1, 2])),
            (Query { since: time(2).map(|t| t + Duration::from_nanos(1)), ..any() }, pick(&[0, 1])),
            (Query { until: time(9), ..any() }, pick(&[10, 11])),
            (Query { since: time(7), until: time(4), target: text("search"), ..any() }, pick(&[5, 7])),
            (Query { since: time(4), until: time(7), ..any() }, vec![]),
            (Query { before: Some(ids[10]), ..any() }, pick(&[11])),
            (Query { before: Some(ids[11]), ..any() }, vec![]),
            (Query { limit: 0, ..any() }, vec![]),
            (Query { target: text("'; DROP TABLE snapshots; --"), ..any() }, vec![]),
        ] {
            let page = read.query(&query).expect("read");
            let found: Vec<Ulid> = page.snapshots.iter().map(|sidecar| sidecar.id).collect();
            assert_eq!(found, expected, "{query:?}");
            assert!(page.damaged.is_empty() && page.next.is_none());
        }
        let totals = |query: &Query| read.count(query).expect("counted");
        let (all, checkout) = (totals(&any()), totals(&Query { target: text("checkout"), ..any() }));
        assert_eq!((all.snapshots, checkout.snapshots), (12, 6));
        let on_disk: u64 = ids.iter().map(|id| query::size_of(&read.folder(*id))).sum();
        assert_eq!(all.bytes, on_disk);
        assert!(checkout.bytes > all.bytes / 3 && checkout.bytes < all.bytes * 2 / 3);
    });
}

#[test]
fn pages_follow_each_other_without_gaps_whatever_changes_meanwhile() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(folder.path());
    let ids = twelve(&store);
    each_way(&store, |read| {
        for limit in [1, 2, 5, 6, 7] {
            let mut query = Query { rule: Some("rule-0".into()), limit, ..Query::default() };
            let (mut found, mut pages) = (Vec::new(), 0);
            loop {
                let page = read.query(&query).expect("read");
                found.extend(page.snapshots.iter().map(|sidecar| sidecar.id));
                pages += 1;
                let Some(next) = page.next else { break };
                assert_eq!(page.snapshots.len(), limit);
                query.before = Some(next);
            }
            assert_eq!((found, pages), (vec![ids[0], ids[3], ids[6], ids[9]], 4usize.div_ceil(limit)));
        }
    });
    // One comes, and the one that the cursor names goes.
    let first = store.query(&Query { limit: 3, ..Query::default() }).expect("read");
    assert_eq!(first.next, Some(ids[2]));
    put(&store, &[0]);
    store.remove(ids[2]).expect("removed");
    let second = store.query(&Query { limit: 3, before: first.next, ..Query::default() }).expect("read");
    assert_eq!(second.snapshots.iter().map(|s| s.id).collect::<Vec<_>>(), ids[3..6]);
}

#[test]
fn damaged_ones_are_on_the_page_of_their_time() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(folder.path());
    let ids = twelve(&store);
    for place in [1, 4] {
        fs::write(store.folder(ids[place]).join("snapshot.json"), "{").expect("written");
    }
    let page = |target: Option<&str>, before| {
        let query = Query { target: target.map(str::to_owned), limit: 3, before, ..Query::default() };
        let page = store.query(&query).expect("read");
        let whole: Vec<Ulid> = page.snapshots.iter().map(|sidecar| sidecar.id).collect();
        (whole, page.damaged.iter().map(|damaged| damaged.id).collect::<Vec<_>>(), page.next)
    };
    assert_eq!(page(None, None), (vec![ids[0], ids[2]], vec![ids[1]], Some(ids[2])));
    assert_eq!(page(None, Some(ids[2])), (vec![ids[3], ids[5]], vec![ids[4]], Some(ids[5])));
    // The index knows of which target they were.
    assert_eq!(page(Some("search"), None), (vec![ids[3], ids[5]], vec![ids[1]], Some(ids[5])));
    fs::remove_file(store.path().join("index.sqlite")).expect("removed");
    assert_eq!(page(Some("search"), None), (vec![ids[3]], vec![ids[1], ids[4]], Some(ids[4])));
}

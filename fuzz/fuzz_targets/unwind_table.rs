//! Builds an unwind table from arbitrary bytes. It must not panic, must end, and what it makes must be sound.
#![no_main]

use libfuzzer_sys::fuzz_target;
use probe::unwind::Table;

fuzz_target!(|bytes: &[u8]| {
    let Ok(table) = Table::build(bytes) else { return };
    let mut next = 0;
    for (number, page) in table.pages.iter().enumerate() {
        assert_eq!(page.first_row, next);
        next += page.row_count;
        let rows = &table.rows[page.first_row as usize..next as usize];
        assert!(rows[0].pc == 0 && rows.is_sorted_by(|a, b| a.pc < b.pc));
        let start = (table.first_page + number as u64) << 16;
        assert_eq!(table.lookup(start | 0xffff).as_ref(), rows.last());
    }
    assert_eq!(next as usize, table.rows.len());
});

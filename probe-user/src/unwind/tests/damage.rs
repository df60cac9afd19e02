//! Hostile files: cut, damaged and made of noise. Nothing panics, and what comes out is a table that can be searched.

use std::time::{Duration, Instant};

use fastrand::Rng;

use super::programs;
use crate::unwind::{Reason, Table};

/// Builds a table and looks at it.
fn build(bytes: &[u8]) {
    let started = Instant::now();
    if let Ok(table) = Table::build(bytes) {
        assert!(table.rows.len() <= super::MAX_ROWS);
        for page in &table.pages {
            assert!(page.row_count > 0 && (page.first_row + page.row_count) as usize <= table.rows.len());
            assert_eq!(table.rows[page.first_row as usize].pc, 0);
        }
    }
    assert!(started.elapsed() < Duration::from_secs(20), "not bounded");
}

/// A small file, and where its interesting parts are.
fn small() -> Vec<u8> {
    let loader = programs().into_iter().find(|(path, _)| path.contains("ld-linux"));
    let (_, bytes) = loader.or_else(|| programs().into_iter().min_by_key(|(_, bytes)| bytes.len())).unwrap();
    bytes
}

#[test]
fn what_is_no_elf_file_is_refused() {
    assert_eq!(Table::build(&b""[..]), Err(Reason::NotElf));
    assert_eq!(Table::build(&[0x7f; 4096][..]), Err(Reason::NotElf));
    let mut bytes = small();
    bytes[18] = 0xb7; // aarch64
    assert_eq!(Table::build(&*bytes), Err(Reason::Machine));
}

#[test]
fn a_file_cut_anywhere_is_survived() {
    let bytes = small();
    let mut random = Rng::with_seed(1);
    for _ in 0..200 {
        build(&bytes[..random.usize(..bytes.len())]);
    }
    for length in 0..200 {
        build(&bytes[..length]);
    }
}

#[test]
fn a_damaged_file_is_survived() {
    let bytes = small();
    let file = object::File::parse(&*bytes).unwrap();
    let range =
        |name| object::ObjectSection::file_range(&object::Object::section_by_name(&file, name).unwrap()).unwrap();
    let headers = bytes.len() - 64 * 40..bytes.len();
    let (frames, index) = (range(".eh_frame"), range(".eh_frame_hdr"));
    let parts = [
        (0..1024, 400),
        (headers, 200),
        (frames.0 as usize..(frames.0 + frames.1) as usize, 400),
        (index.0 as usize..(index.0 + 12) as usize, 100),
    ];
    let mut random = Rng::with_seed(2);
    for (part, times) in parts {
        for _ in 0..times {
            let mut damaged = bytes.clone();
            for _ in 0..=random.usize(..8) {
                let at = part.start + random.usize(..part.len());
                damaged[at] = match random.usize(..3) {
                    0 => random.u8(..),
                    1 => damaged[at] ^ (1 << random.usize(..8)),
                    _ => [0, 0xff, 0x7f, 0x80][random.usize(..4)],
                };
            }
            build(&damaged);
        }
    }
}

#[test]
fn instructions_of_noise_are_survived() {
    let bytes = small();
    let file = object::File::parse(&*bytes).unwrap();
    let range =
        object::ObjectSection::file_range(&object::Object::section_by_name(&file, ".eh_frame").unwrap()).unwrap();
    let frames = range.0 as usize..(range.0 + range.1) as usize;
    let mut random = Rng::with_seed(3);
    for _ in 0..100 {
        let mut damaged = bytes.clone();
        // Lengths and pointers stay sound, so that the noise is reached: only what looks like instructions changes.
        let mut at = frames.start;
        while let Some(length) = damaged.get(at..at + 4).map(|b| u32::from_le_bytes(b.try_into().unwrap()) as usize) {
            let (start, end) = (at + 4 + 13, (at + 4 + length).min(frames.end));
            if length == 0 || end >= frames.end {
                break;
            }
            for byte in damaged.get_mut(start..end).unwrap_or_default() {
                if random.usize(..3) == 0 {
                    *byte = random.u8(..);
                }
            }
            at = end;
        }
        build(&damaged);
    }
}

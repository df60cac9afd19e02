//! What the functions of allocators are called, and what they take.

use crate::kernel::takes;

/// Prefixes under which allocators are linked into programs beside the C library's: jemalloc, the same for Rust, mimalloc,
/// tcmalloc; glibc's own names last.
const PREFIXES: [&str; 6] = ["je_", "_rjem_", "mi_", "tc_", "__libc_", ""];

/// The names of C, and those that allocators add.
const FUNCTIONS: [(&str, u32); 30] = [
    ("malloc", takes::SIZE),
    ("calloc", takes::COUNT_SIZE),
    ("realloc", takes::OLD_SIZE),
    ("reallocarray", takes::OLD_COUNT_SIZE),
    ("aligned_alloc", takes::ALIGNMENT_SIZE),
    ("memalign", takes::ALIGNMENT_SIZE),
    ("posix_memalign", takes::RESULT_ALIGNMENT_SIZE),
    ("valloc", takes::SIZE),
    ("pvalloc", takes::SIZE),
    ("free", takes::OLD),
    ("cfree", takes::OLD),
    ("free_sized", takes::OLD),
    ("free_aligned_sized", takes::OLD),
    // jemalloc
    ("mallocx", takes::SIZE),
    ("rallocx", takes::OLD_SIZE),
    ("dallocx", takes::OLD),
    ("sdallocx", takes::OLD),
    // mimalloc
    ("malloc_small", takes::SIZE),
    ("zalloc", takes::SIZE),
    ("zalloc_small", takes::SIZE),
    ("malloc_aligned", takes::SIZE),
    ("zalloc_aligned", takes::SIZE),
    ("calloc_aligned", takes::COUNT_SIZE),
    ("realloc_aligned", takes::OLD_SIZE),
    ("free_size", takes::OLD),
    ("free_size_aligned", takes::OLD),
    ("free_aligned", takes::OLD),
    // tcmalloc
    ("new", takes::SIZE),
    ("newarray", takes::SIZE),
    ("delete", takes::OLD),
];

/// What a function of an allocator takes; `None` for any other function. `symbol` is as the file has it, without version.
pub fn takes(symbol: &str) -> Option<u32> {
    if is_operator(symbol) {
        return Some(if symbol.starts_with("_Zn") { takes::SIZE } else { takes::OLD });
    }
    PREFIXES.iter().find_map(|prefix| {
        let name = symbol.strip_prefix(prefix)?;
        let (_, takes) = FUNCTIONS.iter().find(|(known, _)| *known == name)?;
        // Without a prefix these are words that anybody uses.
        let is_word = prefix.is_empty() && matches!(name, "new" | "newarray" | "delete" | "zalloc");
        (!is_word).then_some(*takes)
    })
}

/// C++'s `operator new`, `new[]`, `delete` and `delete[]`, with alignment, size and `nothrow`.
pub fn is_operator(symbol: &str) -> bool {
    let rest = ["_Znwm", "_Znam", "_ZdlPv", "_ZdaPv"].iter().find_map(|name| symbol.strip_prefix(name));
    rest.is_some_and(|rest| {
        let rest = rest.strip_prefix('m').unwrap_or(rest);
        let rest = rest.strip_prefix("St11align_val_t").unwrap_or(rest);
        matches!(rest, "" | "RKSt9nothrow_t" | "S_RKSt9nothrow_t")
    })
}

/// Go's allocator, which has a calling convention of its own and nobody to call `free`.
pub const GO: &str = "runtime.mallocgc";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn allocators_are_known_by_their_names() {
        for (symbol, expected) in [
            ("malloc", Some(takes::SIZE)),
            ("__libc_calloc", Some(takes::COUNT_SIZE)),
            ("_rjem_sdallocx", Some(takes::OLD)),
            ("mi_zalloc_aligned", Some(takes::SIZE)),
            ("je_posix_memalign", Some(takes::RESULT_ALIGNMENT_SIZE)),
            ("tc_new", Some(takes::SIZE)),
            ("_Znwm", Some(takes::SIZE)),
            ("_ZnamSt11align_val_tRKSt9nothrow_t", Some(takes::SIZE)),
            ("_ZdlPvmSt11align_val_t", Some(takes::OLD)),
            ("_ZdaPvRKSt9nothrow_t", Some(takes::OLD)),
            ("new", None),
            ("zalloc", None),
            ("xmalloc", None),
            ("_Znwj", None),
            ("_ZdlPvS_", None),
            ("malloc_trim", None),
        ] {
            assert_eq!(takes(symbol), expected, "{symbol}");
        }
    }
}

//! Culprits of memory: the application's functions for which it was taken. Allocators, and what wraps them, explain nothing.

use super::{Chain, Charges, Culprit, Of, charge_chains, charged_chain, charged_most, describe, is_own};
use crate::symbolize::{Frame, Measure, Profile, Sample};

/// What is less than this part of all that grew, or so little at all, explains nothing.
const LEAST: f64 = 0.01;
const LEAST_BYTES: u64 = 64 << 10;

/// Where less than this part of what a process grew by was seen to be taken, who took that explains nothing.
const SEEN: f64 = 0.1;

/// The functions that took most memory, the greatest first, at most ten: growth that is as fast as it was before is no less
/// to blame. `breach` is all that is known, `baseline` a part of it to compare with. The process grew by `grown_bytes`, by what
/// the kernel counts: shares are of that, because not all that becomes resident is seen to (a page of a mapped file that the
/// page cache has already). Empty where next to nothing of it was seen.
pub fn growth_culprits(breach: &Profile, baseline: &Profile, grown_bytes: u64) -> Vec<Culprit> {
    let (mut now, calm) = (charge_memory(breach, resident), charge_memory(baseline, resident));
    if (now.count as f64) < SEEN * grown_bytes as f64 {
        return Vec::new();
    }
    now.count = now.count.max(grown_bytes);
    let least = LEAST_BYTES.max((LEAST * now.count as f64) as u64);
    let described = charged_most(&now).into_iter().filter(|(_, bytes)| *bytes >= least).map(|(function, bytes)| {
        let (bytes, grown_bytes) = (Some(bytes), Some(now.count));
        Culprit { bytes, grown_bytes, of: Of::Memory, ..describe(function, &now, &calm) }
    });
    described.collect()
}

/// Charges bytes to the application's functions. What nobody asked for who is known is in the sum, and charged to nobody.
pub(super) fn charge_memory(profile: &Profile, weigh: fn(&Sample) -> u64) -> Charges {
    charge_chains(profile, weigh, |stack| Some(application(&profile.frames(stack))))
}

/// Memory is weighed by its bytes.
fn resident(sample: &Sample) -> u64 {
    if sample.measure == Measure::Resident { sample.value } else { 0 }
}

/// The application's functions in a stack, innermost first, without those that only get memory for others.
fn application(frames: &[Frame<'_>]) -> Chain {
    if !frames.iter().any(is_own) {
        return Chain::new();
    }
    let mut chain = charged_chain(frames);
    let wrappers = chain.iter().take_while(|(function, _)| is_allocator(&function.function)).count();
    // One that has nobody above it is all that is known.
    chain.drain(..wrappers.min(chain.len().saturating_sub(1)));
    if let [(function, _)] = &chain[..]
        && is_of_allocator(&function.function)
    {
        chain.clear();
    }
    chain
}

/// Does a function by this name get memory for whoever calls it: one of an allocator, or a wrapper such as `xmalloc`?
fn is_allocator(name: &str) -> bool {
    const NAMES: [&str; 13] = [
        "malloc",
        "malloc0",
        "calloc",
        "realloc",
        "reallocarray",
        "memalign",
        "aligned_alloc",
        "palloc",
        "zalloc",
        "valloc",
        "strdup",
        "strndup",
        "malloc_aligned",
    ];
    // Without parameters, and what compilers make of a function's parts.
    let name = name.split(['(', '.', '@', '<']).next().unwrap_or(name);
    let last = name.rsplit("::").next().unwrap_or(name);
    is_of_allocator(name) || NAMES.iter().any(|known| last.ends_with(known))
}

/// The same for an allocator's own functions, below which nobody else is.
fn is_of_allocator(name: &str) -> bool {
    const STARTS: [&str; 12] = [
        "operator new",
        "_int_",
        "sysmalloc",
        "je_",
        "_rjem_",
        "mi_",
        "_mi_",
        "tc_",
        "tcmalloc::",
        "__libc_m",
        "__rust_a",
        "__rdl_",
    ];
    const NAMES: [&str; 12] = [
        "malloc",
        "calloc",
        "realloc",
        "mmap",
        "mmap64",
        "__mmap",
        "brk",
        "sbrk",
        "__sbrk",
        "mremap",
        "malloc_consolidate",
        "tcache_init",
    ];
    STARTS.iter().any(|start| name.starts_with(start)) || NAMES.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::super::tests::profile;
    use super::*;

    fn grown(parts: &[(&str, u64)]) -> Profile {
        let samples: Vec<_> = parts.iter().map(|&(stack, _)| ("t", stack, 1)).collect();
        let mut profile = profile(10, &samples);
        for (sample, &(_, bytes)) in profile.samples.iter_mut().zip(parts) {
            (sample.value, sample.measure) = (bytes, Measure::Resident);
        }
        profile
    }

    #[test]
    fn allocators_and_wrappers_give_way_to_who_asked_for_the_memory() {
        let breach = grown(&[
            ("main load_cache xmalloc je_malloc", 50 << 20),
            ("/usr/lib/libc.so.6!_int_malloc", 20 << 20),
            ("_int_malloc", 1 << 20),
            ("main tiny malloc", 100),
        ]);
        let found = growth_culprits(&breach, &Profile::default(), 0);
        let names: Vec<_> = found.iter().map(|culprit| (culprit.function.as_str(), culprit.bytes)).collect();
        assert_eq!(names, [("load_cache", Some(50 << 20))], "{found:?}");
        assert_eq!(found[0].of, Of::Memory);
        assert!(found[0].share < 75.0, "of all that grew: {found:?}");
    }

    #[test]
    fn shares_are_of_what_the_process_grew_by() {
        let breach = grown(&[("main load_cache", 20 << 20)]);
        let found = growth_culprits(&breach, &Profile::default(), 80 << 20);
        assert_eq!(found[0].share, 25.0);
        assert_eq!(
            found[0].sentence(),
            "load_cache (app.c:1) took 20.0 MiB, 25 % of the 80.0 MiB that the process grew by, in thread t"
        );
        assert_eq!(growth_culprits(&breach, &Profile::default(), 10 << 20)[0].share, 100.0, "some was given back");
        assert_eq!(growth_culprits(&breach, &Profile::default(), 300 << 20), [], "next to nothing of it");
    }

    #[test]
    fn names_of_allocators_are_known() {
        for name in
            ["xmalloc", "g_malloc0", "operator new(unsigned long)", "ngx_palloc", "emalloc.part.0", "mi_heap_malloc"]
        {
            assert!(is_allocator(name), "{name}");
        }
        for name in ["main", "load", "allocate_orders", "fill_malloc_table", "reallocate"] {
            assert!(!is_allocator(name), "{name}");
        }
    }
}

//! Capabilities: all but some are given away, for good.

use anyhow::{Context, Result};
use rustix::io::Errno;
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set, remove_capability_from_bounding_set,
    set_capabilities,
};

/// Lowers the bounds: nothing beyond these can be had again, by no program that is run. A process that is another user by
/// then can no longer do so.
pub(super) fn bound(kept: CapabilitySet) -> Result<()> {
    for number in 0..CapabilitySet::all().bits().count_ones() {
        let one = CapabilitySet::from_bits_retain(1 << number);
        if kept.contains(one) {
            continue;
        }
        match remove_capability_from_bounding_set(one) {
            // A process that may not change the bounds has nothing that goes beyond what it was given. And a number
            // that the kernel does not know needs no bounds.
            Ok(()) | Err(Errno::PERM | Errno::INVAL) => {}
            Err(error) => return Err(error).context("cannot lower the bounds of capabilities"),
        }
    }
    Ok(())
}

/// Keeps at most these.
pub(super) fn keep(kept: CapabilitySet) -> Result<()> {
    bound(kept)?;
    let sets = capabilities(None).context("cannot read the capabilities of this process")?;
    let kept = sets.permitted & kept;
    let _ = clear_ambient_capability_set();
    let sets = CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
    set_capabilities(None, sets).context("cannot set the capabilities of this process")
}

/// The names, as in `CAP_…` but short; `none` without any.
pub(super) fn names(set: CapabilitySet) -> String {
    let names: Vec<&str> = set.iter_names().map(|(name, _)| name).collect();
    if names.is_empty() { "none".into() } else { names.join(" ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_keeps_what_it_may_keep_and_no_more() {
        // Of this thread only, so that other tests are not concerned.
        std::thread::spawn(|| {
            let before = capabilities(None).expect("readable").permitted;
            keep(CapabilitySet::SYSLOG).expect("given away");
            let after = capabilities(None).expect("readable");
            assert_eq!(after.permitted, before & CapabilitySet::SYSLOG);
            assert_eq!((after.effective, after.inheritable), (after.permitted, CapabilitySet::empty()));
            keep(CapabilitySet::empty()).expect("given away");
            assert_eq!(names(capabilities(None).expect("readable").permitted), "none");
        })
        .join()
        .expect("no panic");
        assert_eq!(names(CapabilitySet::BPF | CapabilitySet::SYSLOG), "SYSLOG BPF");
    }
}

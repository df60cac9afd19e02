//! What the daemon's processes have in common.

use std::ffi::CStr;

use crate::problem::Problem;

/// The name under which a process is listed.
pub(super) fn set_name(name: &CStr) {
    // It is run by a link, whose name would be shown.
    if let Err(error) = rustix::thread::set_name(name) {
        tracing::debug!("cannot set the name of this process: {error}");
    }
}

/// Says why another configuration is not taken over.
pub(super) fn refuse(error: &anyhow::Error) {
    tracing::error!("the configuration stays as it was: {error:#}");
    if let Some(problem) = error.downcast_ref::<Problem>().filter(|problem| !problem.hint.is_empty()) {
        tracing::error!("hint: {}", problem.hint);
    }
}

//! The processes that read what targets name, for the commands that look at targets.

use crate::reader::{self, Handler};
use crate::{heap, latency, symbolize, target, unwind};

/// Has them started when they are needed. To be called before there is a second thread, and before anything is given away
/// that they need.
pub fn start() {
    reader::start(&[
        Handler::of::<target::Open>(),
        Handler::of::<unwind::Build>(),
        Handler::of::<symbolize::Name>(),
        Handler::of::<latency::Look>(),
        Handler::of::<heap::Look>(),
    ]);
}

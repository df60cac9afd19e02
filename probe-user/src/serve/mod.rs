//! Room: serve. HTTP over a profile: the interactive page, and the same profile in every other format. Routers are made
//! here and tested without a socket; who listens where is the caller's business.

mod guard;
mod page;

pub use page::{Page, app};

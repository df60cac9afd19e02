//! How long functions take, at a cost that is bounded: probes at their entries and returns, taken away and set again by a
//! governor where they would cost more than their budget.

mod row;
mod timer;

pub use row::Row;
pub use timer::{Function, Options, Timer};

//! How long functions take, at a cost that is bounded: probes at their entries and returns, taken away and set again by a
//! governor where they would cost more than their budget.

mod choose;
mod definition;
mod estimate;
mod function;
mod judge;
mod look;
mod meter;
mod open;
mod operand;
mod part;
mod process;
mod registry;
mod row;
mod search;
mod sites;
mod span;
mod timer;
mod timing;
mod window;
mod worker;

pub use choose::{choose, choose_span, parks};
pub use definition::Definition;
pub use estimate::Estimate;
pub use function::{Function, Spot};
pub use judge::{ErrorTest, judgement};
pub use look::Look;
pub use part::{Part, together};
pub use registry::{InProcess, Registry, Seen, SeenRow, Status};
pub use row::Row;
pub use span::SpanSpec;
pub use timer::Timer;
pub use timing::{Reading, Slot, TICK, Timing};
pub use window::WINDOW;

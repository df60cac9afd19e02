//! Which places of which files does a name mean? What a user writes becomes file offsets at which the kernel can be asked
//! for probes, or reasons why there are none. Nothing here touches the kernel. Files are hostile: what is read of them is
//! bounded, and nothing in them makes this panic.

mod build;
mod code;
mod debugfiles;
mod demangle;
mod extent;
mod file;
mod files;
mod finder;
mod image;
mod inlined;
mod missing;
mod names;
mod nearest;
mod pattern;
mod place;
mod returns;
mod spec;
mod symbols;
#[cfg(test)]
mod tests;
mod usdt;

pub use code::first_return;
pub(crate) use debugfiles::{mini, separate};
pub(crate) use demangle::demangle;
pub use files::Files;
pub use finder::{Finder, Found};
pub(crate) use image::Image;
pub use inlined::Inlined;
pub use missing::{Missing, Why};
pub use pattern::Pattern;
pub use place::{Kind, Place, Reason, Refusal};
pub use returns::Returns;
pub use spec::{Library, Spec, Wanted};
pub(crate) use symbols::Symbols;
pub use usdt::{Argument, Register, Value};

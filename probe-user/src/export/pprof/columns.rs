//! The sample types of a profile: a number and a value for each measure that it has.

use crate::symbolize::{Measure, PAGE_FAULT, Profile};

/// Two sample types that belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Columns {
    pub measure: Measure,
    /// Name of the number; its unit is `count`.
    pub count: &'static str,
    /// Name of the value. Times are named for the event.
    pub value: &'static str,
}

/// Those of memory.
pub const MEMORY: [Columns; 2] = [
    Columns { measure: Measure::Mapped, count: "mappings", value: "mapped_space" },
    Columns { measure: Measure::Resident, count: "faults", value: "resident_space" },
];

/// Those of a profile, in their order: readers show the last one first.
pub fn of(profile: &Profile) -> Vec<Columns> {
    let time = Columns { measure: Measure::Time, count: "samples", value: "" };
    if !profile.header.event.split(',').any(|event| event == PAGE_FAULT) {
        return vec![time];
    }
    if profile.header.event == PAGE_FAULT {
        return MEMORY.to_vec();
    }
    [MEMORY[0], MEMORY[1], time].to_vec()
}

//! What a thread does: it runs, or waits in one of several ways.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The state of a thread, in the words of ps(1) and top(1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ThreadState {
    /// On a CPU.
    #[default]
    Running,
    /// Waits for a CPU: it could run, but others do.
    Runnable,
    /// Waits for something, and can be interrupted by signals (S).
    Sleeping,
    /// Waits for something, most often a disk, and cannot be interrupted (D).
    Uninterruptible,
    /// Waits for work in the kernel; no load (I).
    Idle,
    /// Stopped by a signal (T).
    Stopped,
    /// Stopped by a debugger (t).
    Traced,
    /// Parked by the kernel (P).
    Parked,
    /// It has exited (X, Z).
    Dead,
}

impl ThreadState {
    /// The meaning of `task_struct.__state` of a thread that is off its CPU (include/linux/sched.h). What is combined, as
    /// "uninterruptible but for a fatal signal", means the weaker part.
    pub fn waiting(bits: u32) -> Self {
        const IDLE: u32 = 0x402;
        match bits {
            0 => Self::Runnable,
            bits if bits & IDLE == IDLE => Self::Idle,
            bits if bits & 0x01 != 0 => Self::Sleeping,
            bits if bits & 0x02 != 0 => Self::Uninterruptible,
            bits if bits & 0x04 != 0 => Self::Stopped,
            bits if bits & 0x08 != 0 => Self::Traced,
            bits if bits & 0x40 != 0 => Self::Parked,
            bits if bits & 0xb0 != 0 => Self::Dead,
            // A read-write lock of real-time kernels and the freezer.
            bits if bits & 0x9000 != 0 => Self::Uninterruptible,
            // On its way to a CPU.
            _ => Self::Runnable,
        }
    }

    /// The meaning of the letter in `/proc/PID/stat`; `None` for one that is new. What can run is told from what runs
    /// nowhere there.
    pub fn of_letter(letter: char) -> Option<Self> {
        Some(match letter {
            'R' => Self::Running,
            'S' => Self::Sleeping,
            'D' => Self::Uninterruptible,
            'I' => Self::Idle,
            'T' => Self::Stopped,
            't' => Self::Traced,
            'P' => Self::Parked,
            'X' | 'Z' => Self::Dead,
            _ => return None,
        })
    }

    const ALL: [Self; 9] = [
        Self::Running,
        Self::Runnable,
        Self::Sleeping,
        Self::Uninterruptible,
        Self::Idle,
        Self::Stopped,
        Self::Traced,
        Self::Parked,
        Self::Dead,
    ];

    /// The state of this name; a name that is none means nothing special.
    pub fn from_name(name: &str) -> Self {
        Self::ALL.into_iter().find(|state| state.name() == name).unwrap_or_default()
    }

    /// Its name, as in serialized profiles.
    pub fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Runnable => "runnable",
            Self::Sleeping => "sleeping",
            Self::Uninterruptible => "uninterruptible",
            Self::Idle => "idle",
            Self::Stopped => "stopped",
            Self::Traced => "traced",
            Self::Parked => "parked",
            Self::Dead => "dead",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_those_of_the_kernel() {
        for (bits, expected) in [
            (0x000, ThreadState::Runnable),
            (0x001, ThreadState::Sleeping),
            (0x002, ThreadState::Uninterruptible),
            (0x102, ThreadState::Uninterruptible),
            (0x402, ThreadState::Idle),
            (0x104, ThreadState::Stopped),
            (0x108, ThreadState::Traced),
            (0x040, ThreadState::Parked),
            (0x080, ThreadState::Dead),
            (0x200, ThreadState::Runnable),
            (0x2001, ThreadState::Sleeping),
            (0x8000, ThreadState::Uninterruptible),
        ] {
            assert_eq!(ThreadState::waiting(bits), expected, "{bits:#x}");
        }
    }

    #[test]
    fn names_are_the_same_everywhere() {
        for state in ThreadState::ALL {
            assert_eq!(serde_json::to_value(state).unwrap(), state.name());
            assert_eq!(ThreadState::from_name(state.name()), state);
        }
    }
}

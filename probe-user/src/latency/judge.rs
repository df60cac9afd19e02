//! Which returned values are errors, as people write it.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::kernel::{Judgement, error_test};

/// A test of a returned value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErrorTest {
    test: u32,
    operand: i64,
    bits: u32,
}

/// How a test is written, and what the kernel is told; the first spelling is the one that is shown.
const SIGNS: [(&str, u32); 5] = [
    ("!=", error_test::NOT_EQUAL),
    ("=", error_test::EQUAL),
    ("<", error_test::LESS),
    (">", error_test::GREATER),
    ("==", error_test::EQUAL),
];

/// How calls are judged: by how long they take and by what they return.
pub fn judgement(threshold: Option<Duration>, errors: Option<ErrorTest>) -> Judgement {
    let threshold_ns = threshold.map_or(u64::MAX, |time| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    let Some(ErrorTest { test, operand, bits }) = errors else {
        return Judgement { threshold_ns, ..Judgement::default() };
    };
    Judgement { threshold_ns, operand, error_test: test, bits, ..Judgement::default() }
}

impl FromStr for ErrorTest {
    type Err = String;

    /// `<0`, `>3`, `=0`, `!=0`, each with `:8`, `:16`, `:32` or `:64` behind it for the width of the value.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("`{text}` is not a test; write <0, >3, =0 or !=0, with :64 behind it for a long or a pointer");
        let (text, bits) = match text.split_once(':') {
            None => (text, 32),
            Some((test, bits @ ("8" | "16" | "32" | "64"))) => (test, bits.parse().map_err(|_| wrong())?),
            Some(_) => return Err(wrong()),
        };
        // The longest sign first: `==` begins with `=`.
        let found = SIGNS.into_iter().rev().find_map(|(sign, test)| Some((text.strip_prefix(sign)?, test)));
        let (number, test) = found.ok_or_else(wrong)?;
        let operand = number.trim().parse().map_err(|_| wrong())?;
        Ok(Self { test, operand, bits })
    }
}

impl fmt::Display for ErrorTest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = SIGNS.iter().find(|(_, test)| *test == self.test).map_or("", |(sign, _)| sign);
        match self.bits {
            32 => write!(f, "{sign}{}", self.operand),
            bits => write!(f, "{sign}{}:{bits}", self.operand),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_are_read_and_shown() {
        for (text, test, operand, bits, shown) in [
            ("<0", error_test::LESS, 0, 32, "<0"),
            ("!=0:64", error_test::NOT_EQUAL, 0, 64, "!=0:64"),
            ("=-1", error_test::EQUAL, -1, 32, "=-1"),
            ("== 3", error_test::EQUAL, 3, 32, "=3"),
            (">255:8", error_test::GREATER, 255, 8, ">255:8"),
        ] {
            let read: ErrorTest = text.parse().expect(text);
            assert_eq!((read, read.to_string().as_str()), (ErrorTest { test, operand, bits }, shown));
        }
        for bad in ["", "0", "<", "<x", "<0:7", "<0:", "=>1"] {
            assert!(bad.parse::<ErrorTest>().is_err(), "{bad}");
        }
    }

    #[test]
    fn without_a_threshold_every_call_is_within_it() {
        assert_eq!(judgement(None, None).threshold_ns, u64::MAX);
        let both = judgement(Some(Duration::from_millis(20)), "<0".parse().ok());
        assert_eq!((both.threshold_ns, both.error_test), (20_000_000, error_test::LESS));
    }
}

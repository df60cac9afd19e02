//! Which returned values are errors, as people write it.

use crate::kernel::{Judgement, error_test};

/// A test of a returned value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErrorTest {
    test: u32,
    operand: i64,
    bits: u32,
}

impl From<ErrorTest> for Judgement {
    fn from(ErrorTest { test, operand, bits }: ErrorTest) -> Self {
        Self { threshold_ns: u64::MAX, operand, error_test: test, bits, features: 0, padding: 0 }
    }
}

/// `<0`, `>3`, `=0`, `!=0`, each with `:8`, `:16`, `:32` or `:64` behind it for the width of the value.
pub fn parse(text: &str) -> Result<ErrorTest, String> {
    let wrong = || format!("`{text}` is no test; write <0, >3, =0 or !=0, with :64 behind it for a long or a pointer");
    let (text, bits) = match text.split_once(':') {
        None => (text, 32),
        Some((test, bits @ ("8" | "16" | "32" | "64"))) => (test, bits.parse().map_err(|_| wrong())?),
        Some(_) => return Err(wrong()),
    };
    let tests = [
        ("!=", error_test::NOT_EQUAL),
        ("==", error_test::EQUAL),
        ("=", error_test::EQUAL),
        ("<", error_test::LESS),
        (">", error_test::GREATER),
    ];
    let found = tests.into_iter().find_map(|(sign, test)| Some((text.strip_prefix(sign)?, test)));
    let (number, test) = found.ok_or_else(wrong)?;
    let operand = number.trim().parse().map_err(|_| wrong())?;
    Ok(ErrorTest { test, operand, bits })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_are_read() {
        let test = |test, operand, bits| Ok(ErrorTest { test, operand, bits });
        assert_eq!(parse("<0"), test(error_test::LESS, 0, 32));
        assert_eq!(parse("!=0:64"), test(error_test::NOT_EQUAL, 0, 64));
        assert_eq!(parse("=-1"), test(error_test::EQUAL, -1, 32));
        assert_eq!(parse(">255:8"), test(error_test::GREATER, 255, 8));
        for bad in ["", "0", "<", "<x", "<0:7", "<0:", "=>1"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}

//! `Pids`: several processes as `-p` takes them: with commas between them, or one a line, as `pgrep` prints them.

use std::str::FromStr;

/// See the head of this file. Each flag has some.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pids(Vec<u32>);

impl Pids {
    /// Those of all flags, each once, in their order.
    pub fn all(flags: &[Self]) -> Vec<u32> {
        let mut all = Vec::new();
        for pid in flags.iter().flat_map(|flag| &flag.0) {
            if !all.contains(pid) {
                all.push(*pid);
            }
        }
        all
    }
}

impl FromStr for Pids {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let words = text.split(|c: char| c == ',' || c.is_whitespace()).filter(|word| !word.is_empty());
        let pid = |word: &str| word.parse().map_err(|_| format!("`{word}` is not a process id"));
        let pids: Vec<u32> = words.map(pid).collect::<Result<_, _>>()?;
        if pids.is_empty() {
            return Err("no process id: `pgrep NAME` may have found no process".to_owned());
        }
        Ok(Self(pids))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pids_are_taken_as_pgrep_prints_them() {
        for text in ["1,2,30", "1 2 30", "1\n2\n30\n", " 1, 2 ,30"] {
            assert_eq!(text.parse(), Ok(Pids(vec![1, 2, 30])), "{text:?}");
        }
        let flags: Vec<Pids> = ["7,1", "1", "9"].map(|text| text.parse().unwrap()).into();
        assert_eq!(Pids::all(&flags), [7, 1, 9]);
        for bad in ["", " \n", "-1", "1,x", "4294967296"] {
            assert!(bad.parse::<Pids>().is_err(), "{bad:?}");
        }
    }
}

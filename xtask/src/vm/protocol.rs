//! What the virtual machine says on its second serial port: lines that begin with `===` say what the others are.

/// What became of one check in the machine.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Ran {
    /// The check.
    pub name: String,
    /// The exit code of its script.
    pub code: i32,
    /// What it said, for people.
    pub log: String,
    /// What it handed over to be judged.
    pub result: String,
}

/// Reads the port.
#[derive(Debug, Default)]
pub struct Reader {
    /// The kernel's release, once it is known.
    pub release: Option<String>,
    /// Whether the machine has said that all checks have run.
    pub is_done: bool,
    now: Option<Ran>,
    is_result: bool,
}

impl Reader {
    /// Takes a line; the one that ends a check gives what became of it.
    pub fn read(&mut self, line: &str) -> Option<Ran> {
        let Some(words) = line.strip_prefix("=== ") else {
            if let Some(ran) = &mut self.now {
                let text = if self.is_result { &mut ran.result } else { &mut ran.log };
                // The marks are kept apart by empty lines, which belong to nobody.
                if !line.is_empty() {
                    text.push_str(line);
                    text.push('\n');
                }
            }
            return None;
        };
        match words.split_once(' ').unwrap_or((words, "")) {
            ("kernel", release) => self.release = Some(release.to_owned()),
            ("begin", name) => {
                self.now = Some(Ran { name: name.to_owned(), ..Ran::default() });
                self.is_result = false;
            }
            ("result", _) => self.is_result = true,
            ("end", code) => {
                let mut ran = self.now.take()?;
                ran.code = code.parse().unwrap_or(-1);
                return Some(ran);
            }
            ("done", _) => self.is_done = true,
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_has_a_name_a_log_a_result_and_a_code() {
        let mut reader = Reader::default();
        let lines = ["=== kernel 6.1.0", "=== begin one", "says", "", "=== result", "a 1", "b 2", "", "=== end 3"];
        let ran: Vec<_> = lines.iter().filter_map(|line| reader.read(line)).collect();
        let expected =
            Ran { name: "one".to_owned(), code: 3, log: "says\n".to_owned(), result: "a 1\nb 2\n".to_owned() };
        assert_eq!(ran, [expected]);
        assert_eq!(reader.release.as_deref(), Some("6.1.0"));
        assert!(!reader.is_done);
        assert_eq!(reader.read("=== done"), None);
        assert!(reader.is_done);
    }
}

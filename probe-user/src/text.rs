//! Text that comes from a target (symbol, thread and file names, command lines) is hostile until it went through here.

/// Longest name that is kept, in bytes. C++ templates reach a few kilobytes; a megabyte is an attack.
pub const MAX_NAME: usize = 4096;

/// Makes a name safe to show anywhere: control characters and bidirectional overrides become U+FFFD, and what is longer
/// than [`MAX_NAME`] bytes is cut at a character boundary and ends in `…`. Markup is left to the formats that know it.
pub fn sanitize(name: &str) -> String {
    let mut clean: String = name
        .chars()
        .take(MAX_NAME)
        .map(|c| if c.is_control() || is_invisible(c) { char::REPLACEMENT_CHARACTER } else { c })
        .collect();
    if clean.len() > MAX_NAME || name.len() > MAX_NAME && clean.len() < name.len() {
        let end = (0..=clean.len().min(MAX_NAME - '…'.len_utf8())).rev().find(|&at| clean.is_char_boundary(at));
        clean.truncate(end.unwrap_or(0));
        clean.push('…');
    }
    clean
}

/// True for what [`sanitize`] leaves as it is.
pub fn is_harmless(name: &str) -> bool {
    let is_plain = |byte: u8| (b' '..=b'~').contains(&byte);
    name.len() <= MAX_NAME && (name.bytes().all(is_plain) || name.chars().all(|c| !c.is_control() && !is_invisible(c)))
}

/// What is before the first zero: a name in a field of fixed length.
pub fn until_zero(bytes: &[u8]) -> &[u8] {
    bytes.split(|&b| b == 0).next().unwrap_or_default()
}

/// A number of things: `1 sample`, `2 samples`, `1 process`, `2 processes`. `many` is the plural.
pub fn count(number: u64, many: &str) -> String {
    let first = many.split(' ').next().unwrap_or_default();
    let one = match first {
        "processes" => "process",
        other => other.strip_suffix('s').unwrap_or(other),
    };
    if number == 1 { format!("1 {one}{}", &many[first.len()..]) } else { format!("{number} {many}") }
}

/// Bytes in MiB, for people.
pub fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

/// Characters that change how the text around them is shown without being seen themselves.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// Three figures of a time: 812ns, 12.3us, 4.56ms, 1.23s.
pub fn short_time(nanoseconds: u64) -> String {
    let value = nanoseconds as f64;
    let (value, unit) = match value {
        v if v < 1e3 => return format!("{nanoseconds}ns"),
        v if v < 1e6 => (v / 1e3, "us"),
        v if v < 1e9 => (v / 1e6, "ms"),
        v => (v / 1e9, "s"),
    };
    let decimals = if value < 10.0 { 2 } else { usize::from(value < 100.0) };
    format!("{value:.decimals$}{unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_no_plural() {
        let one = [count(1, "stacks truncated: no frame pointer"), count(1, "processes"), count(1, "objects")];
        assert_eq!(one, ["1 stack truncated: no frame pointer", "1 process", "1 object"]);
        assert_eq!([count(0, "samples"), count(2, "processes")], ["0 samples", "2 processes"]);
    }

    #[test]
    fn times_have_three_figures() {
        let texts = [812, 12_345, 123_456, 4_560_000, 1_234_000_000].map(short_time);
        assert_eq!(texts, ["812ns", "12.3us", "123us", "4.56ms", "1.23s"]);
    }

    #[test]
    fn harmless_names_stay() {
        assert_eq!(sanitize("std::vector<int>::push_back"), "std::vector<int>::push_back");
        assert_eq!(sanitize("größe"), "größe");
    }

    #[test]
    fn control_characters_and_overrides_are_replaced() {
        assert_eq!(sanitize("a\nb\x1b[31m\u{202e}c\0"), "a\u{fffd}b\u{fffd}[31m\u{fffd}c\u{fffd}");
    }

    #[test]
    fn long_names_are_cut_at_a_boundary() {
        let cut = sanitize(&"é".repeat(1 << 20));
        assert!(cut.len() <= MAX_NAME && cut.ends_with('…'), "{} bytes", cut.len());
        assert_eq!(sanitize(&"x".repeat(MAX_NAME)).len(), MAX_NAME);
    }

    #[test]
    fn what_is_harmless_stays_and_what_stays_is_harmless() {
        let texts =
            ["", "a~ b", "größe", "日本", "a\n", "\u{7f}", "\u{85}", "a\u{200b}", "\u{fffd}"].map(str::to_owned);
        let long = [MAX_NAME - 1, MAX_NAME, MAX_NAME + 1, 2 * MAX_NAME].map(|length| "x".repeat(length));
        for text in texts.iter().chain(&long).chain(&[sanitize("a\0"), sanitize(&"é".repeat(MAX_NAME))]) {
            assert_eq!(is_harmless(text), sanitize(text) == *text, "{text:?}");
        }
    }
}

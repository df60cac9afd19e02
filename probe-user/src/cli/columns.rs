//! Tables for a terminal: cells are as wide as they are shown, and names that are too long lose their middle.

use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

/// A longer name leaves no room for the other columns: C++ templates reach some thousand characters.
const LONGEST: usize = 60;

/// How many columns of a terminal a text takes: two for each character of East Asia.
pub fn width(text: &str) -> usize {
    text.width()
}

/// A text, followed by blanks up to a width.
pub fn left(text: &str, width: usize) -> String {
    format!("{text}{}", " ".repeat(width.saturating_sub(text.width())))
}

/// A text, after blanks up to a width.
pub fn right(text: &str, width: usize) -> String {
    format!("{}{text}", " ".repeat(width.saturating_sub(text.width())))
}

/// A name, without its middle where it is too long: the beginning and the end tell names apart.
pub fn fit(name: &str) -> String {
    if name.width() <= LONGEST {
        return name.to_owned();
    }
    let half = (LONGEST - 1) / 2;
    let start: String = within(name.chars(), half).collect();
    let mut end: Vec<char> = within(name.chars().rev(), half).collect();
    end.reverse();
    format!("{start}…{}", end.into_iter().collect::<String>())
}

fn within(characters: impl Iterator<Item = char>, most: usize) -> impl Iterator<Item = char> {
    let mut taken = 0;
    characters.take_while(move |c| {
        taken += c.width().unwrap_or(0);
        taken <= most
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_as_wide_as_they_are_shown() {
        assert_eq!(
            [left("ab", 4), right("ab", 4), left("支付", 6), right("支付", 3)],
            ["ab  ", "  ab", "支付  ", "支付"]
        );
    }

    #[test]
    fn long_names_lose_their_middle() {
        let name = format!("std::map<{}>::insert", "std::string, ".repeat(20));
        let short = fit(&name);
        assert!(width(&short) <= LONGEST && short.starts_with("std::map<") && short.ends_with(">::insert"), "{short}");
        assert_eq!(fit("main"), "main");
        assert!(width(&fit(&"支".repeat(100))) <= LONGEST);
    }
}

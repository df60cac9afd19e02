//! What a written name stands for: itself, a glob, or a regular expression.

use std::fmt;

use anyhow::{Context, Result};
use regex::{Regex, RegexBuilder};

/// A compiled regular expression may not be larger.
const MAX_REGEX_BYTES: usize = 1 << 20;
/// What Go's tools write between brackets for the types of a generic function: no class of characters.
const ELLIPSIS: &str = "...]";

/// A name as it was written.
#[derive(Clone, Debug)]
pub enum Pattern {
    /// The name itself.
    Exact(String),
    /// With `*` (any characters), `?` (any one) or `[a-z]`; the text itself matches as well.
    Glob(String, Regex),
    /// What stood between slashes; it may match anywhere in a name.
    Regex(Regex),
}

impl Pattern {
    /// Reads a pattern: `/…/` is a regular expression, what has `*`, `?` or a class in brackets a glob.
    pub fn parse(text: &str) -> Result<Self> {
        if text.len() > 2
            && let Some(inner) = text.strip_prefix('/').and_then(|rest| rest.strip_suffix('/'))
        {
            let regex = RegexBuilder::new(inner).size_limit(MAX_REGEX_BYTES).build();
            return Ok(Self::Regex(regex.with_context(|| format!("not a regular expression: `{inner}`"))?));
        }
        Ok(Self::glob(text))
    }

    /// A glob, or the text itself if it has no wildcards.
    pub fn glob(text: &str) -> Self {
        if has_wildcard(text)
            && let Some(regex) = translate(text)
        {
            return Self::Glob(text.to_owned(), regex);
        }
        Self::Exact(text.to_owned())
    }

    /// Whether a name is meant.
    pub fn matches(&self, name: &str) -> bool {
        match self {
            Self::Exact(text) => text == name,
            Self::Glob(text, regex) => text == name || regex.is_match(name),
            Self::Regex(regex) => regex.is_match(name),
        }
    }

    /// What an operator's name may mean where no function is called just so: a member of whatever class has it, and with a star
    /// behind `operator` all of them. `operator*` is the one that multiplies first.
    pub fn operators(&self) -> Option<Self> {
        const WORD: &str = "operator";
        let (Self::Exact(text) | Self::Glob(text, _)) = self else { return None };
        let at = text.rfind(WORD).filter(|&at| is_word_start(&text[..at]))?;
        let (scope, rest) = (&text[..at], &text[at + WORD.len()..]);
        if rest.is_empty() || rest.starts_with(is_of_word) {
            return None;
        }
        let scope = if scope.is_empty() { "(.*::)?".to_owned() } else { wild(scope) };
        let name = if rest == "*" { 0 } else { operator_length(rest) };
        let (name, rest) = rest.split_at(name);
        let regex = compile(&format!("{scope}{WORD}{}{}", regex::escape(name), wild(rest)))?;
        Some(Self::Glob(text.clone(), regex))
    }

    /// The name, if it is one and no pattern.
    pub fn exact(&self) -> Option<&str> {
        match self {
            Self::Exact(text) => Some(text),
            Self::Glob(..) | Self::Regex(_) => None,
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(text) | Self::Glob(text, _) => f.write_str(text),
            Self::Regex(regex) => write!(f, "/{regex}/"),
        }
    }
}

/// Whether a name has wildcards: not within brackets that are closed, where C++ and Go write pointers, and not behind
/// `operator`, whose name may be one.
fn has_wildcard(text: &str) -> bool {
    let mut at = 0;
    while let Some(c) = text[at..].chars().next() {
        at += c.len_utf8();
        match c {
            'o' if text[at - 1..].starts_with("operator") && is_word_start(&text[..at - 1]) => {
                at += "operator".len() - 1;
                at += operator_length(&text[at..]);
            }
            '(' | '<' => at += closed_length(c, &text[at..]).unwrap_or(0),
            '*' | '?' => return true,
            '[' if text[at..].starts_with(ELLIPSIS) => at += ELLIPSIS.len(),
            '[' if text[at..].find(']').is_some_and(|end| end > 0) => return true,
            _ => {}
        }
    }
    false
}

fn is_word_start(before: &str) -> bool {
    !before.ends_with(is_of_word)
}

fn is_of_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The length of the symbols that an operator's name has, which open no bracket and are no wildcards.
fn operator_length(text: &str) -> usize {
    const NAMES: [&str; 18] =
        ["<=>", "<<=", ">>=", "->*", "<<", ">>", "<=", ">=", "->", "*=", "()", "[]", "<", ">", "*", "-", "+", "/"];
    // A star behind the name of another operator is a wildcard: `operator<*`, `operator->*` is itself.
    NAMES.iter().find(|name| text.starts_with(**name)).map_or(0, |name| name.len())
}

/// The length of what follows an open bracket, up to the one that closes it and with that; `None` if nothing does.
fn closed_length(open: char, text: &str) -> Option<usize> {
    let mut open = vec![if open == '(' { ')' } else { '>' }];
    let mut before = ' ';
    for (at, c) in text.char_indices() {
        match c {
            '(' => open.push(')'),
            '<' => open.push('>'),
            // An arrow closes nothing.
            '>' if before == '-' => {}
            ')' | '>' if open.last() == Some(&c) => {
                open.pop();
                if open.is_empty() {
                    return Some(at + 1);
                }
            }
            _ => {}
        }
        before = c;
    }
    None
}

/// A glob as a regular expression; `None` when it is too long for one.
fn translate(text: &str) -> Option<Regex> {
    compile(&wild(text))
}

fn compile(whole: &str) -> Option<Regex> {
    RegexBuilder::new(&format!("(?s)^{whole}$")).size_limit(MAX_REGEX_BYTES).build().ok()
}

/// A glob in the language of regular expressions.
fn wild(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        match c {
            '*' => out.push_str(".*"),
            '?' => out.push('.'),
            '[' => match rest.as_str().find(']').filter(|&end| end > 0 && !rest.as_str().starts_with(ELLIPSIS)) {
                Some(end) => {
                    let class = &rest.as_str()[..end];
                    let (not, class) = match class.strip_prefix(['!', '^']) {
                        Some(class) if !class.is_empty() => ("^", class),
                        _ => ("", class),
                    };
                    // A hyphen means a range here as there; everything else means itself.
                    let members = regex::escape(class).replace("\\-", "-");
                    out.push_str(&format!("[{not}{members}]"));
                    rest = rest.as_str()[end + 1..].chars();
                }
                None => out.push_str("\\["),
            },
            c => out.push_str(&regex::escape(c.encode_utf8(&mut [0; 4]))),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, name: &str) -> bool {
        Pattern::parse(pattern).unwrap().matches(name)
    }

    #[test]
    fn globs_match_whole_names_and_regular_expressions_parts() {
        assert!(matches("push_*", "push_all") && !matches("push_*", "xpush_all"));
        assert!(matches("push_?", "push_1") && !matches("push_?", "push_12"));
        assert!(matches("push_[0-9]", "push_7") && !matches("push_[!0-9]", "push_7"));
        assert!(matches("/^push_.*$/", "push_all") && matches("/all/", "push_all"));
        assert!(matches("push_all", "push_all") && !matches("push_all", "push_al"));
    }

    #[test]
    fn names_that_look_like_globs_match_themselves() {
        assert!(matches("ns::operator*", "ns::operator*"));
        assert!(matches("main.(*T).Method", "main.(*T).Method"));
        assert!(matches("operator new[](unsigned long)", "operator new[](unsigned long)"));
        assert!(matches("f(char*)", "f(char*)") && !matches("f(char*)", "f(char const*)"));
        assert!(!matches("ns::operator*", "ns::operator*=") && matches("push_*(int*)", "push_a(int*)"));
        assert!(matches("a[", "a[") && matches("[]", "[]") && matches("main.f[...]", "main.f[...]"));
        assert!(matches("main.*[...]", "main.f[...]") && !matches("main.f[...]", "main.f."));
        assert!(matches("operator->*", "operator->*") && !matches("operator->*", "operator->x"));
        assert!(matches("f<int*>", "f<int*>") && !matches("f<int*>", "f<int>") && !matches("f(a*)", "f(ab)"));
        assert!(matches("f<g(int*)>", "f<g(int*)>") && !matches("f<g(int*)>", "f<g(int)>"));
    }

    #[test]
    fn a_star_behind_an_open_bracket_is_a_wildcard() {
        assert!(matches("operator<*", "operator<(X const&, V const&)") && matches("operator<*", "operator<"));
        assert!(matches("operator<<*", "operator<<(std::ostream&, X)") && matches("operator()*", "operator()() const"));
        assert!(matches("void call<*", "void call<main::{lambda()#1}>(main::{lambda()#1})"));
        assert!(
            matches("Deep<*", "Deep<int, char*>::run()") && matches("f(*", "f(int)") && matches("f<a(*", "f<a(b)>")
        );
        assert!(matches("operator*<*", "operator*<int>(int)") && matches("a->b<*", "a->b<c>"));
        assert!(matches("my_operator*", "my_operators") && matches("operator new*", "operator new[](unsigned long)"));
    }

    #[test]
    fn an_operator_may_be_a_member_and_a_star_all_of_them() {
        let means = |pattern: &str, name: &str| Pattern::parse(pattern).unwrap().operators().unwrap().matches(name);
        assert!(means("operator*", "operator bool") && means("operator*", "shop::Price::operator+"));
        assert!(means("operator bool", "shop::Price::operator bool") && !means("operator bool", "x::operator int"));
        assert!(means("operator()", "F::operator()") && means("operator[]", "V::operator[]"));
        assert!(means("shop::Price::operator*", "shop::Price::operator<") && !means("a::operator*", "b::operator<"));
        assert!(!means("operator*=", "V::operator+=") && means("operator->*", "V::operator->*"));
        for name in ["operator", "my_operator*", "operators", "f"] {
            assert!(Pattern::parse(name).unwrap().operators().is_none(), "{name}");
        }
    }

    #[test]
    fn a_broken_regular_expression_is_an_error_that_shows_it() {
        assert!(format!("{:#}", Pattern::parse("/push_(/").unwrap_err()).contains("push_("));
        assert!(Pattern::parse("/(a{1000}){1000}/").is_err());
    }
}

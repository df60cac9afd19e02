//! Names as the linker has them, and what they mean to people: demangled, without versions, without the suffixes of copies
//! that compilers make.

use std::fmt::{self, Write};

use cpp_demangle::DemangleOptions;

/// No longer name is demangled: those of expression templates reach some ten thousand bytes.
const MAX_MANGLED: usize = 1 << 16;
/// A demangled name may not be longer: a few bytes of a hostile one can stand for gigabytes.
const MAX_DEMANGLED: usize = 1 << 16;

/// A name for people: demangled, without the hash that Rust adds. `None` if it is not mangled.
pub(crate) fn demangle(symbol: &str) -> Option<String> {
    let symbol = without_version(symbol);
    let clone = Cloned::of(symbol);
    let name = forms(clone.base)?.swap_remove(0);
    let suffix = &symbol[clone.base.len()..];
    Some(if suffix.is_empty() { name } else { format!("{name} [clone {suffix}]") })
}

/// The demangled forms of a name, the fullest first; `None` if it is not mangled.
pub(super) fn forms(mangled: &str) -> Option<Vec<String>> {
    if !mangled.starts_with("_Z") && !mangled.starts_with("_R") || mangled.len() > MAX_MANGLED {
        return None;
    }
    if let Ok(rust) = rustc_demangle::try_demangle(mangled) {
        let plain = bounded(|out| write!(out, "{rust:#}"))?;
        let mut forms = vec![plain.clone(), without_arguments(&plain).replace("::::", "::")];
        if let Some(bare) = forms[1].strip_suffix("::").map(str::to_owned) {
            forms.push(bare);
        }
        forms.extend(bounded(|out| write!(out, "{rust}")));
        return Some(forms);
    }
    let Ok(symbol) = cpp_demangle::Symbol::new(mangled) else { return name_alone(mangled).map(|name| vec![name]) };
    let form = |options| bounded(|out| symbol.structured_demangle(out, &options));
    let full = form(DemangleOptions::new())?;
    let bare = form(DemangleOptions::new().no_params().no_return_type());
    let mut forms = vec![full];
    forms.extend(form(DemangleOptions::new().no_return_type()));
    if let Some(bare) = bare {
        if !bare.contains("operator") {
            forms.push(without_arguments(&bare));
        }
        forms.push(bare);
    }
    Some(forms)
}

/// The name of a function whose parameters or result the demangler does not understand, as older compilers write
/// `std::enable_if` of a member: the shortest beginning that is a name. Such functions are templates: their name ends with `E`.
fn name_alone(mangled: &str) -> Option<String> {
    const MAX_TRIED: usize = 64;
    let ends = mangled.match_indices('E').map(|(at, _)| &mangled[..=at]).take(MAX_TRIED);
    ends.into_iter().find_map(|beginning| {
        let symbol = cpp_demangle::Symbol::new(beginning).ok()?;
        bounded(|out| symbol.structured_demangle(out, &DemangleOptions::new()))
    })
}

/// Collects what is written, up to a limit.
struct Bounded(String);

impl Write for Bounded {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if self.0.len() + text.len() > MAX_DEMANGLED {
            return Err(fmt::Error);
        }
        self.0.push_str(text);
        Ok(())
    }
}

fn bounded(write: impl FnOnce(&mut Bounded) -> fmt::Result) -> Option<String> {
    let mut out = Bounded(String::new());
    write(&mut out).ok()?;
    Some(out.0)
}

/// A name without what stands between angle brackets, but for those that a name begins with: `<T as Trait>::method`.
fn without_arguments(name: &str) -> String {
    let head = if name.starts_with('<') { closing(name).unwrap_or(0) } else { 0 };
    let (mut out, mut depth) = (name[..head].to_owned(), 0_usize);
    for c in name[head..].chars() {
        match c {
            '<' => depth += 1,
            '>' => depth = depth.saturating_sub(1),
            c if depth == 0 => out.push(c),
            _ => {}
        }
    }
    out
}

/// Where the bracket that a name begins with is closed.
fn closing(name: &str) -> Option<usize> {
    let mut depth = 0;
    name.char_indices().find_map(|(at, c)| {
        depth += i32::from(c == '<') - i32::from(c == '>');
        (depth == 0).then_some(at + 1)
    })
}

/// `.symtab` has the versions of symbols in their names.
pub(super) fn without_version(symbol: &str) -> &str {
    symbol.split_once('@').map_or(symbol, |(name, _)| if name.is_empty() { symbol } else { name })
}

/// What compilers make of one function: copies made for certain arguments, and parts of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CloneKind {
    /// All of the function.
    Whole,
    /// A part that is called.
    Part,
    /// A part that is jumped to: it has no return address of its own.
    Cold,
}

/// A name without the suffixes of copies, and what it is a copy of.
pub(super) struct Cloned<'name> {
    pub base: &'name str,
    pub kind: CloneKind,
}

impl<'name> Cloned<'name> {
    /// Takes the suffixes of GCC and LLVM off a name.
    pub fn of(name: &'name str) -> Self {
        const SUFFIXES: [&str; 8] =
            [".cold", ".part", ".isra", ".constprop", ".llvm", ".lto_priv", ".localalias", ".clone"];
        let (mut base, mut kind) = (name, CloneKind::Whole);
        if !name.contains('.') {
            return Self { base, kind };
        }
        // Each may be followed by a number.
        while let Some(at) = SUFFIXES.iter().filter_map(|suffix| base.rfind(suffix)).max().filter(|&at| at > 0) {
            let suffix = base[at + 1..].split('.').next().unwrap_or_default();
            let rest = &base[at + 1 + suffix.len()..];
            let is_suffix = SUFFIXES.iter().any(|known| known[1..] == *suffix)
                && rest.bytes().all(|byte| byte == b'.' || byte.is_ascii_digit());
            if !is_suffix {
                break;
            }
            kind = match suffix {
                "cold" => CloneKind::Cold,
                "part" if kind == CloneKind::Whole => CloneKind::Part,
                _ => kind,
            };
            base = &base[..at];
        }
        Self { base, kind }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_for_people_have_no_hash_and_keep_what_copies_are_called() {
        assert_eq!(demangle("_ZN7pricing8evaluate17h0123456789abcdefE").unwrap(), "pricing::evaluate");
        assert_eq!(demangle("_ZN2ns1fEi.isra.0").unwrap(), "ns::f(int) [clone .isra.0]");
        assert_eq!(demangle("work.isra.0"), None);
    }

    #[test]
    fn only_mangled_names_are_demangled() {
        for name in ["f", "d", "w", "St", "Ss", "PKc", "FvvE", "Dv", "main", "Z1fv", "__Z1fv"] {
            assert_eq!(demangle(name), None, "{name}");
        }
    }

    #[test]
    fn of_what_is_not_understood_the_name_remains() {
        let name = "_ZSt14__relocate_a_1IccENSt9enable_ifIXsrSt24__is_bitwise_relocatableIT_vE5valueEPS2_E4typeES4_S4_S4_RSaIT0_E";
        assert_eq!(demangle(name).unwrap(), "std::__relocate_a_1<char, char>");
    }

    #[test]
    fn long_names_are_demangled_before_they_are_cut() {
        let name = format!("_Z1fI{}Evv", format!("2000{}", "x".repeat(2000)).repeat(3));
        assert!(demangle(&name).is_some_and(|name| name.starts_with("void f<xxx") && name.len() > 6000), "{name:.80}");
    }

    /// The name of what was told before.
    fn substitution(number: u64) -> String {
        const DIGITS: &[u8] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ";
        let Some(mut rest) = number.checked_sub(1) else { return "S_".into() };
        let mut digits = Vec::new();
        loop {
            digits.insert(0, char::from(DIGITS[(rest % 36) as usize]));
            rest /= 36;
            if rest == 0 {
                return format!("S{}_", digits.into_iter().collect::<String>());
            }
        }
    }

    #[test]
    fn suffixes_tell_what_a_copy_is() {
        assert_eq!(Cloned::of("work.part.0.cold").kind, CloneKind::Cold);
        assert_eq!(Cloned::of("a.coldly").base, "a.coldly");
    }

    #[test]
    fn hostile_names_are_bounded() {
        // Each level doubles what the one below stands for.
        let templates = (0..28).map(|level| format!("1BI{0}{0}E", substitution(2 * level)));
        let pointers = (0..40).map(|level| format!("PF{0}{0}E", substitution(2 * level)));
        let members = (0..60).map(|level| format!("M{0}{0}", substitution(level)));
        let bombs = [
            format!("_Z1f1A{}", templates.collect::<String>()),
            format!("_Z1fPFvvE{}", pointers.collect::<String>()),
            format!("_Z1f3std{}", members.collect::<String>()),
            format!("_Z1fIJ{}EEvDpT_", "i".repeat(60_000)),
            format!("_Z1fI{}E", "S_IS0_S0_E".repeat(60)),
        ];
        for bomb in bombs {
            assert!(demangle(&bomb).is_none_or(|name| name.len() <= MAX_DEMANGLED), "{bomb:.80}");
        }
        assert_eq!(demangle(&format!("_Z{}", "P".repeat(1 << 20))), None);
        for name in ["_Z", "_R", "_ZN", "_ZN7pricing", ".cold", "@", "_Z.cold", ""] {
            let _ = (demangle(name), Cloned::of(name).base);
        }
    }
}

//! The names that somebody who wrote a wrong one may have meant.

/// So many are offered.
const OFFERED: usize = 5;
/// So many are looked at closely, after a coarse look at all.
const SHORTLIST: usize = 64;
/// Longer names are not compared: nobody mistypes those.
const MAX_COMPARED: usize = 128;

/// Collects the names nearest to a wanted one. Most names are dismissed by their length or their letters, so that
/// hundreds of thousands are no burden.
pub(super) struct Nearest {
    /// The last part of the wanted name, in lower case.
    wanted: String,
    /// All of it, without parameters.
    whole: String,
    /// The other parts.
    around: Vec<String>,
    letters: u64,
    /// How far off a name may be.
    limit: usize,
    /// How far off, and the names.
    found: Vec<(usize, String)>,
}

impl Nearest {
    pub fn to(wanted: &str) -> Self {
        let lower = wanted.to_lowercase();
        let wanted = last_part(&lower).to_owned();
        let whole = lower.split('(').next().unwrap_or_default().chars().take(MAX_COMPARED).collect();
        let around = lower.split([':', '.', '(', '<']).filter(|part| !part.is_empty() && *part != wanted);
        let around = around.take(8).map(str::to_owned).collect();
        let limit = (wanted.len() / 3).clamp(1, 6);
        Self { letters: letters(&wanted), limit, wanted, whole, around, found: Vec::new() }
    }

    /// Looks at a name as a file has it: mangled, or not.
    pub fn consider(&mut self, name: &str) {
        if self.wanted.is_empty() || self.wanted.len() > MAX_COMPARED || name.len() > 4 * MAX_COMPARED {
            return;
        }
        let is_mangled = name.starts_with("_Z") || name.starts_with("_R");
        let distance = if is_mangled {
            identifiers(name).filter_map(|part| self.distance(part)).min()
        } else {
            self.distance(last_part(name))
        };
        let Some(distance) = distance else { return };
        let missing = if self.around.is_empty() { 0 } else { self.missing(name) };
        self.found.push((distance + missing, name.to_owned()));
        // Room for twice as many, so that they seldom have to be sorted.
        if self.found.len() >= 2 * SHORTLIST {
            self.trim(SHORTLIST);
        }
    }

    /// How many of the other parts a name does not have.
    fn missing(&self, name: &str) -> usize {
        let lower = name.to_lowercase();
        self.around.iter().filter(|part| !lower.contains(part.as_str())).count()
    }

    fn distance(&self, part: &str) -> Option<usize> {
        let part = part.split_once('@').map_or(part, |(name, _)| name);
        if part.is_empty() || part.len() > MAX_COMPARED {
            return None;
        }
        let lower = part.to_lowercase();
        if lower == self.wanted {
            return Some(0);
        }
        // A part of a longer name, if it says something by itself; behind those with a slip of the finger.
        let contains = self.wanted.len() >= 4 && lower.contains(&self.wanted);
        let contained = if contains { Some(self.limit + 1) } else { None };
        let missing = (letters(&lower) ^ self.letters).count_ones() as usize;
        if lower.len().abs_diff(self.wanted.len()) > self.limit || missing > 2 * self.limit {
            return contained;
        }
        let distance = strsim::damerau_levenshtein(&lower, &self.wanted);
        if distance <= self.limit { Some(distance) } else { contained }
    }

    fn trim(&mut self, to: usize) {
        self.found.sort_by(|a, b| (a.0, a.1.len(), &a.1).cmp(&(b.0, b.1.len(), &b.1)));
        self.found.dedup();
        self.found.truncate(to);
    }

    /// The nearest ones, as `show` would have them, without repetitions.
    pub fn names(mut self, show: impl Fn(&str) -> String) -> Vec<String> {
        self.trim(SHORTLIST);
        // Of those that are equally near, the ones that are like the whole of what was written.
        let whole = |name: &str| {
            let plain: String = name.split('(').next().unwrap_or_default().chars().take(MAX_COMPARED).collect();
            strsim::damerau_levenshtein(&plain.to_lowercase(), &self.whole)
        };
        let shown = self.found.iter().map(|(distance, name)| (*distance, show(name)));
        let mut shown: Vec<_> = shown.map(|(distance, name)| (distance, whole(&name), name)).collect();
        shown.sort();
        let mut names: Vec<String> = Vec::new();
        for (.., name) in shown {
            if names.len() < OFFERED && !names.contains(&name) {
                names.push(name);
            }
        }
        names
    }
}

/// The file names nearest to a wanted one.
pub(super) fn files<'paths>(wanted: &str, paths: impl Iterator<Item = &'paths str>) -> Vec<String> {
    let file = |path: &str| path.rsplit('/').next().unwrap_or_default().to_owned();
    let wanted = file(wanted);
    let distance = |name: &str| match name.split('.').next() {
        Some(stem) if stem.len() > 2 && wanted.contains(stem) => 0,
        _ if name.len().max(wanted.len()) > MAX_COMPARED => usize::MAX,
        _ => {
            // The version of a library says little.
            let plain = name.find(".so").map_or(name, |at| &name[..at + 3]);
            let distance = |name| strsim::damerau_levenshtein(name, &wanted);
            distance(name).min(distance(plain))
        }
    };
    let names = paths.map(file).map(|name| (distance(&name), crate::text::sanitize(&name)));
    let mut names: Vec<_> = names.filter(|(distance, _)| *distance <= wanted.len() / 3).collect();
    names.sort();
    names.dedup();
    names.into_iter().take(OFFERED).map(|(_, name)| name).collect()
}

/// What follows the last `::` or `.`, without parameters and template arguments.
fn last_part(name: &str) -> &str {
    // A method of Go stands behind its receiver: `main.(*box[go.shape.int]).get`.
    let name = name.rsplit_once(").").map_or(name, |(_, method)| method);
    let plain = name.split(['(', '<', '[']).next().filter(|plain| !plain.is_empty()).unwrap_or(name);
    plain.rsplit([':', '.']).find(|part| !part.is_empty()).unwrap_or(plain)
}

/// The identifiers in a mangled name: each stands behind its length. Other numbers are those of constructors and
/// destructors, and of what was mentioned before.
fn identifiers(mangled: &str) -> impl Iterator<Item = &str> {
    let mut rest = mangled;
    std::iter::from_fn(move || {
        loop {
            let at = rest.find(|c: char| c.is_ascii_digit())?;
            let digits = rest[at..].bytes().take_while(u8::is_ascii_digit).count();
            let behind = &rest[at + digits..];
            let length: usize = rest[at..at + digits].parse().unwrap_or(usize::MAX);
            let is_length = length > 0 && !rest[..at].ends_with(['C', 'D', 'S', 'T']);
            match behind.get(..length).filter(|_| is_length) {
                Some(part) => {
                    rest = &behind[length..];
                    return Some(part);
                }
                None => rest = behind,
            }
        }
    })
    .take(16)
}

/// Which letters a name has, one bit for each.
fn letters(name: &str) -> u64 {
    name.bytes().fold(0, |bits, byte| bits | 1 << (byte % 64))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nearest(wanted: &str, names: &[&str]) -> Vec<String> {
        let mut nearest = Nearest::to(wanted);
        names.iter().for_each(|name| nearest.consider(name));
        nearest.names(str::to_owned)
    }

    #[test]
    fn the_nearest_come_first() {
        let names = ["send_to_vendors", "send_to_vendor_async", "unrelated", "send_to_vendor", "receive", "send"];
        assert_eq!(nearest("sned_to_vendor", &names), ["send_to_vendor", "send_to_vendors"]);
        assert_eq!(nearest("to_vendor", &names)[0], "send_to_vendor");
        assert_eq!(nearest("SEND", &names)[0], "send");
        let generic = ["main.generic[go.shape.int]", "main.(*box[go.shape.int]).get", "main.other"];
        assert_eq!(nearest("generc", &generic), [generic[0]]);
        assert_eq!(nearest("main.box.get", &generic), [generic[1]]);
        assert!(nearest("", &names).is_empty() && nearest("x", &names).is_empty());
    }

    #[test]
    fn mangled_names_are_compared_by_their_parts() {
        let names = ["_ZN2ns5Class6methodEi", "_ZN2ns5Class5otherEi", "_ZN7pricing8evaluate17h0123456789abcdefE"];
        assert_eq!(nearest("method", &names), [names[0]]);
        assert_eq!(nearest("ns::Klass::methid", &names), [names[0]]);
        assert_eq!(nearest("pricing::evalute", &names), [names[2]]);
        let names = ["_ZN3ada3urlD2Ev", "_ZN2v87Isolate3NewEv", "_ZN2v84Heap3NewEv"];
        assert_eq!(nearest("v8::Isolate::Nev", &names), [names[1], names[2]]);
        let damaged = ["_Z99999999999999999999x", "_Z0", "_Z5ab", "_Z3\u{e9}\u{e9}", "@", "_R"];
        assert!(nearest("abc", &damaged).is_empty());
    }

    #[test]
    fn two_hundred_thousand_names_are_looked_at_in_little_time() {
        let mut nearest = Nearest::to("send_to_vendor_42");
        let started = std::time::Instant::now();
        for number in 0..200_000 {
            nearest.consider(&format!("send_to_{number}_vendor"));
        }
        assert!(nearest.found.len() < 2 * SHORTLIST);
        assert!(started.elapsed() < std::time::Duration::from_secs(90), "{:?}", started.elapsed());
    }
}

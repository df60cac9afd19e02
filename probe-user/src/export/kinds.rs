//! Profiles of several kinds of samples, for the formats that show one unit: time or memory. Kinds of memory stand side by
//! side, each under a frame of its own.

use std::borrow::Cow;
use std::collections::HashMap;

use crate::symbolize::{Line, Location, Measure, Profile};

/// The part of a profile that is shown: memory, or time. `None` prefers time where there is both.
pub(super) fn select(profile: Cow<'_, Profile>, memory: Option<bool>) -> Cow<'_, Profile> {
    if !profile.has_memory() {
        return profile;
    }
    let memory = memory.unwrap_or(!profile.has_times());
    let selected = profile.into_owned().only(memory);
    Cow::Owned(if memory { with_frames(selected) } else { selected })
}

/// Puts the kind of each sample at the root of its stack.
fn with_frames(mut profile: Profile) -> Profile {
    let mut roots = HashMap::new();
    let mut stacks = HashMap::new();
    for sample in &mut profile.samples {
        let root = *roots.entry(sample.measure).or_insert_with(|| {
            let lines = vec![Line { function: frame(sample.measure).to_owned(), ..Line::default() }];
            profile.locations.push(Location { lines, ..Location::default() });
            profile.locations.len() as u32 - 1
        });
        sample.stack = *stacks.entry((sample.stack, root)).or_insert_with_key(|&(stack, root)| {
            let mut stack = profile.stacks[stack as usize].clone();
            stack.locations.push(root);
            profile.stacks.push(stack);
            profile.stacks.len() as u32 - 1
        });
    }
    profile
}

fn frame(measure: Measure) -> &'static str {
    match measure {
        Measure::Time => "[time]",
        Measure::Resident => "[resident]",
        Measure::Mapped => "[mapped]",
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Format, Options, fixture, read, write};
    use super::*;
    use crate::symbolize::{Profile, Sample};

    /// The fixture with memory beside its times.
    fn mixed() -> Profile {
        let mut profile = fixture::clean();
        profile.header.event = "cpu,page-fault".into();
        profile.header.sampler = "cpu-clock,page_fault_user (tier 1)".into();
        let sample = Sample { time_ns: 5, ..profile.samples[0] };
        profile.samples.push(Sample { count: 3, value: 3 * 4096, measure: Measure::Resident, ..sample });
        profile.samples.push(Sample { count: 1, value: 1 << 20, measure: Measure::Mapped, ..sample });
        profile
    }

    fn folded(profile: &Profile, memory: Option<bool>) -> String {
        let mut bytes = Vec::new();
        write(profile, Format::Folded, &Options { memory, ..Options::default() }, &mut bytes).unwrap();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn one_unit_is_shown_at_a_time() {
        let (times, memory) = (folded(&mixed(), None), folded(&mixed(), Some(true)));
        assert_eq!(times, folded(&fixture::profile(), None));
        let lines: Vec<_> = memory.lines().collect();
        assert_eq!(lines.len(), 2, "{memory}");
        assert!(lines[0].contains(";[mapped];") && lines[0].ends_with(" 1048576"), "{memory}");
        assert!(lines[1].contains(";[resident];") && lines[1].ends_with(" 12288"), "{memory}");
        assert_eq!(folded(&mixed().only(true), None), memory, "without times, memory needs no asking for");
    }

    #[test]
    fn pprof_and_json_keep_both() {
        for profile in [mixed(), mixed().only(true)] {
            for format in [Format::Pprof, Format::Json] {
                let mut bytes = Vec::new();
                write(&profile, format, &Options::default(), &mut bytes).unwrap();
                let back = read(&bytes, "test").unwrap();
                assert_eq!(back.header, profile.header, "{format:?}");
                let values = |profile: &Profile| -> Vec<_> {
                    profile.samples.iter().map(|s| (s.measure, s.count, s.value, s.time_ns)).collect()
                };
                assert_eq!(values(&back), values(&profile), "{format:?}");
            }
        }
    }
}

//! How a profile is looked at: frames by their names, parts of it, sums.

use super::profile::{Allocated, Kind, Location, OFF_CPU, PAGE_FAULT, PAGE_FAULTS, Profile, SCHED_SWITCH, Sample};

/// One displayed frame: a line of a location, or the location itself where it has no name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Frame<'a> {
    /// The location it belongs to (an index into [`Profile::locations`]).
    pub location: u32,
    /// User or kernel.
    pub kind: Kind,
    /// Function name; `[module+0xoffset]` where there is none.
    pub function: std::borrow::Cow<'a, str>,
    /// Source file; empty when unknown.
    pub file: &'a str,
    /// Line in `file`; 0 when unknown.
    pub line: u32,
    /// Path of the module; empty when unknown.
    pub module: &'a str,
    /// True for a function that the compiler inlined into the next outer frame.
    pub inlined: bool,
}

impl Profile {
    /// The frames of a stack, root first, inlined functions as frames of their own.
    pub fn frames(&self, stack: u32) -> Vec<Frame<'_>> {
        let mut frames = Vec::new();
        for &location in self.stacks[stack as usize].locations.iter().rev() {
            self.add_frames(location, &mut frames);
        }
        frames
    }

    /// Adds the frames of a location, root first: itself and the functions that were inlined there.
    pub fn add_frames<'a>(&'a self, index: u32, frames: &mut Vec<Frame<'a>>) {
        let location = &self.locations[index as usize];
        let module = location.module.map_or("", |m| self.modules[m as usize].path.as_str());
        let frame = |function, file, line, inlined| Frame {
            location: index,
            kind: location.kind,
            function,
            file,
            line,
            module,
            inlined,
        };
        if location.lines.is_empty() {
            frames.push(frame(self.unnamed(location).into(), "", 0, false));
        }
        for (depth, line) in location.lines.iter().enumerate().rev() {
            let inlined = depth + 1 < location.lines.len();
            frames.push(frame(line.function.as_str().into(), line.file.as_str(), line.line, inlined));
        }
    }

    /// What stands for a location without a name: `[module+0xoffset]`, `[unknown+0xaddress]` where no module is known.
    pub fn unnamed(&self, location: &Location) -> String {
        let module = match location.module {
            Some(index) => {
                let path = self.modules[index as usize].path.as_str();
                let name = path.rsplit('/').next().unwrap_or(path);
                name.trim_start_matches('[').trim_end_matches(']')
            }
            None => "unknown",
        };
        format!("[{module}+{:#x}]", location.address)
    }

    /// Only the samples of times, or only those of memory; the header says so, too.
    pub fn only(mut self, memory: bool) -> Self {
        self.samples.retain(|sample| sample.measure.is_memory() == memory);
        let header = &mut self.header;
        let is_memory = |event: &&str| (*event == PAGE_FAULT) == memory;
        header.event = header.event.split(',').filter(is_memory).collect::<Vec<_>>().join(",");
        if memory {
            header.unit = "bytes".into();
            (header.period, header.frequency) = (0, 0);
            header.sampler = PAGE_FAULTS.into();
        } else if let Some(sampler) = header.sampler.strip_suffix(PAGE_FAULTS) {
            header.sampler = sampler.trim_end_matches(',').to_owned();
        }
        self
    }

    /// Without the time that threads waited; the header says so, too.
    pub fn without_waits(mut self) -> Self {
        self.samples.retain(|sample| sample.measure.is_memory() || sample.is_on_cpu());
        let without =
            |list: &str, part: &str| list.split(',').filter(|other| *other != part).collect::<Vec<_>>().join(",");
        self.header.event = without(&self.header.event, OFF_CPU);
        self.header.sampler = without(&self.header.sampler, SCHED_SWITCH);
        self
    }

    /// What was seen until `at_ns` after its start, and what was seen from then on. Losses stay with both.
    pub fn split(&self, at_ns: u64) -> (Self, Self) {
        let at_ns = at_ns.min(self.header.duration_ns);
        let (mut first, mut second) = (self.clone(), self.clone());
        first.header.duration_ns = at_ns;
        first.samples.retain(|sample| sample.time_ns < at_ns);
        second.header.duration_ns -= at_ns;
        second.header.started_at_ns += at_ns;
        second.samples.retain(|sample| sample.time_ns >= at_ns);
        second.samples.iter_mut().for_each(|sample| sample.time_ns -= at_ns);
        (first, second)
    }

    /// True if some of its samples are of times (or all, if there are none).
    pub fn has_times(&self) -> bool {
        self.samples.is_empty() || self.samples.iter().any(|sample| !sample.measure.is_memory())
    }

    /// True if some of its samples are of memory.
    pub fn has_memory(&self) -> bool {
        self.samples.iter().any(|sample| sample.measure.is_memory())
    }

    /// Adds the samples up by (thread, stack), in the order in which they were first seen. Times are dropped.
    pub fn totals(&self) -> Vec<Sample> {
        let mut index = std::collections::HashMap::new();
        let mut totals: Vec<Sample> = Vec::new();
        for sample in &self.samples {
            let at = *index.entry((sample.thread, sample.stack, sample.state, sample.measure)).or_insert_with(|| {
                totals.push(Sample { time_ns: 0, count: 0, value: 0, allocated: Allocated::default(), ..*sample });
                totals.len() - 1
            });
            totals[at].count += sample.count;
            totals[at].value += sample.value;
            totals[at].allocated.count += sample.allocated.count;
            totals[at].allocated.bytes += sample.allocated.bytes;
        }
        totals
    }
}

#[cfg(test)]
mod tests {
    use super::super::profile::{Line, Module, Stack};
    use super::*;
    use crate::target::ThreadState;

    fn profile() -> Profile {
        Profile {
            modules: vec![Module { path: "/usr/lib/libx.so".into(), ..Module::default() }],
            locations: vec![
                Location {
                    module: Some(0),
                    address: 0x10,
                    lines: vec![
                        Line { function: "inner".into(), ..Line::default() },
                        Line { function: "outer".into(), ..Line::default() },
                    ],
                    ..Location::default()
                },
                Location { module: Some(0), address: 0x2f, ..Location::default() },
                Location { address: 0x7f00, ..Location::default() },
            ],
            stacks: vec![Stack { locations: vec![0, 1, 2], truncated: None }],
            samples: vec![
                Sample { count: 1, value: 10, time_ns: 5, ..Sample::default() },
                Sample { count: 2, value: 20, time_ns: 9, ..Sample::default() },
            ],
            ..Profile::default()
        }
    }

    #[test]
    fn frames_run_from_the_root_and_expand_inlined_functions() {
        let profile = profile();
        let names: Vec<_> = profile.frames(0).into_iter().map(|f| (f.function.into_owned(), f.inlined)).collect();
        let expected = [("[unknown+0x7f00]", false), ("[libx.so+0x2f]", false), ("outer", false), ("inner", true)];
        assert_eq!(names, expected.map(|(name, inlined)| (name.to_owned(), inlined)));
    }

    #[test]
    fn both_parts_of_a_profile_have_times_of_their_own() {
        let mut profile = profile();
        (profile.header.duration_ns, profile.header.started_at_ns) = (20, 1000);
        let (first, second) = profile.split(7);
        let shape = |part: &Profile| {
            let times: Vec<_> = part.samples.iter().map(|sample| sample.time_ns).collect();
            (part.header.started_at_ns, part.header.duration_ns, times)
        };
        assert_eq!((shape(&first), shape(&second)), ((1000, 7, vec![5]), (1007, 13, vec![2])));
        assert_eq!(shape(&profile.split(99).1), (1020, 0, vec![]));
    }

    #[test]
    fn a_profile_without_waits_does_not_claim_them() {
        let mut profile = profile();
        (profile.header.event, profile.header.sampler) = ("cpu,off-cpu".into(), "cpu-clock,sched_switch".into());
        profile.samples[0].state = ThreadState::Sleeping;
        let Profile { header, samples, .. } = profile.without_waits();
        assert_eq!((header.event.as_str(), header.sampler.as_str(), samples.len()), ("cpu", "cpu-clock", 1));
    }

    #[test]
    fn totals_add_up_what_differs_in_time_only() {
        assert_eq!(profile().totals(), [Sample { count: 3, value: 30, ..Sample::default() }]);
    }
}

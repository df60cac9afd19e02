//! pprof messages as a profile. Nothing in them is trusted, and files by other tools are read as far as they make sense.

use std::collections::HashMap;

use anyhow::{Context, Result, ensure};
use prost::Message;

use super::super::flat;
use super::columns::{Columns, MEMORY};
use super::encode::ALLOCATED;
use super::{key, proto, size};
use crate::symbolize::{
    Allocated, Header, Kind, Line, Location, Measure, Module, PAGE_FAULT, ProcessInfo, Profile, Sample, Stack,
    ThreadInfo,
};
use crate::target::ThreadState;

/// Reads uncompressed pprof.
pub fn decode(raw: &[u8]) -> Result<Profile> {
    size::check(raw)?;
    let message = proto::Profile::decode(raw).context("it is not a pprof file, or it is damaged")?;
    ensure!(
        message.string_table.first().is_some_and(String::is_empty),
        "it is not a pprof file: it has no string table"
    );
    let decoder = Decoder { message: &message, profile: Profile::default() };
    decoder.run()
}

struct Decoder<'a> {
    message: &'a proto::Profile,
    profile: Profile,
}

/// What the reader needs of one of pprof's locations.
enum Place {
    At(u32),
    /// The frame that says why the stack was cut.
    Cut(String),
}

/// Which of the values of a sample are its number and its value, of a measure.
struct Values {
    measure: Measure,
    count: Option<usize>,
    value: usize,
    /// Number and bytes of what was allocated, where the value is something else.
    allocated: Option<[usize; 2]>,
}

/// Those of memory, in profiles by probe.
fn memory(types: &[(&str, &str)]) -> Vec<Values> {
    let place = |name: &str, unit: &str| types.iter().position(|kind| *kind == (name, unit));
    let columns = MEMORY.iter().filter_map(|&Columns { measure, count, value }| {
        let (count, value) = (Some(place(count, "count")?), place(value, "bytes")?);
        Some(Values { measure, count, value, allocated: None })
    });
    columns.collect()
}

impl<'a> Decoder<'a> {
    fn run(mut self) -> Result<Profile> {
        let values = self.header()?;
        let comments = self.message.comment.iter().map(|&id| self.text(id)).collect::<Result<Vec<_>>>()?;
        let modules = self.modules()?;
        let places = self.places(&modules)?;
        self.samples(&values, &places)?;
        comments.iter().for_each(|comment| self.comment(comment));
        Ok(self.profile)
    }

    fn text(&self, id: i64) -> Result<&'a str> {
        let text = usize::try_from(id).ok().and_then(|id| self.message.string_table.get(id));
        Ok(text.with_context(|| format!("it refers to text {id}, which is not there"))?)
    }

    fn header(&mut self) -> Result<Vec<Values>> {
        let message = self.message;
        let types = message.sample_type.iter().map(|kind| Ok((self.text(kind.r#type)?, self.text(kind.unit)?)));
        let types = types.collect::<Result<Vec<_>>>()?;
        ensure!(!types.is_empty(), "it does not say what its values are");
        let preferred = match self.text(message.default_sample_type)? {
            "" => None,
            name => types.iter().position(|(kind, _)| *kind == name),
        };
        let value = preferred.unwrap_or(types.len() - 1);
        // Numbers stand before the values that belong to them.
        let count = types[..=value].iter().rposition(|(_, unit)| *unit == "count");
        let number = |number: i64| u64::try_from(number).unwrap_or(0);
        self.profile.header = Header {
            event: types[value].0.to_owned(),
            unit: types[value].1.to_owned(),
            period: number(message.period),
            started_at_ns: number(message.time_nanos),
            duration_ns: number(message.duration_nanos),
            ..Header::default()
        };
        let mut values = memory(&types);
        if values.is_empty() {
            let at = |kind| types.iter().position(|known| *known == kind);
            let allocated = match ALLOCATED.map(at) {
                [Some(count), Some(bytes)] if bytes != value => Some([count, bytes]),
                _ => None,
            };
            return Ok(vec![Values { measure: Measure::Time, count, value, allocated }]);
        }
        let header = &mut self.profile.header;
        if values.iter().any(|memory| memory.value == value) {
            header.event = PAGE_FAULT.to_owned();
        } else {
            header.event = format!("{},{PAGE_FAULT}", header.event);
            values.push(Values { measure: Measure::Time, count, value, allocated: None });
        }
        Ok(values)
    }

    /// Mapping id → module.
    fn modules(&mut self) -> Result<HashMap<u64, u32>> {
        let mut modules = HashMap::new();
        for mapping in &self.message.mapping {
            let module = Module {
                path: self.text(mapping.filename)?.to_owned(),
                build_id: self.text(mapping.build_id)?.to_owned(),
                memory_start: mapping.memory_start,
                memory_limit: mapping.memory_limit,
                file_offset: mapping.file_offset,
            };
            unique(&mut modules, mapping.id, self.profile.modules.len() as u32, "mapping")?;
            self.profile.modules.push(module);
        }
        Ok(modules)
    }

    /// Location id → place.
    fn places(&mut self, modules: &HashMap<u64, u32>) -> Result<HashMap<u64, Place>> {
        let mut functions = HashMap::new();
        for function in &self.message.function {
            let name = match self.text(function.name)? {
                "" => self.text(function.system_name)?,
                name => name,
            };
            unique(&mut functions, function.id, (name, self.text(function.filename)?), "function")?;
        }
        let mut places = HashMap::new();
        for location in &self.message.location {
            let mut lines = Vec::new();
            for line in location.line.iter().filter(|line| line.function_id != 0) {
                let (name, file) = functions
                    .get(&line.function_id)
                    .with_context(|| format!("it refers to function {}, which is not there", line.function_id))?;
                if !name.is_empty() {
                    let line = u32::try_from(line.line).unwrap_or(0);
                    lines.push(Line { function: (*name).to_owned(), file: (*file).to_owned(), line });
                }
            }
            let place = match cut(location, &lines) {
                Some(reason) => Place::Cut(reason),
                None => Place::At(self.location(location, lines, modules)?),
            };
            unique(&mut places, location.id, place, "location")?;
        }
        Ok(places)
    }

    fn location(&mut self, location: &proto::Location, lines: Vec<Line>, modules: &HashMap<u64, u32>) -> Result<u32> {
        let module = match location.mapping_id {
            0 => None,
            id => Some(*modules.get(&id).with_context(|| format!("it refers to mapping {id}, which is not there"))?),
        };
        let mapping = module.map(|module| &self.profile.modules[module as usize]);
        // The kernel has the upper half of the address space to itself.
        let kernel = location.address >> 63 == 1 || mapping.is_some_and(|mapping| mapping.path.starts_with("[kernel"));
        let (kind, address) = match mapping {
            _ if kernel => (Kind::Kernel, location.address),
            Some(mapping) => {
                (Kind::User, location.address.wrapping_sub(mapping.memory_start).wrapping_add(mapping.file_offset))
            }
            None => (Kind::User, location.address),
        };
        self.profile.locations.push(Location { kind, module, address, lines });
        Ok(self.profile.locations.len() as u32 - 1)
    }

    fn samples(&mut self, values: &[Values], places: &HashMap<u64, Place>) -> Result<()> {
        let mut stacks: HashMap<&[u64], u32> = HashMap::new();
        let mut processes = HashMap::new();
        let mut threads = HashMap::new();
        for sample in &self.message.sample {
            ensure!(
                sample.value.len() == self.message.sample_type.len(),
                "a sample has {} values instead of {}",
                sample.value.len(),
                self.message.sample_type.len()
            );
            let stack = match stacks.get(sample.location_id.as_slice()) {
                Some(&stack) => stack,
                None => {
                    let stack = self.stack(&sample.location_id, places)?;
                    stacks.insert(&sample.location_id, stack);
                    stack
                }
            };
            let labels = self.labels(&sample.label)?;
            let process = *processes.entry((labels.pid, labels.process)).or_insert_with(|| {
                let name = labels.process.unwrap_or_else(|| main_module(&self.profile)).to_owned();
                self.profile.processes.push(ProcessInfo { pid: labels.pid, name, ..ProcessInfo::default() });
                self.profile.processes.len() as u32 - 1
            });
            let thread = *threads.entry((process, labels.tid, labels.thread)).or_insert_with(|| {
                self.profile.threads.push(ThreadInfo { process, tid: labels.tid, name: labels.thread.to_owned() });
                self.profile.threads.len() as u32 - 1
            });
            let Labels { time_ns, state, .. } = labels;
            for &Values { measure, count, value, allocated } in values {
                let count = count.map_or(1, |count| sample.value[count]);
                let (Ok(value), Ok(count)) = (u64::try_from(sample.value[value]), u64::try_from(count)) else {
                    *self.profile.losses.entry("negative value".into()).or_default() += 1;
                    continue;
                };
                let of = |at: usize| u64::try_from(sample.value[at]).unwrap_or(0);
                let [allocated_count, allocated_bytes] = allocated.map_or([0, 0], |places| places.map(of));
                let allocated = Allocated { count: allocated_count, bytes: allocated_bytes };
                if values.len() == 1 || count > 0 || value > 0 {
                    self.profile.samples.push(Sample {
                        thread,
                        stack,
                        time_ns,
                        count,
                        value,
                        state,
                        measure,
                        allocated,
                    });
                }
            }
        }
        Ok(())
    }

    fn stack(&mut self, ids: &[u64], places: &HashMap<u64, Place>) -> Result<u32> {
        let mut stack = Stack { locations: Vec::with_capacity(ids.len()), truncated: None };
        for id in ids {
            match places.get(id).with_context(|| format!("it refers to location {id}, which is not there"))? {
                Place::At(index) => stack.locations.push(*index),
                Place::Cut(reason) => stack.truncated = Some(reason.clone()),
            }
        }
        self.profile.stacks.push(stack);
        Ok(self.profile.stacks.len() as u32 - 1)
    }

    fn labels(&self, labels: &[proto::Label]) -> Result<Labels<'a>> {
        let mut found = Labels::default();
        for label in labels {
            let text = self.text(label.str)?;
            // Some tools write numbers as text.
            let id = || match text {
                "" => u32::try_from(label.num).unwrap_or(0),
                text => text.parse().unwrap_or(0),
            };
            match self.text(label.key)? {
                key::THREAD | "thread_name" | "thread name" | "comm" => found.thread = text,
                key::TID | "thread_id" | "thread id" => found.tid = id(),
                key::PROCESS | "process_name" | "process name" => found.process = Some(text),
                key::PID | "process_id" | "process id" => found.pid = id(),
                key::STATE => found.state = ThreadState::from_name(text),
                key::TIME => found.time_ns = u64::try_from(label.num).unwrap_or(0),
                _ => {}
            }
        }
        Ok(found)
    }

    /// Takes in a comment of the writer's; those of others say nothing that there is a place for.
    fn comment(&mut self, comment: &str) {
        let Some((key, text)) = comment.split_once(": ") else { return };
        let header = &mut self.profile.header;
        match key.split_once(' ') {
            None if key == key::EVENT => header.event = text.to_owned(),
            None if key == key::SAMPLER => header.sampler = text.to_owned(),
            None if key == key::FREQUENCY => header.frequency = text.parse().unwrap_or(0),
            None if key == key::HOST => header.host = text.to_owned(),
            None if key == key::KERNEL => header.kernel = text.to_owned(),
            Some((key::LOST, count)) => {
                let lost = self.profile.losses.entry(text.to_owned()).or_default();
                *lost = lost.saturating_add(count.parse().unwrap_or(0));
            }
            Some((key @ (key::EXE | key::CMDLINE), pid)) => {
                for process in self.profile.processes.iter_mut().filter(|process| process.pid.to_string() == pid) {
                    let field = if key == key::EXE { &mut process.exe } else { &mut process.cmdline };
                    *field = text.to_owned();
                }
            }
            _ => {}
        }
    }
}

#[derive(Default)]
struct Labels<'a> {
    thread: &'a str,
    tid: u32,
    process: Option<&'a str>,
    pid: u32,
    time_ns: u64,
    state: ThreadState,
}

/// Adds to a table of ids, which must be unique and not 0.
fn unique<T>(table: &mut HashMap<u64, T>, id: u64, entry: T, what: &str) -> Result<()> {
    ensure!(id != 0, "a {what} has no id");
    ensure!(table.insert(id, entry).is_none(), "two entries have the {what} id {id}");
    Ok(())
}

/// The reason, if the location stands for one.
fn cut(location: &proto::Location, lines: &[Line]) -> Option<String> {
    let [line] = lines else { return None };
    let reason = line.function.strip_prefix(flat::TRUNCATED)?.strip_suffix(']')?;
    (location.mapping_id == 0 && location.address == 0).then(|| reason.to_owned())
}

/// The file name of the main binary, which the format puts first.
fn main_module(profile: &Profile) -> &str {
    let path = profile.modules.first().map_or("", |module| module.path.as_str());
    path.rsplit('/').next().unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    /// A heap profile as Go's runtime writes it: four sample types, no threads.
    fn foreign() -> proto::Profile {
        let kind = |r#type, unit| proto::ValueType { r#type, unit };
        proto::Profile {
            sample_type: vec![kind(1, 3), kind(2, 4), kind(5, 3), kind(6, 4)],
            string_table: strings(&[
                "",
                "alloc_objects",
                "alloc_space",
                "count",
                "bytes",
                "inuse_objects",
                "inuse_space",
                "/bin/service",
                "main.main",
            ]),
            default_sample_type: 2,
            mapping: vec![proto::Mapping { id: 7, filename: 7, ..Default::default() }],
            function: vec![proto::Function { id: 5, name: 8, ..Default::default() }],
            location: vec![proto::Location {
                id: 9,
                mapping_id: 7,
                address: 0x401000,
                line: vec![proto::Line { function_id: 5, line: 12 }],
            }],
            sample: vec![proto::Sample { location_id: vec![9], value: vec![3, 4096, 1, 1024], label: vec![] }],
            ..Default::default()
        }
    }

    fn read(message: &proto::Profile) -> Result<Profile> {
        decode(&message.encode_to_vec())
    }

    #[test]
    fn a_heap_profile_of_go_is_read_by_its_preferred_type() {
        let profile = read(&foreign()).unwrap();
        assert_eq!((profile.header.event.as_str(), profile.header.unit.as_str()), ("alloc_space", "bytes"));
        assert_eq!((profile.samples[0].count, profile.samples[0].value), (3, 4096));
        assert_eq!(profile.processes[0].name, "service");
        assert_eq!(profile.frames(0)[0].function, "main.main");
    }

    #[test]
    fn what_refers_to_nothing_is_refused() {
        let broken = |change: fn(&mut proto::Profile)| {
            let mut message = foreign();
            change(&mut message);
            read(&message).unwrap_err().to_string()
        };
        assert!(broken(|m| m.sample[0].location_id = vec![1]).contains("location 1"));
        assert!(broken(|m| m.location[0].mapping_id = 1).contains("mapping 1"));
        assert!(broken(|m| m.location[0].line[0].function_id = 1).contains("function 1"));
        assert!(broken(|m| m.function[0].name = -1).contains("text -1"));
        assert!(broken(|m| m.function[0].name = i64::MAX).contains("text"));
        assert!(broken(|m| m.sample[0].value = vec![1]).contains("1 values instead of 4"));
        assert!(broken(|m| m.location.push(m.location[0].clone())).contains("location id 9"));
        assert!(broken(|m| m.mapping[0].id = 0).contains("mapping"));
        assert!(broken(|m| m.sample_type.clear()).contains("values"));
        assert!(broken(|m| m.string_table.clear()).contains("string table"));
    }

    #[test]
    fn negative_values_are_counted_as_lost() {
        let mut message = foreign();
        message.sample[0].value = vec![1, -1, 1, 1];
        let profile = read(&message).unwrap();
        assert_eq!(profile.samples, []);
        assert_eq!(profile.losses["negative value"], 1);
    }

    #[test]
    fn any_cut_or_flipped_bytes_give_an_error_or_a_profile_but_no_panic() {
        let bytes = foreign().encode_to_vec();
        for at in 0..bytes.len() {
            let _ = decode(&bytes[..at]);
            for flip in [0x01, 0x80, 0xff] {
                let mut bytes = bytes.clone();
                bytes[at] ^= flip;
                let _ = decode(&bytes);
            }
        }
    }
}

//! A profile as pprof messages.

use std::collections::HashMap;

use super::super::{Options, flat};
use super::columns::{self, Columns};
use super::{key, proto};
use crate::symbolize::{Kind, LIVE_EVENT, Location, Measure, PAGE_FAULT, Profile, Sample};
use crate::target::ThreadState;

/// The message for `profile`. Tables keep their order; ids are indexes plus one.
pub fn encode(profile: &Profile, options: &Options) -> proto::Profile {
    let mut encoder = Encoder::default();
    encoder.strings.id("");
    encoder.header(profile);
    encoder.mappings(profile);
    encoder.main_mapping_first(profile);
    for location in &profile.locations {
        encoder.location(profile, location);
    }
    if options.aggregate {
        profile.totals().iter().for_each(|sample| encoder.sample(profile, sample));
    } else {
        profile.samples.iter().for_each(|sample| encoder.sample(profile, sample));
    }
    encoder.message.string_table = encoder.strings.texts;
    encoder.message
}

#[derive(Default)]
struct Encoder<'a> {
    message: proto::Profile,
    strings: Strings,
    /// (name, file) → id.
    functions: HashMap<(String, &'a str), u64>,
    /// Reason → id of the location that stands for it.
    cuts: HashMap<&'a str, u64>,
}

#[derive(Default)]
struct Strings {
    texts: Vec<String>,
    ids: HashMap<String, i64>,
}

impl Strings {
    fn id(&mut self, text: &str) -> i64 {
        if let Some(&id) = self.ids.get(text) {
            return id;
        }
        let id = self.texts.len() as i64;
        self.texts.push(text.to_owned());
        self.ids.insert(text.to_owned(), id);
        id
    }
}

/// pprof's integers are signed; what does not fit stays at the limit.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// The types of values of memory that was allocated, and of memory in use, as Go's heap profiles have them.
pub(super) const ALLOCATED: [(&str, &str); 2] = [("alloc_objects", "count"), ("alloc_space", "bytes")];
const IN_USE: [(&str, &str); 2] = [("inuse_objects", "count"), ("inuse_space", "bytes")];

fn is_memory(profile: &Profile) -> bool {
    matches!(profile.header.event.as_str(), "malloc" | LIVE_EVENT)
}

/// True where samples have a value besides their number.
fn has_value(profile: &Profile) -> bool {
    !matches!(profile.header.unit.as_str(), "" | "count")
}

impl<'a> Encoder<'a> {
    fn header(&mut self, profile: &Profile) {
        let header = &profile.header;
        let mut kind = |r#type: &str, unit: &str| proto::ValueType {
            r#type: self.strings.id(r#type),
            unit: self.strings.id(unit),
        };
        let types: Vec<_> = match header.event.as_str() {
            "malloc" => ALLOCATED.map(|(name, unit)| kind(name, unit)).to_vec(),
            LIVE_EVENT => [ALLOCATED, IN_USE].as_flattened().iter().map(|(name, unit)| kind(name, unit)).collect(),
            _ => Vec::new(),
        };
        let columns = if types.is_empty() { columns::of(profile) } else { Vec::new() };
        if is_memory(profile) {
            // What a heap profile says in Go: so many bytes apart.
            self.message.period_type = Some(kind("space", "bytes"));
        }
        self.message.sample_type = types;
        for Columns { measure, count, value } in columns {
            self.message.sample_type.push(kind(count, "count"));
            if measure.is_memory() {
                self.message.sample_type.push(kind(value, "bytes"));
            } else if has_value(profile) {
                let events = header.event.split(',').filter(|event| *event != PAGE_FAULT);
                let value = kind(&events.collect::<Vec<_>>().join(","), &header.unit);
                self.message.sample_type.push(value);
                self.message.period_type = Some(value);
            }
        }
        self.message.period = signed(header.period);
        self.message.time_nanos = signed(header.started_at_ns);
        self.message.duration_nanos = signed(header.duration_ns);
        let frequency = match header.frequency {
            0 => String::new(),
            frequency => frequency.to_string(),
        };
        let event = if is_memory(profile) { header.event.as_str() } else { "" };
        for (key, text) in [
            (key::EVENT, event),
            (key::SAMPLER, header.sampler.as_str()),
            (key::FREQUENCY, frequency.as_str()),
            (key::HOST, header.host.as_str()),
            (key::KERNEL, header.kernel.as_str()),
        ] {
            self.comment(key, "", text);
        }
        for (reason, count) in &profile.losses {
            self.comment(key::LOST, &format!(" {count}"), reason);
        }
        for process in &profile.processes {
            let pid = format!(" {}", process.pid);
            self.comment(key::EXE, &pid, &process.exe);
            self.comment(key::CMDLINE, &pid, &process.cmdline);
        }
    }

    fn comment(&mut self, key: &str, qualifier: &str, text: &str) {
        if !text.is_empty() {
            let id = self.strings.id(&format!("{key}{qualifier}: {text}"));
            self.message.comment.push(id);
        }
    }

    /// Readers take the first mapping for the main binary. Ids stay what they are; only the order changes.
    fn main_mapping_first(&mut self, profile: &Profile) {
        let Some(main) = profile.processes.first().map(|process| process.exe.as_str()) else { return };
        let is_other = |id: u64| profile.modules.get(id as usize - 1).is_none_or(|module| module.path != main);
        self.message.mapping.sort_by_key(|mapping| is_other(mapping.id));
    }

    fn mappings(&mut self, profile: &Profile) {
        for (index, module) in profile.modules.iter().enumerate() {
            self.message.mapping.push(proto::Mapping {
                id: index as u64 + 1,
                memory_start: module.memory_start,
                memory_limit: module.memory_limit,
                file_offset: module.file_offset,
                filename: self.strings.id(&module.path),
                build_id: self.strings.id(&module.build_id),
                has_functions: false,
                has_filenames: false,
                has_line_numbers: false,
                has_inline_frames: false,
            });
        }
    }

    fn location(&mut self, profile: &Profile, location: &'a Location) {
        let mut address = location.address;
        if let Some(module) = location.module {
            let mapping = &mut self.message.mapping[module as usize];
            mapping.has_functions |= !location.lines.is_empty();
            mapping.has_filenames |= location.lines.iter().any(|line| !line.file.is_empty());
            mapping.has_line_numbers |= location.lines.iter().any(|line| line.line > 0);
            mapping.has_inline_frames |= location.lines.len() > 1;
            if location.kind == Kind::User {
                let module = &profile.modules[module as usize];
                address = address.wrapping_sub(module.file_offset).wrapping_add(module.memory_start);
            }
        }
        let line = location.lines.iter().map(|line| proto::Line {
            function_id: self.function(line.function.clone(), &line.file),
            line: line.line.into(),
        });
        let line = line.collect();
        let mapping_id = location.module.map_or(0, |module| u64::from(module) + 1);
        self.push_location(proto::Location { id: 0, mapping_id, address, line });
    }

    fn push_location(&mut self, location: proto::Location) -> u64 {
        let id = self.message.location.len() as u64 + 1;
        self.message.location.push(proto::Location { id, ..location });
        id
    }

    fn function(&mut self, name: String, file: &'a str) -> u64 {
        let next = self.functions.len() as u64 + 1;
        let Self { message, strings, functions, .. } = self;
        *functions.entry((name, file)).or_insert_with_key(|(name, file)| {
            let name = strings.id(name);
            message.function.push(proto::Function { id: next, name, system_name: name, filename: strings.id(file) });
            next
        })
    }

    /// The location that stands at the root of stacks which were cut for `reason`.
    fn cut(&mut self, reason: &'a str) -> u64 {
        if let Some(&id) = self.cuts.get(reason) {
            return id;
        }
        let function_id = self.function(flat::truncated(reason), "");
        let line = vec![proto::Line { function_id, line: 0 }];
        let id = self.push_location(proto::Location { id: 0, mapping_id: 0, address: 0, line });
        self.cuts.insert(reason, id);
        id
    }

    fn sample(&mut self, profile: &'a Profile, sample: &Sample) {
        let stack = &profile.stacks[sample.stack as usize];
        let mut location_id: Vec<u64> = stack.locations.iter().map(|&index| u64::from(index) + 1).collect();
        location_id.extend(stack.truncated.as_deref().map(|reason| self.cut(reason)));
        let mut value = Vec::with_capacity(4);
        if is_memory(profile) {
            if profile.header.event == LIVE_EVENT {
                value.extend([signed(sample.allocated.count), signed(sample.allocated.bytes)]);
            }
            value.extend([signed(sample.count), signed(sample.value)]);
        } else {
            for Columns { measure, .. } in columns::of(profile) {
                let own = |number| if measure == sample.measure { signed(number) } else { 0 };
                value.push(own(sample.count));
                if measure != Measure::Time || has_value(profile) {
                    value.push(own(sample.value));
                }
            }
        }
        let thread = &profile.threads[sample.thread as usize];
        let process = &profile.processes[thread.process as usize];
        let mut label = vec![
            self.text_label(key::THREAD, &thread.name),
            self.number_label(key::TID, thread.tid.into(), ""),
            self.text_label(key::PROCESS, &process.name),
            self.number_label(key::PID, process.pid.into(), ""),
        ];
        if sample.state != ThreadState::Running {
            label.push(self.text_label(key::STATE, sample.state.name()));
        }
        if sample.time_ns > 0 {
            label.push(self.number_label(key::TIME, signed(sample.time_ns), "nanoseconds"));
        }
        self.message.sample.push(proto::Sample { location_id, value, label });
    }

    fn text_label(&mut self, key: &str, text: &str) -> proto::Label {
        proto::Label { key: self.strings.id(key), str: self.strings.id(text), num: 0, num_unit: 0 }
    }

    fn number_label(&mut self, key: &str, num: i64, unit: &str) -> proto::Label {
        proto::Label { key: self.strings.id(key), str: 0, num, num_unit: self.strings.id(unit) }
    }
}

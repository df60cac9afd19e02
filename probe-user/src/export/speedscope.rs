//! speedscope: its own JSON format, one profile per thread in the order of time.

use std::collections::HashMap;
use std::io::Write;

use anyhow::Result;
use serde::Serialize;

use super::{Options, flat};
use crate::symbolize::{Profile, Sample};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct File {
    #[serde(rename = "$schema")]
    schema: &'static str,
    name: String,
    exporter: String,
    active_profile_index: usize,
    shared: Shared,
    profiles: Vec<Sampled>,
}

#[derive(Serialize)]
struct Shared {
    frames: Vec<Frame>,
}

#[derive(Clone, PartialEq, Eq, Hash, Serialize)]
struct Frame {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Sampled {
    r#type: &'static str,
    name: String,
    unit: &'static str,
    start_value: u64,
    end_value: u64,
    /// Stacks as indexes into the shared frames, root first.
    samples: Vec<Vec<u32>>,
    weights: Vec<u64>,
}

/// Writes `profile` in speedscope's format.
pub fn write(profile: &Profile, options: &Options, out: &mut dyn Write) -> Result<()> {
    let mut frames = Frames::default();
    let stacks: Vec<Vec<u32>> = (0..profile.stacks.len()).map(|stack| frames.stack(profile, stack as u32)).collect();
    let mut threads: Vec<Vec<&Sample>> = vec![Vec::new(); profile.threads.len()];
    for sample in &profile.samples {
        threads[sample.thread as usize].push(sample);
    }
    let mut profiles = Vec::new();
    for (index, mut samples) in threads.into_iter().enumerate().filter(|(_, samples)| !samples.is_empty()) {
        samples.sort_by_key(|sample| sample.time_ns);
        profiles.push(sampled(profile, index, &samples, &stacks));
    }
    let hottest = profiles.iter().enumerate().max_by_key(|(index, p)| (p.end_value, std::cmp::Reverse(*index)));
    let file = File {
        schema: "https://www.speedscope.app/file-format-schema.json",
        name: format!("{} · {}", flat::title(profile, options), flat::summary(profile)),
        exporter: concat!("probe@", env!("CARGO_PKG_VERSION")).into(),
        active_profile_index: hottest.map_or(0, |(index, _)| index),
        shared: Shared { frames: frames.list },
        profiles,
    };
    Ok(serde_json::to_writer(out, &file)?)
}

fn sampled(profile: &Profile, thread: usize, samples: &[&Sample], stacks: &[Vec<u32>]) -> Sampled {
    let info = &profile.threads[thread];
    let process = &profile.processes[info.process as usize];
    // The only units that the format knows, of those that samples may have.
    let unit = match profile.header.unit.as_str() {
        "nanoseconds" => "nanoseconds",
        "bytes" => "bytes",
        _ => "none",
    };
    Sampled {
        r#type: "sampled",
        name: format!("{} ({}) {}", flat::process_name(process), process.pid, flat::thread_name(info)),
        unit,
        start_value: 0,
        end_value: samples.iter().map(|sample| sample.value).sum(),
        samples: samples.iter().map(|sample| stacks[sample.stack as usize].clone()).collect(),
        weights: samples.iter().map(|sample| sample.value).collect(),
    }
}

/// The shared frames. A function is one frame wherever in it the samples were: the format would show each line as a
/// function of its own.
#[derive(Default)]
struct Frames {
    list: Vec<Frame>,
    index: HashMap<Frame, u32>,
}

impl Frames {
    fn stack(&mut self, profile: &Profile, stack: u32) -> Vec<u32> {
        let cut = profile.stacks[stack as usize].truncated.as_deref();
        let cut = cut.map(|reason| Frame { name: flat::truncated(reason), file: None });
        let frames = profile.frames(stack).into_iter().map(|frame| Frame {
            name: flat::frame_name(&frame).into_owned(),
            file: (!frame.file.is_empty()).then(|| frame.file.to_owned()),
        });
        cut.into_iter().chain(frames).map(|frame| self.id(frame)).collect()
    }

    fn id(&mut self, frame: Frame) -> u32 {
        *self.index.entry(frame).or_insert_with_key(|frame| {
            self.list.push(frame.clone());
            self.list.len() as u32 - 1
        })
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::super::{Format, fixture, golden, write as export};
    use super::*;

    // The format's published schema, as types that take nothing else.
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields, rename_all = "camelCase")]
    struct SchemaFile {
        #[serde(rename = "$schema")]
        schema: String,
        #[expect(dead_code, reason = "only its type is checked")]
        name: Option<String>,
        #[expect(dead_code, reason = "only its type is checked")]
        exporter: Option<String>,
        active_profile_index: Option<usize>,
        shared: SchemaShared,
        profiles: Vec<SchemaProfile>,
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct SchemaShared {
        frames: Vec<SchemaFrame>,
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only their types are checked")]
    struct SchemaFrame {
        name: String,
        file: Option<String>,
        line: Option<f64>,
        col: Option<f64>,
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields, rename_all = "camelCase", tag = "type")]
    enum SchemaProfile {
        #[serde(rename = "sampled", rename_all = "camelCase")]
        Sampled {
            name: String,
            unit: SchemaUnit,
            start_value: f64,
            end_value: f64,
            samples: Vec<Vec<usize>>,
            weights: Vec<f64>,
        },
    }

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(rename_all = "lowercase")]
    enum SchemaUnit {
        None,
        Nanoseconds,
        Microseconds,
        Milliseconds,
        Seconds,
        Bytes,
    }

    #[test]
    fn it_is_what_the_schema_asks_for() {
        let mut bytes = Vec::new();
        export(&fixture::profile(), Format::Speedscope, &Options::default(), &mut bytes).unwrap();
        let file: SchemaFile = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(file.schema, "https://www.speedscope.app/file-format-schema.json");
        assert_eq!(file.profiles.len(), 4);
        assert_eq!(file.active_profile_index, Some(1), "the hottest thread is shown first");
        for SchemaProfile::Sampled { name, unit, start_value, end_value, samples, weights } in file.profiles {
            assert_eq!(unit, SchemaUnit::Nanoseconds);
            assert_eq!(samples.len(), weights.len(), "{name}");
            assert!(samples.iter().flatten().all(|&frame| frame < file.shared.frames.len()), "{name}");
            assert_eq!(start_value + weights.iter().sum::<f64>(), end_value, "{name}");
        }
    }

    #[test]
    fn the_file() {
        golden::check(&fixture::profile(), Format::Speedscope, &Options::default(), "profile.speedscope.json");
    }
}

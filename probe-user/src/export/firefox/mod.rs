//! Firefox Profiler: its processed profile format, version 55, which every later profiler.firefox.com upgrades by itself.
//! One thread table per thread; names are final, nothing is looked up when the file is opened.

mod thread;

use std::io::Write;

use anyhow::Result;
use serde_json::{Value, json};

use super::{Options, flat};
use crate::symbolize::{Module, Profile, Sample};

/// Indexes into `meta.categories`.
mod category {
    pub const OTHER: u32 = 0;
    pub const USER: u32 = 1;
    pub const KERNEL: u32 = 2;
}

/// Writes `profile` for the Firefox Profiler.
pub fn write(profile: &Profile, options: &Options, out: &mut dyn Write) -> Result<()> {
    let mut threads: Vec<Vec<&Sample>> = vec![Vec::new(); profile.threads.len()];
    for sample in &profile.samples {
        threads[sample.thread as usize].push(sample);
    }
    let mut tables = Vec::new();
    for (index, mut samples) in threads.into_iter().enumerate().filter(|(_, samples)| !samples.is_empty()) {
        samples.sort_by_key(|sample| sample.time_ns);
        tables.push(thread::table(profile, index, &samples));
    }
    let file = json!({
        "meta": meta(profile, options),
        "libs": profile.modules.iter().map(library).collect::<Vec<_>>(),
        "threads": tables,
        "pages": [],
        "profilerOverhead": [],
        "counters": [],
    });
    Ok(serde_json::to_writer(out, &file)?)
}

fn meta(profile: &Profile, options: &Options) -> Value {
    let header = &profile.header;
    let category = |name: &str, color: &str| json!({ "name": name, "color": color, "subcategories": ["Other"] });
    let entry = |label: &str, value: &str| json!({ "label": label, "format": "string", "value": value });
    let mut notes = vec![entry("Measured", &flat::summary(profile)), entry("Host", &header.host)];
    notes.extend(profile.losses.iter().map(|(reason, count)| entry(&format!("Lost: {reason}"), &count.to_string())));
    json!({
        "categories": [category("Other", "grey"), category("User", "yellow"), category("Kernel", "orange")],
        "debug": false,
        "extensions": { "length": 0, "baseURL": [], "id": [], "name": [] },
        "interval": if header.frequency > 0 { 1000.0 / header.frequency as f64 } else { 1.0 },
        "preprocessedProfileVersion": 55,
        "version": 24,
        "processType": 0,
        "product": flat::title(profile, options),
        "oscpu": format!("Linux {}", header.kernel).trim(),
        "importedFrom": concat!("probe ", env!("CARGO_PKG_VERSION")),
        "sampleUnits": { "time": "ms", "eventDelay": "ms", "threadCPUDelta": "µs" },
        "startTime": milliseconds(header.started_at_ns),
        "profilingStartTime": 0.0,
        "profilingEndTime": milliseconds(header.duration_ns),
        "symbolicated": true,
        "pausedRanges": [],
        "usesOnlyOneStackType": true,
        "sourceCodeIsNotOnSearchfox": true,
        "markerSchema": [],
        "extra": [{ "label": "Recording", "entries": notes }],
    })
}

fn milliseconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e6
}

fn library(module: &Module) -> Value {
    let name = file_name(&module.path);
    json!({
        "name": name,
        "path": module.path,
        "debugName": name,
        "debugPath": module.path,
        "breakpadId": breakpad_id(&module.build_id),
        "codeId": if module.build_id.is_empty() { Value::Null } else { json!(module.build_id) },
        "arch": Value::Null,
    })
}

fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// The build id in the form in which symbol servers for minidumps write it: its first 16 bytes as a GUID (three
/// little-endian numbers, then bytes), and an age of 0. All zeros where there is no build id.
fn breakpad_id(build_id: &str) -> String {
    let hex: String = build_id.chars().filter(char::is_ascii_hexdigit).chain(std::iter::repeat('0')).take(32).collect();
    const ORDER: [usize; 16] = [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15];
    let guid: String = ORDER.iter().map(|&byte| &hex[2 * byte..2 * byte + 2]).collect();
    format!("{}0", guid.to_uppercase())
}

#[cfg(test)]
mod tests {
    use super::super::{Format, fixture, golden, write as export};
    use super::*;

    fn exported() -> Value {
        let mut bytes = Vec::new();
        export(&fixture::profile(), Format::Firefox, &Options::default(), &mut bytes).unwrap();
        serde_json::from_slice(&bytes).unwrap()
    }

    /// Asserts that each index in a column is null, -1 where that says none, or within the table that it points into.
    fn within(table: &Value, column: &str, len: u64, none: Value) {
        for index in table[column].as_array().unwrap() {
            assert!(*index == none || index.as_u64().is_some_and(|index| index < len), "{column}: {index} of {len}");
        }
    }

    #[test]
    fn the_file() {
        golden::check(&fixture::profile(), Format::Firefox, &Options::default(), "profile.firefox.json");
    }

    #[test]
    fn tables_are_even_and_point_into_each_other() {
        let file = exported();
        let threads = file["threads"].as_array().unwrap();
        assert_eq!(threads.len(), 4);
        for thread in threads {
            for name in
                ["samples", "stackTable", "frameTable", "funcTable", "resourceTable", "nativeSymbols", "markers"]
            {
                let table = &thread[name];
                let len = table["length"].as_u64().unwrap() as usize;
                for (column, values) in table.as_object().unwrap() {
                    if let Some(values) = values.as_array() {
                        assert_eq!(values.len(), len, "{name}.{column}");
                    }
                }
            }
            let len = |name: &str| thread[name]["length"].as_u64().unwrap();
            let strings = thread["stringArray"].as_array().unwrap().len() as u64;
            within(&thread["samples"], "stack", len("stackTable"), Value::Null);
            within(&thread["stackTable"], "prefix", len("stackTable"), Value::Null);
            within(&thread["stackTable"], "frame", len("frameTable"), Value::Null);
            within(&thread["frameTable"], "func", len("funcTable"), Value::Null);
            within(&thread["frameTable"], "category", 3, Value::Null);
            within(&thread["funcTable"], "name", strings, Value::Null);
            within(&thread["funcTable"], "fileName", strings, Value::Null);
            within(&thread["funcTable"], "resource", len("resourceTable"), json!(-1));
            within(&thread["resourceTable"], "lib", file["libs"].as_array().unwrap().len() as u64, Value::Null);
            within(&thread["resourceTable"], "name", strings, Value::Null);
        }
    }

    #[test]
    fn samples_have_their_times_and_weights() {
        let file = exported();
        let push = &file["threads"][1];
        assert_eq!((push["name"].as_str(), push["tid"].as_str()), (Some("push worker 1"), Some("4250")));
        assert_eq!(push["samples"]["timeDeltas"], json!([10.0, 20.0, 60.0]));
        assert_eq!(push["samples"]["weight"], json!([1, 5, 6]));
        let extra = file["meta"]["extra"].to_string();
        assert!(extra.contains("Lost: ring buffer full"), "{extra}");
    }

    #[test]
    fn build_ids_become_guids() {
        assert_eq!(breakpad_id("0123456789abcdef0123456789abcdef01234567"), "67452301AB89EFCD0123456789ABCDEF0");
        assert_eq!(breakpad_id(""), format!("{}0", "0".repeat(32)));
    }
}

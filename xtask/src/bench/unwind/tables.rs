//! Memory of unwind tables in the kernel. They are maps within a map of maps, which no descriptor of the profiler shows:
//! bpftool lists what is in it.

use std::collections::BTreeMap;
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;

use super::super::procfs;
use crate::shell;

/// Bytes of the maps in the maps of maps that a process holds open, those of maps included.
pub fn bytes(pid: u32) -> Result<u64> {
    let memory = memory_of_all_maps()?;
    let mut sum = 0;
    for outer in procfs::maps_of_maps(pid) {
        let entries = bpftool(&["map", "dump", "id", &outer.to_string()])?;
        let inner = entries.as_array().context("bpftool lists no entries")?.iter().filter_map(id);
        sum += inner.chain([outer]).filter_map(|id| memory.get(&id)).sum::<u64>();
    }
    Ok(sum)
}

fn memory_of_all_maps() -> Result<BTreeMap<u64, u64>> {
    let maps = bpftool(&["map", "list"])?;
    let maps = maps.as_array().context("bpftool lists no maps")?;
    let pair = |map: &Value| Some((map.get("id")?.as_u64()?, map.get("bytes_memlock")?.as_u64()?));
    Ok(maps.iter().filter_map(pair).collect())
}

fn bpftool(arguments: &[&str]) -> Result<Value> {
    let bpftool = shell::find("bpftool").context("bpftool is not installed")?;
    let output = shell::output(Command::new(bpftool).arg("-j").args(arguments)).context("bpftool fails")?;
    serde_json::from_str(&output).context("bpftool writes no JSON")
}

/// The map in an entry of a map of maps: its id, as four bytes in hexadecimal.
fn id(entry: &Value) -> Option<u64> {
    let bytes = entry.get("value")?.as_array()?;
    let byte = |byte: &Value| u8::from_str_radix(byte.as_str()?.trim_start_matches("0x"), 16).ok();
    let bytes: Vec<u8> = bytes.iter().map(byte).collect::<Option<_>>()?;
    Some(u64::from(u32::from_le_bytes(bytes.try_into().ok()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_byte_by_byte() {
        let entry = serde_json::json!({ "key": ["0x00"], "value": ["0xaa", "0x35", "0x00", "0x00"] });
        assert_eq!(id(&entry), Some(0x35aa));
        assert_eq!(id(&serde_json::json!({ "value": { "error": "No such file or directory" } })), None);
    }
}

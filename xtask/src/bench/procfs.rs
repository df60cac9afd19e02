//! What /proc says about a process that is measured: its BPF programs and maps, its processor time and its memory.

use std::collections::BTreeSet;
use std::fs;

/// Programs of a process in the kernel, by its statistics.
#[derive(Clone, Copy, Debug, Default)]
pub struct Programs {
    /// Time that they took.
    pub run_ns: u64,
    /// How often they ran, for other processes included.
    pub runs: u64,
}

/// Programs of perf events that a process holds open. Each is counted once, however many descriptors it has.
pub fn perf_programs(pid: u32) -> Programs {
    const PERF_EVENT: u64 = 7;
    let mut sum = Programs::default();
    for (_, kind, Programs { run_ns, runs }) in programs(pid) {
        if kind == PERF_EVENT {
            sum.run_ns += run_ns;
            sum.runs += runs;
        }
    }
    sum
}

/// The program of a process that ran most often; `None` if it has none.
pub fn busiest_program(pid: u32) -> Option<Programs> {
    programs(pid).into_iter().map(|(_, _, program)| program).max_by_key(|program| program.runs)
}

/// Each program of a process: its number, and the seconds that it took.
pub fn program_times(pid: u32) -> Vec<(u64, f64)> {
    programs(pid).into_iter().map(|(id, _, program)| (id, program.run_ns as f64 / 1e9)).collect()
}

/// All programs of a process together.
pub fn all_programs(pid: u32) -> Programs {
    programs(pid).into_iter().fold(Programs::default(), |sum, (_, _, program)| Programs {
        run_ns: sum.run_ns + program.run_ns,
        runs: sum.runs + program.runs,
    })
}

/// The programs that a process holds open, each once: its number and its type.
fn programs(pid: u32) -> Vec<(u64, u64, Programs)> {
    let program = |info: String| {
        let (id, kind) = (number(&info, "prog_id:")?, number(&info, "prog_type:")?);
        // A link to a program names it too, but only the program's own descriptor has its statistics.
        Some((id, kind, Programs { run_ns: number(&info, "run_time_ns:")?, runs: number(&info, "run_cnt:")? }))
    };
    let mut programs: Vec<_> = descriptors(pid).filter_map(program).collect();
    programs.sort_by_key(|(id, _, _)| *id);
    programs.dedup_by_key(|(id, _, _)| *id);
    programs
}

/// Memory of the maps that a process holds open, in bytes.
pub fn map_bytes(pid: u32) -> u64 {
    bytes_of_maps(pid, |_| true)
}

/// Memory of some of these maps, in bytes.
pub fn bytes_of_maps(pid: u32, is_wanted: impl Fn(u64) -> bool) -> u64 {
    let mut maps: Vec<(u64, u64)> =
        descriptors(pid).filter_map(|info| Some((number(&info, "map_id:")?, number(&info, "memlock:")?))).collect();
    maps.sort_unstable();
    maps.dedup();
    maps.iter().filter(|(id, _)| is_wanted(*id)).map(|(_, bytes)| bytes).sum()
}

/// The maps of maps that a process holds open, by their numbers. What is in them is nobody's descriptor.
pub fn maps_of_maps(pid: u32) -> Vec<u64> {
    const ARRAY_OF_MAPS: u64 = 12;
    let id = |info: String| (number(&info, "map_type:")? == ARRAY_OF_MAPS).then(|| number(&info, "map_id:"))?;
    let mut maps: Vec<u64> = descriptors(pid).filter_map(id).collect();
    maps.sort_unstable();
    maps.dedup();
    maps
}

/// Files that a process has mapped as code, each once.
pub fn mapped_executables(pid: u32) -> usize {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
    let code = maps.lines().filter(|line| line.split_whitespace().nth(1).is_some_and(|flags| flags.contains('x')));
    let files: BTreeSet<&str> =
        code.filter_map(|line| line.split_whitespace().nth(5)).filter(|path| path.starts_with('/')).collect();
    files.len()
}

/// The process's resident memory, in bytes.
pub fn resident_bytes(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    Some(number(&status, "VmRSS:")? * 1024)
}

/// The process's share of memory, in bytes: pages that several processes have mapped are divided among them, and the kernel
/// maps that it has mapped are left out, which [`map_bytes`] counts.
pub fn own_bytes(pid: u32) -> Option<u64> {
    let smaps = fs::read_to_string(format!("/proc/{pid}/smaps")).ok()?;
    let (mut sum, mut is_counted) = (0, true);
    for line in smaps.lines() {
        if let Some(kilobytes) = line.strip_prefix("Pss:") {
            let kilobytes = kilobytes.split_whitespace().next()?.parse::<u64>().ok()?;
            sum += if is_counted { kilobytes * 1024 } else { 0 };
        } else if line.split_whitespace().next().is_some_and(|word| word.contains('-')) {
            is_counted = !line.ends_with("bpf-map");
        }
    }
    Some(sum)
}

/// Processor time that a process has used, user and kernel, in seconds.
pub fn cpu_seconds(pid: u32) -> Option<f64> {
    /// What the kernel counts in, on every architecture that `probe` runs on.
    const TICKS_PER_SECOND: f64 = 100.0;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let after_name = stat.rsplit_once(')')?.1;
    let mut fields = after_name.split_whitespace().skip(11);
    let ticks = fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?;
    Some(ticks as f64 / TICKS_PER_SECOND)
}

fn descriptors(pid: u32) -> impl Iterator<Item = String> {
    let entries = fs::read_dir(format!("/proc/{pid}/fdinfo")).into_iter().flatten().flatten();
    entries.filter_map(|entry| fs::read_to_string(entry.path()).ok())
}

/// The first number of the line that begins with a name.
fn number(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_from_their_lines() {
        let info = "pos:\t0\nprog_type:\t7\nprog_id:\t42\nrun_time_ns:\t1234\nrun_cnt:\t5\n";
        assert_eq!(number(info, "prog_id:"), Some(42));
        assert_eq!(number(info, "run_cnt:"), Some(5));
        assert_eq!(number(info, "map_id:"), None);
        let resident = resident_bytes(std::process::id()).unwrap();
        assert!(resident > 1 << 16);
        let own = own_bytes(std::process::id()).unwrap();
        assert!(own > resident / 20 && own < 2 * resident, "{own} of {resident}");
        assert!(mapped_executables(std::process::id()) >= 1);
        assert!(cpu_seconds(std::process::id()).is_some());
    }
}

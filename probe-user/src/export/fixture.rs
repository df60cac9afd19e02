//! A profile with everything that a format may meet: several processes and threads, inlined, kernel and unnamed frames,
//! cut stacks, losses, and names that try to break out.

use super::intake;
use crate::symbolize::{Header, Kind, Line, Location, Module, ProcessInfo, Profile, Sample, Stack, ThreadInfo};

/// One sample's worth of nanoseconds at 99 Hz.
const PERIOD: u64 = 10_101_010;

/// The profile, with names as a hostile target would give them.
pub fn profile() -> Profile {
    Profile {
        header: Header {
            event: "cpu".into(),
            unit: "nanoseconds".into(),
            sampler: "cpu-clock".into(),
            frequency: 99,
            period: PERIOD,
            started_at_ns: 1_770_091_506_000_000_000,
            duration_ns: 2_000_000_000,
            host: "node-7".into(),
            kernel: "6.1.0-test".into(),
            in_use: None,
        },
        processes: processes(),
        threads: threads(),
        modules: modules(),
        locations: locations(),
        stacks: stacks(),
        samples: samples(),
        losses: [("ring buffer full".into(), 3), ("stack not readable".into(), 2)].into(),
    }
}

/// The profile after its names were sanitized, as it comes back from a file.
pub fn clean() -> Profile {
    let mut profile = profile();
    intake::scrub(&mut profile);
    profile
}

fn processes() -> Vec<ProcessInfo> {
    vec![
        ProcessInfo {
            pid: 4242,
            name: "checkout".into(),
            exe: "/usr/bin/checkout".into(),
            cmdline: "/usr/bin/checkout --port 8080".into(),
        },
        ProcessInfo { pid: 77, name: "<script>alert('process')</script>".into(), ..ProcessInfo::default() },
        ProcessInfo { pid: 78, name: "checkout".into(), exe: "/usr/bin/checkout".into(), ..ProcessInfo::default() },
    ]
}

fn threads() -> Vec<ThreadInfo> {
    let thread = |process, tid, name: &str| ThreadInfo { process, tid, name: name.into() };
    vec![
        thread(0, 4242, "checkout"),
        thread(0, 4250, "push worker 1"),
        thread(1, 77, "]]>&;\n\x1b[31m\u{202e}evil"),
        thread(2, 78, "checkout"),
    ]
}

fn modules() -> Vec<Module> {
    let module = |path: &str, build_id: &str, memory_start, memory_limit, file_offset| Module {
        path: path.into(),
        build_id: build_id.into(),
        memory_start,
        memory_limit,
        file_offset,
    };
    vec![
        module("/usr/bin/checkout", "8f3c2a11d0", 0x5555_5555_6000, 0x5555_5556_0000, 0x1000),
        module("/usr/lib/x86_64-linux-gnu/libc.so.6", "c289da5071", 0x7fff_f7c2_8000, 0x7fff_f7db_d000, 0x2_8000),
        module("[kernel]", "", 0, 0, 0),
        module("/tmp/<img src=x onerror=alert('module')>;\n.so", "", 0x7fff_0000_0000, 0x7fff_0001_0000, 0),
    ]
}

fn line(function: &str, file: &str, line: u32) -> Line {
    Line { function: function.into(), file: file.into(), line }
}

fn locations() -> Vec<Location> {
    let user = |module, address, lines| Location { kind: Kind::User, module: Some(module), address, lines };
    let kernel = |address, lines| Location { kind: Kind::Kernel, module: Some(2), address, lines };
    vec![
        user(1, 0x2_9d90, vec![line("__libc_start_call_main", "", 0)]),
        user(0, 0x1210, vec![line("main", "/src/checkout/main.c", 80)]),
        user(0, 0x1480, vec![line("handle_request", "/src/checkout/request.c", 42)]),
        // Two functions inlined into a third.
        user(
            0,
            0x1533,
            vec![
                line("price::round", "/src/checkout/price.rs", 7),
                line("price::sum<[u8; 8]>", "/src/checkout/price.rs", 21),
                line("price::total", "/src/checkout/price.rs", 30),
            ],
        ),
        user(1, 0x9_1e2a, vec![]),
        kernel(0xffff_ffff_8100_1234, vec![line("do_syscall_64", "", 0)]),
        kernel(0xffff_ffff_8123_4567, vec![line("vfs_read", "", 0)]),
        kernel(0xffff_ffff_c000_0010, vec![]),
        Location { kind: Kind::User, module: None, address: 0x7fff_1234_5678, lines: vec![] },
        user(3, 0x40, vec![line("</script><script>alert('frame')</script>", "/src/\"><b>.js", 1)]),
        user(3, 0x80, vec![line("a;b ]]> & \n \x1b[2J \u{202e}txt.exe 12", "", 0)]),
        user(3, 0xc0, vec![line(&"very_long_".repeat(1000), "", 0)]),
        user(0, 0x1490, vec![line("handle_request", "/src/checkout/request.c", 55)]),
    ]
}

fn stacks() -> Vec<Stack> {
    let stack = |locations: &[u32]| Stack { locations: locations.into(), truncated: None };
    let cut = |locations: &[u32], reason: &str| Stack { locations: locations.into(), truncated: Some(reason.into()) };
    vec![
        stack(&[3, 2, 1, 0]),
        stack(&[4, 2, 1, 0]),
        stack(&[6, 5, 4, 12, 1, 0]),
        cut(&[7, 5, 2], "no frame pointer"),
        stack(&[11, 10, 9, 8]),
        cut(&[], "stack not readable"),
        cut(&[10, 9], "<b>;\n1 2"),
    ]
}

fn samples() -> Vec<Sample> {
    let at = |thread, stack, milliseconds: u64, count| Sample {
        thread,
        stack,
        time_ns: milliseconds * 1_000_000,
        count,
        value: count * PERIOD,
        ..Sample::default()
    };
    vec![
        at(0, 0, 10, 1),
        at(1, 0, 10, 1),
        at(0, 0, 20, 1),
        at(0, 1, 30, 1),
        at(1, 2, 30, 5),
        at(1, 0, 90, 6),
        at(2, 4, 100, 2),
        at(2, 6, 110, 1),
        at(0, 3, 120, 1),
        at(3, 5, 130, 1),
        at(3, 0, 140, 3),
    ]
}

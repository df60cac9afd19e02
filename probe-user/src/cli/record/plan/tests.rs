//! Which flags go together, and what they come to.

use clap::Parser;

use super::*;

#[derive(Parser)]
struct Command {
    #[command(flatten)]
    args: Args,
}

fn parse(line: &str) -> Result<Plan> {
    plan(Command::try_parse_from(line.split(' '))?.args)
}

#[test]
fn the_output_follows_from_what_is_given() {
    let output = |line| parse(line).map(|plan| (plan.output.display().to_string(), plan.format)).unwrap();
    assert_eq!(output("record -p 1"), ("profile.html".into(), Format::Html));
    assert_eq!(output("record -p 1 -f pprof"), ("profile.pb.gz".into(), Format::Pprof));
    assert_eq!(output("record -p 1 -o x.svg"), ("x.svg".into(), Format::Svg));
    assert_eq!(output("record -p 1 -o -"), ("-".into(), Format::Folded));
    assert_eq!(output("record -p 1 -o x.svg -f json"), ("x.svg".into(), Format::Json));
    assert_eq!(output("record -p 1 -o /dev/stdout"), ("/dev/stdout".into(), Format::Folded));
    assert_eq!(output("record -p 1 -o /dev/null"), ("/dev/null".into(), Format::Folded));
    assert!(parse("record -p 1 -o x.png").is_err());
    for folder in ["/tmp", "/tmp -f svg"] {
        let error = parse(&format!("record -p 1 -o {folder}")).unwrap_err();
        assert!(error.to_string().contains("/tmp: it is a folder"), "{error}");
    }
}

#[test]
fn events_are_told_from_nonsense() {
    for (line, [cpu, off_cpu, page_fault]) in [
        ("", [true, false, false]),
        (" -e off-cpu", [false, true, false]),
        (" -e cpu,off-cpu", [true, true, false]),
        (" -e cpu,page-fault -o x.pb.gz", [true, false, true]),
    ] {
        let plan = parse(&format!("record -p 1{line}")).unwrap();
        assert_eq!(plan.events, Events { cpu, off_cpu, page_fault, malloc: false }, "{line}");
    }
    for (event, expected) in [("cpu,malloc", "by itself"), ("cpu,nonsense", "no such event")] {
        let error = parse(&format!("record -p 1 -e {event}")).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn memory_beside_times_needs_a_place() {
    let beside = |line| parse(&format!("record -p 1 {line}")).map(|plan| plan.memory_output);
    assert_eq!(beside("-e page-fault").unwrap(), None);
    assert_eq!(beside("-e cpu,page-fault -o x.pb.gz").unwrap(), None);
    assert_eq!(beside("-e cpu,page-fault").unwrap(), Some("profile.page-fault.html".into()));
    assert_eq!(beside("-e cpu,page-fault -o a/x.svg").unwrap(), Some("a/x.page-fault.svg".into()));
    assert!(beside("-e cpu,page-fault -o -").unwrap_err().to_string().contains("one unit"));
    assert!(beside("-e page-fault -K").is_err());
}

#[test]
fn waits_are_filtered_where_there_are_some() {
    let plan = parse("record -p 1 -e off-cpu --min-wait 100us --max-wait 5ms").unwrap();
    assert_eq!(plan.waits, WaitFilter { min_ns: 100_000, max_ns: 5_000_000, each: false });
    for bad in ["--min-wait 1ms", "--wakers", "-e off-cpu --min-wait 5", "-e off-cpu --min-wait 2s --max-wait 1s"] {
        assert!(parse(&format!("record -p 1 {bad}")).is_err(), "{bad}");
    }
}

#[test]
fn memory_is_recorded_by_itself_and_of_processes() {
    for event in ["malloc", "alloc"] {
        let plan = parse(&format!("record -p 1 -e {event} --live --older-than 30s --sample-bytes 64k")).unwrap();
        assert_eq!(plan.events, Events { malloc: true, ..Events::default() });
        assert_eq!(plan.heap, HeapOptions { sample_bytes: 64 << 10, live: true });
        assert_eq!(parse("record -p 1 -e malloc --sample-bytes 512KB").unwrap().heap.sample_bytes, 512_000);
        assert_eq!((plan.older_than, plan.budget), (Duration::from_secs(30), 0.05));
        assert_eq!(plan.cheapest, event == "alloc");
    }
    assert!(parse("record -e malloc -- ls").is_ok());
    for bad in [
        "-p 1 -e malloc,cpu",
        "-p 1 -e malloc,off-cpu",
        "-a -e malloc",
        "-p 1 --live",
        "-p 1 --max-overhead 5",
        "-p 1 -e page-fault --sample-bytes 64k",
        "-p 1 -e malloc --older-than 3s",
        "-p 1 -e malloc --sample-bytes 0",
        "-p 1 -e malloc --sample-bytes 4096M",
        "-p 1 -e malloc --max-overhead 0",
    ] {
        assert!(parse(&format!("record {bad}")).is_err(), "{bad}");
    }
}

#[test]
fn there_is_exactly_one_kind_of_target() {
    assert_eq!(parse("record -p 1,2 -p 3").unwrap().target, Target::Pids(vec![1, 2, 3]));
    assert_eq!(parse("record -a").unwrap().target, Target::All);
    let command = Target::Command(vec!["ls".into(), "-l".into()]);
    assert_eq!(parse("record -- ls -l").unwrap().target, command);
    for bad in ["record", "record -p 0", "record -p 1 -a", "record -a -- ls", "record -p 1 -- ls", "record -p x"] {
        assert!(parse(bad).is_err(), "{bad}");
    }
    assert!(parse("record -p 1 -U -K").is_err());
    assert!(parse("record -p 1 -F 0").is_err());
}

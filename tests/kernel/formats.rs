//! Is every output readable by something that was not written here?

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use probe_tests::running::Running;
use probe_tests::trial::{Skip, require, trial};
use probe_tests::{probe, workload};

pub fn tests() -> Vec<Trial> {
    vec![
        trial("formats::svg_is_read_by_an_xml_parser", svg),
        trial("formats::pprof_is_read_by_go_tool_pprof", pprof),
        trial("formats::json_is_read_by_python", json),
        trial("formats::speedscope_is_consistent_by_its_schema", speedscope),
        trial("formats::firefox_is_consistent_by_its_tables", firefox),
        trial("formats::html_opens_in_a_browser", html),
        trial("formats::standard_output_takes_any_format", standard_output),
    ]
}

/// The function that every format must name.
const FUNCTION: &str = "takes_three_quarters";

/// Records the known program into a file of this name; the folder goes with the recording.
struct Recorded {
    _folder: tempfile::TempDir,
    file: PathBuf,
}

impl Recorded {
    fn new(name: &str) -> Result<Self> {
        let target = Running::workload(&workload::c("split.c", &[])?)?;
        let folder = workload::scratch()?;
        let file = folder.path().join(name);
        let path = file.to_str().context("a readable path")?;
        probe::run(["record", "-p", &target.pid().to_string(), "-d", "1", "-F", "199", "-o", path])?.expect(0)?;
        Ok(Self { _folder: folder, file })
    }
}

/// What a program prints that must succeed.
fn read_by(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("cannot run {command:?}"))?;
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "{command:?}: {}\n{out}{err}", output.status);
    Ok(out.into_owned())
}

/// Runs a few lines of Python with the file as its argument; `text` is the file's content there.
fn python(file: &Path, code: &str) -> Result<String> {
    let begin = "import json, sys\ntext = open(sys.argv[1]).read()\n";
    read_by(Command::new(require("python3")?).arg("-c").arg(format!("{begin}{code}")).arg(file))
}

fn svg() -> Result<()> {
    let xmllint = require("xmllint")?;
    let recorded = Recorded::new("out.svg")?;
    read_by(Command::new(&xmllint).args(["--noout", "--nonet"]).arg(&recorded.file))?;
    let name = format!("count(//*[local-name()='title'][contains(., '{FUNCTION}')])");
    let count = read_by(Command::new(xmllint).args(["--xpath", &name]).arg(&recorded.file))?;
    ensure!(count.trim().parse().is_ok_and(|count: f64| count >= 1.0), "no title names {FUNCTION}: {count}");
    Ok(())
}

fn pprof() -> Result<()> {
    let go = require("go")?;
    let recorded = Recorded::new("out.pb.gz")?;
    let mut pprof = Command::new(&go);
    pprof.args(["tool", "pprof", "-top", "-nodecount=20", "-sample_index=cpu"]).arg(&recorded.file);
    let top = read_by(&mut pprof)?;
    ensure!(top.contains(FUNCTION), "pprof does not name {FUNCTION}:\n{top}");
    let raw = read_by(Command::new(go).args(["tool", "pprof", "-raw"]).arg(&recorded.file))?;
    ensure!(raw.contains("samples/count cpu/nanoseconds"), "the sample types:\n{raw}");
    ensure!(raw.contains("split.c") && raw.contains("Mappings"), "lines and mappings:\n{raw}");
    Ok(())
}

fn json() -> Result<()> {
    let recorded = Recorded::new("out.json")?;
    python(&recorded.file, &format!("assert isinstance(json.loads(text), dict); assert '{FUNCTION}' in text"))?;
    Ok(())
}

fn speedscope() -> Result<()> {
    let recorded = Recorded::new("out.speedscope.json")?;
    let code = format!(
        "
d = json.loads(text)
assert d['$schema'] == 'https://www.speedscope.app/file-format-schema.json', d['$schema']
frames = d['shared']['frames']
assert all(isinstance(f['name'], str) for f in frames)
assert any('{FUNCTION}' in f['name'] for f in frames)
assert d['profiles']
for p in d['profiles']:
    assert p['type'] == 'sampled' and isinstance(p['name'], str)
    assert p['unit'] in ('none', 'nanoseconds', 'microseconds', 'milliseconds', 'seconds', 'bytes'), p['unit']
    assert len(p['samples']) == len(p['weights'])
    assert all(0 <= i < len(frames) for s in p['samples'] for i in s)
    assert p['startValue'] <= p['endValue']
"
    );
    python(&recorded.file, &code)?;
    Ok(())
}

fn firefox() -> Result<()> {
    let recorded = Recorded::new("out.firefox.json")?;
    let code = format!(
        "
d = json.loads(text)
assert d['meta']['version'] and d['meta']['interval'] > 0
assert d['threads'] and '{FUNCTION}' in text
shared = d.get('shared', {{}})
for t in d['threads']:
    table = lambda name: t[name] if name in t else shared[name]
    frames, stacks, samples = table('frameTable'), table('stackTable'), t['samples']
    funcs = table('funcTable')
    strings = t.get('stringArray') or t.get('stringTable') or shared['stringArray']
    assert all(0 <= f < frames['length'] for f in stacks['frame'])
    assert all(p is None or 0 <= p < i for i, p in enumerate(stacks['prefix']))
    assert all(s is None or 0 <= s < stacks['length'] for s in samples['stack'])
    assert all(0 <= f < funcs['length'] for f in frames['func'])
    assert all(0 <= n < len(strings) for n in funcs['name'])
"
    );
    python(&recorded.file, &code)?;
    Ok(())
}

fn html() -> Result<()> {
    let node = require("node")?;
    let browser = Path::new(env!("CARGO_MANIFEST_DIR")).join("browser");
    let script = browser.join("flamegraph.mjs");
    if !script.exists() {
        return Err(Skip(format!("{} is not there", script.display())).into());
    }
    if browser.join("package.json").exists() && !browser.join("node_modules").exists() {
        return Err(Skip("tests/browser/node_modules is missing: run `npm ci` there".to_owned()).into());
    }
    let recorded = Recorded::new("out.html")?;
    read_by(Command::new(node).arg(script).arg(&recorded.file))?;
    Ok(())
}

fn standard_output() -> Result<()> {
    let target = Running::workload(&workload::c("split.c", &[])?)?;
    let pid = target.pid().to_string();
    let output = probe::run(["record", "-p", &pid, "-d", "1", "-f", "folded", "-o", "-"])?.expect(0)?;
    probe_tests::folded::Folded::parse(&output.stdout)?.expect(FUNCTION, 0.5)
}

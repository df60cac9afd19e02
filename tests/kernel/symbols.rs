//! Do addresses get their names? Libraries that come late, C++ and Rust, binaries that are gone or have no symbols.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use probe_tests::running::Running;
use probe_tests::trial::{require, trial};
use probe_tests::{probe, workload};

pub fn tests() -> Vec<Trial> {
    vec![
        trial("symbols::a_library_loaded_at_run_time", dlopen),
        trial("symbols::cxx_names_are_demangled_and_inlined_functions_present", cxx),
        trial("symbols::rust_names_are_demangled_and_inlined_functions_present", rust),
        trial("symbols::a_deleted_binary", deleted),
        trial("symbols::a_replaced_binary", replaced),
        trial("symbols::a_stripped_binary_gives_module_and_offset", stripped),
        trial("symbols::a_binary_without_pie", without_pie),
        trial("symbols::a_debug_file_found_by_build_id", debug_file),
        trial("symbols::the_vdso", vdso),
    ]
}

fn dlopen() -> Result<()> {
    let plugin = workload::c("plugin.c", &["-shared", "-fPIC"])?;
    let target = Running::ready(Command::new(workload::c("dlopen.c", &[])?).arg(plugin))?;
    let folded = probe::record(target.pid(), 2, &[])?;
    folded.expect("plugin_hot", 0.95)?;
    folded.expect("main", 0.95)
}

fn cxx() -> Result<()> {
    let target = Running::workload(&workload::cxx("cxx.cpp", &[])?)?;
    let folded = probe::record(target.pid(), 2, &[])?;
    folded.expect("shop::Cart<long>::total", 0.95)?;
    folded.expect("shop::apply_discount", 0.9)?;
    ensure!(folded.share_of("_ZN") == 0.0, "mangled names are left:\n{}", folded.show());
    Ok(())
}

fn rust() -> Result<()> {
    let target = Running::workload(&workload::rust("rusty.rs", &[])?)?;
    let folded = probe::record(target.pid(), 2, &[])?;
    folded.expect("pricing::evaluate", 0.95)?;
    folded.expect("apply", 0.9)?;
    let mangled = folded.share_of("_RN") + folded.share_of("_ZN") + folded.share_of("17h");
    ensure!(mangled == 0.0, "mangled names are left:\n{}", folded.show());
    Ok(())
}

fn deleted() -> Result<()> {
    let folder = workload::scratch()?;
    let binary = folder.path().join("gone");
    fs::copy(workload::c("split.c", &[])?, &binary)?;
    let target = Running::workload(&binary)?;
    fs::remove_file(&binary)?;
    probe::record(target.pid(), 2, &[])?.expect("takes_three_quarters", 0.5)
}

fn replaced() -> Result<()> {
    let folder = workload::scratch()?;
    let (binary, new) = (folder.path().join("upgraded"), folder.path().join("new"));
    fs::copy(workload::c("split.c", &[])?, &binary)?;
    let target = Running::workload(&binary)?;
    fs::copy(workload::c("deep.c", &[])?, &new)?;
    fs::rename(&new, &binary)?;
    let folded = probe::record(target.pid(), 2, &[])?;
    ensure!(folded.share_of("descend") == 0.0, "named by the binary that replaced it:\n{}", folded.show());
    folded.expect("takes_three_quarters", 0.5)
}

fn stripped() -> Result<()> {
    let folder = workload::scratch()?;
    let binary = folder.path().join("nameless");
    let strip =
        Command::new(require("strip")?).arg("-s").arg("-o").arg(&binary).arg(workload::c("split.c", &[])?).status()?;
    ensure!(strip.success(), "strip: {strip}");
    let target = Running::workload(&binary)?;
    let folded = probe::record(target.pid(), 2, &[])?;
    ensure!(folded.share_of("takes_") == 0.0, "named in spite of strip:\n{}", folded.show());
    folded.expect("[nameless+0x", 0.95)
}

fn without_pie() -> Result<()> {
    let target = Running::workload(&workload::c("split.c", &["-no-pie"])?)?;
    probe::record(target.pid(), 2, &[])?.expect("takes_three_quarters", 0.5)
}

/// The file that a distribution's `-dbgsym` package would bring.
struct DebugFile(PathBuf);

impl Drop for DebugFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn debug_file() -> Result<()> {
    let folder = workload::scratch()?;
    let (binary, debug) = (folder.path().join("nameless"), folder.path().join("nameless.debug"));
    // A build id of its own, so that no other test's process finds the file.
    let id = format!("{:040x}", 0xb1d0_0000_0000_u64 + u64::from(std::process::id()));
    let full = workload::c("split.c", &[&format!("-Wl,--build-id=0x{id}")])?;
    for (flag, out) in [("--only-keep-debug", &debug), ("--strip-all", &binary)] {
        let status = Command::new(require("objcopy")?).arg(flag).arg(&full).arg(out).status()?;
        ensure!(status.success(), "objcopy {flag}: {status}");
    }
    let place = DebugFile(PathBuf::from(format!("/usr/lib/debug/.build-id/{}/{}.debug", &id[..2], &id[2..])));
    fs::create_dir_all(place.0.parent().context("a folder")?)?;
    fs::copy(&debug, &place.0)?;
    let target = Running::workload(&binary)?;
    let folded = probe::record(target.pid(), 2, &[])?;
    folded.expect("takes_three_quarters", 0.5)?;
    folded.expect("main", 0.95)
}

fn vdso() -> Result<()> {
    let target = Running::workload(&workload::c("clock.c", &[])?)?;
    let pid = target.pid().to_string();
    // The folded format names no modules, and the C library's function has the same name.
    let output = probe::run(["record", "-p", &pid, "-d", "2", "-F", "199", "-f", "json", "-o", "-"])?.expect(0)?;
    let saved: serde_json::Value = serde_json::from_str(&output.stdout)?;
    let profile = saved.get("profile").unwrap_or(&saved);
    let empty = Vec::new();
    let list = |name: &str| profile[name].as_array().unwrap_or(&empty);
    let module = list("modules").iter().position(|module| module["path"] == "[vdso]");
    let named = list("locations").iter().filter(|location| location["module"].as_u64().map(|m| m as usize) == module);
    let functions: Vec<_> = named.flat_map(|l| l["lines"].as_array()).flatten().map(|l| &l["function"]).collect();
    let is_clock = |name: &&serde_json::Value| name.as_str().is_some_and(|name| name.contains("clock_gettime"));
    ensure!(module.is_some() && functions.iter().any(is_clock), "in the vDSO: {functions:?}");
    Ok(())
}

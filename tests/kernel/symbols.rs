//! Do addresses get their names? Libraries that come late, C++ and Rust, binaries that are gone or have no symbols.

use std::fs;
use std::process::Command;

use anyhow::{Result, ensure};
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
    let target = Running::workload(&workload::rust("rusty.rs")?)?;
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

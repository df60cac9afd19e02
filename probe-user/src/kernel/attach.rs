//! Attaches programs to the kernel's tracepoints, and to its functions where it lets these be traced.

use anyhow::{Context, Result, bail};
use aya::programs::tp_btf::BtfTracePointLinkId;
use aya::programs::{BtfTracePoint, Program};
use aya::{Btf, Ebpf};

use super::sampler::permission;

/// The types of the running kernel.
pub(super) fn types() -> Result<Btf> {
    Btf::from_sys_fs().context("cannot read the kernel's BTF")
}

/// Loads a program and attaches it to a tracepoint.
pub(super) fn tracepoint(ebpf: &mut Ebpf, types: &Btf, name: &str, tracepoint: &str) -> Result<BtfTracePointLinkId> {
    let program: &mut BtfTracePoint = program(ebpf, name)?.try_into()?;
    let failed = |error| permission(&format!("load the program for {tracepoint}"), error);
    program.load(tracepoint, types).map_err(failed)?;
    program.attach().map_err(|error| permission(&format!("attach to {tracepoint}"), error))
}

/// Loads programs and attaches each to the beginning or to the end of a function, in their order: all of them or none, so that
/// what another program does in their place is not done twice.
pub(super) fn functions(ebpf: &mut Ebpf, types: &Btf, programs: &[(&str, &str)]) -> Result<()> {
    let attached = all(ebpf, types, programs);
    if attached.is_err() {
        for (name, _) in programs {
            // One that was not loaded has nothing to take back.
            let _ = match program(ebpf, name)? {
                Program::FEntry(program) => program.unload(),
                Program::FExit(program) => program.unload(),
                _ => Ok(()),
            };
        }
    }
    attached
}

fn all(ebpf: &mut Ebpf, types: &Btf, programs: &[(&str, &str)]) -> Result<()> {
    for (name, function) in programs {
        let loaded = match program(ebpf, name)? {
            Program::FEntry(program) => program.load(function, types),
            Program::FExit(program) => program.load(function, types),
            _ => bail!("{name} is for no function"),
        };
        loaded.with_context(|| format!("cannot load the program for {function}"))?;
    }
    for (name, function) in programs {
        let attached = match program(ebpf, name)? {
            Program::FEntry(program) => program.attach().map(drop),
            Program::FExit(program) => program.attach().map(drop),
            _ => Ok(()),
        };
        attached.with_context(|| format!("cannot attach to {function}"))?;
    }
    Ok(())
}

fn program<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut Program> {
    ebpf.program_mut(name).with_context(|| format!("no program {name}"))
}

//! Probes in processes: many by one link where the kernel knows that, else a perf event for each.

use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result, bail};
use aya::Ebpf;
use aya::programs::UProbe;
use aya::programs::uprobe::{UProbeAttachLocation, UProbeAttachPoint, UProbeLink, UProbeScope};
use serde::{Deserialize, Serialize};

use super::multi::{Multi, MultiLink};
use super::placing::Elsewhere;
use super::sampler::permission;
use super::text::Text;
use crate::problem::{Exit, Problem};
use crate::target::living_thread;

/// Where a probe stands in its function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Role {
    /// At its first instruction.
    Enter,
    /// At one of its return instructions.
    Leave,
    /// Behind an instruction that calls it. The usual return probe, for which the kernel replaces the return address on the
    /// stack, is not used: unwinders of exceptions and runtimes that move stacks do not bear it.
    Returned,
    /// Where a span begins.
    Begin,
    /// Where a span ends.
    End,
    /// At the first instruction of a function of an allocator.
    Allocate,
    /// At a return instruction of such a function.
    AllocateLeave,
    /// At a tracepoint by which an allocator publishes a sample of its own.
    AllocatePublished,
    /// At one by which it tells that such a sample is freed.
    FreePublished,
    /// At whatever such a function returns to: the kernel replaces the return address on the stack. No exception passes
    /// there, and no runtime moves that stack.
    AllocateReturned,
}

impl Role {
    pub(super) fn program(self) -> &'static str {
        match self {
            Self::Enter => "enter",
            Self::Leave => "leave",
            Self::Returned => "returned",
            Self::Begin => "begin",
            Self::End => "end",
            Self::Allocate => "allocate",
            Self::AllocateLeave => "allocate_leave",
            Self::AllocateReturned => "allocate_returned",
            Self::AllocatePublished => "allocate_published",
            Self::FreePublished => "free_published",
        }
    }
}

/// A probe that is to be set.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The file.
    pub file: PathBuf,
    /// Where in the file.
    pub offset: u64,
    /// What it is for.
    pub role: Role,
    /// What the programs know it by: hits are counted by it.
    pub number: u32,
    /// Where in the file the counter is by which a program knows that somebody listens; a static tracepoint may have one.
    pub semaphore: Option<u64>,
}

impl Wanted {
    /// True if one link can serve both.
    pub(super) fn is_alike(&self, other: &Self) -> bool {
        self.role == other.role && self.file == other.file
    }
}

/// Probes in a process that are set. Dropping them takes the kernel 20 to 100 ms and at times a second: not where anybody
/// waits.
pub struct Probes(#[expect(dead_code, reason = "held for its drop")] Link);

enum Link {
    /// One link for all.
    Multi(#[expect(dead_code, reason = "as above")] MultiLink),
    /// A perf event.
    Event(#[expect(dead_code, reason = "as above")] UProbeLink),
}

/// How probes are set.
pub(super) struct Uprobes {
    /// `None` where the kernel does not know it.
    multi: Option<Arc<Mutex<Multi>>>,
    elsewhere: Arc<Elsewhere>,
}

impl Uprobes {
    /// For an object that was loaded, before its maps are taken out.
    pub fn new(bytes: &'static [u8], ebpf: &Ebpf) -> Self {
        let multi = Multi::new(bytes, ebpf);
        let multi = multi.inspect_err(|error| tracing::debug!("probes are set one by one: {error}"));
        Self { multi: multi.ok().map(|multi| Arc::new(Mutex::new(multi))), elsewhere: Arc::default() }
    }

    /// From now on sets them one by one; false if it does already.
    pub fn one_by_one(&mut self) -> bool {
        self.multi.take().is_some()
    }

    /// What sets many at once.
    pub fn multi(&self) -> Option<Arc<Mutex<Multi>>> {
        self.multi.clone()
    }

    /// Where processes have mapped other files than those that their names lead to.
    pub fn elsewhere(&self) -> Arc<Elsewhere> {
        Arc::clone(&self.elsewhere)
    }

    /// Sets probes in their order into one process. Those next to each other of the same role in the same file share a link
    /// where that is possible. Fails with [`super::Refused`] where the process runs something else than its file has.
    pub fn set(&mut self, ebpf: &mut Ebpf, pid: u32, wanted: &[Wanted]) -> Result<Vec<Probes>> {
        let Self { multi, elsewhere } = self;
        let thread = living_thread(pid);
        // Where that fails, setting them says how.
        let _ = multi.as_ref().map(|multi| locked(multi).load(wanted.iter().map(|wanted| wanted.role.program())));
        elsewhere.set(pid, wanted, |wanted| {
            let mut probes = Vec::new();
            for alike in wanted.chunk_by(Wanted::is_alike) {
                match multi.as_ref().and_then(|multi| set_alike(&mut locked(multi), pid, alike)) {
                    Some(link) => probes.push(link),
                    None => {
                        for wanted in alike {
                            probes.push(Probes(Link::Event(event(ebpf, thread, wanted)?)));
                        }
                    }
                }
            }
            Ok(probes)
        })
    }

    /// Takes traps away that children have inherited with their parent's memory: the kernel looks through all processes that
    /// have the file mapped whenever a link goes, so it does when one goes that does nothing. To be dropped like probes.
    /// Perf events do that by themselves.
    pub fn sweep(&mut self, pid: u32, wanted: &[Wanted]) -> Vec<Probes> {
        let Some(multi) = &self.multi else { return Vec::new() };
        // A program that has patched its code since would get the traps once more.
        if let Err(refused) = Text::of(pid, wanted, wanted).and_then(|text| text.is_as_in_file()) {
            tracing::debug!("inherited probes are not taken away: {refused}");
            return Vec::new();
        }
        let mut multi = locked(multi);
        let mut links = Vec::new();
        for alike in wanted.chunk_by(|one, other| one.file == other.file) {
            match alike.first().map(|first| multi.attach("", false, pid, &first.file, alike)) {
                Some(Ok(link)) => links.push(Probes(Link::Multi(link))),
                Some(Err(error)) => tracing::debug!("inherited probes are not taken away: {error:#}"),
                None => {}
            }
        }
        links
    }
}

fn locked(multi: &Mutex<Multi>) -> MutexGuard<'_, Multi> {
    multi.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One link for probes of the same role in the same file. `None` where it does not work: how that is, the other way will say.
pub(super) fn set_alike(multi: &mut Multi, pid: u32, alike: &[Wanted]) -> Option<Probes> {
    let Wanted { file, role, .. } = alike.first()?;
    // Such a link is for the memory of the main thread (kernel/trace/bpf_trace.c, `uprobe_multi_link_filter`), which it has no
    // more when it has ended.
    if living_thread(pid) != pid {
        return None;
    }
    let link = multi.attach(role.program(), role == &Role::AllocateReturned, pid, file, alike);
    let link = link.inspect_err(|error| tracing::debug!(file = %file.display(), "no link for many probes: {error:#}"));
    Some(Probes(Link::Multi(link.ok()?)))
}

/// A perf event is for the memory of any thread, as long as that lives.
fn event(ebpf: &mut Ebpf, thread: u32, wanted: &Wanted) -> Result<UProbeLink> {
    let Wanted { file, offset, role, number, semaphore } = wanted;
    if semaphore.is_some() {
        let what = format!("the tracepoint at {}+{offset:#x} has to be switched on by a counter", file.display());
        bail!(Problem::new(Exit::Failure, what, "that needs Linux 6.6 or later"));
    }
    let name = role.program();
    let program: &mut UProbe = ebpf.program_mut(name).with_context(|| format!("no program {name}"))?.try_into()?;
    if program.fd().is_err() {
        program.load().map_err(|error| permission("load the program for functions", error))?;
    }
    let location = UProbeAttachLocation::AbsoluteOffset(*offset);
    let point = UProbeAttachPoint { location, cookie: Some((*number).into()) };
    let scope = UProbeScope::OneProcess(NonZeroU32::new(thread).context("no process has this pid")?);
    let what = || format!("set a probe at {}+{offset:#x} (before Linux 6.6 only CAP_SYS_ADMIN may)", file.display());
    let link = program.attach(point, Path::new(file), scope).map_err(|error| permission(&what(), error))?;
    Ok(program.take_link(link)?)
}

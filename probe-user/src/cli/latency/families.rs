//! `Families`: the processes that are timed: those that were named, and whoever descends from them, from when they are there. A
//! function of a family is one row, or one for each process.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use anyhow::Result;

use super::chooser::Chooser;
use super::programs::{Happened, Programs};
use crate::kernel::Refused;
use crate::latency::{Function, Part, Row, Slot, together};
use crate::target::{descendants, is_running};

/// Processes that wait to be looked at. More at once come faster than anybody could time them.
const MAX_WAITING: usize = 256;
/// How often it is looked who has come and gone.
pub const LOOK: Duration = Duration::from_millis(20);
/// After having looked at new processes it is rested for so many times what that took: a tenth of a core.
const REST: u32 = 9;
/// A process that has come and gone between two looks has lived for about so long.
const MOMENT: Duration = Duration::from_millis(1);

/// See the head of this file.
pub struct Families {
    /// What the probes of a family may cost, as a share of one core.
    budget: f64,
    is_per_process: bool,
    lines: Vec<Line>,
    /// Processes that are timed, or were looked at in vain, with the one that was named.
    known: BTreeMap<u32, u32>,
    /// What is timed for the lines: slot → line.
    slots: BTreeMap<Slot, usize>,
    waiting: VecDeque<Waiting>,
    /// By the process that was named: what could not be seen of those that descend from it.
    unseen: BTreeMap<u32, Unseen>,
    rested: Instant,
    /// Functions that were timed, and how many can be: where slow calls are told by their numbers, each is given once.
    given: usize,
    most: usize,
    gives_once: bool,
    /// Processes that were not timed for want of room or of time.
    left_out: BTreeSet<u32>,
}

/// A process that is to be looked at.
#[derive(Clone, Copy)]
struct Waiting {
    pid: u32,
    root: u32,
    since: Instant,
    /// It runs what its parent does, or has become something else.
    is_other: bool,
}

/// Processes that ran without probes, because they came too fast or were gone too soon.
#[derive(Clone, Copy, Default)]
struct Unseen {
    /// Those that have ended before they had any.
    ended: usize,
    /// How long all of them ran without, added up.
    time: Duration,
}

/// What becomes a row.
struct Line {
    pid: u32,
    name: String,
    since: Instant,
    refused: Option<String>,
    slots: Vec<Slot>,
    /// What was seen in processes that have ended.
    ended: Option<Part>,
    /// All slots that it had.
    numbers: Vec<Slot>,
}

impl Families {
    /// Nothing is timed yet. `most` is how many functions of processes can be; `gives_once` if none of their numbers may be used
    /// again.
    pub fn new(budget: f64, is_per_process: bool, most: usize, gives_once: bool) -> Self {
        let (lines, known, slots, waiting) = (Vec::new(), BTreeMap::new(), BTreeMap::new(), VecDeque::new());
        let (rested, given, left_out, unseen) = (Instant::now(), 0, BTreeSet::new(), BTreeMap::new());
        Self { budget, is_per_process, lines, known, slots, waiting, unseen, rested, given, most, gives_once, left_out }
    }

    /// Times functions of a process that was named, or that descends from one that was (`root`). One in which no probe may be
    /// set is a row with the reason.
    pub fn add(&mut self, programs: &mut Programs, pid: u32, root: u32, functions: &[Function]) -> Result<()> {
        self.known.insert(pid, root);
        for function in functions {
            if self.gives_once && self.given >= self.most {
                self.left_out.insert(pid);
                break;
            }
            let of = if self.is_per_process { pid } else { root };
            match programs.add(pid, function.clone(), self.share(root)) {
                Ok(Some(slot)) => {
                    self.given += 1;
                    let line = self.line(of, &function.name);
                    self.slots.insert(slot, line);
                    self.lines[line].slots.push(slot);
                    self.lines[line].numbers.push(slot);
                }
                Ok(None) => _ = self.left_out.insert(pid),
                Err(error) if error.is::<Refused>() && pid == of => {
                    let line = self.line(of, &function.name);
                    self.lines[line].refused = Some(error.to_string());
                }
                Err(error) if pid == root => return Err(error),
                // It may have ended.
                Err(error) => tracing::debug!(pid, "{} is not timed: {error:#}", function.name),
            }
        }
        self.share_out(programs, root)
    }

    /// The processes that were named or descend from these, as far as they are there.
    pub fn pids(&self) -> impl Iterator<Item = u32> {
        self.known.keys().copied().chain(self.waiting.iter().map(|waiting| waiting.pid))
    }

    /// Looks who has come and gone.
    pub fn look(&mut self, programs: &mut Programs, chooser: &mut Chooser) -> Result<()> {
        for happened in programs.happened()? {
            match happened {
                Happened::Fork { parent, child } => {
                    let waits = |waiting: &&Waiting| waiting.pid == parent;
                    let (root, is_other) = match self.waiting.iter().find(waits) {
                        Some(parent) => (Some(parent.root), parent.is_other),
                        None => (self.known.get(&parent).copied(), false),
                    };
                    self.expect(child, root, is_other);
                }
                Happened::Exec { pid } => {
                    let root = self.known.get(&pid).copied();
                    self.leave(programs, pid)?;
                    match self.waiting.iter_mut().find(|waiting| waiting.pid == pid) {
                        Some(waiting) => (waiting.since, waiting.is_other) = (Instant::now(), true),
                        None => self.expect(pid, root, true),
                    }
                }
                Happened::Exit { pid } => {
                    if let Some(at) = self.waiting.iter().position(|waiting| waiting.pid == pid)
                        && let Some(waiting) = self.waiting.remove(at)
                    {
                        self.miss(&waiting);
                    }
                    self.leave(programs, pid)?;
                }
            }
        }
        while Instant::now() >= self.rested
            && let Some(waiting) = self.waiting.pop_front()
        {
            let (begin, Waiting { pid, root, since, .. }) = (Instant::now(), waiting);
            if is_running(pid) {
                let had = self.slots.len();
                self.join(programs, chooser, pid, root)?;
                // One that has none of the functions is none of which something was not seen.
                if self.slots.len() > had {
                    self.unseen.entry(root).or_default().time += since.elapsed();
                }
            } else {
                self.miss(&waiting);
            }
            self.rested = Instant::now() + REST * begin.elapsed();
        }
        Ok(())
    }

    /// Times all that descend from a process by now.
    pub fn descend(&mut self, programs: &mut Programs, chooser: &mut Chooser, root: u32) -> Result<()> {
        for pid in descendants(root) {
            self.join(programs, chooser, pid, root)?;
        }
        Ok(())
    }

    fn join(&mut self, programs: &mut Programs, chooser: &mut Chooser, pid: u32, root: u32) -> Result<()> {
        if self.known.contains_key(&pid) || !is_running(pid) {
            return Ok(());
        }
        // What it does not have it need not have.
        let chosen = chooser.of(pid)?;
        self.add(programs, pid, root, &chosen.functions)
    }

    /// A process has ended before it was looked at. What other programs than the parent's have called is not known.
    fn miss(&mut self, waiting: &Waiting) {
        if !waiting.is_other {
            let unseen = self.unseen.entry(waiting.root).or_default();
            unseen.ended += 1;
            unseen.time += waiting.since.elapsed().max(MOMENT);
        }
    }

    fn expect(&mut self, pid: u32, root: Option<u32>, is_other: bool) {
        let Some(root) = root else { return };
        if self.waiting.len() < MAX_WAITING {
            self.waiting.push_back(Waiting { pid, root, since: Instant::now(), is_other });
        } else {
            self.left_out.insert(pid);
        }
    }

    /// A process has ended, or runs another program: what was seen of it stays.
    fn leave(&mut self, programs: &mut Programs, pid: u32) -> Result<()> {
        let Some(root) = self.known.remove(&pid) else { return Ok(()) };
        for part in programs.forget(pid)? {
            let Some(line) = self.slots.remove(&part.slot) else { continue };
            let line = &mut self.lines[line];
            line.slots.retain(|slot| *slot != part.slot);
            let part = part.ended();
            match &mut line.ended {
                Some(ended) => ended.join(&part),
                None => line.ended = Some(part),
            }
        }
        self.share_out(programs, root)
    }

    /// What one process of a family may cost.
    fn share(&self, root: u32) -> f64 {
        self.budget / self.known.values().filter(|of| **of == root).count().max(1) as f64
    }

    fn share_out(&self, programs: &mut Programs, root: u32) -> Result<()> {
        let budget = self.share(root);
        let pids: Vec<u32> = self.known.iter().filter(|(_, of)| **of == root).map(|(pid, _)| *pid).collect();
        programs.set_budget(pids, budget)
    }

    fn line(&mut self, pid: u32, name: &str) -> usize {
        let known = self.lines.iter().position(|line| line.pid == pid && line.name == name);
        known.unwrap_or_else(|| {
            let (since, slots, numbers) = (Instant::now(), Vec::new(), Vec::new());
            let line = Line { pid, name: name.to_owned(), since, refused: None, slots, ended: None, numbers };
            self.lines.push(line);
            self.lines.len() - 1
        })
    }

    /// How many functions are timed, and in how many processes.
    pub fn counts(&self) -> (usize, usize) {
        (self.lines.iter().filter(|line| !line.slots.is_empty()).count(), self.known.len())
    }

    /// How many processes were not timed, for want of room or because they came too fast.
    pub fn left_out(&self) -> usize {
        self.left_out.len()
    }

    /// How many processes have ended before they had probes.
    pub fn ended_unseen(&self) -> usize {
        self.unseen.values().map(|unseen| unseen.ended).sum()
    }

    /// What was seen so far, each with the numbers of its functions in the kernel.
    pub fn rows(&self, programs: &mut Programs) -> Result<Vec<(Row, Vec<Slot>)>> {
        let mut parts: BTreeMap<Slot, Part> = programs.parts()?.into_iter().map(|part| (part.slot, part)).collect();
        let row = |line: &Line| {
            let mut of_line = line.slots.iter().filter_map(|slot| parts.remove(slot)).chain(line.ended.clone());
            let (first, second) = (of_line.next(), of_line.next());
            let row = match (first, second) {
                (Some(only), None) if only.pid == line.pid => Some(only.row()),
                (first, second) => {
                    together(line.pid, line.since.elapsed(), first.into_iter().chain(second).chain(of_line))
                }
            };
            let row = match self.unseen.get(&line.pid) {
                Some(unseen) if !self.is_per_process => {
                    row.map(|row| row.with_unseen(line.since.elapsed(), unseen.time))
                }
                _ => row,
            };
            let refused = || Row::refused(line.pid, &line.name, line.refused.as_deref().unwrap_or_default());
            (row.unwrap_or_else(refused), line.numbers.clone())
        };
        Ok(self.lines.iter().map(row).collect())
    }
}

/// For how many functions of processes there is to be room: those that there are, and as many more as memory allows.
pub fn room(count: usize, processes: usize) -> usize {
    /// Most functions of processes beside those that are there at first.
    const SPARE: usize = 512;
    /// What their figures may take: each has some 6 KB on each CPU.
    const BYTES: usize = 48 << 20;
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    count * processes.max(1) + SPARE.min(BYTES / (6 << 10) / cpus)
}

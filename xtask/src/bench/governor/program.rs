//! The program whose functions are timed, and what it knows of itself.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::super::recording::Recording;
use super::super::workload::Told;
use super::timers::{Seen, Timer};

/// Until its speed is steady.
const WARM_UP: Duration = Duration::from_secs(1);
/// For how long its speed is measured alone, before and after.
const ALONE: Duration = Duration::from_secs(3);
/// For how long a timer may take to begin, or to end.
const LIMIT: Duration = Duration::from_secs(90);
/// Others say that they begin before they do: within this time it is seen by the program's speed.
const BEGINS: Duration = Duration::from_secs(5);

/// By how much a program became slower, in percent.
pub struct Slowdown {
    /// In the first second.
    pub first: f64,
    /// In the median of those after it.
    pub median: f64,
    /// In the worst of those after it.
    pub worst: f64,
    /// Processor time that was lost in the worst of those after it, in percent of one core.
    pub cost: f64,
    /// Processor time that it had after the first second, in percent of one core: less than it wants where others want some.
    pub cpu: f64,
    /// Its own turns a second meanwhile.
    pub rate: f64,
}

/// What the program says of itself.
#[derive(Clone, Copy)]
struct Account {
    at: Instant,
    turns: f64,
    cpu_ns: f64,
}

fn account(program: &mut Told) -> Result<Account> {
    program.tell()?;
    let [turns, cpu_ns] = program.numbers()?;
    Ok(Account { at: Instant::now(), turns, cpu_ns })
}

/// Turns in a nanosecond of processor time: what others take of the processor does not matter.
fn speed(from: &Account, to: &Account) -> f64 {
    (to.turns - from.turns) / (to.cpu_ns - from.cpu_ns).max(1.0)
}

fn alone(program: &mut Told) -> Result<f64> {
    let from = account(program)?;
    std::thread::sleep(ALONE);
    Ok(speed(&from, &account(program)?))
}

/// Times a program that allocates as often as it can.
pub fn slowed(binary: &Path, threads: u32, timer: &Timer, seconds: u32) -> Result<(Slowdown, Seen)> {
    let mut program = Told::start(Command::new(binary).arg(threads.to_string()))?;
    std::thread::sleep(WARM_UP);
    let before = alone(&mut program)?;
    let mut recording = Recording::start(timer.name, timer.command(program.pid(), seconds)?)?;
    recording.wait_for(timer.begins(), LIMIT)?;
    let mut accounts = vec![account(&mut program)?];
    let began = Instant::now();
    while timer.budget.is_none() && began.elapsed() < BEGINS {
        std::thread::sleep(Duration::from_millis(100));
        let now = account(&mut program)?;
        if speed(&accounts[0], &now) < 0.7 * before {
            break;
        }
        accounts = vec![now];
    }
    for second in 1..=seconds {
        let next = accounts[0].at + Duration::from_secs(second.into());
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
        accounts.push(account(&mut program)?);
    }
    let said = recording.finish(LIMIT, |_| {})?;
    std::thread::sleep(WARM_UP);
    let usual = f64::midpoint(before, alone(&mut program)?);
    let slower = |pair: &[Account]| 100.0 * (1.0 - speed(&pair[0], &pair[1]) / usual);
    let wall_ns = |pair: &[Account]| (pair[1].at - pair[0].at).as_nanos() as f64;
    let lost_ns = |pair: &[Account]| (pair[1].cpu_ns - pair[0].cpu_ns) - (pair[1].turns - pair[0].turns) / usual;
    let mut after: Vec<f64> = accounts.windows(2).skip(1).map(slower).collect();
    after.sort_by(f64::total_cmp);
    let (first, second, last) = (accounts[0], accounts[1], accounts[accounts.len() - 1]);
    let slowdown = Slowdown {
        first: slower(&accounts[..2]),
        median: after[after.len() / 2],
        worst: after[after.len() - 1],
        cost: accounts.windows(2).skip(1).map(|pair| 100.0 * lost_ns(pair) / wall_ns(pair)).fold(f64::MIN, f64::max),
        cpu: 100.0 * (last.cpu_ns - second.cpu_ns) / wall_ns(&[second, last]),
        rate: (last.turns - first.turns) / (last.at - first.at).as_secs_f64(),
    };
    Ok((slowdown, timer.seen(&said, seconds)?))
}

/// Calls at a rate, and what was seen of them.
pub struct Paced {
    /// Calls a second by the program's own account.
    pub rate: f64,
    /// What the timer saw.
    pub seen: Seen,
}

/// Times a function that is called at a rate.
pub fn paced(binary: &Path, threads: u32, rate: u32, timer: &Timer, seconds: u32) -> Result<Paced> {
    // It goes on for longer than it is timed.
    let calls = rate * (seconds + 3);
    let arguments = [threads, rate, calls].map(|number| number.to_string());
    let mut program = Told::start(Command::new(binary).args(arguments))?;
    let mut recording = Recording::start(timer.name, timer.own_function(program.pid(), Some(seconds)))?;
    program.tell()?;
    let began = Instant::now();
    recording.wait_for(timer.begins(), LIMIT)?;
    let said = recording.finish(LIMIT, |_| {})?;
    let [turns, _] = program.numbers()?;
    Ok(Paced { rate: turns / began.elapsed().as_secs_f64(), seen: timer.seen(&said, seconds)? })
}

/// Times a function from before its first call to after its last one: calls that were counted, and calls.
pub fn all(binary: &Path, threads: u32, rate: u32, timer: &Timer, seconds: u32) -> Result<(u64, u64)> {
    let arguments = [threads, rate, rate * seconds].map(|number| number.to_string());
    let mut program = Told::start(Command::new(binary).args(arguments))?;
    let mut recording = Recording::start(timer.name, timer.own_function(program.pid(), None))?;
    recording.wait_for(timer.begins(), LIMIT)?;
    program.tell()?;
    let [turns, _] = program.numbers()?;
    recording.interrupt()?;
    let seen = timer.seen(&recording.finish(LIMIT, |_| {})?, seconds)?;
    ensure!(seen.share > 0.999, "the probes were set {} of the time", seen.share);
    Ok((seen.calls as u64, turns as u64))
}

//! Which of what was followed is known, and which was only presumed. Entries of functions are known, and so is what control
//! gets to from them without a presumption. What lies behind a presumption is proved by leaving the function soundly: at
//! its returns the stack pointer and the frame pointer are where they have to be only if they were taken rightly before.
//! What leads to a contradiction is not known, as far back as nothing was presumed.

use super::flow::{Exit, Leader};
use super::state::{Value, rank};

/// For each leader, whether its state is known.
pub(super) fn known(leaders: &[Leader]) -> Vec<bool> {
    let is_bad = |leader: &Leader| leader.exit == Exit::Contradiction || contradicts_entry(leader, leaders);
    let before = before(leaders);
    let bad = reach(
        leaders.len(),
        leaders.iter().map(is_bad),
        |number| before[number].iter().filter(|(_, is_presumed)| !is_presumed).map(|(before, _)| *before),
        |_| true,
    );
    let sound = reach(
        leaders.len(),
        leaders.iter().enumerate().map(|(number, leader)| leader.exit == Exit::Sound && !bad[number]),
        |number| before[number].iter().map(|(before, _)| *before),
        |number| !bad[number],
    );
    let assured = reach(
        leaders.len(),
        leaders
            .iter()
            .enumerate()
            .map(|(number, leader)| leader.is_entry && leader.state.rank == rank::CERTAIN && !bad[number]),
        |number| leaders[number].next.iter().filter(|(_, is_presumed)| !is_presumed).map(|(next, _)| *next),
        |number| !bad[number],
    );
    (0..leaders.len()).map(|number| !bad[number] && (sound[number] || assured[number])).collect()
}

/// It goes on at the entry of a function, with another frame than functions begin with.
fn contradicts_entry(leader: &Leader, leaders: &[Leader]) -> bool {
    let mut next = leader.next.iter().map(|&(next, _)| &leaders[next as usize]);
    next.any(|next| next.is_entry && next.state.sp() == Value::Unknown)
}

/// From where control gets to each leader; true if only by a presumption.
fn before(leaders: &[Leader]) -> Vec<Vec<(u32, bool)>> {
    let mut before = vec![Vec::new(); leaders.len()];
    for (number, leader) in leaders.iter().enumerate() {
        for &(next, is_presumed) in &leader.next {
            before[next as usize].push((number as u32, is_presumed));
        }
    }
    before
}

/// Everything that is reached from some by `next`, as far as it is allowed to be.
fn reach<Next: Iterator<Item = u32>>(
    count: usize,
    some: impl Iterator<Item = bool>,
    next: impl Fn(usize) -> Next,
    is_allowed: impl Fn(usize) -> bool,
) -> Vec<bool> {
    let mut reached: Vec<bool> = some.collect();
    reached.resize(count, false);
    let mut queue: Vec<usize> = (0..count).filter(|&number| reached[number]).collect();
    while let Some(number) = queue.pop() {
        for next in next(number) {
            let next = next as usize;
            if !reached[next] && is_allowed(next) {
                reached[next] = true;
                queue.push(next);
            }
        }
    }
    reached
}

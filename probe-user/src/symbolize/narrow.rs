//! Narrowing a profile to some of its threads.

use std::collections::{BTreeSet, HashMap};

use super::{Profile, Sample};

/// The profile with the samples of these threads only, and with tables that hold only what they refer to.
pub fn narrow(profile: &Profile, tids: &BTreeSet<u32>) -> Profile {
    let mut narrow = Profile { header: profile.header.clone(), losses: profile.losses.clone(), ..Profile::default() };
    let (mut threads, mut stacks) = (Renumbering::default(), Renumbering::default());
    for sample in &profile.samples {
        if tids.contains(&profile.threads[sample.thread as usize].tid) {
            let (thread, stack) = (threads.of(sample.thread), stacks.of(sample.stack));
            narrow.samples.push(Sample { thread, stack, ..*sample });
        }
    }
    let (mut processes, mut locations, mut modules) =
        (Renumbering::default(), Renumbering::default(), Renumbering::default());
    for old in threads.order {
        let mut thread = profile.threads[old as usize].clone();
        thread.process = processes.of(thread.process);
        narrow.threads.push(thread);
    }
    for old in stacks.order {
        let mut stack = profile.stacks[old as usize].clone();
        for location in &mut stack.locations {
            *location = locations.of(*location);
        }
        narrow.stacks.push(stack);
    }
    for old in locations.order {
        let mut location = profile.locations[old as usize].clone();
        location.module = location.module.map(|module| modules.of(module));
        narrow.locations.push(location);
    }
    narrow.processes = processes.order.iter().map(|&old| profile.processes[old as usize].clone()).collect();
    narrow.modules = modules.order.iter().map(|&old| profile.modules[old as usize].clone()).collect();
    narrow
}

/// New indexes for old ones, in the order in which they are first asked for.
#[derive(Debug, Default)]
struct Renumbering {
    new: HashMap<u32, u32>,
    order: Vec<u32>,
}

impl Renumbering {
    fn of(&mut self, old: u32) -> u32 {
        *self.new.entry(old).or_insert_with(|| {
            self.order.push(old);
            // There are no more new indexes than old ones, which are 32 bits wide.
            (self.order.len() - 1) as u32
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::tests::profile;

    #[test]
    fn what_is_left_out_leaves_no_trace_and_the_rest_keeps_its_names() {
        let whole = profile(7, 10, &[("main", "serve", 3), ("matcher", "match_rules", 9), ("idle", "poll", 1)]);
        let tid = |name: &str| whole.threads.iter().find(|thread| thread.name == name).expect("there").tid;
        let narrow = narrow(&whole, &BTreeSet::from([tid("matcher"), tid("idle")]));
        assert_eq!(narrow.threads.iter().map(|t| t.name.as_str()).collect::<Vec<_>>(), ["matcher", "idle"]);
        assert_eq!(narrow.frames(narrow.samples[0].stack)[0].function, "match_rules");
        assert_eq!((narrow.stacks.len(), narrow.locations.len(), narrow.processes.len()), (2, 2, 1));
        assert_eq!(narrow.samples.iter().map(|sample| sample.count).sum::<u64>(), 10);
        assert_eq!(narrow.header, whole.header);
    }
}

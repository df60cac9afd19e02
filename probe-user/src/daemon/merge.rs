//! Several profiles as one: those of a service's processes.

use crate::symbolize::Profile;

/// Puts the tables one after the other. The header is that of the first.
pub(super) fn merge(profiles: impl IntoIterator<Item = Profile>) -> Profile {
    profiles.into_iter().reduce(add).unwrap_or_default()
}

fn add(mut all: Profile, other: Profile) -> Profile {
    let Profile { header, processes, threads, modules, locations, stacks, samples, losses } = other;
    // Indexes are 32 bits wide, and so are the tables of a profile that was bounded.
    let length = |length: usize| length as u32;
    let (first_process, first_thread) = (length(all.processes.len()), length(all.threads.len()));
    let (first_module, first_location) = (length(all.modules.len()), length(all.locations.len()));
    let first_stack = length(all.stacks.len());
    all.header.duration_ns = all.header.duration_ns.max(header.duration_ns);
    all.processes.extend(processes);
    all.modules.extend(modules);
    all.threads.extend(threads.into_iter().map(|mut thread| {
        thread.process += first_process;
        thread
    }));
    all.locations.extend(locations.into_iter().map(|mut location| {
        location.module = location.module.map(|module| module + first_module);
        location
    }));
    all.stacks.extend(stacks.into_iter().map(|mut stack| {
        stack.locations.iter_mut().for_each(|location| *location += first_location);
        stack
    }));
    all.samples.extend(samples.into_iter().map(|mut sample| {
        (sample.thread, sample.stack) = (sample.thread + first_thread, sample.stack + first_stack);
        sample
    }));
    for (reason, count) in losses {
        *all.losses.entry(reason).or_default() += count;
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::tests::profile;

    #[test]
    fn samples_keep_their_threads_and_names() {
        let one = profile(7, 1, &[("main", "serve", 3), ("matcher", "match_rules", 9)]);
        let two = profile(100, 1, &[("main", "poll", 5)]);
        let all = merge([one, two]);
        let shown: Vec<(u32, &str, &str, u64)> = all
            .samples
            .iter()
            .map(|sample| {
                let thread = &all.threads[sample.thread as usize];
                let location = all.stacks[sample.stack as usize].locations[0];
                let function = all.locations[location as usize].lines[0].function.as_str();
                (all.processes[thread.process as usize].pid, thread.name.as_str(), function, sample.count)
            })
            .collect();
        assert_eq!(shown, [(7, "main", "serve", 3), (7, "matcher", "match_rules", 9), (100, "main", "poll", 5)]);
        assert_eq!(merge([]), Profile::default());
    }
}

//! The heap that `brk` moves the end of.

/// Where the heap of a process ends; `None` without one, or when the process is gone.
pub fn heap_end(pid: u32) -> Option<u64> {
    parse(&std::fs::read_to_string(super::folder(pid).join("maps")).ok()?)
}

fn parse(maps: &str) -> Option<u64> {
    let heap = maps.lines().rfind(|line| line.ends_with(" [heap]"))?;
    let (_, end) = heap.split_once(' ')?.0.split_once('-')?;
    u64::from_str_radix(end, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_the_heap_is_found() {
        let maps = "5000-6000 r-xp 0 fd:00 1    /bin/x\n\
                    a000-1f000 rw-p 00000000 00:00 0                          [heap]\n\
                    7f00-8000 rw-p 0 00:00 0 \n";
        assert_eq!(parse(maps), Some(0x1f000));
        assert_eq!(parse("5000-6000 r-xp 0 fd:00 1    /bin/x\n"), None);
    }
}

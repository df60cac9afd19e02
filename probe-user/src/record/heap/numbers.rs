//! The numbers of heaps, which are used again when the probes are gone that carry them.

use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::Instant;

use crate::kernel::MAX_HEAPS;

/// See the head of this file.
#[derive(Debug, Default)]
pub struct Numbers {
    /// How many were ever used.
    count: u32,
    free: Vec<u32>,
    /// With what is closed when the kernel is done.
    leaving: Vec<(u32, Receiver<Instant>)>,
}

impl Numbers {
    /// One that nobody has.
    pub fn take(&mut self) -> Option<u32> {
        let is_gone = |(_, kernel): &mut (u32, Receiver<Instant>)| {
            while kernel.try_recv().is_ok() {}
            kernel.try_recv() == Err(TryRecvError::Disconnected)
        };
        self.free.extend(self.leaving.extract_if(.., is_gone).map(|(number, _)| number));
        self.free.pop().or_else(|| {
            let number = self.count;
            self.count = (number + 1).min(MAX_HEAPS);
            (number < MAX_HEAPS).then_some(number)
        })
    }

    /// Nobody needs it as soon as its probes are gone.
    pub fn give_back(&mut self, number: u32, probes: Option<Receiver<Instant>>) {
        match probes {
            Some(kernel) => self.leaving.push((number, kernel)),
            None => self.free.push(number),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn a_number_is_used_again_when_its_probes_are_gone() {
        let mut numbers = Numbers::default();
        let all: Vec<u32> = std::iter::from_fn(|| numbers.take()).collect();
        assert_eq!(all, (0..MAX_HEAPS).collect::<Vec<_>>());
        numbers.give_back(7, None);
        let (tell, kernel) = channel();
        numbers.give_back(9, Some(kernel));
        assert_eq!((numbers.take(), numbers.take()), (Some(7), None));
        tell.send(Instant::now()).expect("somebody listens");
        assert_eq!(numbers.take(), None, "it has only begun");
        drop(tell);
        assert_eq!((numbers.take(), numbers.take()), (Some(9), None));
    }
}

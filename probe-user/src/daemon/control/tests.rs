//! Questions to a watcher that is busy.

use std::sync::mpsc::Receiver;

use super::*;

/// A control whose questions nobody answers.
fn deaf() -> (Arc<Control>, Receiver<Heard>) {
    let control = Arc::new(Control::new(Heart::new(false), None));
    let (inbox, heard) = sync_channel(4);
    control.listen(inbox);
    (control, heard)
}

#[test]
fn what_was_refused_for_lack_of_time_does_not_happen_later() {
    let (control, heard) = deaf();
    let begun = Arc::new(AtomicBool::new(false));
    let has_begun = Arc::clone(&begun);
    let answer = control.ask_for(Duration::from_millis(20), move |_| has_begun.store(true, Ordering::Relaxed));
    assert!(matches!(answer, Err(Refusal::Unavailable { .. })), "{answer:?}");
    let Ok(Heard::Ask(_)) = heard.try_recv() else { panic!("it was asked") };
    assert_eq!(Arc::strong_count(&begun), 1, "the question is dropped");
}

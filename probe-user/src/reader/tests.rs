use std::time::Duration;

use super::*;

/// Answers with what it was sent.
#[derive(Serialize, Deserialize)]
struct Echo(String);

impl Job for Echo {
    const NAME: &'static str = "echo";
    const ACCESS: Access = Access::Read;
    const TIME: Duration = Duration::from_secs(5);
    const MEMORY: u64 = 64 << 20;
    type Answer = String;

    fn run(self, files: Vec<OwnedFd>) -> Done<String> {
        Done { answer: self.0, bytes: vec![7; 3], files }
    }
}

#[test]
fn without_readers_a_job_is_done_here() {
    let file = std::fs::File::open("/dev/null").expect("opens");
    let done = ask(Echo("text".into()), &[std::os::fd::AsFd::as_fd(&file)], Echo::TIME).expect("done");
    assert_eq!((done.answer.as_str(), done.bytes.as_slice(), done.files.len()), ("text", &[7; 3][..], 1));
}

#[test]
fn a_handler_takes_and_gives_text() {
    let handler = Handler::of::<Echo>();
    let job = serde_json::to_vec(&Echo("text".into())).expect("serializes");
    let done = (handler.run)(&job, Vec::new()).expect("done");
    assert_eq!((handler.name, done.answer.as_slice()), ("echo", &b"\"text\""[..]));
    assert!((handler.run)(b"{", Vec::new()).is_err());
}

#[test]
fn a_signal_is_told_as_what_was_too_much() {
    let of = |signal: i32| Failure::of_signal(signal as u8);
    assert_eq!(
        [of(libc::SIGBUS), of(libc::SIGABRT), of(libc::SIGXCPU)],
        [Failure::Cut, Failure::Memory, Failure::TooLong]
    );
    assert_eq!([of(libc::SIGSEGV), of(0)], [Failure::Ended; 2]);
}

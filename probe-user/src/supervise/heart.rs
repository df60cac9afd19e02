//! How a supervised process tells that it is well: a word a line, on its standard output, which is a pipe to whoever
//! started it. When nobody reads any more, the supervisor is gone.

use std::io::{ErrorKind, Write};

use rustix::process::{Signal, set_parent_process_death_signal};

use super::signals;

/// What is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beat {
    /// It has begun with its work.
    Ready,
    /// It goes on with it. To be told about once a second.
    Alive,
    /// It has checked another configuration, which this number tells from others, and could go on by it.
    Prepared(u64),
    /// It goes on by another configuration, as it was told to.
    Reloaded,
    /// The other configuration is wrong: it goes on as before.
    Refused,
}

impl Beat {
    fn word(self) -> String {
        match self {
            Self::Ready => "ready".into(),
            Self::Alive => "alive".into(),
            Self::Prepared(number) => format!("{PREPARED}{number:x}"),
            Self::Reloaded => "reloaded".into(),
            Self::Refused => "refused".into(),
        }
    }

    /// What a line says.
    pub(super) fn read(line: &str) -> Option<Self> {
        if let Some(number) = line.strip_prefix(PREPARED) {
            return u64::from_str_radix(number, 16).ok().map(Self::Prepared);
        }
        [Self::Ready, Self::Alive, Self::Reloaded, Self::Refused].into_iter().find(|beat| beat.word() == line)
    }
}

const PREPARED: &str = "prepared ";

/// A process's end of the pipe.
#[derive(Clone, Copy, Debug)]
pub struct Heart {
    is_supervised: bool,
}

impl Heart {
    /// Of a process that was started by a supervisor, or by somebody who does not listen. The former hears signals, which
    /// its supervisor does not, and is told by SIGTERM when that dies. To be called by the first thread.
    pub fn new(is_supervised: bool) -> Self {
        if is_supervised {
            signals::unblock();
        }
        let heart = Self { is_supervised };
        heart.renew();
        heart
    }

    /// To be called after a change of the user, which the kernel takes as a reason to forget who is to be told of what.
    pub fn renew(self) {
        if self.is_supervised
            && let Err(error) = set_parent_process_death_signal(Some(Signal::TERM))
        {
            tracing::debug!("the end of the supervisor will be seen late: {error}");
        }
    }

    /// Whether there is a supervisor.
    pub fn is_supervised(self) -> bool {
        self.is_supervised
    }

    /// Tells it. False if the supervisor is gone.
    #[must_use]
    pub fn beat(self, beat: Beat) -> bool {
        if !self.is_supervised {
            return true;
        }
        let mut out = std::io::stdout().lock();
        let told = writeln!(out, "{}", beat.word()).and_then(|()| out.flush());
        !told.is_err_and(|error| error.kind() == ErrorKind::BrokenPipe)
    }
}

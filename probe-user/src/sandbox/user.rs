//! Whom a process becomes.

use anyhow::{Context, Result};
use rustix::process::{Gid, Uid, getegid, geteuid};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

use crate::problem::{Exit, Problem};

/// Who is taken where nobody is named, if there is one.
const DEFAULT: &str = "probe";

/// Who else: numbers that no distribution and no service manager gives away (systemd's `UIDS-GIDS` lists them as unused). Not
/// `nobody`, as whom others run as well: they would be answered by the collector, and could change the server.
const UNUSED: std::ops::Range<u32> = 60_707..61_184;

/// A user of the host, with its own group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Its name, or its number.
    pub name: String,
    /// User id.
    pub uid: u32,
    /// Id of its group.
    pub gid: u32,
}

impl User {
    /// The user that a process becomes if `name` is configured: whom it names, or who is taken where nobody is named. Whoever
    /// is not root stays who they are.
    pub fn choose(name: Option<&str>) -> Result<Self> {
        let own = geteuid();
        if !own.is_root() {
            return Ok(Self { name: own.as_raw().to_string(), uid: own.as_raw(), gid: getegid().as_raw() });
        }
        let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
        Self::find(name, &users)
    }

    fn find(name: Option<&str>, users: &str) -> Result<Self> {
        let Some(name) = name else {
            return Ok(Self::listed(DEFAULT, users).unwrap_or_else(|| Self::unused(users)));
        };
        let by_number = || {
            let (uid, gid) = name.split_once(':').unwrap_or((name, name));
            Some(Self { name: name.into(), uid: uid.parse().ok()?, gid: gid.parse().ok()? })
        };
        Self::listed(name, users).or_else(by_number).with_context(|| {
            let hint = "create it (useradd --system), or name another in [serve] user: a name, a number, or uid:gid";
            Problem::new(Exit::Usage, format!("there is no user `{name}`"), hint)
        })
    }

    /// A number that is nobody's.
    fn unused(users: &str) -> Self {
        let taken = |id: u32| {
            let id = id.to_string();
            users.lines().any(|line| line.split(':').skip(2).take(2).any(|field| field == id))
        };
        let id = UNUSED.into_iter().find(|id| !taken(*id)).unwrap_or(UNUSED.start);
        Self { name: id.to_string(), uid: id, gid: id }
    }

    /// A user of `/etc/passwd`.
    fn listed(name: &str, users: &str) -> Option<Self> {
        let mut fields = users.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?.split(':').skip(1);
        Some(Self { name: name.into(), uid: fields.next()?.parse().ok()?, gid: fields.next()?.parse().ok()? })
    }

    /// Does something as this user would, in a thread that becomes it.
    pub fn act<T: Send>(&self, act: impl FnOnce() -> T + Send) -> Result<T> {
        std::thread::scope(|scope| {
            let acting = scope.spawn(|| self.become_it().map(|()| act()));
            acting.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Becomes this user, in no other group. Only this thread does.
    pub(super) fn become_it(&self) -> Result<()> {
        if !geteuid().is_root() || self.uid == 0 {
            return Ok(());
        }
        let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
        let failed = || format!("cannot become {} (uid {}, gid {})", self.name, self.uid, self.gid);
        set_thread_groups(&[]).with_context(failed)?;
        set_thread_res_gid(gid, gid, gid).with_context(failed)?;
        set_thread_res_uid(uid, uid, uid).with_context(failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const USERS: &str = "root:x:0:0:root:/root:/bin/sh\nprobes:x:7:8::/:/bin/sh\nnobody:x:99:98::/:/bin/false\n";

    #[test]
    fn users_are_found_by_name_and_number() {
        let user = |name: &str, uid, gid| User { name: name.into(), uid, gid };
        assert_eq!(User::find(Some("probes"), USERS).expect("found"), user("probes", 7, 8));
        assert_eq!(User::find(Some("65532"), USERS).expect("a number"), user("65532", 65532, 65532));
        assert_eq!(User::find(Some("10:20"), USERS).expect("two"), user("10:20", 10, 20));
        let error = User::find(Some("probe"), USERS).expect_err("nobody of that name");
        assert!(format!("{error:#}").contains("no user `probe`"), "{error:#}");
    }

    #[test]
    fn without_a_name_the_first_of_the_usual_is_taken() {
        let own = User::find(None, USERS).expect("a number");
        assert_eq!((own.uid, own.gid), (60_707, 60_707), "never a user that others are");
        let taken = format!("{USERS}other:x:60707:60708::/:/x\n");
        assert_eq!(User::find(None, &taken).expect("a number").uid, 60_709);
        assert_eq!(User::find(None, "probe:x:5:6::/:/x\nnobody:x:99:98::/:/x").expect("found").uid, 5);
    }
}

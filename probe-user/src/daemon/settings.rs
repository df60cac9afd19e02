//! The settings of a running daemon: the configuration file, and above it what was changed by the API, which outlives the
//! daemon. One change at a time; each is checked as a whole, and either takes effect everywhere or nowhere.

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::changes;
use crate::config::{Changes, Config, Source, Table};
use crate::control::{Origin, Put, Refusal};
use crate::problem::{Exit, Problem};

/// The kind of what is defined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Section {
    Function,
    Rule,
}

impl Section {
    fn of(self, changes: &mut Changes) -> &mut std::collections::BTreeMap<String, Option<Table>> {
        match self {
            Self::Function => &mut changes.functions,
            Self::Rule => &mut changes.rules,
        }
    }

    fn has_changed(self, changes: &Changes, name: &str) -> bool {
        match self {
            Self::Function => changes.functions.contains_key(name),
            Self::Rule => changes.rules.contains_key(name),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Function => "function",
            Self::Rule => "rule",
        }
    }

    fn has(self, config: &Config, name: &str) -> bool {
        match self {
            Self::Function => config.functions.iter().any(|function| function.name == name),
            Self::Rule => config.rules.iter().any(|rule| rule.rule.name == name),
        }
    }
}

/// See the head of this file.
#[derive(Debug)]
pub struct Settings {
    path: PathBuf,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    source: Source,
    changes: Changes,
    /// What did not go with the file at the start. It stays on the disk.
    left_out: Changes,
    config: Config,
    /// Checked, to be gone on by when the other process could as well.
    prepared: Option<(Instant, Prepared)>,
}

#[derive(Debug)]
struct Prepared {
    source: Source,
    changes: Changes,
    config: Config,
}

/// Longest definition of a function or a rule, as JSON.
const MAX_DEFINITION: usize = 16 << 10;

/// How long the other process may take to check the same.
const PATIENCE: Duration = Duration::from_secs(30);

impl Settings {
    /// Takes up what was changed before. Changes that no longer go with the file are left out, and the log says why.
    pub fn open(source: Source) -> Result<Self> {
        let path = source.config(&Changes::default())?.store.path.join(changes::FILE);
        let kept = changes::read(&path).unwrap_or_else(|error| {
            let aside = changes::put_aside(&path);
            tracing::error!("changes that were made before are not taken up: {error:#}{aside}");
            Changes::default()
        });
        let (config, changes, left_out) = changes::fitting(&source, &kept)?;
        changes::tell_overruled(&source, &changes);
        Ok(Self { path, inner: Mutex::new(Inner { source, changes, left_out, config, prepared: None }) })
    }

    /// Checks another file with what was changed since, and keeps it for [`Self::switch`]. `is_follower`: for the process that
    /// only looks on, of changes that the collector has made. Returns a number by which both see whether they have the same.
    pub fn prepare(&self, source: Source, is_follower: bool) -> Result<u64> {
        let mut inner = self.lock();
        inner.prepared = None;
        let changes = if is_follower {
            changes::without(changes::read(&self.path)?, &inner.left_out)
        } else {
            inner.changes.clone()
        };
        let config = source.config(&changes)?;
        in_place(&inner.config, &config)?;
        let number = source.digest(&changes);
        inner.prepared = Some((Instant::now(), Prepared { source, changes, config }));
        Ok(number)
    }

    /// Goes on by what was prepared; `apply` has it take effect.
    pub fn switch(&self, apply: impl FnOnce(&Config) -> Result<()>) -> Result<()> {
        let mut inner = self.lock();
        let Some((_, Prepared { source, changes, config })) = inner.prepared.take() else {
            bail!("no other configuration was checked before");
        };
        apply(&config)?;
        changes::tell_overruled(&source, &changes);
        (inner.source, inner.changes, inner.config) = (source, changes, config);
        Ok(())
    }

    /// Goes on as before.
    pub fn forget(&self) {
        self.lock().prepared = None;
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What holds now.
    pub fn config(&self) -> Config {
        self.lock().config.clone()
    }

    /// Something of it, without a copy of all.
    pub(super) fn look<T>(&self, look: impl FnOnce(&Config) -> T) -> T {
        look(&self.lock().config)
    }

    /// Where a definition is from.
    pub(super) fn origin(&self, section: Section, name: &str) -> Origin {
        if section.has_changed(&self.lock().changes, name) { Origin::Api } else { Origin::File }
    }

    /// Defines something.
    pub(super) fn put(
        &self,
        section: Section,
        name: &str,
        table: &Table,
        apply: impl FnOnce(Config) -> Result<(), Refusal>,
    ) -> Result<Put, Refusal> {
        let size = serde_json::to_vec(table).map_or(0, |bytes| bytes.len());
        if size > MAX_DEFINITION {
            let reason = format!("the definition has {size} bytes, more than {MAX_DEFINITION}");
            return Err(Refusal::Invalid { field: None, reason, hint: String::new() });
        }
        let mut inner = self.lock();
        let put = if section.has(&inner.config, name) { Put::Replaced } else { Put::Created };
        self.change(&mut inner, section, name, Some(table), apply)?;
        Ok(put)
    }

    /// Removes something.
    pub(super) fn remove(
        &self,
        section: Section,
        name: &str,
        apply: impl FnOnce(Config) -> Result<(), Refusal>,
    ) -> Result<(), Refusal> {
        let mut inner = self.lock();
        if !section.has(&inner.config, name) {
            return Err(Refusal::NotFound { what: format!("there is no {} named `{name}`", section.name()) });
        }
        let user = inner.config.rules.iter().find(|rule| rule.rule.function.as_deref() == Some(name));
        if let Some(user) = user.filter(|_| section == Section::Function) {
            return Err(Refusal::Conflict { reason: format!("the rule `{}` looks at it", user.rule.name) });
        }
        self.change(&mut inner, section, name, None, apply)
    }

    fn change(
        &self,
        inner: &mut Inner,
        section: Section,
        name: &str,
        table: Option<&Table>,
        apply: impl FnOnce(Config) -> Result<(), Refusal>,
    ) -> Result<(), Refusal> {
        if inner.prepared.as_ref().is_some_and(|(since, _)| since.elapsed() < PATIENCE) {
            let reason = "another configuration is being taken over";
            return Err(Refusal::Busy { reason: reason.into(), retry_after_s: 1 });
        }
        let mut changes = inner.changes.clone();
        section.of(&mut changes).insert(name.to_owned(), table.cloned());
        if table.is_none() {
            // Nothing of that name in the file: nothing that would have to be hidden.
            let mut without = changes.clone();
            section.of(&mut without).remove(name);
            let is_hidden = inner.source.config(&without).is_ok_and(|config| section.has(&config, name));
            changes = if is_hidden { changes } else { without };
        }
        // Most often it is one among hundreds, of which the others have been checked.
        let alone = table.and_then(|table| match section {
            Section::Rule => Some(inner.config.with_rule(&inner.changes, name, table)),
            Section::Function => inner.config.with_function(&inner.changes, name, table),
        });
        let config = alone.unwrap_or_else(|| inner.source.config(&changes));
        let config = config.map_err(|problem| invalid(&problem, table))?;
        let failed = |error: anyhow::Error| Refusal::Failed { reason: format!("{error:#}") };
        // What is left out stays on the disk, but for what this is in the place of.
        let mut left_out = inner.left_out.clone();
        section.of(&mut left_out).remove(name);
        changes::write(&self.path, &changes::with(&changes, &left_out)).map_err(failed)?;
        if let Err(refusal) = apply(config.clone()) {
            let _ = changes::write(&self.path, &changes::with(&inner.changes, &inner.left_out));
            return Err(refusal);
        }
        (inner.changes, inner.left_out, inner.config) = (changes, left_out, config);
        Ok(())
    }
}

/// A daemon stays where it is: its processes would lose each other, and what waits in the store.
fn in_place(now: &Config, new: &Config) -> Result<()> {
    let moved = [
        ("[store] path", now.store.path != new.store.path),
        ("[collector] socket", now.collector.socket != new.collector.socket),
    ];
    match moved.iter().find(|(_, has_moved)| *has_moved) {
        None => Ok(()),
        Some((key, _)) => Err(Problem::new(
            Exit::Usage,
            format!("{key} has changed, and a daemon that runs stays where it is"),
            "put the old one back, or stop the daemon and start it again",
        )
        .into()),
    }
}

/// What is wrong with a definition, and at which key: of its own, or one that it lacks and the words name.
fn invalid(problem: &Problem, table: Option<&Table>) -> Refusal {
    let has = |key: &str| table.is_some_and(|table| table.contains_key(key));
    let mut words = problem.message.split('`').skip(3).step_by(2);
    let field = if has(&problem.key) { Some(problem.key.as_str()) } else { words.find(|word| !word.is_empty()) };
    let reason = problem.message.split_once(": ").map_or(problem.message.as_str(), |(_, reason)| reason);
    Refusal::Invalid { field: field.map(str::to_owned), reason: reason.to_owned(), hint: problem.hint.clone() }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::Path;

    use serde_json::json;

    use super::changes::FILE;
    use super::*;

    fn file(folder: &Path, text: &str) -> Source {
        let path = folder.join("probe.toml");
        let store = folder.join("store");
        fs::create_dir_all(&store).expect("made");
        fs::write(&path, format!("[store]\npath = '{}'\n{text}", store.display())).expect("written");
        Config::read(&path, &[]).expect("read")
    }

    /// As one process.
    fn reload(settings: &Settings, source: Source) -> Result<()> {
        settings.prepare(source, false)?;
        settings.switch(|_| Ok(()))
    }

    fn follow(settings: &Settings, source: Source) -> Result<Config> {
        settings.prepare(source, true)?;
        settings.switch(|_| Ok(()))?;
        Ok(settings.config())
    }

    const TEXT: &str = "\
[[target]]\nname = 'app'\nmatch = { comm = 'app' }\n\
[[function]]\nname = 'push'\ntarget = 'app'\nsymbol = 'send'\n\
[[rule]]\nname = 'hot'\ntarget = 'app'\nmetric = 'cpu'\nabove = 80\n";

    fn table(value: serde_json::Value) -> Table {
        value.as_object().cloned().expect("a table")
    }

    #[test]
    fn changes_take_effect_and_outlive_the_daemon() {
        let folder = tempfile::tempdir().expect("a folder");
        let settings = Settings::open(file(folder.path(), TEXT)).expect("right");
        let rule = table(json!({ "target": "app", "metric": "function.p99", "function": "push", "above": "40ms" }));
        let mut applied = 0;
        let put = settings.put(Section::Rule, "slow", &rule, |config| {
            applied = config.rules.len();
            Ok(())
        });
        assert_eq!((put, applied), (Ok(Put::Created), 2));
        assert_eq!(settings.put(Section::Rule, "slow", &rule, |_| Ok(())), Ok(Put::Replaced));
        assert_eq!(
            (settings.origin(Section::Rule, "slow"), settings.origin(Section::Rule, "hot")),
            (Origin::Api, Origin::File)
        );
        let used = settings.remove(Section::Function, "push", |_| Ok(()));
        assert!(matches!(used, Err(Refusal::Conflict { .. })), "{used:?}");
        assert_eq!(settings.remove(Section::Rule, "hot", |_| Ok(())), Ok(()));
        let again = Settings::open(file(folder.path(), TEXT)).expect("right").config();
        assert_eq!(again.rules.iter().map(|rule| rule.rule.name.as_str()).collect::<Vec<_>>(), ["slow"]);
        // A file that does not go with them changes nothing.
        let without = TEXT.replace("push", "pull");
        let error = reload(&settings, file(folder.path(), &without)).expect_err("refused");
        assert!(error.to_string().contains("there is no [[function]] named `push`"), "{error:#}");
        assert_eq!(settings.config().rules.len(), 1);
        assert_eq!(settings.remove(Section::Rule, "slow", |_| Ok(())), Ok(()));
        reload(&settings, file(folder.path(), &without)).expect("goes now");
        assert_eq!(settings.config().functions[0].name, "pull");
    }

    #[test]
    fn who_looks_on_refuses_the_files_that_the_collector_refuses() {
        const CHANNEL: &str = "[[notify]]\nname = 'ops'\ntype = 'slack'\nurl = 'http://127.0.0.1:9/'\n";
        let folder = tempfile::tempdir().expect("a folder");
        let with = || file(folder.path(), &format!("{TEXT}{CHANNEL}"));
        let (collector, server) = (Settings::open(with()).expect("right"), Settings::open(with()).expect("right"));
        let rule = table(json!({ "target": "app", "metric": "cpu", "above": 5, "notify": ["ops"] }));
        assert_eq!(collector.put(Section::Rule, "x", &rule, |_| Ok(())), Ok(Put::Created));
        let mode = fs::metadata(folder.path().join("store").join(FILE)).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o640, "a group that shares the folder reads it");
        let refused = reload(&collector, file(folder.path(), TEXT)).expect_err("refused");
        let error = follow(&server, file(folder.path(), TEXT)).expect_err("refused");
        assert!(error.to_string().contains("there is no [[notify]] named `ops`"), "{error:#}");
        assert_eq!(error.to_string(), refused.to_string());
        assert_eq!(server.config().channels.len(), 1);
        // Where the changes were left out at the start, they are so later.
        let late = [0; 2].map(|_| Settings::open(file(folder.path(), TEXT)).expect("right"));
        reload(&late[0], file(folder.path(), TEXT)).expect("goes");
        assert_eq!(follow(&late[1], file(folder.path(), TEXT)).expect("goes").rules.len(), 1);
    }

    #[test]
    fn one_conflict_leaves_out_one_change_and_nothing_is_lost() {
        let folder = tempfile::tempdir().expect("a folder");
        let settings = Settings::open(file(folder.path(), TEXT)).expect("right");
        let rule = table(json!({ "target": "app", "metric": "cpu", "above": 5 }));
        assert_eq!(settings.put(Section::Rule, "mine", &rule, |_| Ok(())), Ok(Put::Created));
        let other = table(json!({ "target": "app", "symbol": "receive" }));
        assert_eq!(settings.put(Section::Function, "pull", &other, |_| Ok(())), Ok(Put::Created));
        assert_eq!(settings.remove(Section::Function, "push", |_| Ok(())), Ok(()));
        // By now the file needs what was removed.
        const NEEDS: &str =
            "[[rule]]\nname = 'slow'\ntarget = 'app'\nmetric = 'function.p99'\nfunction = 'push'\nabove = 1\n";
        let needs = || file(folder.path(), &format!("{TEXT}{NEEDS}"));
        let error = reload(&settings, needs()).expect_err("refused");
        assert!(error.to_string().contains("there is no [[function]] named `push`"), "{error:#}");
        let again = Settings::open(needs()).expect("right");
        let names = |settings: &Settings| {
            let config = settings.config();
            let rules = config.rules.iter().map(|rule| rule.rule.name.clone());
            config.functions.iter().map(|function| function.name.clone()).chain(rules).collect::<Vec<_>>()
        };
        assert_eq!(names(&again), ["push", "pull", "hot", "slow", "mine"]);
        // A change keeps what is left out, which goes with the file of before.
        assert_eq!(again.put(Section::Rule, "new", &rule, |_| Ok(())), Ok(Put::Created));
        let before = Settings::open(file(folder.path(), TEXT)).expect("right");
        assert_eq!(names(&before), ["pull", "hot", "mine", "new"]);
        // What cannot be read is put aside.
        let path = folder.path().join("store");
        fs::write(path.join(FILE), "{").expect("written");
        let without = Settings::open(file(folder.path(), TEXT)).expect("right");
        assert_eq!(names(&without), ["push", "hot"]);
        assert_eq!(without.put(Section::Rule, "new", &rule, |_| Ok(())), Ok(Put::Created));
        assert_eq!(fs::read_to_string(path.join("changes.json.damaged")).expect("there"), "{");
    }

    #[test]
    fn a_daemon_stays_where_it_is() {
        let folder = tempfile::tempdir().expect("a folder");
        let settings = Settings::open(file(folder.path(), TEXT)).expect("right");
        let elsewhere = folder.path().join("elsewhere");
        fs::create_dir_all(&elsewhere).expect("made");
        for moved in [
            follow(&settings, file(&elsewhere, TEXT)).map(drop),
            reload(&settings, file(&elsewhere, TEXT)),
            reload(&settings, file(folder.path(), &format!("[collector]\nsocket = '/run/x.sock'\n{TEXT}"))),
        ] {
            assert!(moved.expect_err("refused").to_string().contains("stays where it is"));
        }
        assert_eq!(settings.config().store.path, folder.path().join("store"));
    }

    #[test]
    fn what_is_wrong_or_cannot_be_applied_changes_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let settings = Settings::open(file(folder.path(), TEXT)).expect("right");
        let wrong = table(json!({ "target": "ap", "metric": "cpu", "above": 5 }));
        let refusal = settings.put(Section::Rule, "x", &wrong, |_| panic!("is not applied")).expect_err("wrong");
        let Refusal::Invalid { reason, .. } = refusal else { panic!("{refusal:?}") };
        assert_eq!(reason, "there is no [[target]] named `ap`; did you mean `app`?");
        let right = table(json!({ "target": "app", "metric": "cpu", "above": 5 }));
        let stopped = Refusal::Unavailable { reason: "stopping".into() };
        assert_eq!(settings.put(Section::Rule, "x", &right, |_| Err(stopped.clone())), Err(stopped));
        assert_eq!(Settings::open(file(folder.path(), TEXT)).expect("right").config().rules.len(), 1);
        assert!(matches!(settings.remove(Section::Rule, "x", |_| Ok(())), Err(Refusal::NotFound { .. })));
    }
}

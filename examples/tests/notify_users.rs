//! Every user is notified once or named as failed, however often the program is stopped.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use rusqlite::{Connection, OpenFlags};
use sluicegate::{Stop, StopToken};
use sluicegate_examples::notify_users::service::Service;
use sluicegate_examples::notify_users::{Rules, cli, notify, store::Store};

const LEASE: Duration = Duration::from_secs(60);
const RULES: Rules = Rules { limit: 64, rate: 100_000, attempts: 3, lease: LEASE };

/// Once each, or failed, and how many of both.
fn settled(path: &Path, users: u32) -> (u32, u32) {
    let (once, more, failed) = Store::open(path, 0).unwrap().counts().unwrap();
    assert_eq!((more, once + failed), (0, users));
    assert!(failed >= users / 1000, "those without an address");
    (once, failed)
}

#[tokio::test]
async fn stopped_and_started_again_each_user_is_notified_once_or_failed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("users.db");
    let (mut notified, mut failed, mut runs) = (0, 0, 0);
    for abort in [true, false, true, false] {
        let store = Store::open(&path, 3_000).unwrap();
        let stop = StopToken::new();
        let progress = ProgressBar::hidden();
        let service = Service::default();
        let run = notify(&store, &service, &RULES, stop.clone(), &progress);
        // Stopped in the middle of things, but for the last time.
        let stopper = async {
            if runs < 3 {
                tokio::time::sleep(Duration::from_millis(25)).await;
                stop.stop(if abort { Stop::Abort } else { Stop::Drain });
            }
        };
        let (summary, ()) = tokio::join!(run, stopper);
        let summary = summary.unwrap();
        notified += summary.notified;
        failed += summary.failed;
        assert_eq!(summary.left as usize, 3_000 - notified - failed);
        runs += 1;
    }
    assert_eq!(settled(&path, 3_000), (notified as u32, failed as u32));
}

/// They share the work, and neither counts what the other did.
#[tokio::test]
async fn two_runs_at_once_notify_no_user_twice() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("users.db");
    let stores = [(); 2].map(|()| Store::open(&path, 2_000).unwrap());
    let progress = ProgressBar::hidden();
    let service = Service::default();
    let run = |store| notify(store, &service, &RULES, StopToken::new(), &progress);
    let (one, other) = tokio::join!(run(&stores[0]), run(&stores[1]));
    let (one, other) = (one.unwrap(), other.unwrap());
    let counted = (one.notified + other.notified, one.failed + other.failed);
    let (notified, failed) = settled(&path, 2_000);
    assert_eq!(counted, (notified as usize, failed as usize));
}

/// A database that refuses to be written ends the run, and no user is taken for failed.
#[tokio::test]
async fn a_database_that_breaks_ends_the_run() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("users.db");
    let store = Store::open(&path, 2_000).unwrap();
    let other = Connection::open(&path).unwrap();
    let full = "CREATE TRIGGER full BEFORE UPDATE ON users WHEN OLD.id = 500
                BEGIN SELECT RAISE(ABORT, 'the disk is full'); END";
    other.execute_batch(full).unwrap();
    let run =
        notify(&store, &Service::default(), &RULES, StopToken::new(), &ProgressBar::hidden()).await;
    assert_eq!(run.unwrap_err().to_string(), "the disk is full");
    let (_, _, failed) = store.counts().unwrap();
    assert!(failed < 20, "{failed} users failed for it");
    assert!(store.left().unwrap() > 1_000, "it went on");

    other.execute_batch("DROP TRIGGER full").unwrap();
    notify(&store, &Service::default(), &RULES, StopToken::new(), &ProgressBar::hidden())
        .await
        .unwrap();
    settled(&path, 2_000);
}

fn run(arguments: &[&str]) -> (u8, String, String) {
    let arguments = std::iter::once(&"notify_users").chain(arguments);
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let status = cli::run(arguments.map(Into::into), &mut out, &mut err);
    (status, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
}

#[test]
fn arguments_out_of_bounds_are_refused_by_name() {
    for (option, value) in [
        ("--limit", "0"),
        ("--limit", "18446744073709551615"),
        ("--rate", "0"),
        ("--rate", "4294967295"),
        ("--attempts", "0"),
        ("--attempts", "4294967295"),
        ("--users", "9223372036854775807"),
        ("--users=-1", "--users"),
        ("--users", "x"),
        ("--bogus", "1"),
        ("--db", "/no/such/folder/users.db"),
    ] {
        let arguments = [option, value];
        let given = if option.contains('=') { &arguments[..1] } else { &arguments[..] };
        let (status, out, err) = run(given);
        assert_eq!((status, out.as_str(), err.lines().count()), (2, "", 1), "{option}: {err}");
        let named = if option == "--db" || given.len() == 1 { value } else { option };
        assert!(err.starts_with("notify_users: ") && err.contains(named), "{err}");
    }
}

#[test]
fn no_users_at_all_are_done_at_once() {
    assert_eq!(run(&["--users", "0"]), (0, "0 notified, 0 failed, 0 left\n".into(), String::new()));
}

#[test]
fn who_failed_is_named_with_the_reason_in_later_runs_too() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("users.db");
    let arguments = ["--users", "1500", "--attempts", "9", "--db", path.to_str().unwrap()];
    let first = run(&arguments);
    let failed = "  user 999: no such address\n";
    let told = |counts: &str| (0, format!("{counts}\n{failed}"), String::new());
    assert_eq!(first, told("1499 notified, 1 failed, 0 left"));
    assert_eq!(run(&arguments), told("0 notified, 0 failed, 0 left"));
}

/// Accepts as many bytes as it is told, then the reader is gone.
struct Closed(usize);

impl std::io::Write for Closed {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.0 == 0 {
            return Err(std::io::ErrorKind::BrokenPipe.into());
        }
        let taken = bytes.len().min(self.0);
        self.0 -= taken;
        Ok(taken)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn who_closes_the_pipe_has_read_enough() {
    for read in [0, 5, 40] {
        let (mut out, mut err) = (Closed(read), Vec::new());
        let arguments = ["notify_users", "--users", "1500"].map(Into::into);
        assert_eq!(cli::run(arguments, &mut out, &mut err), 0);
        assert_eq!(String::from_utf8(err).unwrap(), "");
    }
}

/// The built program, beside this test's own.
fn program() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let path = test.ancestors().nth(2).unwrap().join("examples/notify_users");
    assert!(path.exists(), "`cargo test` builds it; `--test` alone does not");
    path
}

fn start(path: &Path, rate: &str) -> Child {
    let mut command = Command::new(program());
    command.args(["--users", "5000", "--rate", rate, "--lease", "1", "--db"]).arg(path);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Waits until so many users are notified, more than were before: only then does it listen.
fn wait_for(path: &Path, users: u32) {
    let limit = Instant::now() + Duration::from_secs(60);
    let notified = || {
        let database = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        let sql = "SELECT count(*) FROM users WHERE times_notified > 0";
        database.query_row(sql, (), |row| row.get::<_, u32>(0))
    };
    while !notified().is_ok_and(|notified| notified >= users) {
        assert!(Instant::now() < limit, "no user is notified");
        std::thread::yield_now();
    }
}

fn send(signal: &str, child: &Child) {
    let kill = Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
    assert!(kill.success());
}

/// A run to the end, after others were stopped.
fn finish(path: &Path) {
    let Output { status, stdout, stderr } = start(path, "100000").wait_with_output().unwrap();
    let (out, err) = (String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap());
    assert_eq!((status.code(), err.as_str()), (Some(0), ""));
    let (_, failed) = settled(path, 5_000);
    assert!(out.lines().next().unwrap().ends_with(" 0 left"), "{out}");
    assert_eq!(out.lines().count(), 1 + failed as usize, "each is named");
}

/// At its beginning, and twice in the middle: the rate does not let it come to its end before.
#[cfg(unix)]
#[test]
fn interrupted_at_any_time_it_goes_on_where_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("users.db");
    let (mut notified, mut failed) = (0, 0);
    for (users, signal) in [(1, "-INT"), (300, "-TERM"), (600, "-INT")] {
        let child = start(&path, "1000");
        wait_for(&path, notified + users);
        send(signal, &child);
        let Output { status, stdout, .. } = child.wait_with_output().unwrap();
        let out = String::from_utf8(stdout).unwrap();
        assert_eq!(status.code(), Some(1), "{out}");
        let store = Store::open(&path, 0).unwrap();
        let (once, more, failed_in_all) = store.counts().unwrap();
        let left = store.left().unwrap();
        assert_eq!((more, left), (0, 5_000 - once - failed_in_all));
        let here = (once - notified, failed_in_all - failed);
        let told = format!("{} notified, {} failed, {left} left", here.0, here.1);
        assert_eq!(out.lines().next(), Some(told.as_str()));
        (notified, failed) = (once, failed_in_all);
    }
    finish(&path);
}

/// With a low rate what has been pulled would take minutes to come to its end.
#[cfg(unix)]
#[test]
fn an_interrupt_does_not_wait_for_the_rate() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("users.db");
    let child = start(&path, "1");
    wait_for(&path, 1);
    let interrupted = Instant::now();
    send("-INT", &child);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(interrupted.elapsed() < Duration::from_secs(20));
    finish(&path);
}

#[cfg(unix)]
#[test]
fn a_second_interrupt_ends_it_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("users.db");
    let mut child = start(&path, "1");
    wait_for(&path, 1);
    let limit = Instant::now() + Duration::from_secs(30);
    // Again and again, since two that come too close to each other are one.
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > limit {
            child.kill().unwrap();
            panic!("it does not listen: {:?}", child.wait_with_output());
        }
        send("-INT", &child);
    }
    let Output { status, stdout, .. } = child.wait_with_output().unwrap();
    assert_eq!((status.code(), stdout.len()), (Some(130), 0));
    finish(&path);
}

/// No chance to clean up.
#[cfg(unix)]
#[test]
fn killed_in_the_middle_no_user_is_notified_twice() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("users.db");
    let mut notified = 0;
    for users in [1, 300, 600] {
        let mut child = start(&path, "1000");
        wait_for(&path, notified + users);
        child.kill().unwrap();
        assert_eq!(child.wait().unwrap().code(), None);
        let (once, more, _) = Store::open(&path, 0).unwrap().counts().unwrap();
        assert_eq!(more, 0);
        notified = once;
    }
    finish(&path);
}

/// How often the service was called with each key.
fn sent(log: &Path) -> HashMap<String, usize> {
    let mut sent = HashMap::new();
    for key in std::fs::read_to_string(log).unwrap().lines() {
        *sent.entry(key.to_owned()).or_default() += 1;
    }
    sent
}

fn start_with_log(folder: &Path, lease: &str, rate: &str) -> Child {
    let mut command = Command::new(program());
    command.args(["--users", "3000", "--rate", rate, "--lease", lease]);
    command.arg("--db").arg(folder.join("users.db")).arg("--sent").arg(folder.join("sent"));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// All of them make the database, and none sends what another has claimed.
#[test]
fn starts_at_once_on_a_new_database_share_the_work_and_send_nothing_twice() {
    let folder = tempfile::tempdir().unwrap();
    let runs = [(); 4].map(|()| start_with_log(folder.path(), "60", "100000"));
    for run in runs {
        let Output { status, stderr, .. } = run.wait_with_output().unwrap();
        let err = String::from_utf8(stderr).unwrap();
        assert_eq!((status.code(), err.as_str()), (Some(0), ""));
    }
    let (once, _) = settled(&folder.path().join("users.db"), 3_000);
    let sent = sent(&folder.path().join("sent"));
    assert_eq!(sent.len(), once as usize);
    let twice: Vec<_> = sent.iter().filter(|(_, times)| **times > 1).collect();
    assert!(twice.is_empty(), "{} sent twice: {twice:?}", twice.len());
}

/// At least once: what a crashed run had sent and not written is sent again, with the same key, when
/// its lease has lapsed.
#[cfg(unix)]
#[test]
fn a_crashed_runs_claims_are_taken_over_when_its_lease_has_lapsed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("users.db");
    const KILLS: usize = 3;
    let mut notified = 0;
    for _ in 0..KILLS {
        let mut child = start_with_log(folder.path(), "1", "2000");
        wait_for(&path, notified + 300);
        child.kill().unwrap();
        child.wait().unwrap();
        notified = Store::open(&path, 0).unwrap().counts().unwrap().0;
    }
    let output = start_with_log(folder.path(), "1", "100000").wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    let (once, _) = settled(&path, 3_000);
    let sent = sent(&folder.path().join("sent"));
    assert!(sent.len() >= once as usize, "{} of {once}", sent.len());
    let again: usize = sent.values().map(|times| times - 1).sum();
    // The default limit, each time.
    assert!(again <= KILLS * 64, "{again}");
}

/// Claims are good for as long as their run has a lease, and for no longer.
#[test]
fn a_claim_excludes_other_runs_until_the_lease_lapses() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("users.db");
    let [one, other] = [(); 2].map(|()| Store::open(&path, 5).unwrap());
    one.renew(LEASE).unwrap();
    other.renew(LEASE).unwrap();
    assert_eq!(one.claim(i64::MIN, 3).unwrap(), [1, 2, 3]);
    assert_eq!(other.claim(i64::MIN, 9).unwrap(), [4, 5]);
    assert_eq!(one.claim(i64::MIN, 9).unwrap(), Vec::<i64>::new());
    assert!(other.others_at_work().unwrap());
    one.notified(2).unwrap();
    one.renew(Duration::ZERO).unwrap();
    assert_eq!(other.claim(i64::MIN, 9).unwrap(), [1, 3]);
    assert!(!other.others_at_work().unwrap());
    other.release().unwrap();
    assert_eq!(one.claim(i64::MIN, 9).unwrap(), [1, 3, 4, 5]);
}

/// A run that was suspended for longer than its lease must not send what others may have claimed.
#[cfg(unix)]
#[test]
fn a_run_that_was_suspended_for_longer_than_its_lease_sends_no_more() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("users.db");
    let child = start_with_log(folder.path(), "1", "500");
    wait_for(&path, 50);
    // Not in the middle of a transaction, which would keep all others from writing.
    let database = Connection::open(&path).unwrap();
    database.busy_timeout(Duration::ZERO).unwrap();
    send("-STOP", &child);
    while database.execute_batch("BEGIN IMMEDIATE; ROLLBACK").is_err() {
        send("-CONT", &child);
        std::thread::yield_now();
        send("-STOP", &child);
    }
    let other = start_with_log(folder.path(), "1", "100000").wait_with_output().unwrap();
    assert_eq!(other.status.code(), Some(0));
    let sent_by_then = sent(&folder.path().join("sent"));
    send("-CONT", &child);
    let Output { status, stderr, .. } = child.wait_with_output().unwrap();
    let err = String::from_utf8(stderr).unwrap();
    assert_eq!(status.code(), Some(1), "{err}");
    assert!(err.contains("suspended"), "{err}");
    assert!(err.contains(path.to_str().unwrap()), "{err}");
    let sent = sent(&folder.path().join("sent"));
    let late: usize = sent.iter().map(|(key, times)| times - sent_by_then[key]).sum();
    // What was being sent when it was suspended.
    assert!(late <= 64, "{late}");
}

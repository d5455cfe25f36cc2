//! What the four programs have in common: help, version, arguments, exit statuses, signals, output.

mod process;

use std::process::{Child, Stdio};
use std::time::Duration;

use process::{NAMES, command, entries, finish, has_row, send, until};
use serde_json::Value;

/// Arguments with which each is done soon, or goes on until a signal.
fn short(name: &str) -> &'static [&'static str] {
    match name {
        "ingest" => &["--events", "50", "--lookup-ms", "0"],
        "notify_users" => &["--users", "5"],
        "chat_rooms" => &["--clients", "2", "--rooms", "1", "--seconds", "1"],
        _ => &[],
    }
}

#[test]
fn help_fits_in_80_columns_and_says_what_exit_statuses_and_signals_mean() {
    for name in NAMES {
        let (status, out, err) = finish(command(name).arg("--help"));
        assert_eq!((status, err.as_str()), (Some(0), ""));
        for line in out.lines() {
            assert!(line.chars().count() <= 80, "{name}: {line}");
        }
        for told in ["Exit status:", "  0  ", "  1  ", "  2  ", "  130  ", "SIGTERM", "--json"] {
            assert!(out.contains(told), "{name}: {told}\n{out}");
        }
        assert!(out.contains("crash"), "{name} does not say what it promises after a crash\n{out}");
    }
}

#[test]
fn each_tells_its_version() {
    for name in NAMES {
        let version = format!("{name} {}\n", env!("CARGO_PKG_VERSION"));
        assert_eq!(finish(command(name).arg("--version")), (Some(0), version, String::new()));
    }
}

#[test]
fn a_number_out_of_bounds_is_refused_with_bounds_that_can_be_read() {
    for (name, option, number, bounds) in [
        ("ingest", "--permits", "0", "from 1 to 1000000"),
        ("ingest", "--permits", "4294967296", "from 1 to 1000000"),
        ("ingest", "--ttl", "0", "of 1 or more"),
        ("notify_users", "--limit", "x", "from 1 to 100000"),
        ("chat_rooms", "--window-ms", "0", "from 1 to 60000"),
    ] {
        let (status, out, err) = finish(command(name).args([option, number]));
        assert_eq!((status, out.as_str(), err.lines().count()), (Some(2), "", 1), "{err}");
        assert!(err.contains(option) && err.contains(bounds), "{err}");
    }
}

#[test]
fn a_wrong_argument_is_status_2_and_one_line_everywhere() {
    for name in NAMES {
        let (status, out, err) = finish(command(name).arg("--frobnicate"));
        assert_eq!((status, out.as_str(), err.lines().count()), (Some(2), "", 1), "{err}");
        assert!(err.starts_with(&format!("{name}: ")) && err.contains("--frobnicate"), "{err}");
    }
}

#[test]
fn each_prints_one_json_object() {
    for name in NAMES {
        let (status, out, err) = finish(command(name).args(short(name)).arg("--json"));
        assert_eq!((status, err.as_str()), (Some(0), ""), "{name}");
        assert!(serde_json::from_str::<Value>(&out).unwrap().is_object(), "{name}: {out}");
    }
}

/// As `ingest | true` does to it.
#[test]
fn a_reader_that_closes_the_pipe_is_no_error() {
    for name in NAMES {
        let mut command = command(name);
        command.args(short(name)).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        let err = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), err.as_str()), (Some(0), ""), "{name}");
    }
}

/// With a temporary database, and in the middle of its work.
#[cfg(unix)]
fn at_work(name: &str, temporary: &std::path::Path) -> Child {
    let arguments: &[&str] = match name {
        "ingest" => &["--lookup-ms", "100000", "--grace", "0"],
        "notify_users" => &["--rate", "1"],
        _ => &[],
    };
    let mut command = command(name);
    command.args(arguments).env("TMPDIR", temporary);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    until(|| entries(temporary) > 0);
    child
}

#[cfg(unix)]
#[test]
fn each_signal_ends_a_run_in_order_and_removes_its_temporary_database() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["ingest", "notify_users", "run_steps"] {
        for signal in ["-INT", "-TERM", "-HUP"] {
            let child = at_work(name, folder.path());
            send(signal, &child);
            let output = child.wait_with_output().unwrap();
            let err = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(1), "{name} {signal}: {err}");
            assert!(err.lines().last().unwrap().contains("interrupted"), "{name} {signal}: {err}");
            assert_eq!(entries(folder.path()), 0, "{name} {signal}");
        }
    }
}

#[cfg(unix)]
#[test]
fn a_second_signal_removes_the_temporary_database_too() {
    let folder = tempfile::tempdir().unwrap();
    // Neither is done with what it has in hand before the second comes.
    for (name, arguments, row) in [
        ("ingest", ["--permits", "1", "--lookup-ms", "20"], "users"),
        ("notify_users", ["--rate", "1", "--limit", "9"], "users WHERE times_notified > 0"),
    ] {
        let mut command = command(name);
        command.args(arguments).env("TMPDIR", folder.path());
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        until(|| has_row(folder.path(), row));
        send("-HUP", &child);
        std::thread::sleep(Duration::from_millis(500));
        send("-HUP", &child);
        assert_eq!(child.wait().unwrap().code(), Some(130), "{name}");
        assert_eq!(entries(folder.path()), 0, "{name}");
    }
}

/// As `timeout` sends them. They differ, since the system itself makes one of two that are the same.
#[cfg(unix)]
#[test]
fn two_signals_close_to_each_other_are_one() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = command("ingest");
    command.args(["--permits", "1", "--lookup-ms", "20", "--grace", "1"]);
    command.env("TMPDIR", folder.path());
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    until(|| has_row(folder.path(), "users"));
    let both = format!("kill -TERM {0}; kill -INT {0}", child.id());
    assert!(std::process::Command::new("sh").args(["-c", &both]).status().unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(1));
}

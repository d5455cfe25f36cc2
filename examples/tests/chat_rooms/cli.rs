//! The program from the outside: arguments, streams, exit status.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use sluicegate_examples::chat_rooms::cli;
use sluicegate_examples::chat_rooms::client::Client;

use crate::set_up::{first, receive_all, run};

/// Runs the program within the test: its status, what it printed and what it complained about.
fn chat_rooms(arguments: &[&str]) -> (u8, String, String) {
    let arguments = std::iter::once("chat_rooms").chain(arguments.iter().copied());
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let status = cli::run(arguments.map(OsString::from), &mut out, &mut err);
    (status, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
}

#[test]
fn help_says_what_there_is_to_choose() {
    let (status, out, err) = chat_rooms(&["--help"]);
    assert_eq!((status, err.as_str()), (0, ""));
    for option in ["--listen", "--window-ms", "--clients", "--rooms", "--seconds", "--rate"] {
        assert!(out.contains(option), "{option}\n{out}");
    }
}

#[test]
fn bad_arguments_are_refused_in_one_line() {
    for (arguments, named) in [
        (&["--frobnicate"][..], "--frobnicate"),
        (&["--clients", "0"], "--clients"),
        (&["--clients", "many"], "--clients"),
        (&["--clients", "1", "--rooms", "0"], "--rooms"),
        (&["--clients", "1", "--seconds", "0"], "--seconds"),
        (&["--clients", "1", "--rate", "0"], "--rate"),
        (&["--clients", "1", "--window-ms", "-1"], "-1"),
        (&["--rooms", "2"], "--clients"),
        (&["--listen", "nowhere"], "--listen"),
        (&["--listen", "127.0.0.1:0", "--clients", "1"], "--listen"),
    ] {
        let (status, out, err) = chat_rooms(arguments);
        assert_eq!((status, out.as_str(), err.lines().count()), (2, "", 1), "{arguments:?}: {err}");
        assert!(err.contains(named), "{arguments:?}: {err}");
    }
}

#[test]
fn an_address_in_use_is_refused_in_one_line() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (status, out, err) = chat_rooms(&["--listen", &address]);
    assert_eq!((status, out.as_str(), err.lines().count()), (2, "", 1), "{err}");
    assert!(err.contains(&address), "{err}");
}

#[test]
fn a_load_is_reported() {
    let arguments = ["--clients", "6", "--rooms", "2", "--seconds", "1", "--rate", "100"];
    let (status, out, err) = chat_rooms(&arguments);
    assert_eq!((status, err.as_str()), (0, ""), "{out}");
    let row = |name: &str| {
        let line =
            out.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{out}"));
        line[name.len()..].split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(row("messages sent"), ["600", "600"]);
    assert_eq!(row("messages delivered"), ["1800", "1800"]);
    let frames = row("frames sent");
    assert_eq!(frames[1], "1800");
    let batched: u64 = frames[0].parse().unwrap();
    assert_eq!(row("frames saved"), [(1_800 - batched).to_string().as_str(), "0"]);
    assert_eq!(row("missing"), ["0", "0"]);
    for row in [row("latency p50"), row("latency p99")] {
        assert_eq!((row.len(), row[1].as_str(), row[3].as_str()), (4, "ms", "ms"));
    }
}

/// The built program, beside this test's own.
fn program() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let path = test.ancestors().nth(2).unwrap().join("examples/chat_rooms");
    assert!(path.exists(), "`cargo test` builds it; `cargo test --test chat_rooms` alone does not");
    path
}

#[cfg(unix)]
#[test]
fn it_serves_until_an_interrupt() {
    serves_until("-INT");
}

#[cfg(unix)]
#[test]
fn it_serves_until_it_is_asked_to_terminate() {
    serves_until("-TERM");
}

/// What was said before the signal is delivered, though the window is a minute's.
#[cfg(unix)]
fn serves_until(signal: &str) {
    let mut command = Command::new(program());
    command.args(["--listen", "127.0.0.1:0", "--window-ms", "60000", "--log", "warn"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    let address = line.split("http://").nth(1).unwrap().split('/').next().unwrap();
    run(async {
        let mut client = Client::join(address.parse().unwrap(), "lobby", "ann").await.unwrap();
        // As many as fill a frame, which comes at once, and shows that they were accepted.
        for number in 0..67 {
            client.sender.say(&number.to_string()).await.unwrap();
        }
        let (mut received, _) = crate::set_up::receive(&mut client.receiver, 64).await;
        let kill = Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
        assert!(kill.success());
        let (rest, code, _) = receive_all(&mut client.receiver).await;
        received.extend(rest);
        assert_eq!(code, 1001);
        // The last ones may have been on their way.
        assert_eq!(received, first("ann", received.len()));
    });
    line.clear();
    out.read_to_string(&mut line).unwrap();
    assert!(line.contains("messages accepted") && line.contains("frames saved"), "{line}");
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr.len()), (Some(0), 0));
}

/// Starts it, and reads the address out of its first line.
#[cfg(unix)]
fn serve(arguments: &[&str], open_files: u32) -> (std::process::Child, String) {
    let script = format!(r#"ulimit -n {open_files}; exec "$0" "$@""#);
    let mut command = Command::new("sh");
    command.args(["-c", &script]).arg(program()).args(arguments);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    let address = line.split("http://").nth(1).and_then(|rest| rest.split('/').next());
    (child, address.unwrap_or_default().to_owned())
}

#[cfg(unix)]
fn stop(child: std::process::Child) -> (Option<i32>, String) {
    let kill = Command::new("kill").args(["-HUP", &child.id().to_string()]).status().unwrap();
    assert!(kill.success());
    let output = child.wait_with_output().unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[cfg(unix)]
#[test]
fn it_logs_while_it_serves_at_a_name() {
    let (child, address) = serve(&["--listen", "localhost:0", "--log", "debug"], 1_024);
    run(async {
        let client = Client::join(address.parse().unwrap(), "lobby", "ann").await.unwrap();
        drop(client);
    });
    let (status, log) = stop(child);
    assert_eq!(status, Some(0), "{log}");
    for told in ["serving at", "has joined", "lobby", "ann", "stopping"] {
        assert!(log.contains(told), "{told}: {log}");
    }
}

/// Fewer open files than the clients that there may be: it says so, and lets fewer in.
#[cfg(unix)]
#[test]
fn clients_that_open_files_do_not_allow_are_refused_and_not_left_waiting() {
    let (child, address) = serve(&["--listen", "127.0.0.1:0"], 100);
    run(async {
        let mut clients = Vec::new();
        let full = loop {
            match Client::join(address.parse().unwrap(), "lobby", "ann").await {
                Ok(client) => clients.push(client),
                Err(error) => break error.to_string(),
            }
        };
        assert!(full.contains("503"), "{full}");
        assert_eq!(clients.len(), 4);
    });
    let (status, log) = stop(child);
    assert_eq!(status, Some(0), "{log}");
    assert!(log.contains("no more than 4 clients"), "{log}");

    for arguments in [&["--max-clients", "5"][..], &["--clients", "5"]] {
        let (child, _) = serve(arguments, 100);
        let output = child.wait_with_output().unwrap();
        let err = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), err.lines().count()), (Some(2), 1), "{err}");
        assert!(err.contains("ulimit -n") && err.contains("100 are allowed"), "{err}");
    }
}

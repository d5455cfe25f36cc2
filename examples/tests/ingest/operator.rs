//! What an operator meets: full disks, signals, odd input, runs in parts.

use std::process::{Command, Output, Stdio};
use std::time::Instant;

use tempfile::TempDir;

use crate::cli::{POST, file, flat, ingest, program, send, start, summary};

/// A disk that is full, as far as files go: none may be larger than this, in blocks of 512 bytes.
#[cfg(unix)]
#[test]
fn a_full_disk_ends_the_reading_and_is_no_success() {
    let folder = TempDir::new().unwrap();
    let db = folder.path().join("ingest.db");
    let script = r#"trap '' XFSZ; ulimit -f 600; exec "$0" "$@""#;
    let mut command = Command::new("sh");
    command.args(["-c", script]).arg(program());
    command.args(["--json", "--lookup-ms", "0", "--events", "60000", "--db"]).arg(&db);
    let Output { status, stdout, stderr } = command.stdin(Stdio::null()).output().unwrap();
    let err = String::from_utf8(stderr).unwrap();
    assert_eq!(status.code(), Some(1), "{err}");
    let complaint = err.lines().last().unwrap_or_default();
    let named = [" lines were not written: ", db.to_str().unwrap()];
    assert!(named.iter().all(|named| complaint.contains(named)), "{err}");
    let json = flat(&String::from_utf8(stdout).unwrap());
    assert!(json["failed"].as_u64() > Some(0), "{json}");
    assert!(json["stored"].as_u64() > Some(0), "{json}");
    assert!(json["read"].as_u64() < Some(30_000), "it reads on: {json}");
    assert!(json["error"].as_str().is_some_and(|error| complaint.ends_with(error)), "{json}");
}

#[test]
fn a_run_in_parts_says_what_it_forgets() {
    let folder = TempDir::new().unwrap();
    let db = folder.path().join("ingest.db");
    let like = POST.replace("feed.post", "feed.like").replace(
        r#""record":{}"#,
        r#""record":{"subject":{"uri":"at://did:plc:b/app.bsky.feed.post/1"}}"#,
    );
    let input = file(folder.path(), &format!("{POST}\n{like}\n"));
    let arguments = ["--input", &input, "--db", db.to_str().unwrap()];
    let (status, _, err) = ingest(&arguments);
    assert_eq!((status, err.lines().count()), (0, 1), "{err}");
    assert!(err.starts_with("ingest: note: 1 operations wait"), "{err}");
    // A temporary database is not gone on with.
    assert_eq!(ingest(&arguments[..2]).2, "");
    let (_, help, _) = ingest(&["--help"]);
    let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(help.contains("are held in memory alone"), "{help}");
}

/// Each look-up takes longer than the test may.
#[cfg(unix)]
#[test]
fn a_drain_says_what_is_left_and_ends_with_the_grace() {
    let mut child = start(&["--input", "-", "--json", "--lookup-ms", "600000", "--grace", "1"]);
    let input =
        format!("{}\n", POST.replace("{}", &format!(r#"{{"text":"{}"}}"#, "x".repeat(2_000))));
    let mut stdin = child.stdin.take().unwrap();
    // A pipe does not hold them all: when they are written, most are read.
    std::io::Write::write_all(&mut stdin, input.repeat(300).as_bytes()).unwrap();
    let begin = Instant::now();
    send("-TERM", &child);
    let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
    let err = String::from_utf8(stderr).unwrap();
    assert_eq!(status.code(), Some(1), "{err}");
    assert!(begin.elapsed().as_secs() < 20, "{:?}", begin.elapsed());
    let json = flat(&String::from_utf8(stdout).unwrap());
    assert_eq!(
        (&json["interrupted"], json["abandoned"].as_u64()),
        (&true.into(), json["read"].as_u64())
    );
    let lines: Vec<_> = err.lines().collect();
    assert!(
        lines[0].contains("finishing the ") && lines[0].contains(" lines that were read"),
        "{err}"
    );
    assert!(lines[1].contains("gives up look-ups"), "{err}");
    assert!(lines[2].contains("interrupted") && lines[2].contains("abandoned"), "{err}");
}

#[test]
fn a_byte_order_mark_costs_no_event() {
    let folder = TempDir::new().unwrap();
    let marked = file(folder.path(), &format!("\u{feff}{POST}\n"));
    let json = summary(&["--input", &marked]);
    assert_eq!((&json["stored"], &json["malformed"]), (&1.into(), &0.into()), "{json}");
}

/// What is pushed into the queue in front once it is closed is rejected, and said to be.
#[cfg(unix)]
#[test]
fn the_figures_of_a_queue_add_up_when_a_live_source_is_stopped() {
    let mut child = start(&["--live", "--json", "--rate", "100000", "--events", "100000000"]);
    drop(child.stdin.take());
    std::thread::sleep(std::time::Duration::from_millis(500));
    send("-INT", &child);
    let output = child.wait_with_output().unwrap();
    let json = flat(&String::from_utf8(output.stdout).unwrap());
    let of = |name: &str| json[name].as_u64().unwrap_or_else(|| panic!("{name}: {json}"));
    let parts = ["popped", "displaced", "rejected", "drained", "len"];
    let sum: u64 = parts.iter().map(|part| of(&format!("queue_{part}"))).sum();
    assert_eq!(of("queue_pushed"), sum, "{json}");
}

//! Steps are created once, and what goes wrong with one of them goes wrong with no other.

use std::sync::Arc;

use sluicegate_examples::run_steps::{Step, cli, create, sound, store::Store};

#[tokio::test]
async fn a_repeated_run_creates_nothing_twice_and_failures_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(Store::open(&folder.path().join("runs.db")).unwrap());
    let mut steps = sound(20);
    (steps[3], steps[5], steps[7]) = (Step::Refused, Step::Panics, Step::Hangs);
    for limit in [20, 3] {
        let report = create(&store, "run", &steps, limit).await.unwrap();
        let failed: Vec<_> = report.failed().map(|(n, error)| (n, error.to_string())).collect();
        let told = [
            (3, "create: rejected: run/3 is refused"),
            (5, "create: panicked: a broken step"),
            (7, "create: timed out"),
        ];
        assert_eq!(failed, told.map(|(n, text)| (n, text.to_string())));
        assert_eq!(store.count("run").await.unwrap(), 17);
    }
    // What was wrong is put right: only that is created.
    let report = create(&store, "run", &sound(20), 20).await.unwrap();
    assert_eq!((report.succeeded(), store.count("run").await.unwrap()), (20, 20));
}

fn run(arguments: &[&str]) -> (u8, String, String) {
    let arguments = std::iter::once(&"run_steps").chain(arguments);
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let status = cli::run(arguments.map(Into::into), &mut out, &mut err);
    (status, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
}

#[test]
fn the_table_stands_beside_the_figures_of_the_reports() {
    let (status, out, err) = run(&[]);
    assert_eq!((status, err.as_str()), (0, ""));
    let rows: Vec<Vec<&str>> =
        out.lines().skip(1).take(3).map(|row| row.split_whitespace().collect()).collect();
    for (row, reported) in
        rows.iter().zip([["10", "500", "50"], ["50", "2500", "150"], ["100", "5000", "300"]])
    {
        assert_eq!([row[0], row[6], row[8]], reported, "{out}");
    }
    for told in
        ["step 3: create: rejected", "step 5: create: panicked", "step 7: create: timed out"]
    {
        assert!(out.contains(told), "{out}");
    }
    assert!(out.contains("Created 7 steps; 7 after the same run once more."), "{out}");
}

#[test]
fn it_takes_no_arguments() {
    let (status, out, err) = run(&["--bogus"]);
    assert_eq!((status, out.as_str(), err.lines().count()), (2, "", 1), "{err}");
    let (status, out, _) = run(&["--help"]);
    assert!(status == 0 && out.contains("Exit status"), "{out}");
}

/// The temporary database goes with it.
#[cfg(unix)]
#[test]
fn an_interrupt_ends_it_and_leaves_nothing_behind() {
    use std::process::{Command, Stdio};
    use std::time::{Duration, Instant};

    let folder = tempfile::tempdir().unwrap();
    let test = std::env::current_exe().unwrap();
    let program = test.ancestors().nth(2).unwrap().join("examples/run_steps");
    assert!(program.exists(), "`cargo test` builds it; `--test` alone does not");
    let mut command = Command::new(program);
    command.env("TMPDIR", folder.path()).stdout(Stdio::piped());
    let child = command.spawn().unwrap();
    // It listens before it makes the database.
    let limit = Instant::now() + Duration::from_secs(60);
    let entries = || std::fs::read_dir(folder.path()).unwrap().count();
    while entries() == 0 {
        assert!(Instant::now() < limit, "it does not begin");
        std::thread::yield_now();
    }
    let kill = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(kill.success());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0));
    assert_eq!(entries(), 0);
}

//! Steps are created once, and what goes wrong with one of them goes wrong with no other.

use std::sync::Arc;

use sluicegate_examples::run_steps::{Step, create, sound, store::Store};

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

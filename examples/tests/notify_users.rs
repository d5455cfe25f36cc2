//! Every user is notified once or named as failed, however often the program is stopped.

use std::time::Duration;

use clap::Parser;
use indicatif::ProgressBar;
use sluicegate::{Stop, StopToken};
use sluicegate_examples::notify_users::{Options, notify, store::Store};

#[tokio::test]
async fn stopped_and_started_again_each_user_is_notified_once_or_failed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("users.db");
    let options = Options::parse_from(["notify_users", "--rate", "100000"]);
    let (mut notified, mut failed, mut runs) = (0, 0, 0);
    for abort in [true, false, true, false] {
        let store = Store::open(&path, 3_000).unwrap();
        let stop = StopToken::new();
        let progress = ProgressBar::hidden();
        let run = notify(&store, &options, stop.clone(), &progress);
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
        failed += summary.failed.len();
        assert_eq!(summary.left, 3_000 - notified - failed);
        runs += 1;
    }
    let store = Store::open(&path, 3_000).unwrap();
    assert_eq!(store.counts().unwrap(), (notified as u32, 0, failed as u32));
    assert_eq!(notified + failed, 3_000);
    assert!(failed >= 3, "those without an address");
}

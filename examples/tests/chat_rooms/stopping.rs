//! A server that is told to stop.

use std::time::{Duration, Instant};

use sluicegate_examples::chat_rooms::client::Client;
use sluicegate_examples::chat_rooms::connection::Timeouts;
use sluicegate_examples::chat_rooms::publisher::Framing;
use sluicegate_examples::chat_rooms::server::Config;

use crate::set_up::{FRAMINGS, config, first, join, of, receive_all, run, start, until};

const CLIENTS: usize = 6;

/// All of them talk without end. Each receives the same from each, from the first message on and
/// without a gap: all that was accepted. Often, because it stops at another point each time.
#[test]
fn accepted_messages_reach_every_member_before_the_close_frame() {
    for framing in FRAMINGS.repeat(20) {
        run(async {
            let server = start(config(framing)).await;
            let mut clients = Vec::new();
            for number in 0..CLIENTS {
                clients.push(join(&server, "lobby", &number.to_string()).await);
            }
            let tasks: Vec<_> = clients
                .into_iter()
                .map(|Client { mut sender, mut receiver }| {
                    tokio::spawn(async move {
                        let talk = async {
                            for number in 0.. {
                                if sender.say(&number.to_string()).await.is_err() {
                                    return;
                                }
                            }
                        };
                        let received = receive_all(&mut receiver);
                        let ((), received) = tokio::join!(talk, received);
                        received
                    })
                })
                .collect();
            until(|| server.stats().accepted >= 500).await;
            let stats = server.stop().await;
            assert_eq!((stats.lost, stats.too_slow), (0, 0));
            assert_eq!(stats.messages, stats.accepted * CLIENTS as u64);

            let mut counts = None;
            for task in tasks {
                let (received, code, reason) = task.await.unwrap();
                assert_eq!((code, reason.contains("stopping")), (1001, true), "{reason}");
                assert_eq!(received.len() as u64, stats.accepted);
                let of_each = (0..CLIENTS).map(|number| {
                    let name = number.to_string();
                    let said = of(&name, &received);
                    assert_eq!(said, first(&name, said.len()), "a gap");
                    said.len()
                });
                let of_each: Vec<_> = of_each.collect();
                assert_eq!(*counts.get_or_insert_with(|| of_each.clone()), of_each);
            }
        });
    }
}

#[test]
fn a_stop_does_not_wait_for_a_window() {
    run(async {
        let server = start(config(Framing::Batched(Duration::from_secs(3_600)))).await;
        let mut client = join(&server, "lobby", "ann").await;
        for number in 0..3 {
            client.sender.say(&number.to_string()).await.unwrap();
        }
        until(|| server.stats().accepted == 3).await;
        let (stats, (received, code, _)) =
            tokio::join!(server.stop(), receive_all(&mut client.receiver));
        assert_eq!((received, code), (first("ann", 3), 1001));
        assert_eq!((stats.frames, stats.lost), (1, 0));
    });
}

#[test]
fn a_stop_waits_for_a_client_that_does_not_listen_but_not_for_ever() {
    run(async {
        let close = Duration::from_millis(100);
        let timeouts = Timeouts { close, ..config(FRAMINGS[0]).timeouts };
        let server = start(Config { timeouts, ..config(FRAMINGS[0]) }).await;
        let address = server.address();
        let _deaf = join(&server, "lobby", "deaf").await;
        let since = Instant::now();
        server.stop().await;
        assert!(since.elapsed() >= close);
        assert!(Client::join(address, "lobby", "late").await.is_err());
    });
}

#[test]
fn an_empty_server_stops_at_once() {
    run(async {
        for framing in FRAMINGS {
            assert_eq!(start(config(framing)).await.stop().await, Default::default());
        }
    });
}

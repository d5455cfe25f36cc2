//! Slow clients, and too many of them.

use std::time::Duration;

use sluicegate_examples::chat_rooms::client::Client;
use sluicegate_examples::chat_rooms::connection::Timeouts;
use sluicegate_examples::chat_rooms::outbox::{Bounds, Memory, Overflow, outbox};
use sluicegate_examples::chat_rooms::protocol::Frame;
use sluicegate_examples::chat_rooms::server::{Config, Server};
use tokio::net::TcpSocket;

use crate::set_up::{FRAMINGS, config, first, join, receive, receive_all, run, start, until};

/// Small compared with what the systems between server and client hold.
const OUTBOX: Bounds = Bounds { frames: 1_000, bytes: 256 * 1_024 };

/// A client for which the system holds as little as can be had.
async fn join_narrow(server: &Server, name: &str) -> Client {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4_096).unwrap();
    let stream = socket.connect(server.address()).await.unwrap();
    Client::join_over(stream, "lobby", name).await.unwrap()
}

/// Talks until the server has closed somebody; returns how much was said. Each message is received
/// before the next but few, so that the talker itself is never slow.
async fn talk_until_closed(server: &Server, talker: &mut Client) -> usize {
    let filling = "x".repeat(3_000);
    let mut said = 0;
    while server.stats().too_slow == 0 {
        for _ in 0..20 {
            talker.sender.say(&format!("{said} {filling}")).await.unwrap();
            said += 1;
        }
        receive(&mut talker.receiver, 20).await;
    }
    said
}

#[test]
fn a_slow_client_is_told_and_closed_and_the_others_go_on() {
    for framing in FRAMINGS {
        run(async {
            let server = start(Config { outbox: OUTBOX, ..config(framing) }).await;
            let mut slow = join_narrow(&server, "slow").await;
            let mut ann = join(&server, "lobby", "ann").await;
            let said = talk_until_closed(&server, &mut ann).await;

            // What it gets, late as it is, has no gap, and then comes the reason.
            let (received, code, reason) = receive_all(&mut slow.receiver).await;
            assert_eq!((code, reason.contains("slow")), (1008, true), "{reason}");
            let numbers = |message: &str| message.split_once(' ').unwrap().0.to_owned();
            let received: Vec<_> = received.iter().map(|message| numbers(&message.text)).collect();
            let expected: Vec<_> = (0..received.len()).map(|number| number.to_string()).collect();
            assert_eq!(received, expected);
            assert!(received.len() < said);

            ann.sender.say("0").await.unwrap();
            assert_eq!(receive(&mut ann.receiver, 1).await.0, first("ann", 1));
            until(|| server.clients() == 1).await;
            assert_eq!(server.stats().too_slow, 1);
        });
    }
}

#[test]
fn a_client_that_never_reads_again_is_gone_in_time() {
    run(async {
        let close = Duration::from_millis(50);
        let timeouts = Timeouts { close, ..config(FRAMINGS[0]).timeouts };
        let server = start(Config { outbox: OUTBOX, timeouts, ..config(FRAMINGS[0]) }).await;
        let slow = join_narrow(&server, "slow").await;
        let mut ann = join(&server, "lobby", "ann").await;
        talk_until_closed(&server, &mut ann).await;
        until(|| server.clients() == 1).await;
        drop(slow);
    });
}

#[test]
fn an_outbox_is_bounded_by_frames_and_by_bytes() {
    run(async {
        let frame = Frame::joined("lobby", "ann");
        let bytes = frame.text.len();
        let memory = Memory::new(1_000_000, 1);

        let (sender, mut receiver) = outbox(Bounds { frames: 2, bytes: 100 * bytes }, &memory);
        assert_eq!([(); 3].map(|()| sender.put(&frame)), [Ok(()), Ok(()), Err(Overflow)]);
        receiver.overflow().await;
        assert!(receiver.next().await.is_some());
        assert_eq!(sender.put(&frame), Err(Overflow), "a gap");

        let (sender, mut receiver) = outbox(Bounds { frames: 100, bytes: 3 * bytes - 1 }, &memory);
        assert_eq!([(); 3].map(|()| sender.put(&frame)), [Ok(()), Ok(()), Err(Overflow)]);
        receiver.overflow().await;
        assert!(receiver.try_next().is_some());
        assert_eq!(sender.put(&frame), Err(Overflow), "a gap");

        // What waits is still to be had when the sender has gone.
        drop(sender);
        assert!(receiver.next().await.is_some());
        assert!(receiver.next().await.is_none());

        // What was taken out makes room.
        let (sender, mut receiver) = outbox(Bounds { frames: 1, bytes }, &memory);
        for _ in 0..3 {
            assert_eq!(sender.put(&frame), Ok(()));
            assert!(receiver.try_next().is_some() && receiver.try_next().is_none());
        }

        let (sender, receiver) = outbox(Bounds { frames: 1, bytes }, &memory);
        drop(receiver);
        assert_eq!([(); 3].map(|()| sender.put(&frame)), [Ok(()); 3]);
    });
}

#[test]
fn a_full_server_says_so_and_a_place_that_is_left_is_taken() {
    run(async {
        let server = start(Config { clients: 2, ..config(FRAMINGS[0]) }).await;
        let ann = join(&server, "lobby", "ann").await;
        let _bob = join(&server, "another", "bob").await;
        assert_eq!((server.clients(), server.rooms()), (2, 2));
        let error = Client::join(server.address(), "lobby", "carol").await.unwrap_err();
        assert!(error.to_string().contains("503"), "{error}");
        drop(ann);
        until(|| server.clients() == 1).await;
        join(&server, "lobby", "carol").await;
    });
}

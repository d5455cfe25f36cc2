//! Everybody in a room receives every message of it, as it was said.

use sluicegate_examples::chat_rooms::load::{self, Load};
use sluicegate_examples::chat_rooms::publisher::{FRAME_MESSAGES, Framing};
use sluicegate_examples::chat_rooms::report::Report;
use sluicegate_examples::chat_rooms::server::Config;
use std::time::Duration;

use crate::set_up::{FRAMINGS, config, first, join, of, receive, run, start};

const ROOMS: usize = 3;
const MEMBERS: usize = 4;
const MESSAGES: usize = 300;

#[test]
fn all_members_receive_all_messages_of_each_sender_in_order() {
    for framing in FRAMINGS {
        run(async {
            let server = start(config(framing)).await;
            let mut clients = Vec::new();
            for room in 0..ROOMS {
                for member in 0..MEMBERS {
                    let (room, name) = (format!("room{room}"), format!("{room}.{member}"));
                    clients.push((join(&server, &room, &name).await, room, name));
                }
            }
            let tasks: Vec<_> = clients
                .into_iter()
                .map(|(mut client, room, name)| {
                    tokio::spawn(async move {
                        let talk = async {
                            for number in 0..MESSAGES {
                                client.sender.say(&number.to_string()).await.unwrap();
                            }
                        };
                        let receiving = receive(&mut client.receiver, MEMBERS * MESSAGES);
                        let ((), (received, frames)) = tokio::join!(talk, receiving);
                        (room, name, received, frames)
                    })
                })
                .collect();
            let mut received = Vec::new();
            for task in tasks {
                received.push(task.await.unwrap());
            }
            for (room, name, messages, frames) in &received {
                assert_eq!(messages.len(), MEMBERS * MESSAGES);
                for (_, member, ..) in received.iter().filter(|(other, ..)| other == room) {
                    let said = of(member, messages);
                    assert_eq!(said, first(member, MESSAGES), "{name} of {member}");
                }
                match framing {
                    Framing::PerMessage => assert_eq!(*frames, messages.len()),
                    Framing::Batched(_) => {
                        assert!(*frames >= messages.len() / FRAME_MESSAGES);
                        assert!(*frames < messages.len(), "nothing was batched");
                        // One batch of a room at a time: all receive the same.
                        let (.., other, _) =
                            received.iter().find(|(other, ..)| other == room).unwrap();
                        assert_eq!(messages, other);
                    }
                }
            }
            let stats = server.stop().await;
            let accepted = (ROOMS * MEMBERS * MESSAGES) as u64;
            assert_eq!((stats.accepted, stats.lost), (accepted, 0));
            assert_eq!(stats.messages, accepted * MEMBERS as u64);
        });
    }
}

#[test]
fn a_frame_waits_for_its_window() {
    run(async {
        let window = Duration::from_millis(300);
        let server = start(config(Framing::Batched(window))).await;
        let mut client = join(&server, "lobby", "ann").await;
        let since = std::time::Instant::now();
        for number in 0..10 {
            client.sender.say(&number.to_string()).await.unwrap();
        }
        let received = receive(&mut client.receiver, 10).await;
        assert_eq!(received, (first("ann", 10), 1));
        assert!(since.elapsed() >= window);
        let stats = server.stats();
        assert_eq!((stats.frames, stats.frames_saved()), (1, 9));
        assert_eq!(stats.messages_per_frame(), 10.0);
    });
}

#[test]
fn any_text_comes_through() {
    run(async {
        let server = start(config(FRAMINGS[0])).await;
        let mut client = join(&server, "%C3%A9t%C3%A9%20%F0%9F%8C%B4", "o%22%5C").await;
        let text = "<b>\"\\\u{0}\u{7f}\u{2028}\n été 🌴</b>";
        client.sender.say(text).await.unwrap();
        client.sender.say("").await.unwrap();
        let (received, _) = receive(&mut client.receiver, 2).await;
        assert_eq!((received[0].from.as_str(), received[0].text.as_str()), ("o\"\\", text));
        assert_eq!(received[1].text, "");
    });
}

/// The stats of the report are those of the server and of the clients.
#[test]
fn a_load_arrives_whole() {
    run(async {
        // Not as many in each room.
        let load = Load { clients: 7, rooms: 3, rate: 200, seconds: 1 };
        let window = Duration::from_millis(20);
        let batched = load::run(&load, Config::new(Framing::Batched(window))).await.unwrap();
        let one_by_one = load::run(&load, Config::new(Framing::PerMessage)).await.unwrap();
        for outcome in [&batched, &one_by_one] {
            assert!(outcome.is_whole(&load), "{outcome:?}");
            assert_eq!((outcome.sent, outcome.arrived), (1_400, 200 * (9 + 4 + 4)));
            assert_eq!(outcome.latency.len(), outcome.arrived);
            assert_eq!(outcome.stats.messages, outcome.arrived);
        }
        assert_eq!(one_by_one.stats.frames, one_by_one.arrived);
        assert!(batched.latency(1.0) >= window);
        let report = Report { load, window, batched, one_by_one };
        // With two in a room and 400 messages a second there are at least four to a window.
        assert!(report.is_whole() && report.frames_ratio() < 0.5, "{report}");
        assert!(report.to_string().contains("frames saved"));
    });
}

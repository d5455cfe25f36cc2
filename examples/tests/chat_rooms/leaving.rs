//! Clients that go away in the middle.

use std::sync::Arc;

use sluicegate_examples::chat_rooms::client::{Client, Event};
use tokio::sync::Barrier;

use crate::set_up::{FRAMINGS, config, first, join, of, receive, run, start, until};

const STAYING: usize = 4;
const LEAVING: usize = 8;
const MESSAGES: usize = 400;

/// How a client goes.
#[derive(Clone, Copy, PartialEq)]
enum Going {
    /// With a close frame.
    Politely,
    /// As a process that ends does.
    Abruptly,
}

#[test]
fn those_who_stay_lose_nothing() {
    for framing in FRAMINGS {
        for going in [Going::Politely, Going::Abruptly] {
            run(async {
                let server = start(config(framing)).await;
                let together = Arc::new(Barrier::new(STAYING + LEAVING));
                let mut staying = Vec::new();
                for number in 0..STAYING {
                    let client = join(&server, "lobby", &format!("s{number}")).await;
                    staying.push(tokio::spawn(stay(client, together.clone(), going)));
                }
                for number in 0..LEAVING {
                    let client = join(&server, "lobby", &format!("l{number}")).await;
                    tokio::spawn(leave(client, together.clone(), going));
                }
                for task in staying {
                    task.await.unwrap();
                }
                until(|| server.clients() == 0).await;
                assert_eq!(server.rooms(), 0);
                assert_eq!(server.stop().await.lost, 0);
            });
        }
    }
}

/// Says all it has to say, and receives all that the others who stay have to say, and of those who
/// leave all that they said first.
async fn stay(mut client: Client, together: Arc<Barrier>, going: Going) {
    together.wait().await;
    let talk = async {
        for number in 0..MESSAGES {
            client.sender.say(&number.to_string()).await.unwrap();
        }
    };
    let receiving = async {
        let mut received = Vec::new();
        let all_received = |received: &[_]| {
            let stayed = (0..STAYING).all(|n| of(&format!("s{n}"), received).len() == MESSAGES);
            // Those who send a close frame are read to their end.
            let left = (0..LEAVING).all(|n| of(&format!("l{n}"), received).len() == MESSAGES / 2);
            stayed && (left || going == Going::Abruptly)
        };
        while !all_received(&received) {
            match client.receiver.next().await.unwrap() {
                Event::Batch(messages) => received.extend(messages),
                other => panic!("{other:?}"),
            }
        }
        received
    };
    let ((), received) = tokio::join!(talk, receiving);
    for number in 0..STAYING {
        let name = format!("s{number}");
        assert_eq!(of(&name, &received), first(&name, MESSAGES));
    }
    for number in 0..LEAVING {
        let name = format!("l{number}");
        let said = of(&name, &received);
        assert_eq!(said, first(&name, said.len()), "a gap");
    }
}

/// Says half as much and goes without having received all.
async fn leave(mut client: Client, together: Arc<Barrier>, going: Going) {
    together.wait().await;
    for number in 0..MESSAGES / 2 {
        client.sender.say(&number.to_string()).await.unwrap();
    }
    if going == Going::Politely {
        client.sender.close().await.unwrap();
        while client.receiver.next().await.is_ok_and(|event| event != Event::Over) {}
    }
}

#[test]
fn a_close_frame_is_answered() {
    run(async {
        let server = start(config(FRAMINGS[0])).await;
        let mut client = join(&server, "lobby", "ann").await;
        client.sender.close().await.unwrap();
        assert!(matches!(client.receiver.next().await, Ok(Event::Closed(..))));
        assert_eq!(client.receiver.next().await.unwrap(), Event::Over);
        until(|| server.clients() == 0 && server.rooms() == 0).await;
    });
}

/// What was accepted from it goes to the others though it is no longer there at the window's end.
#[test]
fn messages_of_a_client_that_has_left_are_delivered() {
    run(async {
        let server = start(config(FRAMINGS[0])).await;
        let mut ann = join(&server, "lobby", "ann").await;
        let mut bob = join(&server, "lobby", "bob").await;
        for number in 0..5 {
            bob.sender.say(&number.to_string()).await.unwrap();
        }
        bob.sender.close().await.unwrap();
        drop(bob);
        let (received, _) = receive(&mut ann.receiver, 5).await;
        assert_eq!(received, first("bob", 5));
    });
}

//! What is refused, and how.

use std::time::Duration;

use sluicegate_examples::chat_rooms::client::{Client, Event, binary};
use sluicegate_examples::chat_rooms::connection::{MESSAGE_BYTES, Timeouts};
use sluicegate_examples::chat_rooms::server::Config;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message as Packet;

use crate::set_up::{FRAMINGS, config, first, join, receive, receive_all, run, start, until};

#[test]
fn what_is_no_message_closes_with_the_reason() {
    run(async {
        let server = start(config(FRAMINGS[0])).await;
        let long = format!(r#"{{"text":"{}"}}"#, "x".repeat(MESSAGE_BYTES));
        for (packet, code, named) in [
            (Packet::text("hello"), 1007, "text"),
            (Packet::text(r#"{"said":"hello"}"#), 1007, "text"),
            (binary(b"hello"), 1003, "JSON"),
            (Packet::text(long), 1009, "4096"),
        ] {
            let mut client = join(&server, "lobby", "ann").await;
            client.sender.say("0").await.unwrap();
            client.sender.send(packet).await.unwrap();
            let (_, closed, reason) = receive_all(&mut client.receiver).await;
            assert_eq!(closed, code, "{reason}");
            assert!(reason.contains(named), "{reason}");
        }
        // What had been said before counts.
        assert_eq!(server.stop().await.accepted, 4);
    });
}

/// What a frame says of its own length costs nothing: it is looked at before the rest is read.
#[test]
fn a_frame_that_announces_too_much_is_not_waited_for() {
    run(async {
        let server = start(config(FRAMINGS[0])).await;
        let mut stream = TcpStream::connect(server.address()).await.unwrap();
        let request = "GET /rooms/lobby?name=ann HTTP/1.1\r\nHost: localhost\r\n\
                       Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        stream.write_all(request.as_bytes()).await.unwrap();
        until(|| server.clients() == 1).await;
        let ten_mebibytes = u64::to_be_bytes(10 << 20);
        stream.write_all(&[&[0x81, 0xff][..], &ten_mebibytes, &[0; 4]].concat()).await.unwrap();
        // Long before it has been silent for too long.
        let limit = config(FRAMINGS[0]).timeouts.idle / 4;
        let gone = async {
            while server.clients() > 0 {
                tokio::task::yield_now().await
            }
        };
        tokio::time::timeout(limit, gone).await.expect("it waits for ten mebibytes");
    });
}

#[test]
fn the_longest_message_is_one() {
    run(async {
        let server = start(config(FRAMINGS[0])).await;
        let mut client = join(&server, "lobby", "ann").await;
        let text = "x".repeat(MESSAGE_BYTES - r#"{"text":""}"#.len());
        client.sender.say(&text).await.unwrap();
        assert_eq!(receive(&mut client.receiver, 1).await.0[0].text, text);
    });
}

#[test]
fn odd_names_are_refused() {
    run(async {
        let server = start(config(FRAMINGS[0])).await;
        let long = "x".repeat(65);
        for (room, name) in [("lobby", ""), ("lobby", &long), (&long, "ann"), ("lobby", "a%0Ab")] {
            let error = Client::join(server.address(), room, name).await.unwrap_err();
            assert!(error.to_string().contains("400"), "{error}");
        }
    });
}

#[test]
fn one_that_answers_stays_and_one_of_whom_nothing_is_heard_goes() {
    run(async {
        let timeouts = Timeouts {
            ping_interval: Duration::from_millis(20),
            idle: Duration::from_millis(500),
            ..config(FRAMINGS[0]).timeouts
        };
        let server = start(Config { timeouts, ..config(FRAMINGS[0]) }).await;
        let mut there = join(&server, "lobby", "there").await;
        let mut mute = join(&server, "lobby", "mute").await;
        // It listens, and so it answers, until the other is closed: three times as long.
        let listens = async {
            let since = std::time::Instant::now();
            while since.elapsed() < 3 * timeouts.idle {
                let next = there.receiver.next();
                if let Ok(event) = tokio::time::timeout(timeouts.idle, next).await {
                    panic!("{event:?}");
                }
            }
        };
        listens.await;
        there.sender.say("0").await.unwrap();
        assert_eq!(receive(&mut there.receiver, 1).await.0, first("there", 1));

        let mut event = mute.receiver.next().await.unwrap();
        while let Event::Batch(_) = event {
            event = mute.receiver.next().await.unwrap();
        }
        assert!(matches!(event, Event::Closed(1008, reason) if reason.contains("received")));
    });
}

#[test]
fn the_page_is_served() {
    run(async {
        let server = start(config(FRAMINGS[0])).await;
        let mut stream = TcpStream::connect(server.address()).await.unwrap();
        let request = "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("text/html"), "{answer}");
        assert!(answer.ends_with("</html>\n"), "{answer}");
    });
}

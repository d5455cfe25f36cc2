//! Bad neighbours: silent sockets, broken frames, readers that are too slow, web pages elsewhere.

use std::time::Duration;

use sluicegate_examples::chat_rooms::client::Client;
use sluicegate_examples::chat_rooms::connection::Timeouts;
use sluicegate_examples::chat_rooms::outbox::{Bounds, Memory, Overflow, outbox};
use sluicegate_examples::chat_rooms::protocol::Frame;
use sluicegate_examples::chat_rooms::server::{Config, SPARE_CONNECTIONS, Server};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message as Packet;

use crate::set_up::{FRAMINGS, config, join, receive, receive_all, run, start, until};

/// As many connections as there may be, on which nothing, a part of a request, or another request now
/// and then is sent.
#[test]
fn sockets_that_ask_for_nothing_do_not_keep_others_out() {
    run(async {
        let request = Duration::from_millis(300);
        let timeouts = Timeouts { request, close: request, ..config(FRAMINGS[0]).timeouts };
        let config = Config { clients: 2, timeouts, ..config(FRAMINGS[0]) };
        let most = config.clients + SPARE_CONNECTIONS;
        let server = start(config).await;
        let page = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
        let mut silent = Vec::new();
        for number in 0..most {
            let mut stream = TcpStream::connect(server.address()).await.unwrap();
            let sent = match number % 3 {
                0 => "",
                1 => "GET /rooms/lobby",
                _ => page,
            };
            stream.write_all(sent.as_bytes()).await.unwrap();
            silent.push(stream);
        }
        let joined = timeout(20 * request, Client::join(server.address(), "lobby", "ann")).await;
        joined.expect("it is kept out").unwrap();
        // In its own time, for each of them.
        until(|| server.stats().timed_out == u64::from(most)).await;
        drop(silent);
    });
}

/// Joins by hand.
async fn join_by_hand(server: &Server, receive_buffer: Option<u32>) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    if let Some(bytes) = receive_buffer {
        socket.set_recv_buffer_size(bytes).unwrap();
    }
    let mut stream = socket.connect(server.address()).await.unwrap();
    let request = "GET /rooms/lobby?name=ann HTTP/1.1\r\nHost: localhost\r\n\
                   Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    until(|| server.clients() == 1).await;
    stream
}

/// Joins and sends these bytes; returns the code and the reason of the close frame.
async fn close_frame_after(server: &Server, bytes: &[u8]) -> (u16, String) {
    let mut stream = join_by_hand(server, None).await;
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    drop(stream);
    until(|| server.clients() == 0).await;
    close_frame(&answer)
}

/// The last of these frames: the code and the reason.
fn close_frame(answer: &[u8]) -> (u16, String) {
    // The last frame is short: its length is one byte.
    let at = answer.iter().rposition(|byte| *byte == 0x88).expect("no close frame");
    let payload = &answer[at + 2..];
    assert_eq!(payload.len(), usize::from(answer[at + 1]));
    let code = u16::from_be_bytes([payload[0], payload[1]]);
    (code, String::from_utf8(payload[2..].to_vec()).unwrap())
}

#[test]
fn broken_frames_are_answered_with_the_code_that_the_protocol_has_for_them() {
    run(async {
        let server = start(config(FRAMINGS[0])).await;
        let ten_mebibytes = u64::to_be_bytes(10 << 20);
        let too_long = [&[0x81, 0xff][..], &ten_mebibytes, &[0; 4]].concat();
        // What is never read must not cost the reason either.
        let and_more = [&too_long[..], &[0; 300_000]].concat();
        for (bytes, code, named) in [
            // Not masked; with a reserved bit; an operation that there is not; a fragment of nothing.
            (&[0x81, 0x02, b'h', b'i'][..], 1002, "protocol"),
            (&[0xf1, 0x80, 0, 0, 0, 0], 1002, "protocol"),
            (&[0x83, 0x80, 0, 0, 0, 0], 1002, "protocol"),
            (&[0x80, 0x80, 0, 0, 0, 0], 1002, "protocol"),
            (&[0x81, 0x82, 0, 0, 0, 0, 0xc3, 0x28], 1007, "UTF-8"),
            (&too_long, 1009, "4096"),
            (&and_more, 1009, "4096"),
        ] {
            let (closed, reason) = close_frame_after(&server, bytes).await;
            assert_eq!(closed, code, "{:x?}: {reason}", &bytes[..2]);
            assert!(reason.contains(named), "{reason}");
        }
        assert_eq!(server.stop().await.malformed, 7);
    });
}

/// What it sends meanwhile is not read any more when it is closed, and must not cost it the reason.
#[test]
fn a_slow_reader_that_talks_is_told_the_reason() {
    for _ in 0..10 {
        run(async {
            let outbox = Bounds { frames: 1_000, bytes: 64 * 1_024 };
            let server = start(Config { outbox, ..config(FRAMINGS[0]) }).await;
            let Client { mut sender, mut receiver } = join(&server, "lobby", "slow").await;
            let mut ann = join(&server, "lobby", "ann").await;
            // It talks until it no longer can.
            let talk = tokio::spawn(async move {
                while sender.send(Packet::Ping(vec![0; 100].into())).await.is_ok() {}
            });
            let filling = "x".repeat(3_000);
            while server.stats().too_slow == 0 {
                for _ in 0..20 {
                    ann.sender.say(&filling).await.unwrap();
                }
                receive(&mut ann.receiver, 20).await;
            }
            // Some time after it was told, and later than everything that it sent.
            tokio::time::sleep(Duration::from_millis(50)).await;
            let (_, code, reason) = receive_all(&mut receiver).await;
            assert_eq!((code, reason.contains("slow")), (1008, true), "{reason}");
            talk.abort();
        });
    }
}

/// It reads 200 KB a second: what the system holds for it must not take longer than it is given.
#[test]
fn a_reader_that_is_too_slow_gets_the_reason_in_time() {
    run(async {
        let outbox = Bounds { frames: 1_000, bytes: 64 * 1_024 };
        let close = Duration::from_secs(3);
        let timeouts = Timeouts { close, ..config(FRAMINGS[0]).timeouts };
        let server = start(Config { outbox, timeouts, ..config(FRAMINGS[0]) }).await;
        let mut slow = join_by_hand(&server, Some(4_096)).await;
        let mut ann = join(&server, "lobby", "ann").await;
        let read = tokio::spawn(async move {
            let (mut all, mut part) = (Vec::new(), [0; 4_000]);
            loop {
                tokio::time::sleep(Duration::from_millis(20)).await;
                match slow.read(&mut part).await.unwrap() {
                    0 => return all,
                    bytes => all.extend(&part[..bytes]),
                }
            }
        });
        let filling = "x".repeat(3_000);
        while server.stats().too_slow == 0 {
            for _ in 0..20 {
                ann.sender.say(&filling).await.unwrap();
            }
            receive(&mut ann.receiver, 20).await;
        }
        let (code, reason) = close_frame(&read.await.unwrap());
        assert_eq!((code, reason.contains("slow")), (1008, true), "{reason}");
    });
}

/// The status with which a request to join from this page is answered.
async fn status(server: &Server, host: &str, origin: &str) -> u16 {
    let mut stream = TcpStream::connect(server.address()).await.unwrap();
    let request = format!(
        "GET /rooms/lobby?name=ann HTTP/1.1\r\nHost: {host}\r\nOrigin: {origin}\r\n\
         Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    std::str::from_utf8(&answer[9..]).unwrap().parse().unwrap()
}

#[test]
fn a_web_page_elsewhere_may_not_join_unless_it_is_named() {
    run(async {
        let origins = vec!["https://chat.example".to_owned()];
        let server = start(Config { origins, ..config(FRAMINGS[0]) }).await;
        let host = server.address().to_string();
        for (origin, expected) in [
            (format!("http://{host}"), 101),
            ("https://chat.example".to_owned(), 101),
            ("http://evil.example".to_owned(), 403),
            ("null".to_owned(), 403),
        ] {
            assert_eq!(status(&server, &host, &origin).await, expected, "{origin}");
        }
        assert_eq!(status(&server, "evil.example", "http://evil.example").await, 403);
        assert_eq!(server.stats().forbidden, 3);
    });
}

/// Clients that do not read have all that is not shared out, and one that keeps up still has its own.
#[test]
fn what_waits_for_all_clients_together_is_bounded_and_each_has_a_share() {
    let frame = Frame::joined("lobby", "ann");
    let bytes = frame.text.len();
    let bounds = Bounds { frames: 1_000, bytes: 1_000 * bytes };
    // One frame of each of four, and four for all.
    let memory = Memory::new(8 * bytes, 4);
    let mut all: Vec<_> = (0..4).map(|_| outbox(bounds, &memory)).collect();
    let (slow, others) = all.split_at_mut(3);
    let mut waiting = 0;
    for (sender, _) in slow.iter() {
        while sender.put(&frame) == Ok(()) {
            waiting += 1;
        }
    }
    assert_eq!(waiting, 3 + 4);
    let (sender, receiver) = &mut others[0];
    for _ in 0..10 {
        assert_eq!(sender.put(&frame), Ok(()));
        assert!(receiver.try_next().is_some());
    }
    assert_eq!([(); 2].map(|()| sender.put(&frame)), [Ok(()), Err(Overflow)]);
    // What is no longer waiting is there for all.
    drop(all);
    let (sender, _receiver) = outbox(bounds, &memory);
    assert_eq!([(); 5].map(|()| sender.put(&frame)), [Ok(()); 5]);
}

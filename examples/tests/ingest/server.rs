//! A Jetstream server on this machine, which gives a client a hard time.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use sluicegate_examples::ingest::generator::Generator;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::accept_hdr_async;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::http::StatusCode;

/// What the server does, one time in so many events; 0 for never.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Manners {
    /// It ends the connection in the middle of it.
    pub(crate) drops: u32,
    /// It says nothing more, and answers nothing.
    pub(crate) stalls: u32,
    /// It sends what is no WebSocket frame.
    pub(crate) garbles: u32,
    /// It closes the connection with a reason.
    pub(crate) closes: u32,
    /// It refuses the next request.
    pub(crate) refuses: bool,
}

#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    /// The queries of all requests.
    pub(crate) queries: Arc<Mutex<Vec<String>>>,
}

impl Server {
    /// Serves `events` until the runtime ends; each connection gets those from its cursor on.
    pub(crate) async fn start(events: Vec<String>, manners: Manners) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let queries: Arc<Mutex<Vec<String>>> = Arc::default();
        let (asked, events) = (queries.clone(), Arc::new(events));
        tokio::spawn(async move {
            for seed in 0.. {
                let Ok((stream, _)) = listener.accept().await else { return };
                let (asked, events) = (asked.clone(), events.clone());
                tokio::spawn(async move { serve(stream, &events, manners, &asked, seed).await });
            }
        });
        Self { address, queries }
    }

    pub(crate) fn url(&self) -> String {
        format!("ws://{}/subscribe", self.address)
    }

    /// The cursors that were asked for.
    pub(crate) fn cursors(&self) -> Vec<Option<u64>> {
        let queries = self.queries.lock().unwrap();
        queries.iter().map(|query| cursor_of(query)).collect()
    }
}

fn cursor_of(query: &str) -> Option<u64> {
    let cursor = query.split('&').find_map(|part| part.strip_prefix("cursor="))?;
    Some(cursor.parse().unwrap())
}

async fn serve(
    stream: TcpStream,
    events: &[String],
    manners: Manners,
    queries: &Mutex<Vec<String>>,
    seed: u64,
) {
    let mut query = String::new();
    #[expect(clippy::result_large_err, reason = "so the library has it")]
    let answer = |request: &Request, response: Response| {
        query = request.uri().query().unwrap_or_default().to_owned();
        let refusal = || {
            let mut refusal = ErrorResponse::new(None);
            *refusal.status_mut() = StatusCode::NOT_FOUND;
            refusal
        };
        if manners.refuses { Err(refusal()) } else { Ok(response) }
    };
    let accepted = accept_hdr_async(stream, answer).await;
    queries.lock().unwrap().push(query.clone());
    let Ok(mut socket) = accepted else { return };
    let cursor = cursor_of(&query).unwrap_or(0);
    let first = events.iter().position(|event| time(event).is_some_and(|time| time >= cursor));
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut happens = |one_in: u32| one_in > 0 && random.random_range(0..one_in) == 0;
    for event in &events[first.unwrap_or(events.len())..] {
        if happens(manners.drops) {
            return;
        }
        if happens(manners.stalls) {
            tokio::time::sleep(Duration::from_secs(3_600)).await;
        }
        if happens(manners.garbles) {
            let _ = socket.get_mut().write_all(&[0xff; 40]).await;
        }
        if happens(manners.closes) {
            let _ = socket.close(None).await;
            return;
        }
        let frame = if happens(5) {
            Message::binary(event.clone().into_bytes())
        } else {
            Message::text(event.clone())
        };
        if socket.send(frame).await.is_err() {
            return;
        }
    }
    // Pings are answered as they are read.
    while let Some(Ok(_)) = socket.next().await {}
}

pub(crate) fn time(event: &str) -> Option<u64> {
    let (_, rest) = event.split_once(r#""time_us":"#)?;
    rest.split(',').next()?.parse().ok()
}

/// Generated events as a server sends them: 50 a second by their cursors, which go backwards at times;
/// most changes have a revision, and some events come twice.
pub(crate) fn events(seed: u64, count: u64) -> Vec<String> {
    let mut sent: HashMap<String, String> = HashMap::new();
    let mut events = Vec::new();
    for (nth, line) in (0_u64..).zip(Generator::new(seed, count)) {
        let event = sent.entry(line).or_insert_with_key(|line| {
            let before = time(line).unwrap();
            let now = before / 1_000_000 * 1_000_000 + (nth ^ 3) * 20_000;
            let line = line.replace(&before.to_string(), &now.to_string());
            let rev = format!(r#""commit":{{"rev":"{nth}","#);
            if nth % 3 > 0 { line.replace(r#""commit":{"#, &rev) } else { line }
        });
        events.push(event.clone());
        if nth % 1_000 == 500 {
            events.push(format!("nonsense {nth}"));
        }
    }
    events
}

/// Each event once, as a client is to take it.
pub(crate) fn distinct(events: &[String]) -> Vec<String> {
    let mut seen = std::collections::HashSet::new();
    events.iter().filter(|event| seen.insert(*event)).cloned().collect()
}

//! Many clients that send at a steady rate, and what they receive.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt, future, stream};
use hdrhistogram::Histogram;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use super::client::{Client, Error, Event, Receiver, Sender};
use super::server::{Config, Server};
use super::stats::Stats;

/// How many clients send, and how much.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Load {
    /// Clients, as many in one room as in another.
    pub clients: usize,
    /// Rooms.
    pub rooms: usize,
    /// What each client says in a second; at least 1.
    pub rate: u32,
    /// For how long they talk.
    pub seconds: u32,
}

/// What came of a load.
#[derive(Debug)]
pub struct Outcome {
    /// Messages that clients sent.
    pub sent: u64,
    /// Messages that should have arrived: each one at every client in its room, the sender included.
    pub expected: u64,
    /// Messages that arrived.
    pub arrived: u64,
    /// Those of them that did not follow the one their sender had sent before.
    pub out_of_order: u64,
    /// Clients that got the close frame of a server that stops.
    pub closed_cleanly: u64,
    /// From when a message was due to be sent until it arrived, in microseconds.
    pub latency: Histogram<u64>,
    /// What the server counted.
    pub stats: Stats,
    /// The processor's time that server and clients took, where the system tells.
    pub cpu: Option<Duration>,
}

impl Outcome {
    /// Whether each message arrived wherever it should, in order, and each client got a close frame.
    pub fn is_whole(&self, load: &Load) -> bool {
        let Self { expected, arrived, out_of_order, closed_cleanly, stats, .. } = self;
        expected == arrived
            && *out_of_order == 0
            && *closed_cleanly == load.clients as u64
            && stats.lost == 0
    }

    /// The latency below which this share of messages stayed.
    pub fn latency(&self, quantile: f64) -> Duration {
        Duration::from_micros(self.latency.value_at_quantile(quantile))
    }
}

/// Clients that connect at once.
const CONNECTING: usize = 32;
/// From the last client's coming in to the first message.
const START_DELAY: Duration = Duration::from_millis(100);
/// How long a client may take to come in, and the last messages to arrive.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The longest latency that is told apart.
const LONGEST: Duration = Duration::from_secs(60);

/// Starts a server, has the clients talk, and stops the server while they are all still there.
///
/// # Errors
///
/// If the server does not start, or a client cannot come in.
pub async fn run(load: &Load, config: Config) -> Result<Outcome, Error> {
    let server = Server::start((Ipv4Addr::LOCALHOST, 0).into(), config).await?;
    let clients = connect(load, server.address()).await?;

    let cpu = cpu_time();
    let all = std::sync::Arc::new(Clients::new(*load)?);
    let (receiving, mut all_received) = mpsc::channel::<()>(1);
    let tasks: Vec<_> = clients
        .into_iter()
        .enumerate()
        .map(|(number, client)| {
            let (all, receiving) = (all.clone(), receiving.clone());
            tokio::spawn(async move {
                future::join(
                    all.talk(number, client.sender),
                    all.listen(number, client.receiver, receiving),
                )
                .await;
            })
        })
        .collect();
    drop(receiving);

    // Nothing is sent on it: it closes when the last client has received everything.
    let _ = timeout_at(all.end() + TIMEOUT, all_received.recv()).await;
    let cpu = cpu_time().zip(cpu).map(|(after, before)| after.saturating_sub(before));
    let stats = server.stop().await;
    for task in tasks {
        timeout(TIMEOUT, task).await??;
    }
    Ok(all.outcome(stats, cpu))
}

/// All of them, or what keeps the first one out that cannot come in.
async fn connect(load: &Load, server: SocketAddr) -> Result<Vec<Client>, Error> {
    let join = |number: usize| async move {
        let (room, name) = (format!("room{}", load.room(number)), number.to_string());
        match timeout(TIMEOUT, Client::join(server, &room, &name)).await {
            Ok(client) => client.map_err(|error| format!("client {number}: {error}").into()),
            Err(_) => Err(format!("client {number} could not join within {TIMEOUT:?}").into()),
        }
    };
    stream::iter(0..load.clients).map(join).buffered(CONNECTING).try_collect().await
}

impl Load {
    fn room(&self, client: usize) -> usize {
        client % self.rooms
    }

    fn members(&self, room: usize) -> usize {
        (self.clients + self.rooms - 1 - room) / self.rooms
    }

    fn messages(&self) -> u64 {
        u64::from(self.rate) * u64::from(self.seconds)
    }
}

/// What all clients share.
#[derive(Debug)]
struct Clients {
    load: Load,
    start: Instant,
    sent: Vec<AtomicU64>,
    arrived: AtomicU64,
    out_of_order: AtomicU64,
    closed_cleanly: AtomicU64,
    latency: Mutex<Histogram<u64>>,
}

impl Clients {
    fn new(load: Load) -> Result<Self, Error> {
        Ok(Self {
            load,
            start: Instant::now() + START_DELAY,
            sent: (0..load.rooms).map(|_| AtomicU64::new(0)).collect(),
            arrived: AtomicU64::new(0),
            out_of_order: AtomicU64::new(0),
            closed_cleanly: AtomicU64::new(0),
            latency: Mutex::new(Histogram::new_with_bounds(1, LONGEST.as_micros() as u64, 3)?),
        })
    }

    fn end(&self) -> Instant {
        self.start + Duration::from_secs(self.load.seconds.into())
    }

    /// Each message is due at an instant of its own, whatever became of those before: a server
    /// that falls behind does not slow the load down. Clients are out of step with each other.
    async fn talk(&self, number: usize, mut sender: Sender) {
        let period = Duration::from_secs(1) / self.load.rate;
        let first = self.start + period.mul_f64(number as f64 / self.load.clients as f64);
        for message in 0..self.load.messages() {
            let due = first + period.mul_f64(message as f64);
            sleep_until(due).await;
            let micros = due.duration_since(self.start).as_micros();
            if sender.say(&format!("{message} {micros}")).await.is_err() {
                // Its receiver learn why.
                return;
            }
            self.sent[self.load.room(number)].fetch_add(1, Relaxed);
        }
    }

    /// Receives until the connection is over; drops `receiving` once everything has arrived.
    async fn listen(&self, number: usize, mut receiver: Receiver, receiving: mpsc::Sender<()>) {
        let mut receiving = Some(receiving);
        let mut left = self.load.members(self.load.room(number)) as u64 * self.load.messages();
        let mut next = HashMap::new();
        loop {
            if left == 0 {
                receiving = None;
            }
            match receiver.next().await {
                Ok(Event::Batch(messages)) => {
                    left = left.saturating_sub(messages.len() as u64);
                    self.received(&messages, &mut next);
                }
                Ok(Event::Closed(1001, _)) => {
                    self.closed_cleanly.fetch_add(1, Relaxed);
                }
                Ok(Event::Closed(..)) => {}
                Ok(Event::Over) | Err(_) => break,
            }
        }
        drop(receiving);
    }

    fn received(&self, messages: &[super::protocol::Message], next: &mut HashMap<String, u64>) {
        let now = self.start.elapsed().as_micros() as u64;
        let mut out_of_order = 0;
        let mut latency = self.latency.lock().unwrap();
        for message in messages {
            let Some((number, due)) = parse(&message.text) else {
                out_of_order += 1;
                continue;
            };
            latency.saturating_record(now.saturating_sub(due));
            match next.get_mut(&message.from) {
                Some(next) if *next == number => *next += 1,
                None if number == 0 => {
                    next.insert(message.from.clone(), 1);
                }
                _ => out_of_order += 1,
            }
        }
        drop(latency);
        self.arrived.fetch_add(messages.len() as u64, Relaxed);
        self.out_of_order.fetch_add(out_of_order, Relaxed);
    }

    fn outcome(&self, stats: Stats, cpu: Option<Duration>) -> Outcome {
        let sent = || self.sent.iter().map(|sent| sent.load(Relaxed)).enumerate();
        Outcome {
            sent: sent().map(|(_, sent)| sent).sum(),
            expected: sent().map(|(room, sent)| sent * self.load.members(room) as u64).sum(),
            arrived: self.arrived.load(Relaxed),
            out_of_order: self.out_of_order.load(Relaxed),
            closed_cleanly: self.closed_cleanly.load(Relaxed),
            latency: self.latency.lock().unwrap().clone(),
            stats,
            cpu,
        }
    }
}

/// The number of a message and when it was due, in microseconds.
fn parse(text: &str) -> Option<(u64, u64)> {
    let (number, due) = text.split_once(' ')?;
    Some((number.parse().ok()?, due.parse().ok()?))
}

/// What this process took of the processors so far.
fn cpu_time() -> Option<Duration> {
    /// The unit of these fields, which Linux keeps whatever its own clock is.
    const TICK: Duration = Duration::from_millis(10);
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The name of the program is in parentheses, and may be anything.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut ticks = fields.split_whitespace().skip(11).map(|ticks| ticks.parse::<u32>().ok());
    Some(TICK * (ticks.next()?? + ticks.next()??))
}

//! Where lines come from: a thread that reads and parses, and a bounded channel out of it.

use std::fs::File;
use std::future::Future;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::thread;

use futures_util::Stream;
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::event::{Event, MAX_LINE, Malformed, parse};
use super::generator::Generator;

/// How far the thread may read ahead of the pipeline, in lines, and how many slots it waits for at
/// once: it is not woken for each.
const AHEAD: usize = 1_024;
const BURST: usize = 256;

/// A point between two lines of an input, from which it can be read again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Lines before it, blank ones counted.
    pub line: u64,
    /// Bytes before it; of generated lines their number, of a live stream its cursor.
    pub offset: u64,
}

/// A line that is not blank.
#[derive(Debug)]
pub struct Line {
    /// Where it ends. Its number is that of the lines before there, itself included.
    pub end: Place,
    /// What it says, as [`parse`] has it.
    pub event: Result<Option<Event>, Malformed>,
}

/// What comes out of a source.
#[derive(Debug)]
pub enum Arrived {
    /// The next line.
    Line(Line),
    /// Lines are missing here: the source did not wait for the pipeline.
    Gap {
        /// How many.
        lines: u64,
        /// The number of the line that follows, if one does.
        before: Option<u64>,
    },
}

impl From<Line> for Arrived {
    fn from(line: Line) -> Self {
        Self::Line(line)
    }
}

/// A line as it stands in the input.
#[derive(Debug)]
pub struct RawLine {
    /// Where it ends.
    pub end: Place,
    /// What it holds; cut if that is more than [`MAX_LINE`].
    pub bytes: Vec<u8>,
}

/// Lines as they stand in the input, blank ones included.
pub type RawLines = Box<dyn Iterator<Item = io::Result<RawLine>> + Send>;

/// The lines of a file from `start` on.
///
/// # Errors
///
/// If it cannot be opened or read.
pub fn file(path: &Path, start: Place) -> io::Result<RawLines> {
    let mut input = File::open(path)?;
    if start.offset > 0 {
        input.seek(SeekFrom::Start(start.offset))?;
    }
    let mut input = BufReader::new(input);
    // A directory opens, but does not read.
    input.fill_buf()?;
    Ok(Box::new(RawReader { input, end: start }))
}

/// The lines of standard input.
pub fn standard_input() -> RawLines {
    Box::new(RawReader { input: BufReader::new(io::stdin()), end: Place::default() })
}

/// Generated lines from `start` on.
pub fn generated(lines: Generator, start: Place) -> RawLines {
    let numbered = (1..).zip(lines).skip(start.line.try_into().unwrap_or(usize::MAX));
    Box::new(numbered.map(|(line, text)| {
        Ok(RawLine { end: Place { line, offset: line }, bytes: text.into_bytes() })
    }))
}

/// Cuts lines that are too long rather than keep all of them in memory.
struct RawReader<R> {
    input: R,
    end: Place,
}

impl<R: BufRead> RawReader<R> {
    /// The next line and how long it is in the input; nothing at the end.
    fn read(&mut self) -> io::Result<(Vec<u8>, usize)> {
        let mut line = Vec::new();
        let mut read = (&mut self.input).take(MAX_LINE as u64 + 1).read_until(b'\n', &mut line)?;
        if line.len() > MAX_LINE && !line.ends_with(b"\n") {
            read += self.input.skip_until(b'\n')?;
        }
        Ok((line, read))
    }
}

impl<R: BufRead> Iterator for RawReader<R> {
    type Item = io::Result<RawLine>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.read() {
            Ok((_, 0)) => None,
            Ok((bytes, read)) => {
                self.end.line += 1;
                self.end.offset += read as u64;
                Some(Ok(RawLine { end: self.end, bytes }))
            }
            Err(error) => Some(Err(error)),
        }
    }
}

/// The lines of an input, read ahead by a thread of their own, and no further once `stop` is done.
/// What had been read ahead by then still comes.
///
/// # Panics
///
/// Outside of a tokio runtime.
pub fn lines(
    raw: RawLines,
    stop: impl Future<Output = ()> + Send + 'static,
) -> impl Stream<Item = io::Result<Line>> {
    let (sender, receiver) = mpsc::channel(AHEAD);
    let runtime = Handle::current();
    thread::spawn(move || read(raw, &sender, &runtime));
    Lines { receiver, stop: Some(Box::pin(stop)) }
}

pub(super) fn parsed(raw: RawLines) -> impl Iterator<Item = io::Result<Line>> {
    raw.filter_map(|line| match line {
        Ok(RawLine { end, bytes }) => {
            let line = without_byte_order_mark(end.line, &bytes).trim_ascii();
            (!line.is_empty()).then(|| Ok(Line { end, event: parse(line) }))
        }
        Err(error) => Some(Err(error)),
    })
}

/// Editors and exports put one in front of the first line.
fn without_byte_order_mark(number: u64, line: &[u8]) -> &[u8] {
    let mark = if number == 1 { "\u{feff}".as_bytes() } else { b"" };
    line.strip_prefix(mark).unwrap_or(line)
}

/// Ends after the last line, after an error, or when the receiver is gone.
fn read(raw: RawLines, sender: &mpsc::Sender<io::Result<Line>>, runtime: &Handle) {
    let mut lines = parsed(raw);
    while let Ok(places) = runtime.block_on(sender.reserve_many(BURST)) {
        for place in places {
            let Some(line) = lines.next() else { return };
            let last = line.is_err();
            place.send(line);
            if last {
                return;
            }
        }
    }
}

struct Lines {
    receiver: mpsc::Receiver<io::Result<Line>>,
    /// `None` once it is done.
    stop: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl Stream for Lines {
    type Item = io::Result<Line>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(stop) = &mut self.stop
            && stop.as_mut().poll(cx).is_ready()
        {
            self.stop = None;
            self.receiver.close();
        }
        match self.receiver.poll_recv(cx) {
            // The thread may be stuck in a read, with places still reserved.
            Poll::Pending if self.stop.is_none() => Poll::Ready(None),
            polled => polled,
        }
    }

    /// At least what was read ahead.
    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.receiver.len(), None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(text: &[u8]) -> Vec<Vec<u8>> {
        let mut rest = text;
        let lines = RawReader { input: text, end: Place::default() }.zip(1..).map(|(line, nth)| {
            let RawLine { end, bytes } = line.unwrap();
            let consumed = end.offset as usize - (text.len() - rest.len());
            rest = &rest[consumed..];
            assert!(rest.is_empty() || text[..end.offset as usize].ends_with(b"\n"));
            assert_eq!(end.line, nth);
            bytes
        });
        lines.collect()
    }

    #[test]
    fn lines_end_at_newlines_and_at_the_end() {
        assert_eq!(raw(b"a\n\nb"), [&b"a\n"[..], b"\n", b"b"]);
        assert!(raw(b"").is_empty());
    }

    #[test]
    fn a_line_that_is_too_long_is_cut_and_the_next_one_is_whole() {
        let mut text = vec![b'x'; 3 * MAX_LINE];
        text.extend(b"\nnext\n");
        let lines = raw(&text);
        assert_eq!((lines.len(), lines[0].len(), &*lines[1]), (2, MAX_LINE + 1, &b"next\n"[..]));
        assert!(parse(&lines[0]).is_err());
    }

    #[test]
    fn a_line_of_just_the_longest_length_is_whole() {
        let mut text = vec![b'x'; MAX_LINE];
        text.extend(b"\nnext\n");
        assert_eq!(raw(&text).len(), 2);
    }
}

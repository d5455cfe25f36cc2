//! All items in one task.

use std::cell::Cell;
use std::future::Future;

use futures_buffered::BufferedStreamExt;
use futures_concurrency::prelude::*;
use futures_util::{StreamExt, stream};
use sluicegate::BatchExecutor;
use sluicegate_benches::{Cost, Scale, timed};

use crate::work::{Kind, RUNTIME, with_work};

fn measure<F: Future>(items: u64, run: F, count: impl FnOnce(&F::Output) -> usize) -> Cost {
    let mut output = None;
    let cost = timed(items, || output = Some(RUNTIME.block_on(run)));
    assert_eq!(output.as_ref().map(count), Some(items as usize));
    cost
}

pub(crate) fn ours(kind: Kind, limit: usize, scale: Scale) -> Cost {
    let (items, executor) = (kind.items(scale), BatchExecutor::new(limit).unwrap());
    with_work!(kind, |f| measure(items, executor.all_settled(0..items, f), |all| all.len()))
}

pub(crate) fn futures_buffered(kind: Kind, limit: usize, scale: Scale) -> Cost {
    let items = kind.items(scale);
    with_work!(kind, |f| {
        let run = stream::iter((0..items).map(f)).buffered_ordered(limit).collect::<Vec<_>>();
        measure(items, run, Vec::len)
    })
}

pub(crate) fn buffered(kind: Kind, limit: usize, scale: Scale) -> Cost {
    let items = kind.items(scale);
    with_work!(kind, |f| {
        let run = stream::iter((0..items).map(f)).buffered(limit).collect::<Vec<_>>();
        measure(items, run, Vec::len)
    })
}

pub(crate) fn buffer_unordered(kind: Kind, limit: usize, scale: Scale) -> Cost {
    let items = kind.items(scale);
    with_work!(kind, |f| {
        let run = stream::iter((0..items).map(f)).buffer_unordered(limit).collect::<Vec<_>>();
        measure(items, run, Vec::len)
    })
}

pub(crate) fn futures_concurrency(kind: Kind, limit: usize, scale: Scale) -> Cost {
    let (items, done) = (kind.items(scale), Cell::new(0));
    let limit = std::num::NonZero::new(limit);
    with_work!(kind, |f| {
        let run = stream::iter(0..items).co().limit(limit).for_each(|n| {
            let (work, done) = (f(n), &done);
            async move {
                assert!(work.await.is_ok());
                done.set(done.get() + 1);
            }
        });
        measure(items, run, |()| done.get())
    })
}

pub(crate) fn roughage(kind: Kind, limit: usize, scale: Scale) -> Cost {
    let items = kind.items(scale);
    with_work!(kind, |f| {
        let run = async {
            let pipeline = roughage::AsyncPipeline::from_iter(0..items);
            pipeline.map_concurrent(f, limit).collect::<Vec<_>>().await
        };
        measure(items, run, Vec::len)
    })
}

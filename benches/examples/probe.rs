use sluicegate::BatchExecutor;
use std::time::Instant;
async fn ready(n: u64) -> Result<u64, ()> {
    Ok(std::hint::black_box(n))
}
async fn yields(n: u64) -> Result<u64, ()> {
    tokio::task::yield_now().await;
    Ok(std::hint::black_box(n))
}
fn main() {
    let rt = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    let what = std::env::args().nth(1).unwrap();
    let limit = std::env::args().nth(2).map_or(64, |n| n.parse().unwrap());
    let mut best = f64::MAX;
    let mut sum = 0.0;
    for _ in 0..60 {
        let executor = BatchExecutor::new(limit).unwrap();
        let what = what.clone();
        let start = Instant::now();
        let n = rt.block_on(async {
            tokio::spawn(async move {
                match &*what {
                    "ready" => executor.spawn(0..200_000, ready).join().await.outcomes.len(),
                    _ => executor.spawn(0..200_000, yields).join().await.outcomes.len(),
                }
            })
            .await
            .unwrap()
        });
        let t = start.elapsed().as_nanos() as f64 / n as f64;
        best = best.min(t);
        sum += t;
    }
    println!("{what}: mean {:.1} best {best:.1}", sum / 60.0);
}

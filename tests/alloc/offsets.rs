//! What the offset tracker allocates: nothing per position once its ring has grown.

use allocation_counter::measure;
use sluicegate::{Ack, OffsetTracker};

#[test]
fn positions_allocate_nothing_in_the_steady_state() {
    const IN_WORK: u64 = 1_000;
    let tracker = OffsetTracker::new(IN_WORK as usize).unwrap();
    let mut acks: Vec<Option<Ack<u64>>> = Vec::new();
    let mut position = 0;
    let mut round = |acks: &mut Vec<Option<Ack<u64>>>| {
        for _ in 0..IN_WORK {
            position += 1;
            acks.push(Some(tracker.try_track(position, position * 80).unwrap()));
        }
        // Out of order: the even ones, then the odd ones, some of them after a release.
        for odd in [0, 1] {
            for ack in acks.iter_mut().skip(odd).step_by(2) {
                ack.take().unwrap().complete();
            }
        }
        acks.clear();
        drop(tracker.try_track(position + 1, 0).unwrap());
        tracker.redeliver().unwrap().ack.complete();
        position += 1;
    };
    round(&mut acks);
    let allocated = measure(|| (0..100).for_each(|_| round(&mut acks))).count_total;
    assert_eq!(allocated, 0);
    assert_eq!(tracker.committable().unwrap().position, 101 * (IN_WORK + 1));
}

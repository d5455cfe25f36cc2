//! What waits in a resumable run: it waits again after a restart, and expires by a decision like any
//! other.

use std::convert::Infallible;

use super::journal;
use super::pipeline::{Pipeline, SWEEP_EVERY, SWEEP_STEP, Trouble};

/// Children that are read at once when they are to wait again.
const RESTORED_AT_ONCE: u32 = 1_000;

impl Pipeline {
    /// Children that waited when the last run ended wait again, in the order in which they came.
    pub(super) async fn restore(&self) {
        let mut after = 0;
        while self.ledger.is_some() {
            match self.restore_some(after).await {
                Ok(Some(last)) => after = last,
                Ok(None) => return,
                Err(why) => return self.stop_if_resumable(&why),
            }
        }
    }

    /// Those after that one, as many as are read at once. Returns the last of them.
    async fn restore_some(&self, after: u64) -> Result<Option<u64>, Trouble> {
        let waiting = {
            let register = self.register.lock().unwrap();
            journal::waiting(register.reader().connection(), after, RESTORED_AT_ONCE)?
        };
        let last = waiting.last().map(|(held, _)| held.number);
        let mut freed = Vec::new();
        for (held, age) in waiting {
            let restored = self.decide(None, |register, now| register.restore(held, age, now));
            freed.extend(restored.await?.1);
        }
        self.follow(freed).await;
        Ok(last)
    }

    /// In a resumable run that children expire is decided like all else, so that it is stored in its
    /// turn.
    pub(super) async fn keep_expiring(&self) -> Infallible {
        while self.ledger.is_some() {
            tokio::time::sleep(SWEEP_EVERY).await;
            self.expire().await;
        }
        std::future::pending().await
    }

    /// What is due now.
    pub(super) async fn expire(&self) {
        let mut some = self.ledger.is_some();
        while some {
            let expired = self.decide(None, |register, now| {
                let decision = register.expire(now, SWEEP_STEP);
                some = !decision.left.is_empty();
                Ok(decision)
            });
            if let Err(why) = expired.await {
                return self.stop_if_resumable(&why);
            }
        }
    }
}

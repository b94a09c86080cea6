//! What has expired is forgotten, a little at a time, so that no request waits for it.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::Engine;
use crate::domain::time::Timestamp;
use crate::state::ledger::Ledger;

/// All of 1,024 shards are swept every 3.2 seconds.
const SHARDS_A_SWEEP: usize = 16;
/// Where another counts, the rest is looked at every second.
const SHARDS_WITHOUT_LEDGER: usize = 320;
const SWEEP_PAUSE: Duration = Duration::from_millis(50);

impl Engine {
    /// Forgets what has expired, one shard of the ledger after the other with a pause between, until stopped.
    pub async fn forget_expired(&self, stop: CancellationToken) {
        let mut shard: usize = 0;
        while stop.run_until_cancelled(tokio::time::sleep(SWEEP_PAUSE)).await.is_some() {
            let now = self.clock.now();
            shard = self.sweep_from(shard, now);
            if shard < SHARDS_A_SWEEP {
                self.authorize_rate.forget_full(now);
                self.delegate_rate.forget_full(now);
                let after = self.policy.load().policy.quarantine_after;
                self.attempts.forget_outlived(after.map(|after| Duration::from_secs(after.window_seconds)), now);
                self.pay_what_is_owed().await;
            }
        }
    }

    /// Sweeps the next shards of the ledger; the last of them is returned.
    fn sweep_from(&self, shard: usize, now: Timestamp) -> usize {
        let ledger = self.state.ledger();
        let expired = self.state.forgettable(now);
        let shards = ledger.map_or(SHARDS_WITHOUT_LEDGER, Ledger::shards);
        let mut last = shard;
        for _ in 0..SHARDS_A_SWEEP {
            last = last.checked_add(1).filter(|next| *next < shards).unwrap_or(0);
            if let Some(ledger) = ledger {
                ledger.sweep(last, expired);
            }
        }
        if last < SHARDS_A_SWEEP
            && let Some(ledger) = ledger
        {
            ledger.forget_outlived_revocations(now);
        }
        last
    }
}

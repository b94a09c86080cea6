//! States that differ in nothing that can matter are one.

use crate::rules::{FRESH, Scope};
use crate::state::{Data, Flight, Id, State};

impl State {
    pub fn forget_what_tells_nothing(&mut self, scope: &Scope) {
        let clocks_go_wrong = scope.left.small_steps + scope.left.large_steps > 0;
        let ages_matter = scope.left.quarantines > 0;
        let is_foreign = scope.left.issues > 0;
        let versions_begin = scope.rules.later_version || scope.rules.entered_lasts;
        let numbers_matter = scope.left.revokes > 0 || versions_begin && scope.left.quarantines > 0;
        for data in self.every_data() {
            let Some(record) = &mut data.record else { continue };
            record.fence = if is_foreign { record.fence } else { 0 };
            record.seen = if clocks_go_wrong { record.seen } else { 0 };
            if scope.left.revokes == 0 {
                record.counter = record.base;
                record.latest = 0;
                data.cuts.clear();
            }
            if !numbers_matter {
                (record.base, record.counter) = (0, 0);
                data.entries.iter_mut().for_each(|entry| entry.number = 0);
            }
        }
        for node in &mut self.nodes {
            node.number = if numbers_matter { node.number } else { 0 };
            // An age says no more than whether it is too great.
            let age_matters = ages_matter && node.serving != 0;
            node.heard = if age_matters { node.heard.max(self.now - FRESH - 1) } else { 0 };
        }
        if scope.rules.random_id {
            self.name_by_rank();
        }
    }

    /// The same with the nodes in the other order, where that one is looked up. Steps keep their nodes' numbers.
    pub fn mirrored(&self) -> Option<Self> {
        let are_alike = self.nodes.iter().all(|node| node.is_up) && self.flight.is_none();
        (are_alike && self.nodes[1] < self.nodes[0]).then(|| {
            let mut mirrored = self.clone();
            mirrored.nodes.reverse();
            mirrored
        })
    }

    fn every_data(&mut self) -> impl Iterator<Item = &mut Data> {
        self.servers.iter_mut().flat_map(|server| [Some(&mut server.data), server.saved.as_deref_mut()]).flatten()
    }

    /// Of random ids only who is the same matters.
    fn name_by_rank(&mut self) {
        let mut known = Vec::with_capacity(12);
        self.every_id(&mut |id| known.push(*id));
        known.push(0);
        known.sort_unstable();
        known.dedup();
        let rank = |id: &mut Id| *id = known.partition_point(|one| *one < *id).try_into().unwrap_or(Id::MAX);
        self.every_id(&mut { rank });
        self.ids = known.len().try_into().unwrap_or(Id::MAX);
    }

    fn every_id(&mut self, with: &mut impl FnMut(&mut Id)) {
        for server in &mut self.servers {
            with(&mut server.replid);
        }
        for data in self.every_data() {
            if let Some(record) = &mut data.record {
                with(&mut record.replid);
                with(&mut record.id);
            }
            data.entries.iter_mut().for_each(|entry| with(&mut entry.epoch));
            data.cuts.iter_mut().for_each(|cut| with(&mut cut.epoch));
        }
        for node in &mut self.nodes {
            with(&mut node.named);
            with(&mut node.serving);
            with(&mut node.copied);
        }
        if let Some(Flight::Reinstate { epoch, .. }) = &mut self.flight {
            with(epoch);
        }
    }
}

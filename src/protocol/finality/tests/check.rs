//! The end of a schedule: all meet, and everything is compared.

use std::{collections::BTreeSet, rc::Rc};

use super::{
    node::{CREATOR, Node},
    world::World,
};
use crate::protocol::frontier::FrontierTip;

impl World {
    /// Lets everybody sync with everybody.
    pub(super) fn settle(&mut self) {
        self.dormant.clear();
        for peer in self.peers.values_mut() {
            peer.is_offline = false;
            peer.node.waits = false;
            peer.node.changed();
        }
        let names = self.names.clone();
        for _ in 0..3 {
            for (index, one) in names.iter().enumerate() {
                for other in &names[index + 1..] {
                    self.sync(*one, *other, 100);
                }
            }
        }
    }

    /// Removes final entries on all nodes.
    pub(super) fn prune_all(&mut self) {
        for name in self.names.clone() {
            self.prune(name);
        }
    }

    /// Returns whether a node has removed what a void branch left, and an act has named that branch since:
    /// the node has to take another one's base, which none here does.
    pub(super) fn needs_a_base(&self) -> bool {
        self.names.iter().any(|name| {
            let finality = &self.view(*name).finality;
            let below = self.below(&self.node(*name).base.tips);
            let mut beneath = finality.beneath();
            let is_other = |(_, anchor): (_, FrontierTip)| !below.contains(&anchor.id);
            beneath.any(is_other) || finality.awaited().next().is_some()
        })
    }

    /// Compares all nodes with each other and with one that never removed anything.
    pub(super) fn check(&mut self) -> Result<(), String> {
        let first = self.view(CREATOR);
        self.met[3] += first.gone.len();
        let mut known = BTreeSet::new();
        for name in &self.names {
            let view = self.view(*name);
            if view.members != first.members {
                return Err(format!("other members on {name}"));
            }
            if view.rows != first.rows {
                return Err(format!("other heads on {name}"));
            }
            known.extend(self.covered(*name));
            known.extend(self.node(*name).data.keys());
        }
        let mut whole = Node::new();
        whole.waits = false;
        for item in self.roots.values() {
            whole.root.insert(item.acts.entry, Rc::clone(item));
        }
        whole.changed();
        let mut items: Vec<_> = known.iter().map(|id| Rc::clone(&self.all[id])).collect();
        items.sort_by_key(|item| item.at);
        for item in items {
            whole.data.insert(item.at.id, item);
        }
        whole.changed();
        let view = whole.view();
        self.met[4] += view.void.len();
        if (&view.members, &view.rows) != (&first.members, &first.rows) {
            return Err("a whole node differs".to_owned());
        }
        for (id, by) in &self.written {
            let is_honest = !self.peers[by].has_forked && first.members.role(by).is_some();
            if is_honest && !view.applied.contains(id) {
                return Err(format!("{id:?} of {by} is lost"));
            }
        }
        whole.collects = false;
        whole.changed();
        for (key, row) in &whole.view().rows {
            let winner = row.last();
            let read = first.rows.get(key).and_then(BTreeSet::last);
            let is_same = match winner {
                Some((_, false)) => read.is_none_or(|(_, is_put)| !is_put),
                winner => read == winner,
            };
            if !is_same {
                return Err(format!("key {key} reads as {read:?}, not {winner:?}"));
            }
        }
        Ok(())
    }
}

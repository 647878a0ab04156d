//! Acts: the acts of one entry, and its other reserved ops as far as they need more than the entry
//! itself to count.

use std::sync::Arc;

use crate::{
    id::{Author, EntryId, StoreId},
    protocol::{
        entry::{Entry, Parent},
        frontier::FrontierTip,
        membership::{
            reserved::{Claim, claim},
            role::{Act, Role, act},
        },
        placed_act::PlacedAct,
    },
};

/// All acts of one root-store entry, and its other reserved ops as far as they need more than the
/// entry itself to count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acts {
    /// The entry, as others cite it.
    pub place: Parent,
    /// Its parents; the grant by which its author acts must be among them.
    pub cites: Vec<Parent>,
    /// Its acts, at most one on each node.
    pub acts: Vec<(Author, Act)>,
    /// True if it has other ops that count only with authority.
    pub needs_authority: bool,
    /// Its anchors acts, which do.
    pub anchors: Vec<Arc<PlacedAct>>,
    /// Stores that its author founded and whose genesis it puts.
    pub founds: Vec<StoreId>,
    /// Stores of which it puts another key.
    pub describes: Vec<StoreId>,
}

impl Acts {
    /// Returns the acts of a root-store entry; `None` if it has none, and no other reserved op that
    /// needs more than the entry to count.
    ///
    /// A delete is not an act. Nor is a put of a value that expires, because membership does not
    /// depend on a clock.
    pub fn of(entry: &Entry) -> Option<Self> {
        let author = entry.author();
        let acts: Vec<_> = entry.ops.iter().filter_map(act).collect();
        let (mut needs_authority, mut founds, mut describes) = (false, Vec::new(), Vec::new());
        for claim in entry.ops.iter().filter_map(claim) {
            match claim {
                Claim::Of(node) => needs_authority |= node != author,
                Claim::Authority => needs_authority = true,
                Claim::Genesis(store, founder) if founder == author => founds.push(store),
                Claim::Founder(store) => describes.push(store),
                Claim::Act(_) | Claim::Genesis(..) | Claim::Void => {}
            }
        }
        describes.sort_unstable();
        describes.dedup();
        needs_authority |= describes.iter().any(|store| !founds.contains(store));
        let matters = !acts.is_empty() || needs_authority || !founds.is_empty();
        matters.then(|| Self {
            place: entry.as_parent(),
            cites: entry.header.parents.clone(),
            acts,
            needs_authority,
            anchors: if needs_authority {
                PlacedAct::of(entry).into_iter().map(Arc::new).collect()
            } else {
                Vec::new()
            },
            founds,
            describes,
        })
    }

    /// Returns the grants of admin to its author that it cites. It has authority if one of them counts.
    ///
    /// `known` returns the acts of an entry, if it has any that may count. The reference must name the
    /// grant exactly, stamp and author too. An act does not wait for a grant that it names otherwise, so
    /// the answer would depend on which of the two came first.
    pub fn authorities<'a>(
        &'a self,
        known: impl Fn(&EntryId) -> Option<&'a Self>,
    ) -> impl Iterator<Item = &'a Self> {
        let cited = self.cites.iter().filter_map(move |cited| {
            let grant = known(&cited.id)?;
            (grant.place == *cited).then_some(grant)
        });
        cited.filter(|grant| grant.makes_admin(&self.place.author))
    }

    /// Returns whether it makes its `node` an admin, if it counts.
    pub fn makes_admin(&self, node: &Author) -> bool {
        let grant = Act::Grant(Role::Admin);
        let to_it = |(to, act): &(Author, Act)| to == node && *act == grant;
        self.acts.iter().any(to_it)
    }

    /// Returns whether it makes any node an admin, if it counts.
    pub fn makes_admins(&self) -> bool {
        let grant = Act::Grant(Role::Admin);
        self.acts.iter().any(|(_, act)| *act == grant)
    }

    /// Returns whether the author removes itself, which needs no authority.
    pub fn leaves(&self) -> bool {
        let removes = |(node, act): &(Author, Act)| {
            *node == self.place.author && matches!(act, Act::Remove(_))
        };
        self.acts.iter().any(removes)
    }

    /// Returns the seq and id of the entry.
    pub fn tip(&self) -> FrontierTip {
        FrontierTip {
            seq: self.place.seq,
            id: self.place.id,
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use ed25519_dalek::SigningKey;

    use super::*;
    use crate::protocol::{
        anchors_act::AnchorsAct,
        entry::{Op, sign, tests as entries},
        frontier::Frontier,
        membership::{genesis::Genesis, reserved::may_claim, role::role_key},
    };

    #[test]
    fn acts_are_puts_without_expiry() {
        let (node, other, third) = (Author([1; 32]), Author([2; 32]), Author([3; 32]));
        let put = |key, value: &'static str, expires_ms| Op::Put {
            key,
            value: value.into(),
            expires_ms,
        };
        let plain = entries::entry(entries::AUTHOR_B, 1, None, 5, "/k");
        assert_eq!(Acts::of(&plain), None);
        assert!(!may_claim(&plain.signed.encode()));
        let mut header = entries::entry(entries::AUTHOR_A, 1, None, 9, "/k")
            .header
            .clone();
        header.parents = vec![plain.as_parent()];
        let ops = vec![
            put(role_key(&node), "writer", None),
            put(role_key(&other), "admin", Some(99)),
            put(Bytes::from(format!("/nodes/{other}/info")), "admin", None),
            Op::Delete {
                key: role_key(&third),
            },
        ];
        let entry = sign(&SigningKey::from_bytes(&entries::AUTHOR_A), header, ops).unwrap();
        assert!(may_claim(&entry.signed.encode()));
        let acts = Acts::of(&entry).unwrap();
        assert_eq!(acts.acts, [(node, Act::Grant(Role::Writer))]);
        assert_eq!(acts.cites, [plain.as_parent()]);
        assert_eq!((acts.place, acts.tip().id), (entry.as_parent(), entry.id));
    }

    fn acts_of(secret: [u8; 32], keys: &[(String, Bytes)]) -> Option<Acts> {
        let header = entries::entry(secret, 1, None, 9, "/k").header.clone();
        let op = |(key, value): &(String, Bytes)| Op::Put {
            key: key.clone().into(),
            value: value.clone(),
            expires_ms: None,
        };
        let ops = keys.iter().map(op).collect();
        Acts::of(&sign(&SigningKey::from_bytes(&secret), header, ops).unwrap())
    }

    #[test]
    fn reserved_ops_that_need_more_than_the_entry_are_noted() {
        let me = entries::entry(entries::AUTHOR_A, 1, None, 1, "/k").author();
        let other = Author([2; 32]);
        let mine = Genesis {
            creator: me,
            nonce: [7; 32],
        };
        let theirs = Genesis {
            creator: other,
            nonce: [7; 32],
        };
        let key = |genesis: &Genesis| String::from_utf8(genesis.key().to_vec()).unwrap();
        let name = |genesis: &Genesis| format!("/stores/{}/name", genesis.store());
        let word = Bytes::from_static(b"x");
        let of = |keys: &[(String, Bytes)]| {
            let acts = acts_of(entries::AUTHOR_A, keys)?;
            Some((acts.needs_authority, acts.founds, acts.describes))
        };
        assert_eq!(of(&[(format!("/nodes/{me}/info"), word.clone())]), None);
        let needs = Some((true, vec![], vec![]));
        assert_eq!(of(&[(format!("/nodes/{other}/info"), word.clone())]), needs);
        assert_eq!(of(&[("/invites/1".to_owned(), word.clone())]), needs);
        // The genesis of another's store counts whoever puts it; it founds nothing.
        assert_eq!(of(&[(key(&theirs), theirs.encode())]), None);
        let (own, foreign) = (mine.store(), theirs.store());
        let founds = Some((false, vec![own], vec![own]));
        let both = [(key(&mine), mine.encode()), (name(&mine), word.clone())];
        assert_eq!(of(&both), founds);
        let describes = Some((true, vec![], vec![own]));
        assert_eq!(of(&[(name(&mine), word.clone())]), describes);
        let stolen = [
            (key(&theirs), theirs.encode()),
            (name(&theirs), word.clone()),
        ];
        assert_eq!(of(&stolen), Some((true, vec![], vec![foreign])));
        // The founder makes nothing final without authority.
        let anchors = AnchorsAct::new(1, None, 0, Frontier::default(), None).unwrap();
        let at = format!("/stores/{own}/anchors");
        let final_too = [(key(&mine), mine.encode()), (at.clone(), anchors.encode())];
        assert_eq!(of(&final_too), Some((true, vec![own], vec![])));
        assert_eq!(of(&[(at.clone(), anchors.encode())]), needs);
        // Never of any use, so not noted.
        assert_eq!(of(&[(at, word.clone())]), None);
        assert_eq!(of(&[(key(&mine), word.clone())]), None);
        assert_eq!(of(&[("/nodes/king/role".to_owned(), word)]), None);
    }
}

//! A proof of membership: the grants that lead to a node, each by the one before.
//!
//! For somebody who has not heard of them yet. They are entries of the root store like any others,
//! so a proof says nothing that a sync would not: whoever reads it evaluates the members as if
//! these few acts had come. It needs no more of the logs they stand in: an act counts by whom it
//! cites, wherever it stands.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::{
    id::{Author, EntryId, StoreId},
    limits::PROOF_GRANTS_MAX,
    protocol::{
        entry::{Entry, EntryError, Parent, SignedEntry},
        membership::{
            Members,
            role::{Act, Acts, Role},
        },
    },
};

/// Why entries prove nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// None, or more than a chain of grants may have.
    #[error("a proof has 1 to {grants_max} grants; this one has {grants}")]
    Length {
        /// Grants in the chain.
        grants: usize,
        /// Most grants that are accepted.
        grants_max: usize,
    },
    /// One of them is no entry, or is not authentic.
    #[error(transparent)]
    Entry(#[from] EntryError),
    /// One of them is of another store.
    #[error("the proof is of store {theirs}, this is {ours}")]
    WrongStore {
        /// Store that the entry names.
        theirs: StoreId,
        /// The root store.
        ours: StoreId,
    },
    /// The first one is by nobody who is, or was, an admin here.
    #[error("node {author} is no admin")]
    NotAnAdmin {
        /// Author of the entry.
        author: Author,
    },
    /// One of them does not follow from the one before, or the last one grants the node nothing.
    #[error("the chain of grants ends at entry {entry}")]
    Broken {
        /// The last one that is in its place.
        entry: EntryId,
    },
    /// A chain in good order, and yet the node is no member: somebody in it was removed.
    #[error("node {node} is no member by it")]
    Void {
        /// Node that the proof is about.
        node: Author,
    },
}

/// Returns where the grants stand that make `node` what it is, the nearest to the creator first; at
/// most the last `PROOF_GRANTS_MAX`. None for one that is no member.
///
/// `acts`: all of the root store, by entry.
pub fn grants(
    node: &Author,
    acts: &BTreeMap<EntryId, (Parent, Acts)>,
    members: &Members,
) -> Vec<Parent> {
    let mut chain = Vec::new();
    let member = members.get(node).filter(|_| members.role(node).is_some());
    let mut next = member
        .and_then(|member| member.grant)
        .map(|grant| grant.rank.entry);
    while let Some((place, acts_of)) = next.and_then(|entry| acts.get(&entry)) {
        chain.push(*place);
        if chain.len() == PROOF_GRANTS_MAX {
            break;
        }
        let author = &acts_of.author;
        let makes_it_admin = |entry: &&EntryId| {
            let cited = acts.get(entry);
            members.counts(entry, author)
                && cited.is_some_and(|(_, cited)| grants_to(cited, author) == Some(Role::Admin))
        };
        next = acts_of.cites.iter().find(makes_it_admin).copied();
    }
    chain.reverse();
    chain
}

/// Checks that `entries` are a chain of grants in `store`, from somebody who is or was an admin
/// among `members` to `node`, and returns its acts. Whether they count is for `Members::evaluate`.
///
/// Signatures come last, and the first bad one ends it: a stranger costs one.
///
/// # Errors
/// `ProofError`; never `Void`.
pub fn check(
    entries: &[Bytes],
    store: &StoreId,
    node: &Author,
    members: &Members,
) -> Result<Vec<Acts>, ProofError> {
    if entries.is_empty() || entries.len() > PROOF_GRANTS_MAX {
        return Err(ProofError::Length {
            grants: entries.len(),
            grants_max: PROOF_GRANTS_MAX,
        });
    }
    let mut chain: Vec<(Entry, Acts)> = Vec::new();
    for bytes in entries {
        let entry = SignedEntry::decode(bytes.clone())?.parse()?;
        if entry.header.store != *store {
            return Err(ProofError::WrongStore {
                theirs: entry.header.store,
                ours: *store,
            });
        }
        let author = entry.author();
        let (last, follows) = match chain.last() {
            None => {
                let known = members.get(&author);
                if known.is_none_or(|known| known.rank.is_none()) {
                    return Err(ProofError::NotAnAdmin { author });
                }
                (entry.id, true)
            }
            Some((_, before)) => {
                let is_admin = grants_to(before, &author) == Some(Role::Admin);
                let cites = |parent: &Parent| parent.id == before.entry;
                let cited = entry.header.parents.iter().any(cites);
                (before.entry, is_admin && cited)
            }
        };
        let acts = Acts::of(&entry).filter(|_| follows);
        let acts = acts.ok_or(ProofError::Broken { entry: last })?;
        chain.push((entry, acts));
    }
    if let Some((entry, acts)) = chain.last()
        && grants_to(acts, node).is_none()
    {
        return Err(ProofError::Broken { entry: entry.id });
    }
    let mut acts = Vec::new();
    for (entry, of_it) in chain {
        entry.verify()?;
        acts.push(of_it);
    }
    Ok(acts)
}

// Returns the role that an entry grants to `node`.
fn grants_to(acts: &Acts, node: &Author) -> Option<Role> {
    acts.acts.iter().find_map(|(to, act)| match act {
        Act::Grant(role) if to == node => Some(*role),
        Act::Grant(_) | Act::Remove(_) => None,
    })
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use ed25519_dalek::SigningKey;

    use super::*;
    use crate::protocol::{
        entry::{Header, Op, VerifiedEntry, sign},
        hlc::Hlc,
        membership::role::role_key,
    };

    const ROOT: StoreId = StoreId([1; 16]);
    const FOUNDER: u8 = 1;

    fn node(number: u8) -> Author {
        let key = SigningKey::from_bytes(&[number; 32]);
        Author(key.verifying_key().to_bytes())
    }

    // At any place of its author's log: what stands before it matters to nobody here.
    fn grant(by: u8, cites: Option<&VerifiedEntry>, to: u8, role: Role) -> VerifiedEntry {
        let header = Header {
            store: ROOT,
            seq: 7,
            prev: Some(EntryId([7; 32])),
            hlc: Hlc {
                wall_ms: 1000 + u64::from(to),
                counter: 0,
            },
            atomic: false,
            cause: None,
            parents: cites.iter().map(|entry| entry.as_parent()).collect(),
        };
        let op = Op::Put {
            key: role_key(&node(to)),
            value: Act::Grant(role).encode(),
            expires_ms: None,
        };
        sign(&SigningKey::from_bytes(&[by; 32]), header, vec![op]).unwrap()
    }

    // A chain of admins from the founder, the last one a reader.
    fn chain(length: u8) -> Vec<VerifiedEntry> {
        let mut chain: Vec<VerifiedEntry> = Vec::new();
        for by in FOUNDER..FOUNDER + length {
            let role = if by == length {
                Role::Reader
            } else {
                Role::Admin
            };
            chain.push(grant(by, chain.last(), by + 1, role));
        }
        chain
    }

    fn known(entries: &[VerifiedEntry]) -> (BTreeMap<EntryId, (Parent, Acts)>, Members) {
        let acts = entries.iter().map(|entry| {
            let acts = Acts::of(entry).unwrap();
            (entry.id, (entry.as_parent(), acts))
        });
        let acts: BTreeMap<_, _> = acts.collect();
        let all = acts.values().map(|(_, acts)| acts);
        let Ok(members) = Members::evaluate(node(FOUNDER), ROOT, all, |_, _, _| {
            Ok::<_, Infallible>(None)
        });
        (acts, members)
    }

    fn encoded(entries: &[VerifiedEntry]) -> Vec<Bytes> {
        let encode = |entry: &VerifiedEntry| Bytes::from(entry.signed.encode());
        entries.iter().map(encode).collect()
    }

    #[test]
    fn the_grants_that_lead_to_a_node_are_found_and_believed_by_who_knows_the_founder_only() {
        let all = chain(3);
        let mut others = all.clone();
        others.push(grant(FOUNDER, None, 90, Role::Admin));
        let (acts, members) = known(&others);
        let places = grants(&node(4), &acts, &members);
        let expected: Vec<_> = all.iter().map(|entry| entry.as_parent()).collect();
        assert_eq!(places, expected);
        assert_eq!(grants(&node(FOUNDER), &acts, &members), []);
        assert_eq!(grants(&node(91), &acts, &members), []);

        let (_, founded) = known(&[]);
        let shown = check(&encoded(&all), &ROOT, &node(4), &founded).unwrap();
        let Ok(by_it) = Members::evaluate(node(FOUNDER), ROOT, &shown, |_, _, _| {
            Ok::<_, Infallible>(None)
        });
        assert_eq!(by_it.role(&node(4)), Some(Role::Reader));
        // A node that knows more grants needs a shorter chain.
        let (_, members) = known(&all[..2]);
        assert!(check(&encoded(&all[2..]), &ROOT, &node(4), &members).is_ok());
        assert_eq!(
            check(&encoded(&all[2..]), &ROOT, &node(4), &founded),
            Err(ProofError::NotAnAdmin { author: node(3) })
        );
    }

    #[test]
    fn a_chain_longer_than_a_proof_is_cut_at_the_end_that_others_know_best() {
        let length = u8::try_from(PROOF_GRANTS_MAX).unwrap() + 5;
        let all = chain(length);
        let (acts, members) = known(&all);
        let places = grants(&node(length + 1), &acts, &members);
        let last = all.iter().skip(5).map(|entry| entry.as_parent());
        assert!(places.into_iter().eq(last));
    }

    #[test]
    fn a_chain_with_a_hole_or_to_somebody_else_proves_nothing() {
        let all = chain(3);
        let (_, founded) = known(&[]);
        let broken =
            |entries: &[VerifiedEntry], to| check(&encoded(entries), &ROOT, &node(to), &founded);
        let ends_at = |entry: &VerifiedEntry| Err(ProofError::Broken { entry: entry.id });
        assert_eq!(
            broken(&[all[0].clone(), all[2].clone()], 4),
            ends_at(&all[0])
        );
        assert_eq!(broken(&all, 5), ends_at(&all[2]));
        assert_eq!(broken(&all[..2], 4), ends_at(&all[1]));
        // By the right node, which does not say by which right.
        let careless = grant(2, None, 3, Role::Admin);
        assert_eq!(broken(&[all[0].clone(), careless], 3), ends_at(&all[0]));
        let other = check(&encoded(&all), &StoreId([2; 16]), &node(4), &founded);
        assert!(matches!(other, Err(ProofError::WrongStore { .. })));
        let none = Err(ProofError::Length {
            grants: 0,
            grants_max: PROOF_GRANTS_MAX,
        });
        assert_eq!(broken(&[], 4), none);
    }
}

//! The log of one attacker, and what scripts write into it.

use super::*;

/// One hostile log.
pub(in crate::mesh::hostile) struct Script {
    pub(in crate::mesh::hostile) row: &'static str,
    pub(in crate::mesh::hostile) name: String,
    pub(super) write: Box<dyn Fn(&mut Pen<'_>)>,
}

/// The facts that scripts use: three honest nodes, and what stands in their root store.
pub(super) struct Facts {
    pub(super) store: StoreId,
    pub(super) now_ms: u64,
    // The creator, an admin and a writer.
    pub(super) nodes: [Author; 3],
    pub(super) invite: Bytes,
    // Heads of the reserved keys and of honest ones.
    pub(super) heads: BTreeMap<Bytes, Vec<Parent>>,
}

/// The log of one attacker, who is a writer.
pub(super) struct Pen<'a> {
    pub(super) facts: &'a Facts,
    pub(super) key: Key,
    pub(super) log: Vec<VerifiedEntry>,
    // Encoded, also entries that do not follow on the log.
    pub(super) given: Vec<Bytes>,
    // Keys that none of it may change.
    pub(super) void: BTreeSet<Bytes>,
    // Values that all nodes must have.
    pub(super) holds: Vec<(Bytes, Bytes)>,
}

impl<'a> Pen<'a> {
    pub(super) fn new(facts: &'a Facts, number: usize) -> Self {
        let seed = blake3::hash(&number.to_be_bytes());
        Self {
            facts,
            key: Key(ed25519_dalek::SigningKey::from_bytes(seed.as_bytes())),
            log: Vec::new(),
            given: Vec::new(),
            void: BTreeSet::new(),
            holds: Vec::new(),
        }
    }

    pub(super) fn me(&self) -> Author {
        self.key.author()
    }

    /// Signs the next entry of the log, after `change` of its header.
    pub(super) fn write(
        &mut self,
        change: impl FnOnce(&mut Header),
        ops: Vec<Op>,
    ) -> VerifiedEntry {
        let last = self.log.last();
        let mut header = Header {
            store: self.facts.store,
            seq: last.map_or(1, |last| last.header.seq + 1),
            prev: last.map(|last| last.id),
            atomic: ops.len() > 1,
            ..header(self.facts.now_ms + self.log.len() as u64)
        };
        change(&mut header);
        let newest = header.parents.iter().map(|parent| parent.hlc).max();
        // Honest nodes write on while scripts are prepared.
        if let Some(newest) = newest.filter(|newest| *newest >= header.hlc) {
            header.hlc = newest.next(0).unwrap();
        }
        let entry = sign(&self.key.0, header, ops).unwrap();
        self.given.push(encoded(&entry));
        self.log.push(entry.clone());
        entry
    }

    pub(super) fn put(&mut self, ops: Vec<Op>) -> VerifiedEntry {
        self.write(|_| {}, ops)
    }

    /// Makes the signature of the newest entry wrong: a later entry may vouch for it.
    pub(super) fn bend(&mut self) {
        let mut signed = self.log.pop().unwrap().signed.clone();
        signed.signature[3] ^= 1;
        self.given.pop();
        self.given.push(signed.encode().into());
        self.log.push(signed.parse().unwrap().vouched());
    }

    /// Goes back to the entry at `seq`, so that the next one forks.
    pub(super) fn back_to(&mut self, seq: usize) {
        self.log.truncate(seq);
    }

    /// Tries to change a key that it may not, and cites its heads, so that it would win.
    pub(super) fn seize(&mut self, key: &Bytes, op: Op) {
        let heads = self.facts.heads.get(key).cloned().unwrap_or_default();
        self.void.insert(key.clone());
        self.write(|header| header.parents = heads, vec![op]);
    }
}

pub(super) fn script(
    row: &'static str,
    name: impl Into<String>,
    write: impl Fn(&mut Pen<'_>) + 'static,
) -> Script {
    Script {
        row,
        name: name.into(),
        write: Box::new(write),
    }
}

pub(super) fn act(node: &Author, act: &Act) -> Op {
    Op::Put {
        key: role_key(node),
        value: act.encode(),
        expires_ms: None,
    }
}

pub(super) fn op(key: impl Into<Bytes>, value: impl Into<Bytes>, expires_ms: Option<u64>) -> Op {
    Op::Put {
        key: key.into(),
        value: value.into(),
        expires_ms,
    }
}

pub(super) fn stamped(wall_ms: u64, counter: u32) -> impl FnOnce(&mut Header) {
    move |header| header.hlc = Hlc { wall_ms, counter }
}

pub(super) fn made_up(number: u16, seq: u64, author: Author) -> Parent {
    let mut id = [0xee; 32];
    id[..2].copy_from_slice(&number.to_be_bytes());
    Parent {
        hlc: Hlc {
            wall_ms: u64::from(number),
            counter: 0,
        },
        author,
        id: EntryId(id),
        seq,
    }
}

//! Proofs that hold, and many that do not.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
};

use bytes::Bytes;
use ed25519_dalek::SigningKey;

use super::{PROOF_BYTES_MAX, ProofError, Proven, StateProof, StateRow, Subject, verify};
use crate::{
    id::{Author, EntryId, StoreId},
    limits::VALUE_INLINE_BYTES_MAX,
    protocol::{
        ack::{Ack, AckedState},
        frontier::{Frontier, FrontierTip},
        heads::{Content, Head, Heads, Value},
        heads_row::encode_heads,
        hlc::Hlc,
        membership::ActsHash,
        merkle::{FreshTree, Levels, RowHash, Rows, Tree, TreeRoot, prefix_end},
    },
    support::{
        mutator::{Corpus, fuzz, soaked},
        random::Random,
    },
};

const STORE: StoreId = StoreId([5; 16]);

/// A state, and how to prove it.
struct Field {
    rows: BTreeMap<Bytes, Bytes>,
    values: BTreeMap<Bytes, Bytes>,
}

impl Rows for Field {
    type Error = Infallible;

    fn rows(
        &self,
        from: &[u8],
        to: Option<&[u8]>,
        row: &mut dyn FnMut(&[u8], &RowHash) -> bool,
    ) -> Result<(), Infallible> {
        let from = self.rows.range(Bytes::copy_from_slice(from)..);
        let range = from.take_while(|(key, _)| to.is_none_or(|to| key.as_ref() < to));
        for (key, bytes) in range {
            if !row(key, &RowHash::of(bytes)) {
                break;
            }
        }
        Ok(())
    }
}

impl Field {
    // Keys with values, a tombstone, a conflict, and a value that is only in the log.
    fn new() -> Self {
        let (mut rows, mut values) = (BTreeMap::new(), BTreeMap::new());
        for number in 0..200_u64 {
            let key = Bytes::from(format!("/key/{number:03}"));
            let big = vec![b'v'; VALUE_INLINE_BYTES_MAX + 1];
            let content = |value: Value| Content::Value {
                value,
                expires_ms: (number % 7 == 0).then_some(9),
            };
            let content = match number % 10 {
                0 => Content::Tombstone,
                1 => {
                    values.insert(key.clone(), Bytes::from(big.clone()));
                    content(Value::InLog {
                        bytes: u32::try_from(big.len()).unwrap(),
                        hash: *blake3::hash(&big).as_bytes(),
                    })
                }
                _small => content(Value::Inline(number.to_string().into())),
            };
            let head = |seq: u64, content| Head {
                hlc: Hlc::new(seq, 0).unwrap(),
                author: Author([7; 32]),
                id: EntryId([9; 32]),
                seq,
                content,
                taken_back: false,
            };
            let mut heads = vec![head(number + 1, content)];
            if number % 10 == 2 {
                heads.insert(0, head(number, Content::Tombstone));
            }
            rows.insert(key, encode_heads(&Heads::new(heads)).into());
        }
        Self { rows, values }
    }

    fn with_tree<T>(&self, work: impl FnOnce(&FreshTree<'_, Self>) -> T) -> T {
        let mut tree = Tree::new(Levels::new(STORE));
        let Ok(fresh) = tree.refresh(self);
        work(&fresh)
    }

    fn root(&self) -> TreeRoot {
        self.with_tree(|tree| tree.root())
    }

    fn row(&self, key: &Bytes) -> Option<StateRow> {
        Some(StateRow {
            key: key.clone(),
            row: self.rows.get(key)?.clone(),
            value: self.values.get(key).cloned().unwrap_or_default(),
        })
    }

    fn key(&self, key: &str, signers: &[u8]) -> StateProof {
        let key = Bytes::copy_from_slice(key.as_bytes());
        let Ok(row_proof) = self.with_tree(|tree| tree.prove(&key));
        StateProof {
            store: STORE,
            rows: self.row(&key).into_iter().collect(),
            subject: Subject::Key(key),
            row_proof: row_proof.encode().into(),
            acks: acks(self.root(), signers),
        }
    }

    fn prefix(&self, prefix: &str) -> StateProof {
        let prefix = Bytes::copy_from_slice(prefix.as_bytes());
        let end = prefix_end(&prefix);
        let Ok(row_proof) = self.with_tree(|tree| tree.prove_range(&prefix, end.as_deref()));
        let keys = self.rows.keys().filter(|key| key.starts_with(&prefix));
        let rows = keys.filter_map(|key| self.row(key)).map(|row| StateRow {
            value: Bytes::new(),
            ..row
        });
        StateProof {
            store: STORE,
            rows: rows.collect(),
            subject: Subject::Prefix(prefix),
            row_proof: row_proof.encode().into(),
            acks: acks(self.root(), &[1]),
        }
    }

    // Whether all that a proof shows is so.
    fn assert_true(&self, proven: &Proven) {
        assert_eq!((proven.store, proven.root), (STORE, self.root()));
        assert!(!proven.signers.is_empty());
        for signer in &proven.signers {
            assert_eq!((&signer.frontier, signer.acts), (&frontier(), acts()));
            assert!((1..=3).any(|number| signer.node == node(number)));
        }
        let is_meant = |key: &Bytes| match &proven.subject {
            Subject::Key(meant) => key == meant,
            Subject::Prefix(prefix) => key.starts_with(prefix),
        };
        let expected = self.rows.iter().filter(|(key, _)| is_meant(key));
        let found = proven.rows.iter().map(|row| {
            let encoded = Bytes::from(encode_heads(&row.heads));
            (row.key.clone(), encoded)
        });
        let expected = expected.map(|(key, row)| (key.clone(), row.clone()));
        assert!(found.eq(expected), "{proven:?}");
        for row in &proven.rows {
            let value = match row.heads.winner().map(|head| &head.content) {
                Some(Content::Value {
                    value: Value::Inline(value),
                    ..
                }) => Some(value),
                Some(Content::Value { .. }) => self.values.get(&row.key),
                _tombstone => None,
            };
            assert!(row.value.is_none() || row.value.as_ref() == value);
        }
    }
}

fn signing_key(number: u8) -> SigningKey {
    SigningKey::from_bytes(&[number; 32])
}

fn node(number: u8) -> Author {
    Author(signing_key(number).verifying_key().to_bytes())
}

fn frontier() -> Frontier {
    let tip = FrontierTip {
        seq: 200,
        id: EntryId([9; 32]),
    };
    [(Author([7; 32]), tip)].into_iter().collect()
}

fn acts() -> ActsHash {
    ActsHash::of(&BTreeSet::new(), &BTreeSet::new())
}

fn ack(root: TreeRoot, signer: u8) -> Ack {
    Ack {
        node: node(signer),
        store: STORE,
        incarnation: 0,
        counter: 0,
        is_part: false,
        frontier: frontier(),
        state: Some(AckedState { root, acts: acts() }),
        root_frontier: None,
    }
}

fn acks(root: TreeRoot, signers: &[u8]) -> Vec<Bytes> {
    let mut acks: Vec<_> = signers.iter().map(|signer| ack(root, *signer)).collect();
    acks.sort_by_key(|ack| ack.node);
    let sign = |ack: &Ack| {
        (1..=3)
            .find(|number| node(*number) == ack.node)
            .map(|number| ack.sign(&signing_key(number)))
    };
    acks.iter().filter_map(sign).collect()
}

#[test]
fn honest_proofs_show_value_deletion_absence_and_completeness() {
    let field = Field::new();
    for key in [
        "/key/005", "/key/010", "/key/011", "/key/012", "/key/0", "/none", "~",
    ] {
        let proof = field.key(key, &[1, 2, 3]);
        let file = proof.encode();
        assert_eq!(StateProof::decode(&file), Ok(proof));
        let proven = verify(&file).unwrap();
        field.assert_true(&proven);
        assert_eq!(proven.signers.len(), 3);
        assert_eq!(proven.subject, Subject::Key(key.as_bytes().to_vec().into()));
        let is_there = field.rows.contains_key(key.as_bytes());
        assert_eq!(proven.rows.len(), usize::from(is_there), "{key}");
        if key == "/key/011" {
            assert_eq!(
                proven.rows[0].value,
                field.values.get(key.as_bytes()).cloned()
            );
        }
        println!("{key}: {} bytes", file.len());
    }
    for (prefix, count) in [
        ("", 200),
        ("/key/", 200),
        ("/key/01", 10),
        ("/none/", 0),
        ("~", 0),
    ] {
        let proven = verify(&field.prefix(prefix).encode()).unwrap();
        field.assert_true(&proven);
        assert_eq!(proven.rows.len(), count, "{prefix}");
    }
}

// Proofs of every kind, as files.
fn honest(field: &Field) -> Vec<Bytes> {
    let keys = ["/key/005", "/key/010", "/key/011", "/key/012", "/none"];
    let keys = keys.iter().map(|key| field.key(key, &[1, 2]).encode());
    let prefixes = ["/key/01", "/none/"];
    keys.chain(prefixes.iter().map(|prefix| field.prefix(prefix).encode()))
        .collect()
}

// Returns the encoded message of a proof file: all but its head and its check.
fn message(file: &Bytes) -> Bytes {
    file.slice(9..file.len() - 8)
}

#[test]
fn r1_every_flipped_bit_and_every_cut_is_refused() {
    let field = Field::new();
    for file in honest(&field) {
        for bit in 0..file.len() * 8 {
            let mut flipped = file.to_vec();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(verify(&flipped).is_err(), "bit {bit}");
        }
        for length in 0..file.len() {
            assert!(verify(&file[..length]).is_err(), "cut at {length}");
        }
        assert!(verify(&[&file[..], &[0]].concat()).is_err(), "a byte more");
    }
}

/// A liar changes a proof and computes its check again. The result is refused, or proves something else
/// that is true, for example that another key is absent.
#[test]
fn r1_every_flipped_bit_under_a_new_check_proves_nothing_false() {
    let field = Field::new();
    for file in honest(&field) {
        let honest = verify(&file).unwrap();
        let message = message(&file);
        assert_eq!(StateProof::seal(&message), file);
        let mut others = 0;
        for bit in 0..message.len() * 8 {
            let mut flipped = message.to_vec();
            flipped[bit / 8] ^= 1 << (bit % 8);
            if let Ok(proven) = verify(&StateProof::seal(&flipped)) {
                field.assert_true(&proven);
                assert_ne!(proven.subject, honest.subject, "bit {bit} changes nothing");
                assert!(
                    proven.rows.is_empty(),
                    "only an absence is proven of other keys, too"
                );
                others += 1;
            }
        }
        assert!(honest.rows.is_empty() || others == 0);
    }
}

#[test]
fn r1_mutated_proofs_prove_nothing_false() {
    let field = Field::new();
    let files = honest(&field);
    let corpus = Corpus::new(files.iter().map(|file| message(file).to_vec()));
    let elsewhere = [field.key("/key/005", &[1, 2]), field.prefix("/key/01")].map(|mut proof| {
        proof.store = StoreId([6; 16]);
        message(&proof.encode()).to_vec()
    });
    let corpus = corpus.broken(elsewhere);
    fuzz(&corpus, |input| match verify(&StateProof::seal(input)) {
        Ok(proven) => {
            field.assert_true(&proven);
            true
        }
        Err(_refused) => false,
    });
}

/// A liar encodes its proof well, so that only what it shows is wrong.
#[test]
fn r1_well_formed_lies_are_refused() {
    let field = Field::new();
    let refused = |what: &str, change: &dyn Fn(&mut StateProof)| {
        for mut proof in [field.key("/key/005", &[1, 2]), field.prefix("/key/01")] {
            let honest = proof.clone();
            change(&mut proof);
            if proof != honest {
                let error = verify(&proof.encode()).expect_err(what);
                println!("{what}: {error}");
            }
        }
    };
    refused("another store", &|proof| proof.store = StoreId([6; 16]));
    refused("no row", &|proof| drop(proof.rows.pop()));
    refused("no first row", &|proof| drop(proof.rows.remove(0)));
    refused("a row twice", &|proof| {
        let row = proof.rows[0].clone();
        proof.rows.push(row);
    });
    refused("a row of another key", &|proof| {
        proof.rows[0].key = Bytes::from_static(b"/key/004");
    });
    refused("the row of another key", &|proof| {
        proof.rows[0].row = field.rows[b"/key/006".as_slice()].clone();
    });
    refused("a value that no row has", &|proof| {
        proof.rows[0].value = Bytes::from_static(b"value");
    });
    refused("a longer prefix", &|proof| {
        proof.subject = Subject::Prefix(Bytes::from_static(b"/key/010"));
    });
    refused("a shorter prefix", &|proof| {
        proof.subject = Subject::Prefix(Bytes::from_static(b"/key/0"));
    });
    refused("nobody signed", &|proof| proof.acks.clear());
    refused("a signer twice", &|proof| {
        let ack = proof.acks[0].clone();
        proof.acks.insert(0, ack);
    });
    refused("signers in another order", &|proof| proof.acks.reverse());
    refused("an ack of another root", &|proof| {
        proof.acks = acks(TreeRoot([1; 32]), &[1]);
    });
    refused("two roots", &|proof| {
        proof.acks = [(1, field.root()), (2, TreeRoot([1; 32]))]
            .map(|(signer, root)| ack(root, signer).sign(&signing_key(signer)))
            .to_vec();
    });
    refused("an ack of another store", &|proof| {
        let mut ack = ack(field.root(), 1);
        ack.store = StoreId([6; 16]);
        proof.acks = vec![ack.sign(&signing_key(1))];
    });
    refused("an ack without a root", &|proof| {
        let mut ack = ack(field.root(), 1);
        ack.state = None;
        proof.acks = vec![ack.sign(&signing_key(1))];
    });
    let mut proof = field.key("/key/011", &[1]);
    let honest = proof.rows[0].value.clone();
    for value in [honest.slice(1..), [&honest[1..], b"w"].concat().into()] {
        proof.rows[0].value = value;
        assert_eq!(verify(&proof.encode()), Err(ProofError::OtherValue));
    }
    // The hash alone is proven without the value.
    proof.rows[0].value = Bytes::new();
    let proven = verify(&proof.encode()).unwrap();
    field.assert_true(&proven);
    assert_eq!(proven.rows[0].value, None);
}

/// A proof is made of the parts of others: rows, row proofs, subjects and acks.
#[test]
fn r1_mixed_proofs_prove_nothing_false() {
    let field = Field::new();
    let mut random = Random::new(1);
    let keys: Vec<_> = ["/key/003", "/key/010", "/key/011", "/none"]
        .map(|key| field.key(key, &[1, 2]))
        .into();
    let prefixes = ["/key/01", "/key/1", "/none/", ""].map(|prefix| field.prefix(prefix));
    let proofs = [keys, prefixes.into()].concat();
    let (mut held, mut refused) = (0, 0);
    for _ in 0..soaked(20_000) {
        let mut any = || proofs[random.below(proofs.len())].clone();
        let proof = StateProof {
            store: STORE,
            subject: any().subject,
            rows: any().rows,
            row_proof: any().row_proof,
            acks: any().acks,
        };
        match verify(&proof.encode()) {
            Ok(proven) => {
                held += 1;
                field.assert_true(&proven);
            }
            Err(_) => refused += 1,
        }
    }
    assert!(
        held > 0 && refused > 9 * held,
        "{held} held, {refused} were refused"
    );
}

#[test]
fn what_is_no_proof_is_a_typed_error() {
    let field = Field::new();
    let file = field.key("/key/005", &[1]).encode();
    assert_eq!(verify(&[]), Err(ProofError::NotAProof));
    assert_eq!(
        verify(b"latproof"),
        Err(ProofError::Malformed {
            what: "it does not decode"
        })
    );
    assert_eq!(verify(b"{\"key\":1}"), Err(ProofError::NotAProof));
    let mut newer = file.to_vec();
    newer[8] = 2;
    let (version, expected) = (2, 1);
    assert_eq!(
        verify(&newer),
        Err(ProofError::Version { version, expected })
    );
    let bytes_max = PROOF_BYTES_MAX;
    let huge = vec![0; PROOF_BYTES_MAX + 1];
    assert_eq!(verify(&huge), Err(ProofError::TooLong { bytes_max }));
    // A million rows of nothing: no memory is taken for them.
    let empty_rows = [&message(&file)[..], &[0x22, 0].repeat(1 << 20)].concat();
    let what = "it does not decode";
    assert_eq!(
        verify(&StateProof::seal(&empty_rows)),
        Err(ProofError::Malformed { what })
    );
}

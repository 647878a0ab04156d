//! Proofs of rows, as others give them.

use lattice::protocol::merkle::{
    Levels, ROW_PROOF_BYTES_MAX, RowHash, RowProof, StreamRoot, Tree, verify,
};

use crate::support::{
    model::STORE,
    mutator::{Corpus, fuzz},
    rows::MemRows,
};

/// A proof is refused, or shows what is true.
#[test]
fn r1_proof_of_a_row() {
    let rows = (0..500).map(|number| (format!("/{number:03}").into(), vec![7; number % 90]));
    let map = MemRows(rows.collect());
    let levels = Levels::new(STORE);
    let mut root = StreamRoot::new(levels.clone());
    for (key, row) in &map.0 {
        root.push(key, &RowHash::of(row));
    }
    let root = root.finish();
    let mut tree = Tree::new(levels.clone());
    let Ok(fresh) = tree.refresh(&map);
    assert_eq!(fresh.root(), root);
    let keys: [&[u8]; 6] = [b"/000", b"/0000", b"/250", b"/499", b"/~", b"!"];
    let prove = |key: &&[u8]| {
        let Ok(proof) = fresh.prove(key);
        proof.encode()
    };
    fuzz(&Corpus::new(keys.iter().map(prove)), |input| {
        let Ok(proof) = RowProof::decode(input) else {
            return false;
        };
        assert!(input.len() <= ROW_PROOF_BYTES_MAX);
        assert_eq!(proof.encode(), input, "a proof has one form");
        let mut shows = false;
        for key in keys {
            let row = map.0.get(key).map(Vec::as_slice);
            shows |= verify(&levels, &root, key, row, &proof).is_ok();
            for lie in [None, Some(&[7; 90][..]), Some(&[][..])] {
                let is_true = lie == row;
                assert!(is_true || verify(&levels, &root, key, lie, &proof).is_err());
            }
        }
        shows
    });
}

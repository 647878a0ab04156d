//! A key that the program which embeds the node keeps.

use std::{
    collections::BTreeMap,
    fs,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use lattice::{
    Node, NodeConfig,
    id::Author,
    node::{KeyMove, OpenError},
    vault::{KeyError, KeyPlace, KeyVault, Seed},
};

#[derive(Debug, Default)]
struct Keychain {
    keys: Mutex<BTreeMap<Author, Seed>>,
    is_locked: AtomicBool,
}

impl Keychain {
    fn check(&self) -> Result<(), String> {
        match self.is_locked.load(Ordering::Relaxed) {
            true => Err("it is locked".to_owned()),
            false => Ok(()),
        }
    }
}

impl KeyVault for Keychain {
    fn place(&self) -> String {
        "the keychain of the test".to_owned()
    }

    fn load(&self, node: &Author) -> Result<Seed, String> {
        self.check()?;
        let key = self.keys.lock().unwrap().get(node).cloned();
        key.ok_or_else(|| "it has no such key".to_owned())
    }

    fn store(&self, node: &Author, seed: &Seed) -> Result<(), String> {
        self.check()?;
        self.keys.lock().unwrap().insert(*node, seed.clone());
        Ok(())
    }

    fn remove(&self, node: &Author) -> Result<(), String> {
        self.check()?;
        self.keys.lock().unwrap().remove(node);
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn key_of_a_new_node_is_in_the_vault_of_its_program_and_nowhere_else() {
    let dir = tempfile::tempdir().unwrap();
    let keychain = Arc::new(Keychain::default());
    let plain = || NodeConfig::new(dir.path()).create(true);
    let config = || {
        let mut config = plain();
        config.key.vault = Some(Arc::clone(&keychain) as Arc<dyn KeyVault>);
        config
    };
    let node = Node::open(config()).await.unwrap();
    let id = node.id();
    node.data().put("/a", "1").await.unwrap();
    node.close().await.unwrap();
    drop(node);
    let text = fs::read_to_string(dir.path().join("identity.key")).unwrap();
    assert!(
        text.contains("\"caller\"") && text.contains(&id.to_string()),
        "{text}"
    );
    assert_eq!(Node::key_file(dir.path()).unwrap().place, KeyPlace::Caller);

    // Another program, and a keychain that is locked or empty: no new key is made.
    let key_error = async |config: NodeConfig| match Node::open(config).await {
        Err(OpenError::Key { source, .. }) => source,
        other => panic!("{other:?}"),
    };
    assert!(matches!(key_error(plain()).await, KeyError::NoVault { node } if node == id));
    keychain.is_locked.store(true, Ordering::Relaxed);
    let locked = key_error(config()).await.to_string();
    assert_eq!(
        locked,
        "the keychain of the test cannot give or take the key: it is locked"
    );
    keychain.is_locked.store(false, Ordering::Relaxed);
    let seed = keychain.keys.lock().unwrap().remove(&id).unwrap();
    assert!(
        key_error(config())
            .await
            .to_string()
            .ends_with("it has no such key")
    );
    keychain.keys.lock().unwrap().insert(id, Seed::new([1; 32]));
    assert!(matches!(
        key_error(config()).await,
        KeyError::OtherNode { .. }
    ));
    keychain.keys.lock().unwrap().insert(id, seed.clone());

    let moved = Node::move_key(config(), KeyMove::File).await.unwrap();
    assert_eq!(
        (moved.node, moved.from, moved.not_wiped),
        (id, KeyPlace::Caller, None)
    );
    assert!(keychain.keys.lock().unwrap().is_empty());
    assert_eq!(Node::fetch_key(plain()).await.unwrap(), seed);
    keychain.is_locked.store(true, Ordering::Relaxed);
    let refused = Node::move_key(config(), KeyMove::Caller).await.unwrap_err();
    assert!(refused.to_string().ends_with("it is locked"), "{refused}");
    keychain.is_locked.store(false, Ordering::Relaxed);
    Node::move_key(config(), KeyMove::Caller).await.unwrap();
    let node = Node::open(config()).await.unwrap();
    assert_eq!(node.id(), id);
    let item = node.data().get(b"/a").await.unwrap().unwrap();
    assert_eq!(item.value, "1");
    node.close().await.unwrap();
}

//! Keys and values that a shell would execute, and bytes that JSON cannot hold as text.

use std::collections::BTreeMap;

use data_encoding::BASE64;
use lattice::{hooks::Hook, limits::KEY_BYTES_MAX};

use super::setup::{Bench, until_dead};
use crate::support::random::Random;

const NASTY: &[&[u8]] = &[
    b"'",
    b"\"",
    b"`id`",
    b"$(touch pwned)",
    b";touch pwned;",
    b"| touch pwned",
    b"&& touch pwned",
    b"\n",
    b"\r\n",
    b"\t",
    b"\0",
    b"\0\0x",
    b"-rf",
    b"--help",
    b"-",
    b"*",
    b"?",
    b"~",
    b"../../..",
    b"\\",
    b"\\n",
    b"%s%n",
    b"${HOME}",
    b"\x1b[31m",
    b"\xff\xfe",
    b"\xc3\x28",
    b"\xed\xa0\x80",
    "\u{202e}".as_bytes(),
    "\u{0}".as_bytes(),
    "é".as_bytes(),
    b"{\"key\":\"/x\"}",
    b"LATTICE_KEY=x",
    b" ",
    b"a b",
    b"#",
    b"!",
    b"(",
    b"[",
    b"<",
    b">",
    b"\x7f",
    b"=",
    b"\x80",
];

#[tokio::test(flavor = "multi_thread")]
async fn l5_hostile_keys_and_values_come_unchanged() {
    let bench = Bench::new().await;
    let hook = Hook {
        parallel: 8,
        rate: 10_000,
        // Each run in files of its own, named by its run id.
        ..bench
            .hook("cat > got/$LATTICE_RUN_ID.json; env | grep -a -z '' > got/$LATTICE_RUN_ID.env")
    };
    std::fs::create_dir(bench.path("got")).unwrap();
    bench.add("h", hook).await;
    let mut random = Random::new(7);
    let mut all = BTreeMap::new();
    while all.len() < 500 {
        let mut text = |most: u64| -> Vec<u8> {
            let parts = 1 + random.bits() % most;
            (0..parts)
                .flat_map(|_| {
                    let nasty = NASTY[usize::try_from(random.bits()).unwrap() % NASTY.len()];
                    nasty.to_vec()
                })
                .collect()
        };
        let key = [b"/in/".to_vec(), text(6)].concat();
        all.insert(key, text(40));
    }
    all.insert(
        [&b"/in/"[..], &[b'\''; KEY_BYTES_MAX - 4]].concat(),
        vec![b'"'; 1 << 20],
    );
    all.insert(b"/in/empty".to_vec(), Vec::new());
    for (key, value) in &all {
        bench.store().put(key.clone(), value.clone()).await.unwrap();
    }
    let count = u64::try_from(all.len()).unwrap();
    let status = bench.settled("h", count).await;
    assert_eq!(status.health.unwrap().done, count);

    let mut seen = BTreeMap::new();
    for file in std::fs::read_dir(bench.path("got")).unwrap() {
        let path = file.unwrap().path();
        if path.extension().unwrap() != "json" {
            continue;
        }
        let text = std::fs::read(&path).unwrap();
        assert_eq!(text.iter().filter(|byte| **byte == b'\n').count(), 1);
        let line: serde_json::Value = serde_json::from_slice(&text).unwrap();
        let bytes = |name: &str| match &line[name] {
            serde_json::Value::String(text) => text.clone().into_bytes(),
            _none => BASE64
                .decode(line[format!("{name}_base64")].as_str().unwrap().as_bytes())
                .unwrap(),
        };
        let key = bytes("key");
        // The variables of a run are one text; a key in it may have newlines.
        let variables = std::fs::read(path.with_extension("env")).unwrap();
        let has = |text: Vec<u8>| variables.windows(text.len()).any(|window| window == text);
        let is_text = str::from_utf8(&key).is_ok_and(|text| !text.contains('\0'));
        let expected = match is_text {
            true => [b"LATTICE_KEY=", &key[..], b"\n"].concat(),
            false => format!("LATTICE_KEY_BASE64={}\n", BASE64.encode(&key)).into_bytes(),
        };
        assert!(has(expected), "{:?}", String::from_utf8_lossy(&key));
        seen.insert(key, bytes("value"));
    }
    assert!(
        seen == all,
        "{} of {} came as they were",
        seen.len(),
        all.len()
    );
    assert!(!bench.path("pwned").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn l6_hook_that_forks_leaves_no_process() {
    let bench = Bench::new().await;
    bench
        .add(
            "h",
            bench.hook(
                "for n in $(seq 100); do (sleep 60; echo) & echo $! >> pids; done; echo forked",
            ),
        )
        .await;
    bench.put("/in/a", "1").await;
    bench.settled("h", 1).await;
    let record = &bench.logs("h").await[0];
    assert_eq!(
        (record.outcome.name(), record.stdout.as_str()),
        ("done", "forked\n")
    );
    let pids = bench.lines("pids");
    assert_eq!(pids.len(), 100);
    until_dead(&pids).await;
}

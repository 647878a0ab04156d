//! `export` and `import`: keys and values as JSON lines, byte by byte.

use super::harness::Home;

// A tab, a line feed, a NUL, bytes that are no UTF-8, an empty value.
const VALUES: [&[u8]; 5] = [b"a\tb", b"line\nline", b"nul\0", b"\xff\xfe", b""];

#[test]
fn what_is_exported_is_imported_with_its_bytes_and_its_time() {
    let (a, b) = (Home::initialised(), Home::initialised());
    for (number, value) in VALUES.iter().enumerate() {
        let ran = a.feed(&["put", &format!("/v/{number}"), "-"], value);
        assert_eq!(ran.code, 0, "{ran}");
    }
    a.run(&["put", "/v/ttl", "soon", "--ttl", "1h"]).ok();
    // The key of the bytes 2f 76 2f ff.
    a.run(&["put", "--key-base64", "L3Yv/w==", "raw"]).ok();
    a.run(&["put", "/other", "not this"]).ok();
    let exported = a.run(&["export", "/v/"]);
    assert_eq!(exported.json().len(), VALUES.len() + 2, "{exported}");
    insta::assert_snapshot!(b.feed(&["import"], &exported.raw).stdout, @"7 written");
    assert_eq!(
        b.run(&["export"]).raw,
        exported.raw,
        "nothing else, and all of it"
    );
    for (number, value) in VALUES.iter().enumerate() {
        let got = b.run(&["get", &format!("/v/{number}")]);
        assert_eq!(
            got.raw.as_bytes(),
            String::from_utf8_lossy(value).as_bytes()
        );
    }
    let time = |home: &Home| home.run(&["get", "/v/ttl", "--json"]).json()[0]["expires_ms"].clone();
    assert!(time(&a).is_u64());
    assert_eq!(time(&a), time(&b));
}

#[test]
fn export_writes_a_file_once_and_import_reads_it() {
    let home = Home::initialised();
    home.run(&["put", "/a", "1"]).ok();
    let ran = home.run(&["export", "--file", "all.jsonl"]);
    insta::assert_snapshot!(ran, @r"
    note: 1 key exported to all.jsonl
    exit 0
    ");
    let again = home.run(&["export", "--file", "all.jsonl"]);
    insta::assert_snapshot!(again, @r"
    error: cannot write all.jsonl: File exists (os error 17)
    exit 1
    ");
    home.run(&["put", "/a", "2"]).ok();
    home.run(&["import", "all.jsonl"]).ok();
    assert_eq!(home.run(&["get", "/a"]).raw, "1");
    insta::assert_snapshot!(home.run(&["import", "none.jsonl"]), @r"
    error: cannot read none.jsonl: No such file or directory (os error 2)
    exit 1
    ");
    let bad = home.feed(
        &["import"],
        "{\"key\":\"/b\",\"value\":\"1\"}\n{\"key\":\"/c\"}\n",
    );
    insta::assert_snapshot!(bad, @r#"
    1 written
    note: no node is running; written to the store here, peers get it when one runs
    error: line 2: expected one of value, value_base64 and "delete": true; 1 written and kept, the rest was not sent
    exit 7
    "#);
    assert_eq!(home.run(&["get", "/b"]).raw, "1");
}

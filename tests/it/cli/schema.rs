//! Each line that a command prints with `--json` fits `proto/output.schema.json`.

use std::{collections::BTreeSet, fs, os::unix::fs::PermissionsExt as _};

use serde_json::{Value, json};

use super::{
    harness::{Home, Ran},
    mesh::soon,
};

/// The schema. It uses a part of the language, and a word outside of that part is an error.
struct Schema(Value);

impl Schema {
    fn read() -> Self {
        let text = include_str!("../../../proto/output.schema.json");
        Self(serde_json::from_str(text).unwrap())
    }

    /// Returns the type of a line that fits.
    fn check(&self, line: &Value) -> Result<String, String> {
        let name = line["type"].as_str().ok_or("it has no type")?;
        let reference = json!({ "$ref": format!("#/$defs/{name}") });
        if !self.0["oneOf"].as_array().unwrap().contains(&reference) {
            return Err(format!("unknown type {name}"));
        }
        self.fits(line, &reference, name)?;
        Ok(name.to_owned())
    }

    fn fits(&self, value: &Value, schema: &Value, place: &str) -> Result<(), String> {
        let is = |what: &Value| match what.as_str().unwrap() {
            "string" => value.is_string(),
            "integer" => value.is_i64() || value.is_u64(),
            "number" => value.is_number(),
            "boolean" => value.is_boolean(),
            "null" => value.is_null(),
            "array" => value.is_array(),
            "object" => value.is_object(),
            other => panic!("the type {other}"),
        };
        for (word, rule) in schema.as_object().unwrap() {
            let fits = match word.as_str() {
                "description" | "properties" => true,
                "$ref" => {
                    let name = rule.as_str().unwrap().strip_prefix("#/$defs/").unwrap();
                    self.fits(value, &self.0["$defs"][name], place)?;
                    true
                }
                "type" => match rule {
                    Value::Array(types) => types.iter().any(is),
                    one => is(one),
                },
                "const" => value == rule,
                "enum" => rule.as_array().unwrap().contains(value),
                "minimum" => value.as_u64() >= rule.as_u64(),
                "pattern" => value.as_str().is_none_or(|text| matches(rule, text)),
                "format" => value.as_str().is_some_and(is_date_time),
                "anyOf" => {
                    let mut any = rule.as_array().unwrap().iter();
                    any.any(|schema| self.fits(value, schema, place).is_ok())
                }
                "items" => {
                    let items = value.as_array().into_iter().flatten();
                    for (at, item) in items.enumerate() {
                        self.fits(item, rule, &format!("{place}[{at}]"))?;
                    }
                    true
                }
                "required" => {
                    let mut fields = rule.as_array().unwrap().iter();
                    let missing = fields.find(|field| value.get(field.as_str().unwrap()).is_none());
                    if let Some(field) = missing {
                        return Err(format!("{place} has no {field}"));
                    }
                    true
                }
                "additionalProperties" => {
                    for (field, value) in value.as_object().into_iter().flatten() {
                        let inner = format!("{place}.{field}");
                        match (schema["properties"].get(field), rule) {
                            (Some(schema), _) | (None, schema @ Value::Object(_)) => {
                                self.fits(value, schema, &inner)?;
                            }
                            _unknown => return Err(format!("{inner} is an unknown field")),
                        }
                    }
                    true
                }
                other => panic!("the word {other}"),
            };
            if !fits {
                return Err(format!("{place} is {value}, and has to fit {word} {rule}"));
            }
        }
        Ok(())
    }
}

fn matches(pattern: &Value, text: &str) -> bool {
    let is_hex = |text: &str| text.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'));
    match pattern.as_str().unwrap() {
        "^([0-9a-f]{64})?$" => is_hex(text) && [0, 64].contains(&text.len()),
        "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$" => {
            let parts: Vec<&str> = text.split('-').collect();
            let lengths = parts.iter().map(|part| part.len());
            lengths.eq([8, 4, 4, 4, 12]) && parts.into_iter().all(is_hex)
        }
        other => panic!("the pattern {other}"),
    }
}

fn is_date_time(text: &str) -> bool {
    text.len() == "2026-11-30T13:00:00.123Z".len()
        && text.ends_with('Z')
        && text.as_bytes()[10] == b'T'
}

/// Lines that were checked, and the types that they had.
struct Seen {
    schema: Schema,
    types: BTreeSet<String>,
}

impl Seen {
    fn check(&mut self, lines: &str, what: &[&str]) {
        for line in lines.lines() {
            let object = serde_json::from_str(line);
            let object = object.unwrap_or_else(|_| panic!("{what:?}: {line}"));
            match self.schema.check(&object) {
                Ok(name) => self.types.insert(name),
                Err(error) => panic!("{what:?}: {error}: {line}"),
            };
        }
    }

    /// Runs a command with `--json`, and checks its lines.
    fn run(&mut self, home: &Home, arguments: &[&str]) -> Ran {
        self.feed(home, arguments, "")
    }

    fn feed(&mut self, home: &Home, arguments: &[&str], stdin: &str) -> Ran {
        let arguments = [&["--json"], arguments].concat();
        let ran = home.feed(&arguments, stdin);
        self.check(&ran.raw, &arguments);
        self.check(&ran.stderr, &arguments);
        ran
    }
}

#[test]
fn lines_of_all_commands_fit_the_schema() {
    let mut seen = Seen {
        schema: Schema::read(),
        types: BTreeSet::new(),
    };
    let home = Home::new();
    let file = |name: &str| home.path(name).to_str().unwrap().to_owned();
    seen.run(&home, &["init", "--name", "attic"]);
    let mut node = home.start(&["up", "--json"]);
    let up = node.line_with("\"up\"");
    seen.check(&up, &["up"]);
    for command in [
        &["put", "/k", "1"][..],
        &["put", "/k", "2", "--ttl", "1h"],
        &["put", "/short", "x", "--ttl", "100ms"],
        &["get", "/k"],
        &["get", "/none"],
        &["get", "/k", "--limit"],
        &["list", "/", "--keys-only"],
        &["heads", "/k"],
        &["history", "/k"],
        &["log"],
        &["export", "/k"],
        &["diff", "--since", "1h"],
        &["delete", "/k"],
        &["delete", "/k"],
        &["delete", "--prefix", "/nothing/", "--yes"],
        &["watch", "/", "--since", "1h", "--until-caught-up"],
        &["watch", "/", "--until-caught-up", "--hash", "--cursors"],
        &[
            "watch",
            "/k",
            "--since",
            "1h",
            "--until-caught-up",
            "--proof",
        ],
        &["store", "create", "notes"],
        &["store", "list"],
        &["store", "use", "notes"],
        &["store", "use", "--clear"],
        &["store", "rename", "notes", "texts"],
        &["store", "delete", "texts", "--yes"],
        &["status"],
        &["peers"],
        &["root"],
        &["verify"],
        &["retention"],
        &["retention", "set", "--age", "30d"],
        &["prune", "--dry-run"],
        &["repair", "--yes"],
        &["wait"],
        &["help", "topics"],
        &["help", "watching"],
        &["key", "show"],
        &["snapshot", "create", &file("s")],
        &["snapshot", "verify", &file("s")],
    ] {
        seen.run(&home, command);
    }
    let tsv = ["put", "--stdin", "--format", "tsv"];
    seen.feed(&home, &tsv, "/a/1\tx\n/a/2\ty\n");
    seen.feed(&home, &["batch", "--format", "tsv"], "put\t/a/3\tz\n");
    seen.run(&home, &["list", "/", "--delimiter", "/"]);
    let exported = seen.run(&home, &["export", "/a/"]).raw;
    seen.feed(&home, &["import"], &exported);
    seen.run(&home, &["get", "/a/1", "--prove", &file("proof")]);
    seen.run(&home, &["verify", "--proof", &file("proof")]);
    let watch = [
        "watch",
        "/a/",
        "--since",
        "1h",
        "--until-caught-up",
        "--proof",
    ];
    let proven = seen.run(&home, &watch).raw;
    seen.feed(&home, &["verify", "--lines"], &proven);
    let forged = proven.replace("\"x\"", "\"forged\"");
    seen.feed(&home, &["verify", "--lines"], &forged);
    seen.run(&home, &["status", "/a/1"]);
    consumers_and_hooks(&mut seen, &home);
    let joiner = join(&mut seen, &home);
    seen.run(&joiner, &["leave", "--yes"]);
    seen.run(&home, &["prune"]);
    seen.run(&home, &["down"]);
    seen.run(&home, &["status"]);
    let missing: Vec<&str> = EXPECTED
        .split_whitespace()
        .filter(|name| !seen.types.contains(*name))
        .collect();
    assert!(missing.is_empty(), "not printed: {missing:?}");
}

fn consumers_and_hooks(seen: &mut Seen, home: &Home) {
    let script = home.path("hook.sh");
    fs::write(&script, "#!/bin/sh\ncat > /dev/null\nexit 1\n").unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let add = [
        "hook",
        "add",
        "h",
        "/a/",
        "--attempts",
        "1",
        "--",
        "./hook.sh",
    ];
    seen.run(
        home,
        &["consumer", "create", "c", "/a/", "--since", "start"],
    );
    seen.run(home, &add);
    let next = ["consumer", "next", "c", "--timeout", "30s"];
    let take = |seen: &mut Seen| {
        let taken = seen.run(home, &next);
        assert_eq!(taken.code, 0, "{taken}");
        taken.json()[0]["delivery"].as_str().unwrap().to_owned()
    };
    let id = take(seen);
    seen.run(home, &["consumer", "show", "c"]);
    seen.run(home, &["consumer", "extend", "c", &id]);
    seen.run(home, &["consumer", "nack", "c", &id]);
    let id = take(seen);
    seen.run(home, &["consumer", "ack", "c", &id]);
    let id = take(seen);
    seen.run(home, &["consumer", "term", "c", &id]);
    seen.run(home, &["consumer", "dead", "c"]);
    seen.run(home, &["consumer", "dead", "c", "retry", "--all"]);
    seen.run(home, &["consumer", "list"]);
    seen.run(home, &["consumer", "delete", "c"]);
    seen.run(home, &["put", "/a/4", "for the hook"]);
    soon("the hook ran", || {
        !home.run(&["hook", "logs", "h", "--json"]).raw.is_empty()
    });
    for command in [
        &["hook", "logs", "h"][..],
        &["hook", "list"],
        &["hook", "test", "h", "--dry-run", "--since", "1h"],
        &["hook", "pause", "h"],
        &["hook", "dead", "h"],
        &["hook", "remove", "h"],
    ] {
        seen.run(home, command);
    }
}

// Lets a node in, and makes a conflict with it.
fn join(seen: &mut Seen, home: &Home) -> Home {
    let token = seen.run(home, &["invite"]).json()[0]["token"].clone();
    let joiner = Home::new();
    seen.run(&joiner, &["join", token.as_str().unwrap(), "--name", "den"]);
    joiner.run(&["put", "/a/1", "from the den"]).ok();
    home.run(&["put", "/a/1", "from the attic"]).ok();
    let node = joiner.up();
    soon("the conflict is known", || {
        home.run(&["conflicts", "--json"]).json().len() == 2
    });
    let item = seen.run(home, &["get", "/a/1"]).json().remove(0);
    let heads = item["heads"].as_array().unwrap();
    assert_eq!((heads.len(), &heads[0]), (2, &item["entry"]), "{item}");
    let named = |object: &Value| object["author_name"].as_str().unwrap().to_owned();
    let heads = seen.run(home, &["conflicts"]).json();
    let names: BTreeSet<String> = heads.iter().map(named).collect();
    assert_eq!(names, ["attic", "den"].map(str::to_owned).into());
    seen.run(home, &["heads", "/a/1"]);
    seen.run(home, &["watch", "/a/1", "--until-caught-up"]);
    seen.run(home, &["compare", "den"]);
    seen.run(home, &["peers"]);
    seen.run(home, &["status"]);
    seen.run(home, &["peer", "dormant", "den"]);
    drop(node);
    joiner
}

/// Types that the test above has to see: a command whose lines are not checked would be missed otherwise.
const EXPECTED: &str = "\
    accepted acked added caught_up checked compared consumer consumer_deleted contacted dead dead_letter \
    dead_retried delete entry error exported extended false head hook hook_removed init invite item \
    keys_deleted nacked node_key notice page peer peer_dormant prefix proved put ready retention retention_policy root \
    row run signed snapshot_created snapshot_verified status stopped store store_deleted store_renamed \
    store_used synced test_run up verified version who_has writes written";

#[test]
fn checker_finds_each_fault() {
    let schema = Schema::read();
    let id = "0123456789abcdef".repeat(4);
    let written = json!({
        "type": "written", "entry": id, "author": id, "author_name": "attic", "seq": 1,
        "wall_ms": 1, "wall_time": "1970-01-01T00:00:00.001Z", "counter": 0,
    });
    assert_eq!(schema.check(&written), Ok("written".to_owned()));
    let with = |field: &str, value: Value| {
        let mut line = written.clone();
        line[field] = value;
        schema.check(&line).unwrap_err()
    };
    assert!(with("more", json!(1)).contains("written.more is an unknown field"));
    assert!(with("type", json!("wrote")).contains("unknown type wrote"));
    // A definition that is not a line.
    assert!(with("type", json!("id")).contains("unknown type id"));
    assert!(with("seq", json!("1")).contains("written.seq is"));
    assert!(with("entry", json!("0123")).contains("written.entry is"));
    assert!(with("wall_time", json!("yesterday")).contains("written.wall_time is"));
    assert!(with("wall_ms", json!(-1)).contains("written.wall_ms is"));
    let mut missing = written.clone();
    missing.as_object_mut().unwrap().remove("seq");
    let error = schema.check(&missing).unwrap_err();
    assert!(error.contains("written has no \"seq\""), "{error}");
    missing.as_object_mut().unwrap().remove("type");
    assert_eq!(schema.check(&missing), Err("it has no type".to_owned()));
}

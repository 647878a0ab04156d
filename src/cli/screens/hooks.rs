//! The hooks of a node, as `hook list` shows them.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use lattice::wire::api;

use crate::cli::{
    output::{
        ink::Ink,
        print::{escape, harmless},
        screen::Screen,
        table::{Cell, Column, Table},
    },
    screens::when::{count, when},
};

/// Draws a table of hooks, with what a person has to look at below it.
pub(crate) fn draw(hooks: &[&api::HookStatus], screen: &Screen) -> Vec<String> {
    let mut lines = table(hooks, screen);
    for text in hooks.iter().flat_map(|hook| troubles(hook)) {
        let line = format!("  ! {text}");
        lines.push(screen.paint(Ink::Warn, &screen.fit(&line, 0)));
    }
    lines
}

/// Draws a table of hooks.
pub(crate) fn table(hooks: &[&api::HookStatus], screen: &Screen) -> Vec<String> {
    let mut table = Table::new(&[
        Column::Text("HOOK"),
        Column::Text("STATE"),
        Column::Key("KEYS"),
        Column::Long("RUNS"),
        Column::Number("DONE"),
        Column::Number("FAILED"),
        Column::Number("RUNNING"),
        Column::Number("WAITING"),
        Column::Number("DEAD"),
        Column::Text("LAST"),
    ]);
    for hook in hooks {
        let consumer = hook.consumer.clone().unwrap_or_default();
        let (on, runs) = definition(hook);
        let last = hook.last.as_ref();
        let last = last.map(|run| {
            let text = format!("{} {}", run.outcome, when(screen, run.at_ms));
            Cell::new(outcome_ink(&run.outcome), text)
        });
        table.row([
            hook.hook.as_str().into(),
            Cell::new(state_ink(&hook.state), hook.state.as_str()),
            on.into(),
            runs.into(),
            Cell::count(Ink::Plain, hook.done),
            Cell::count(Ink::Bad, hook.failed),
            Cell::count(Ink::Plain, hook.running),
            Cell::count(Ink::Warn, consumer.outstanding.saturating_sub(hook.running)),
            Cell::count(Ink::Alarm, consumer.dead),
            last.unwrap_or_default(),
        ]);
    }
    table.draw(screen, 0)
}

/// Describes what a person has to look at, a text for each matter, which begins with the hook's name.
pub(crate) fn troubles(hook: &api::HookStatus) -> Vec<String> {
    let name = &hook.hook;
    let dead = hook.consumer.as_ref().map_or(0, |it| it.dead);
    let mut texts = Vec::new();
    if dead > 0 {
        let letters = count(dead, "dead letter");
        texts.push(format!("{name}: {letters}: lattice hook dead {name}"));
    }
    let reasons = [&hook.reason, &hook.slowed];
    let reasons = reasons.into_iter().filter(|reason| !reason.is_empty());
    texts.extend(reasons.map(|reason| format!("{name}: {}", harmless(reason))));
    texts
}

// Returns the prefix of the keys, and the action with the mode.
fn definition(status: &api::HookStatus) -> (String, String) {
    let Some(hook) = &status.definition else {
        return (String::new(), "(not in hooks.toml any more)".to_owned());
    };
    let mode = match hook.mode.as_str() {
        "each" | "" => String::new(),
        mode => format!(" ({mode})"),
    };
    let does = match hook.http.as_str() {
        "" => hook.run.join(" "),
        url => format!("POST {url}"),
    };
    let on = match hook.on_base64.as_str() {
        "" => hook.on.clone().into_bytes(),
        base64 => BASE64_STANDARD.decode(base64).unwrap_or_default(),
    };
    (
        escape(&on).into_owned(),
        format!("{}{mode}", harmless(&does)),
    )
}

/// Returns the colour of the state of a hook or a consumer.
pub(crate) fn state_ink(state: &str) -> Ink {
    match state {
        "running" => Ink::Good,
        "stopped" | "trouble" => Ink::Alarm,
        "waiting" | "paused" => Ink::Warn,
        _off => Ink::Dim,
    }
}

fn outcome_ink(outcome: &str) -> Ink {
    match outcome {
        "done" => Ink::Good,
        "dead" => Ink::Alarm,
        _failed => Ink::Bad,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::cli::output::screen::tests::{NOW_MS, everywhere};

    /// Returns a hook that runs a script, and has so many dead letters.
    pub(crate) fn hook(name: &str, dead: u64) -> api::HookStatus {
        api::HookStatus {
            hook: name.to_owned(),
            state: "running".to_owned(),
            definition: Some(api::Hook {
                on: format!("/{name}/"),
                run: vec![format!("./{name}.sh"), "-v".to_owned()],
                mode: "each".to_owned(),
                ..api::Hook::default()
            }),
            consumer: Some(api::ConsumerStatus {
                dead,
                ..api::ConsumerStatus::default()
            }),
            done: 12,
            failed: dead * 2,
            last: Some(api::HookRun {
                outcome: if dead > 0 { "dead" } else { "done" }.to_owned(),
                at_ms: NOW_MS - 180_000,
                ..api::HookRun::default()
            }),
            ..api::HookStatus::default()
        }
    }

    #[test]
    fn hooks_are_a_table_without_columns_of_zeros() {
        let idle = api::HookStatus {
            done: 0,
            last: None,
            state: "off".to_owned(),
            ..hook("index", 0)
        };
        let slow = api::HookStatus {
            slowed: "more than 60 runs a minute".to_owned(),
            definition: Some(api::Hook {
                on: "/packages/".to_owned(),
                http: "https://hooks.example.org/a/very/long/path/to/deliver/changes/to".to_owned(),
                mode: "batch".to_owned(),
                ..api::Hook::default()
            }),
            ..hook("notify", 0)
        };
        let gone = api::HookStatus {
            definition: None,
            state: "off".to_owned(),
            ..hook("old", 0)
        };
        let deploy = hook("deploy", 1);
        let hooks = [&deploy, &idle, &slow, &gone];
        insta::assert_snapshot!(everywhere(|screen| draw(&hooks, screen)), @"
        -- 80 columns
        HOOK    STATE    KEYS        RUNS             DONE  FAILED  DEAD  LAST
        deploy  running  /deploy/    ./deploy.sh -v     12       2     1  dead 3 min ago
        index   off      /index/     ./index.sh -v
        notify  running  /packages/  POST https://h…    12                done 3 min ago
        old     off                  (not in hooks.…    12                done 3 min ago
          ! deploy: 1 dead letter: lattice hook dead deploy
          ! notify: more than 60 runs a minute
        -- 120 columns
        HOOK    STATE    KEYS        RUNS                                                     DONE  FAILED  DEAD  LAST
        deploy  running  /deploy/    ./deploy.sh -v                                             12       2     1  dead 3 min ago
        index   off      /index/     ./index.sh -v
        notify  running  /packages/  POST https://hooks.example.org/a/very/long/path/to/del…    12                done 3 min ago
        old     off                  (not in hooks.toml any more)                               12                done 3 min ago
          ! deploy: 1 dead letter: lattice hook dead deploy
          ! notify: more than 60 runs a minute
        -- 80 columns, in colour
        ^[2mHOOK^[0m    ^[2mSTATE^[0m    ^[2mKEYS^[0m        ^[2mRUNS^[0m             ^[2mDONE^[0m  ^[2mFAILED^[0m  ^[2mDEAD^[0m  ^[2mLAST^[0m
        deploy  ^[38;5;2mrunning^[39m  /deploy/    ./deploy.sh -v     12       ^[38;5;1m2^[39m     ^[38;5;1m^[1m1^[0m  ^[38;5;1m^[1mdead 3 min ago^[0m
        index   ^[2moff^[0m      /index/     ./index.sh -v
        notify  ^[38;5;2mrunning^[39m  /packages/  POST https://h…    12                ^[38;5;2mdone 3 min ago^[39m
        old     ^[2moff^[0m                  (not in hooks.…    12                ^[38;5;2mdone 3 min ago^[39m
        ^[33m  ! deploy: 1 dead letter: lattice hook dead deploy^[0m
        ^[33m  ! notify: more than 60 runs a minute^[0m
        -- 120 columns, in colour
        ^[2mHOOK^[0m    ^[2mSTATE^[0m    ^[2mKEYS^[0m        ^[2mRUNS^[0m                                                     ^[2mDONE^[0m  ^[2mFAILED^[0m  ^[2mDEAD^[0m  ^[2mLAST^[0m
        deploy  ^[38;5;2mrunning^[39m  /deploy/    ./deploy.sh -v                                             12       ^[38;5;1m2^[39m     ^[38;5;1m^[1m1^[0m  ^[38;5;1m^[1mdead 3 min ago^[0m
        index   ^[2moff^[0m      /index/     ./index.sh -v
        notify  ^[38;5;2mrunning^[39m  /packages/  POST https://hooks.example.org/a/very/long/path/to/del…    12                ^[38;5;2mdone 3 min ago^[39m
        old     ^[2moff^[0m                  (not in hooks.toml any more)                               12                ^[38;5;2mdone 3 min ago^[39m
        ^[33m  ! deploy: 1 dead letter: lattice hook dead deploy^[0m
        ^[33m  ! notify: more than 60 runs a minute^[0m
        ");
    }
}

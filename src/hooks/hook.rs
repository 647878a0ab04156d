//! The definition of a hook: the changes it runs on, its action, and its pace.

use std::{fmt, path::PathBuf, time::Duration};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use crate::{
    clock::{duration_text, parse_duration},
    hooks::secret::Secret,
    limits::{
        CONSUMER_BACKOFF_STEPS_MAX, HOOK_ARGUMENTS_MAX, HOOK_BATCH_MAX, HOOK_NAME_CHARS_MAX,
        HOOK_PARALLEL_MAX, HOOK_RATE_MAX, HOOK_TIMEOUT_MAX, KEY_BYTES_MAX,
    },
    protocol::{change::Kind, consumer::OnGap},
};

/// A hook, as defined in `hooks.toml` under its name. Missing fields have their default.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Hook {
    /// Prefix of the keys whose changes run the hook. Empty: all keys.
    pub on: String,
    /// The prefix in base64, for keys that are not UTF-8. Instead of `on`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_base64: Option<String>,
    /// Store, by name or UUID. Empty: the data store; the root store for keys under `/nodes/`,
    /// `/invites/` and `/stores/`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub store: String,
    /// Command and its arguments, which no shell reads. A hook has either `run` or `http`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub run: Vec<String>,
    /// Working directory of the command; a program such as `./deploy.sh` is relative to this
    /// directory. Default: the data directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dir: Option<PathBuf>,
    /// URL that changes are posted to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http: Option<String>,
    /// File with the secret that signs posts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_file: Option<PathBuf>,
    /// Environment variable of the node with that secret, instead of a file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_env: Option<String>,
    /// PEM file with certificate authorities that posts trust, besides those of this machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// Kinds of changes that run the hook. Empty: all kinds.
    #[serde(
        rename = "only",
        alias = "kinds",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub kinds: Vec<HookKind>,
    /// Rule that turns changes into runs. Default: each.
    #[serde(skip_serializing_if = "is_default")]
    pub mode: Mode,
    /// Mode batch: largest number of changes in a run. Default: 100.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch: Option<usize>,
    /// Mode latest: time that the key must be quiet before a run. Mode batch: time that the first
    /// change waits for more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub debounce: Option<Span>,
    /// Mode latest: longest wait for a key that does not become quiet. Default: ten times
    /// `debounce`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub debounce_max: Option<Span>,
    /// Longest time of a run; a longer run is ended and has failed. Default: 1m.
    #[serde(skip_serializing_if = "is_timeout")]
    pub timeout: Span,
    /// Largest number of runs at a time; never more than one for a key. Default: 4.
    #[serde(skip_serializing_if = "is_parallel")]
    pub parallel: usize,
    /// Number of failed runs after which a change becomes a dead letter. Default: 5.
    #[serde(skip_serializing_if = "is_attempts")]
    pub attempts: u32,
    /// Waits before the 2nd, 3rd ... attempt, varied by up to a fifth; the last wait is used for
    /// all later attempts. Default: 1s, 5s, 30s, 2m.
    #[serde(skip_serializing_if = "is_backoff")]
    pub backoff: Vec<Span>,
    /// True: the command prints puts and deletes as JSON lines. They are written once, as one entry
    /// whose cause is the change.
    #[serde(skip_serializing_if = "is_default")]
    pub writes: bool,
    /// Largest number of runs per second; further runs wait. Default: 100.
    #[serde(skip_serializing_if = "is_rate")]
    pub rate: u32,
    /// The step where the log no longer has the next changes. `state`: a run with a change of the kind
    /// `gap`, then runs with all live keys, then with the changes after that state. `stop`: no runs
    /// until this is changed. `None`: the hook's consumer keeps its own; a new one has `state`.
    #[serde(
        skip_serializing_if = "Option::is_none",
        serialize_with = "write_on_gap",
        deserialize_with = "read_on_gap"
    )]
    pub on_gap: Option<OnGap>,
}

/// The rule that turns changes into runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Each change is a run.
    #[default]
    Each,
    /// A change is a run if it is still the newest of its key when the run would start; other
    /// changes are skipped.
    Latest,
    /// Several changes of different keys are one run.
    Batch,
}

/// A kind of change, as `hooks.toml` writes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HookKind {
    /// A key was set.
    Put,
    /// A key was deleted.
    Delete,
    /// The TTL of a value ran out.
    Expire,
    /// Entries no longer count, for example after a member was removed.
    Retract,
}

/// A duration; `hooks.toml` writes it as text, for example `1m30s`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Span(pub Duration);

/// An invalid definition of a hook.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HookError {
    /// The name is not valid.
    #[error(
        "{name:?} is not a name for a hook: expected 1 to {HOOK_NAME_CHARS_MAX} letters, digits, \
        '-', '_' or '.', and no '.' first"
    )]
    Name {
        /// Name that was given, shortened to 80 characters.
        name: String,
    },
    /// The hook has no action, or two actions.
    #[error("a hook has either a command to run or a URL to post to")]
    Action,
    /// The command has too many arguments, or an argument contains a NUL.
    #[error("the command has more than {HOOK_ARGUMENTS_MAX} arguments, or one contains a NUL")]
    Arguments,
    /// Two settings exclude each other.
    #[error("{0}")]
    Together(&'static str),
    /// A setting exceeds its limits.
    #[error("{what} must be {must}, but it is {is}")]
    Limit {
        /// Name of the setting.
        what: &'static str,
        /// Allowed values.
        must: String,
        /// Value that was given.
        is: String,
    },
}

impl Hook {
    /// Returns the place of the secret that signs the hook's posts. `None`: posts are not signed.
    pub fn secret(&self) -> Option<Secret> {
        let file = self.secret_file.clone().map(Secret::File);
        file.or_else(|| self.secret_env.clone().map(Secret::Env))
    }

    /// Returns the name of the consumer of hook `name`.
    pub fn consumer(name: &str) -> String {
        format!("{CONSUMER_PREFIX}{name}")
    }

    /// Returns the name of the hook that owns a consumer. `None`: the consumer belongs to no hook.
    pub fn of_consumer(consumer: &str) -> Option<&str> {
        consumer.strip_prefix(CONSUMER_PREFIX)
    }

    /// Returns the prefixes of the hook's consumer. Empty: all keys.
    pub fn prefixes(&self) -> Vec<Bytes> {
        let prefix = self.prefix();
        if prefix.is_empty() {
            return Vec::new();
        }
        vec![prefix]
    }

    /// Returns the prefix of the hook's keys. Empty: all keys.
    pub fn prefix(&self) -> Bytes {
        match &self.on_base64 {
            // `check` has refused what is not base64.
            Some(base64) => BASE64_STANDARD.decode(base64).unwrap_or_default().into(),
            None => Bytes::copy_from_slice(self.on.as_bytes()),
        }
    }

    /// Returns true if the hook runs on changes of `kind` of `key`. It always runs on a gap.
    pub fn wants(&self, kind: Kind, key: &[u8]) -> bool {
        let is_kind = |wanted: &HookKind| Kind::from(*wanted) == kind;
        if kind == Kind::Gap {
            return true;
        }
        key.starts_with(&self.prefix()) && (self.kinds.is_empty() || self.kinds.iter().any(is_kind))
    }

    /// Returns the largest number of changes in a run; at least 1 for a checked hook.
    pub fn changes_max(&self) -> usize {
        match self.mode {
            Mode::Each | Mode::Latest => 1,
            Mode::Batch => self.batch.unwrap_or(BATCH_DEFAULT),
        }
    }

    /// Returns the URL for people: with three dots in the place of a user and a password.
    pub fn http_shown(&self) -> Option<String> {
        self.http.as_deref().map(without_credentials)
    }

    /// Returns the longest wait for a key that does not become quiet. `None`: changes do not wait.
    pub fn debounce_max(&self) -> Option<Duration> {
        let debounce = self.debounce?.0;
        Some(self.debounce_max.map_or(debounce * 10, |max| max.0))
    }

    /// Checks the name, each setting against its limits, and settings that exclude each other.
    ///
    /// # Errors
    /// The first mistake.
    pub fn check(&self, name: &str) -> Result<(), HookError> {
        check_name(name)?;
        if self.run.is_empty() == self.http.is_none() {
            return Err(HookError::Action);
        }
        let has_nul = self.run.iter().any(|argument| argument.contains('\0'));
        if self.run.len() > HOOK_ARGUMENTS_MAX || has_nul {
            return Err(HookError::Arguments);
        }
        let url = self.http.as_deref().unwrap_or("http://");
        if !(url.starts_with("http://") || url.starts_with("https://")) {
            return Err(HookError::Limit {
                what: "http",
                must: "a URL that begins with http:// or https://".to_owned(),
                is: without_credentials(url).chars().take(80).collect(),
            });
        }
        self.check_together()?;
        let within = |what, is: usize, max: usize| {
            let must = format!("1 to {max}");
            let is_within = (1..=max).contains(&is);
            is_within.then_some(()).ok_or(HookError::Limit {
                what,
                must,
                is: is.to_string(),
            })
        };
        if let Some(base64) = &self.on_base64
            && BASE64_STANDARD.decode(base64).is_err()
        {
            return Err(HookError::Limit {
                what: "on_base64",
                must: "base64".to_owned(),
                is: base64.chars().take(80).collect(),
            });
        }
        within("bytes of on", self.prefix().len().max(1), KEY_BYTES_MAX)?;
        within("parallel", self.parallel, HOOK_PARALLEL_MAX)?;
        within("batch", self.changes_max(), HOOK_BATCH_MAX)?;
        within(
            "steps of backoff",
            self.backoff.len(),
            CONSUMER_BACKOFF_STEPS_MAX,
        )?;
        let number = |number: u32| usize::try_from(number).unwrap_or(usize::MAX);
        within("attempts", number(self.attempts), usize::from(u16::MAX))?;
        within("rate", number(self.rate), number(HOOK_RATE_MAX))?;
        let spans = [
            ("timeout", Some(self.timeout)),
            ("debounce", self.debounce),
            ("debounce_max", self.debounce_max),
        ];
        for (what, span) in spans {
            let (shortest, longest) = (Duration::from_millis(1), HOOK_TIMEOUT_MAX);
            if let Some(span) = span
                && !(shortest..=longest).contains(&span.0)
            {
                let must = format!("1ms to {}", duration_text(longest));
                let is = span.to_string();
                return Err(HookError::Limit { what, must, is });
            }
        }
        Ok(())
    }

    fn check_together(&self) -> Result<(), HookError> {
        let wrong = [
            (
                self.on_base64.is_some() && !self.on.is_empty(),
                "a hook has on or on_base64, not both",
            ),
            (
                self.mode == Mode::Each && self.debounce.is_some(),
                "debounce is for the modes latest and batch: in mode each, every change runs at once",
            ),
            (
                self.debounce.is_none() && self.debounce_max.is_some(),
                "debounce_max limits debounce, which is not set",
            ),
            (
                self.mode != Mode::Latest && self.debounce_max.is_some(),
                "debounce_max is for the mode latest: a batch never waits longer than debounce",
            ),
            (
                self.mode != Mode::Batch && self.batch.is_some(),
                "batch is set, but only the mode batch uses it",
            ),
            (
                self.writes && self.mode == Mode::Batch,
                "writes excludes mode batch: another attempt may have other changes in its batch, so \
                its answer could be written twice",
            ),
            (
                self.writes && self.http.is_some(),
                "writes is for the output of a command: it excludes http",
            ),
            (
                self.http.is_none() && self.secret().is_some(),
                "secret_file or secret_env is set, but the hook does not post: set http",
            ),
            (
                self.secret_file.is_some() && self.secret_env.is_some(),
                "a hook has secret_file or secret_env, not both",
            ),
            (
                self.http.is_none() && self.ca_file.is_some(),
                "ca_file is set, but the hook does not post: set http",
            ),
        ];
        let found = wrong.into_iter().find(|(is_wrong, _)| *is_wrong);
        found.map_or(Ok(()), |(_, why)| Err(HookError::Together(why)))
    }
}

impl Default for Hook {
    fn default() -> Self {
        Self {
            on: String::new(),
            on_base64: None,
            store: String::new(),
            run: Vec::new(),
            dir: None,
            http: None,
            secret_file: None,
            secret_env: None,
            ca_file: None,
            kinds: Vec::new(),
            mode: Mode::Each,
            batch: None,
            debounce: None,
            debounce_max: None,
            timeout: TIMEOUT_DEFAULT,
            parallel: PARALLEL_DEFAULT,
            attempts: ATTEMPTS_DEFAULT,
            backoff: BACKOFF_DEFAULT.to_vec(),
            writes: false,
            rate: RATE_DEFAULT,
            on_gap: None,
        }
    }
}

impl From<HookKind> for Kind {
    fn from(kind: HookKind) -> Self {
        match kind {
            HookKind::Put => Self::Put,
            HookKind::Delete => Self::Delete,
            HookKind::Expire => Self::Expire,
            HookKind::Retract => Self::Retract,
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Each => "each",
            Self::Latest => "latest",
            Self::Batch => "batch",
        })
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&duration_text(self.0))
    }
}

impl TryFrom<String> for Span {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let duration = parse_duration(&text);
        duration
            .map(Self)
            .map_err(|what| format!("{:?}: {what}", text.chars().take(80).collect::<String>()))
    }
}

impl From<Span> for String {
    fn from(span: Span) -> Self {
        span.to_string()
    }
}

/// Checks the name of a hook.
pub(super) fn check_name(name: &str) -> Result<(), HookError> {
    let is_fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    // The name is also a file name, so it must not make a hidden file or a path to another
    // directory.
    if (1..=HOOK_NAME_CHARS_MAX).contains(&name.len())
        && name.chars().all(is_fine)
        && !name.starts_with('.')
    {
        return Ok(());
    }
    let name = name.chars().take(80).collect();
    Err(HookError::Name { name })
}

fn write_on_gap<S: Serializer>(on_gap: &Option<OnGap>, serializer: S) -> Result<S::Ok, S::Error> {
    on_gap.map(OnGap::name).serialize(serializer)
}

fn read_on_gap<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<OnGap>, D::Error> {
    let name = String::deserialize(deserializer)?;
    let known = OnGap::of_name(&name).map(Some);
    known.ok_or_else(|| {
        let name: String = name.chars().take(80).collect();
        D::Error::custom(format!(
            "{name:?} is not a step at a gap: expected stop or state"
        ))
    })
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

fn is_timeout(timeout: &Span) -> bool {
    *timeout == TIMEOUT_DEFAULT
}

fn is_parallel(parallel: &usize) -> bool {
    *parallel == PARALLEL_DEFAULT
}

fn is_attempts(attempts: &u32) -> bool {
    *attempts == ATTEMPTS_DEFAULT
}

fn is_backoff(backoff: &[Span]) -> bool {
    backoff == BACKOFF_DEFAULT
}

fn is_rate(rate: &u32) -> bool {
    *rate == RATE_DEFAULT
}

const CONSUMER_PREFIX: &str = "hook.";
const BATCH_DEFAULT: usize = 100;
const PARALLEL_DEFAULT: usize = 4;
const ATTEMPTS_DEFAULT: u32 = 5;
const RATE_DEFAULT: u32 = 100;
const TIMEOUT_DEFAULT: Span = Span(Duration::from_secs(60));
const BACKOFF_DEFAULT: [Span; 4] = [
    Span(Duration::from_secs(1)),
    Span(Duration::from_secs(5)),
    Span(Duration::from_secs(30)),
    Span(Duration::from_secs(120)),
];
// Hides user and password of a URL.
fn without_credentials(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return url.to_owned();
    };
    let end = rest.find(['/', '?', '#', '\\']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    match authority.rsplit_once('@') {
        Some((_credentials, host)) => format!("{scheme}://...@{host}{path}"),
        None => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefix_need_not_be_text() {
        let hook = |on: &str, on_base64: &str| Hook {
            on: on.to_owned(),
            on_base64: Some(on_base64.to_owned()),
            run: vec!["true".to_owned()],
            ..Hook::default()
        };
        let raw = hook("", "/w==");
        assert_eq!(raw.check("a"), Ok(()));
        assert!(raw.wants(Kind::Put, b"\xff1") && !raw.wants(Kind::Put, b"/a"));
        assert_eq!(raw.prefixes(), [Bytes::from_static(b"\xff")]);
        assert!(matches!(
            hook("/a", "/w==").check("a"),
            Err(HookError::Together(_))
        ));
        assert!(matches!(
            hook("", "?").check("a"),
            Err(HookError::Limit { .. })
        ));
    }

    #[test]
    fn credentials_of_a_url_are_not_shown() {
        let cases = [
            ("https://me:secret@host/p?q#f", "https://...@host/p?q#f"),
            ("https://me:se@cret@host:80", "https://...@host:80"),
            ("https://token@host?a=b@c", "https://...@host?a=b@c"),
            ("https://host/a@b", "https://host/a@b"),
            ("no url", "no url"),
        ];
        for (url, shown) in cases {
            assert_eq!(without_credentials(url), shown);
        }
    }
}

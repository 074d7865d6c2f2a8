//! Who may do what: API keys with scopes and quotas.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, HeaderName};
use serde::{Deserialize, Serialize};

use super::problem::{Kind, Problem};
use super::stamp::Stamp;
use crate::telemetry::Metrics;
use crate::telemetry::access::Access;
use keys::{ApiKey, Keys};

mod key;
mod keys;
mod quota;

pub use key::{KeyEntry, KeyError, KeyHash, KeyId, Scope, Token};
pub use keys::append;
pub(super) use quota::{Bucket, Standing};

/// The keys.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// A file of further keys, a JSON object on each line, read anew when it changes; empty: none.
    pub keys_file: PathBuf,
    /// Keys that stay until the next start.
    pub keys: Vec<KeyEntry>,
}

/// What is wrong with the keys; the text names where, and repeats no secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct AuthError(String);

impl AuthError {
    /// With this text.
    pub(super) fn new(text: String) -> Self {
        Self(text)
    }
}

/// What a route asks of its callers, where there are keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Nothing.
    Nothing,
    /// A key of any scope.
    AnyKey,
    /// A key of this scope.
    Key(Scope),
}

/// The keys in force, and what they are read from.
#[derive(Debug)]
pub struct Auth {
    /// Whether keys are configured at all. Where they are not, everybody may do everything; where the last of them goes,
    /// nobody may.
    on: bool,
    config: Config,
    keys: ArcSwap<Keys>,
    /// What the file looked like when it was last read. Held while it is read.
    seen: Mutex<Stamp>,
    metrics: Arc<Metrics>,
    /// From when quotas count their time.
    origin: Instant,
}

/// The key by which a request was let in. A request extension.
#[derive(Clone, Debug)]
pub(super) struct Caller(Arc<ApiKey>);

/// What is decided of a request.
#[derive(Debug, Default)]
pub(super) struct Admission {
    /// The key, where one was needed and is known.
    pub(super) key: Option<Caller>,
    /// What the key has left.
    pub(super) standing: Option<Standing>,
    /// Why it may not go on.
    pub(super) refused: Option<Problem>,
}

/// The header that carries a key where `Authorization` is another's.
pub(super) const API_KEY: HeaderName = HeaderName::from_static("x-api-key");
/// Tokens are a fifth of this.
const MAX_TOKEN_BYTES: usize = 256;

impl Default for Config {
    fn default() -> Self {
        Self {
            keys_file: PathBuf::new(),
            keys: Vec::new(),
        }
    }
}

impl Config {
    /// Checks the keys that stand in it; the text names the key.
    pub fn check(&self) -> Result<(), String> {
        keys::check(&self.keys).map_err(|problem| format!("keys: {problem}"))
    }

    /// All keys: its own and those of the file.
    ///
    /// # Errors
    ///
    /// A file that cannot be read or is not understood, and keys that do not go together.
    pub fn entries(&self) -> Result<Vec<KeyEntry>, AuthError> {
        let mut all = self.keys.clone();
        if self.has_file() {
            all.extend(keys::read(&self.keys_file)?);
        }
        let place = if self.has_file() {
            &self.keys_file
        } else {
            &PathBuf::from("auth.keys")
        };
        keys::check(&all).map_err(|problem| AuthError(format!("{}: {problem}", place.display())))?;
        Ok(all)
    }

    fn has_file(&self) -> bool {
        !self.keys_file.as_os_str().is_empty()
    }
}

impl Auth {
    /// Everybody may do everything.
    pub fn open(metrics: &Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self {
            on: false,
            config: Config::default(),
            keys: ArcSwap::default(),
            seen: Mutex::new(Stamp::of(&PathBuf::new())),
            metrics: Arc::clone(metrics),
            origin: Instant::now(),
        })
    }

    /// As configured; without keys and a file of them, everybody may do everything.
    ///
    /// # Errors
    ///
    /// As [`Config::entries`].
    pub fn load(config: &Config, metrics: &Arc<Metrics>) -> Result<Arc<Self>, AuthError> {
        // First the stamp: what comes between the two is read again.
        let stamp = Stamp::of(&config.keys_file);
        let entries = config.entries()?;
        let auth = Self {
            on: config.has_file() || !config.keys.is_empty(),
            config: config.clone(),
            keys: ArcSwap::default(),
            seen: Mutex::new(stamp),
            metrics: Arc::clone(metrics),
            origin: Instant::now(),
        };
        auth.replace(&entries);
        Ok(Arc::new(auth))
    }

    /// Whether callers need keys.
    pub fn is_on(&self) -> bool {
        self.on
    }

    /// Whether keys may change while the server runs.
    pub fn may_change(&self) -> bool {
        self.config.has_file()
    }

    /// Whether some key in force has this scope.
    pub fn has(&self, scope: Scope) -> bool {
        self.keys.load().iter().any(|key| key.scopes.allow(scope))
    }

    /// Reads the file again if it changed since it was last read, or whatever it looks like where that is `asked` for. A
    /// file that is missing or wrong leaves the keys in force as they are and is told of once.
    pub fn refresh(&self, asked: bool) {
        if !self.may_change() {
            return;
        }
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let stamp = Stamp::of(&self.config.keys_file);
        if *seen == stamp && !asked {
            return;
        }
        *seen = stamp;
        let access = &self.metrics.access;
        match self.config.entries() {
            Ok(entries) => {
                self.replace(&entries);
                access.reloads.inc();
                tracing::info!(keys = entries.len(), "the keys were read anew");
            }
            Err(error) => {
                access.reload_failures.inc();
                tracing::warn!(%error, "the keys could not be read anew; those before go on");
            }
        }
    }

    fn replace(&self, entries: &[KeyEntry]) {
        let before = self.keys.load_full();
        let keys = Arc::new(Keys::new(entries, &before, &self.metrics.access));
        let count = i64::try_from(keys.len()).unwrap_or(i64::MAX);
        self.metrics.access.keys.set(count);
        if self.on && count == 0 {
            tracing::warn!("there is no key: whatever needs one is refused");
        }
        let stay: HashSet<&str> = entries.iter().map(|entry| entry.id.as_str()).collect();
        self.keys.store(keys);
        let gone = before.iter().map(|key| key.id.as_str());
        self.metrics.access.forget(gone, &stay);
    }

    /// Whether a request with these headers may go where `need` is asked, and the key that it comes with.
    pub(super) fn admit(&self, need: Need, headers: &HeaderMap) -> Admission {
        let mut admission = Admission::default();
        if !self.on || need == Need::Nothing {
            return admission;
        }
        let key = token(headers).and_then(|token| self.keys.load().find(token).map(Arc::clone));
        let Some(key) = key else {
            self.metrics.access.count(Access::Unauthorized, None);
            admission.refused = Some(unauthorized());
            return admission;
        };
        let now = u64::try_from(self.origin.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let taken = key.bucket.as_ref().map(|bucket| bucket.take(now));
        let (access, refused) = match (taken, need) {
            (Some(Err(standing)), _) => (Access::OverQuota, Some(over_quota(standing.wait))),
            (_, Need::Key(scope)) if !key.scopes.allow(scope) => {
                (Access::WrongScope, Some(wrong_scope(scope)))
            }
            _ => (Access::Admitted, None),
        };
        self.metrics.access.count(access, Some(&key.series));
        Admission {
            key: Some(Caller(key)),
            standing: taken.map(|taken| taken.unwrap_or_else(|left| left)),
            refused,
        }
    }
}

impl Caller {
    /// The key's id.
    pub(super) fn id(&self) -> &KeyId {
        &self.0.id
    }
}

/// The token of a request. `X-API-Key` outweighs `Authorization`, which a proxy may need for itself; a header that stands
/// twice, or of another scheme, is none.
fn token(headers: &HeaderMap) -> Option<&[u8]> {
    let token = match single(headers, &API_KEY)? {
        Some(token) => token,
        None => bearer(single(headers, &AUTHORIZATION)??)?,
    };
    (token.len() <= MAX_TOKEN_BYTES).then_some(token)
}

/// The header, if it is there; `None` where it stands more than once.
fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<Option<&'a [u8]>> {
    let mut values = headers.get_all(name).iter();
    let value = values.next().map(|value| value.as_bytes().trim_ascii());
    values.next().is_none().then_some(value)
}

/// RFC 6750, 2.1; a scheme's name has no case.
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked("bearer ".len())?;
    scheme
        .eq_ignore_ascii_case(b"bearer ")
        .then(|| token.trim_ascii())
}

/// The same for every cause: who tries tokens learns nothing but that this one is none.
fn unauthorized() -> Problem {
    Problem::new(
        Kind::Unauthorized,
        "send a key of this server, as `Authorization: Bearer KEY` or `X-API-Key: KEY`",
    )
}

fn wrong_scope(scope: Scope) -> Problem {
    let detail = format!("the key lacks the scope {}", scope.name());
    Problem::new(Kind::WrongScope, detail)
}

fn over_quota(wait: Duration) -> Problem {
    Problem::new(
        Kind::RateLimited,
        "the key has asked as often as it may; RateLimit tells its quota",
    )
    .retry_after(wait)
}

#[cfg(test)]
mod tests;

//! Requests to the hub: redirections, refusals, and trying again.

use std::thread;
use std::time::Duration;

use serde_json::Value;
use ureq::http::{Response, StatusCode};
use ureq::tls::{RootCerts, TlsConfig};
use ureq::typestate::WithoutBody;
use ureq::{Agent, Body, Proxy, RequestBuilder};

use super::failure::{Again, Failure, lost};
use super::url::{Origin, escaped, redirected};
use crate::cache::is_commit;
use crate::config::{HubConfig, Token};
use crate::error::HubError;
use crate::path::check_path;
use crate::progress::Progress;

/// The most redirections that are followed.
const MOST_HOPS: usize = 10;
/// The longest list of a repository's files that is read: those with thousands of checkpoints have a few MB.
const LONGEST_LIST: u64 = 64 << 20;

/// Asks the hub.
#[derive(Debug)]
pub(crate) struct Client {
    agent: Agent,
    pub(super) endpoint: String,
    pub(super) token: Option<Token>,
    attempts: u32,
    first_wait: Duration,
    longest_wait: Duration,
}

/// What the hub says of a revision.
pub struct Listing {
    pub commit: String,
    pub files: Vec<String>,
}

/// What the hub says of a file.
#[derive(Debug)]
pub struct FileInfo {
    pub commit: Option<String>,
    /// Its name among the blobs.
    pub etag: String,
    pub size: Option<u64>,
}

/// A server's answer.
pub struct Reply {
    pub url: String,
    pub response: Response<Body>,
    /// Whether it is the hub's own, and not that of a host it led to.
    pub own: bool,
}

impl Reply {
    pub fn status(&self) -> StatusCode {
        self.response.status()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.response.headers().get(name)?.to_str().ok()
    }
}

impl Client {
    pub fn new(config: &HubConfig) -> Client {
        let silence = Some(config.silence);
        let agent = Agent::config_builder()
            .user_agent(concat!("ironlens/", env!("CARGO_PKG_VERSION")))
            // The system's certificates, with those of its owner's own proxy among them.
            .tls_config(TlsConfig::builder().root_certs(RootCerts::PlatformVerifier).build())
            .proxy(if config.system_proxy { Proxy::try_from_env() } else { None })
            // Redirections are followed here: the token must not go along.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .http_status_as_error(false)
            .timeout_resolve(silence)
            .timeout_connect(silence)
            .timeout_per_read(silence)
            .timeout_per_write(silence)
            .build();
        Client {
            agent: agent.into(),
            endpoint: config.endpoint.trim_end_matches('/').into(),
            token: config.token.clone(),
            attempts: config.attempts,
            first_wait: config.first_wait,
            longest_wait: config.longest_wait,
        }
    }

    /// The commit of a revision, and its files.
    pub fn listing(
        &self,
        repo: &str,
        revision: &str,
        progress: &mut dyn FnMut(Progress<'_>),
    ) -> Result<Listing, HubError> {
        let url = format!("{}/api/models/{repo}/revision/{}", self.endpoint, escaped(revision));
        self.patiently(progress, |_| {
            let mut reply = self.get(&url, None)?;
            if reply.status() != StatusCode::OK {
                return Err(self.refusal(&reply, repo, &format!("model {repo} at revision {revision}")));
            }
            let read = reply.response.body_mut().with_config().limit(LONGEST_LIST).read_to_vec();
            let text = read.map_err(|e| Failure::network(&url, e, false))?;
            let list: Value = serde_json::from_slice(&text).map_err(|e| Failure::answer(&url, e.to_string()))?;
            let commit = list["sha"].as_str().filter(|commit| is_commit(commit));
            let commit = commit.ok_or_else(|| Failure::answer(&url, "`sha` is no commit"))?;
            let files = list["siblings"].as_array().ok_or_else(|| Failure::answer(&url, "`siblings` is no list"))?;
            let files = files.iter().filter_map(|file| Some(file["rfilename"].as_str()?.to_string())).collect();
            Ok(Listing { commit: commit.into(), files })
        })
    }

    /// What the hub says of a file; `None` if the revision does not have it.
    pub fn file_info(
        &self,
        repo: &str,
        revision: &str,
        file: &str,
        progress: &mut dyn FnMut(Progress<'_>),
    ) -> Result<Option<FileInfo>, HubError> {
        let url = self.file_url(repo, revision, file);
        self.patiently(progress, |_| {
            // The hub speaks of a file in the redirection to where it lies, which is not followed.
            let reply = self.send(&url, false, |url| self.agent.head(url))?;
            match reply.status() {
                StatusCode::NOT_FOUND if reply.header("x-error-code") == Some("EntryNotFound") => return Ok(None),
                status if status.is_success() || status.is_redirection() => {}
                _ => return Err(self.refusal(&reply, repo, &format!("file {file} of {repo} at revision {revision}"))),
            }
            let etag = reply.header("x-linked-etag").or(reply.header("etag")).unwrap_or_default();
            let etag = etag.strip_prefix("W/").unwrap_or(etag).trim_matches('"');
            // It becomes the name of a file.
            if etag.contains('/') || etag.len() > 200 || check_path("blob", etag).is_err() {
                return Err(Failure::answer(&url, format!("its etag is {etag:?}")));
            }
            let number = |name| reply.header(name)?.parse().ok();
            // A redirection's own length is that of its words.
            let own = if reply.status().is_success() { number("content-length") } else { None };
            Ok(Some(FileInfo {
                commit: reply.header("x-repo-commit").filter(|commit| is_commit(commit)).map(String::from),
                etag: etag.into(),
                size: number("x-linked-size").or(own),
            }))
        })
    }

    /// Where a file is asked for.
    pub fn file_url(&self, repo: &str, revision: &str, file: &str) -> String {
        let file = file.split('/').map(escaped).collect::<Vec<_>>().join("/");
        format!("{}/{repo}/resolve/{}/{file}", self.endpoint, escaped(revision))
    }

    /// What is at an address, wherever that leads, from a byte on if one is given.
    pub fn get(&self, url: &str, from: Option<u64>) -> Result<Reply, Failure> {
        self.send(url, true, |url| match from {
            None => self.agent.get(url),
            Some(byte) => self.agent.get(url).header("range", format!("bytes={byte}-")),
        })
    }

    /// Sends a request, and follows redirections: within the hub, and to other hosts too if `anywhere`. The token
    /// goes to the hub alone, and not to it again once another host led there.
    fn send(
        &self,
        url: &str,
        anywhere: bool,
        request: impl Fn(&str) -> RequestBuilder<WithoutBody>,
    ) -> Result<Reply, Failure> {
        let hub = Origin::of(&self.endpoint).ok_or_else(|| HubError::BadName {
            what: "hub (HF_ENDPOINT)",
            given: self.endpoint.clone(),
            why: "it begins with https:// or http://, and has a host",
        })?;
        let (mut url, mut own) = (url.to_string(), true);
        for _ in 0..MOST_HOPS {
            let mut request = request(&url).header("accept-encoding", "identity");
            if let Some(token) = self.token.as_ref().filter(|_| own) {
                request = request.header("authorization", token.header()?);
            }
            let response = request.call().map_err(|e| lost(&url, e))?;
            let reply = Reply { url, response, own };
            let Some(location) = reply.header("location").filter(|_| reply.status().is_redirection()) else {
                return Ok(reply);
            };
            let next = redirected(&reply.url, location);
            let there = Origin::of(&next)
                .filter(|there| hub.is_open() || !there.is_open())
                .ok_or_else(|| Failure::answer(&reply.url, "it leads to an address that is not of HTTPS"))?;
            own &= there == hub;
            if !own && !anywhere {
                return Ok(reply);
            }
            url = next;
        }
        Err(Failure::answer(&url, format!("it leads on and on, {MOST_HOPS} times")))
    }

    /// Tries until it works, does not get better, or `attempts` in a row failed.
    pub fn patiently<T>(
        &self,
        progress: &mut dyn FnMut(Progress<'_>),
        mut attempt: impl FnMut(&mut dyn FnMut(Progress<'_>)) -> Result<T, Failure>,
    ) -> Result<T, HubError> {
        let mut failed = 0;
        loop {
            let Failure { error, again } = match attempt(progress) {
                Ok(done) => return Ok(done),
                Err(failure) => failure,
            };
            failed = if again == (Again::Soon { further: true }) { 1 } else { failed + 1 };
            if again == Again::Never || failed >= self.attempts {
                return Err(*error);
            }
            let usual = self.first_wait.saturating_mul(1 << (failed - 1).min(16));
            let wait = match again {
                Again::After(wait) if wait > self.longest_wait => return Err(*error),
                Again::After(wait) => wait,
                _ => usual.min(self.longest_wait),
            };
            progress(Progress::Again { why: &error.to_string(), wait });
            thread::sleep(wait);
        }
    }
}

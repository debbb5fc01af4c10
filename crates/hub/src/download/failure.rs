//! What went wrong with a request, and whether to try it again.

use std::time::Duration;

use super::client::{Client, Reply};
use crate::error::HubError;

/// How many characters of what a server says an error quotes.
const QUOTED: usize = 300;

/// An attempt that failed.
#[derive(Debug)]
pub struct Failure {
    /// Boxed, as it is large.
    pub error: Box<HubError>,
    pub again: Again,
}

/// Whether something may work the next time.
#[derive(Debug, PartialEq, Eq)]
pub enum Again {
    Never,
    /// After the usual wait. `further`: something was gained, so that this is a first failure.
    Soon {
        further: bool,
    },
    /// After the wait that the server asks for.
    After(Duration),
}

impl Failure {
    fn new(error: HubError, again: Again) -> Failure {
        Failure { error: error.into(), again }
    }

    pub fn network(url: &str, cause: impl ToString, further: bool) -> Failure {
        let (url, cause) = (without_query(url), cause.to_string());
        Failure::new(HubError::Network { url, cause }, Again::Soon { further })
    }

    pub fn answer(url: &str, reason: impl Into<String>) -> Failure {
        HubError::Answer { url: without_query(url), reason: reason.into() }.into()
    }
}

impl From<HubError> for Failure {
    fn from(error: HubError) -> Failure {
        Failure::new(error, Again::Never)
    }
}

impl Reply {
    /// What the hub says in words; it comes from outside, and may go to a terminal.
    fn said(&self) -> String {
        let said: String = self.header("x-error-message").unwrap_or_default().chars().take(QUOTED).collect();
        if said.is_empty() { said } else { format!(" ({})", said.replace(char::is_control, " ")) }
    }
}

impl Client {
    /// The failure that an answer means.
    pub fn refusal(&self, reply: &Reply, repo: &str, what: &str) -> Failure {
        let (endpoint, said) = (self.endpoint.clone(), reply.said());
        let status = reply.status().as_u16();
        let url = without_query(&reply.url);
        match status {
            401 | 403 if reply.own => {
                let advice = self.advice(reply, repo);
                HubError::Denied { endpoint, repo: repo.into(), said, advice }.into()
            }
            404 if reply.own => {
                let hint = match self.token {
                    None => " (a private model is shown to those only who set HF_TOKEN)",
                    Some(_) => "",
                };
                HubError::NotFound { endpoint, what: what.into(), said, hint }.into()
            }
            429 => {
                let wait = reply.header("retry-after").and_then(|s| s.trim().parse().ok()).map(Duration::from_secs);
                let again = wait.map_or(Again::Soon { further: false }, Again::After);
                Failure::new(HubError::Busy { url, wait }, again)
            }
            _ => {
                let again = match status {
                    408 | 500..=599 => Again::Soon { further: false },
                    _ => Again::Never,
                };
                Failure::new(HubError::Status { url, status, said }, again)
            }
        }
    }

    /// What to do when the hub wants to know who is asking.
    fn advice(&self, reply: &Reply, repo: &str) -> String {
        let page = format!("{}/{repo}", self.endpoint);
        let tokens = format!("{}/settings/tokens", self.endpoint);
        match (&self.token, reply.status().as_u16(), reply.header("x-error-code")) {
            (None, _, Some("GatedRepo")) => {
                format!("accept its licence at {page}, and set HF_TOKEN to a token of that account ({tokens})")
            }
            (None, ..) => format!(
                "check the name; if it is private or gated: accept its licence at {page}, and set HF_TOKEN to a token \
                 of that account ({tokens})"
            ),
            (Some(_), 401, None) => format!("the token (HF_TOKEN) is not valid; make one at {tokens}"),
            (Some(_), ..) => format!(
                "the token's account may not have it: accept its licence at {page}, and let the token read gated \
                 models ({tokens}); or check the name"
            ),
        }
    }
}

/// The failure of a connection.
pub fn lost(url: &str, error: ureq::Error) -> Failure {
    use ureq::Error;
    match error {
        // What a further attempt does not change.
        Error::Io(e) if e.kind() == std::io::ErrorKind::InvalidData => {
            let hint = "SSL_CERT_FILE may name a file of certificates that are trusted";
            Failure { again: Again::Never, ..Failure::network(url, format!("{e} ({hint})"), false) }
        }
        Error::Http(_) | Error::BadUri(_) | Error::InvalidProxyUrl | Error::Tls(_) | Error::Rustls(_) => {
            Failure { again: Again::Never, ..Failure::network(url, error, false) }
        }
        _ => Failure::network(url, error, false),
    }
}

/// An address without what follows `?`: signatures, which belong into no message.
fn without_query(url: &str) -> String {
    url.split('?').next().unwrap_or_default().into()
}

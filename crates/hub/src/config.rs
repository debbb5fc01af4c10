//! Where the cache is, and how the hub is reached.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::HubError;

/// Where the cache is, and how the hub is reached.
#[derive(Clone, Debug)]
pub struct HubConfig {
    /// The folder that holds `models--owner--name`.
    pub cache: PathBuf,
    /// The hub's address: `https://huggingface.co`, or a mirror of it. The token is sent nowhere else.
    pub endpoint: String,
    /// Who is asking: gated and private models need it.
    pub token: Option<Token>,
    /// Nothing is downloaded: what is not in the cache is an error.
    pub offline: bool,
    /// Whether the system's proxy is used (`HTTPS_PROXY`, `ALL_PROXY`, `NO_PROXY`).
    pub system_proxy: bool,
    /// How often something is tried before its failure is told. A download that got further starts to count anew.
    pub attempts: u32,
    /// The wait after the first failure; each further one is twice as long.
    pub first_wait: Duration,
    /// The longest wait. A server that asks for a longer one ([`HubError::Busy`]) is not waited for.
    pub longest_wait: Duration,
    /// For how long nothing may come from a server before its connection counts as lost.
    pub silence: Duration,
}

impl HubConfig {
    /// A cache in `folder`, the public hub, and nothing from the environment.
    pub fn at(folder: impl Into<PathBuf>) -> HubConfig {
        HubConfig {
            cache: folder.into(),
            endpoint: "https://huggingface.co".into(),
            token: None,
            offline: false,
            system_proxy: false,
            attempts: 5,
            first_wait: Duration::from_secs(1),
            longest_wait: Duration::from_secs(300),
            silence: Duration::from_secs(30),
        }
    }

    /// What the environment says, in the variables that Python's `huggingface_hub` reads:
    ///
    /// | what | from the first that is set and not empty |
    /// |---|---|
    /// | cache | `HF_HUB_CACHE`, `HUGGINGFACE_HUB_CACHE`, `$HF_HOME/hub`, `$XDG_CACHE_HOME/huggingface/hub`, `~/.cache/huggingface/hub` |
    /// | token | `HF_TOKEN`, `HUGGING_FACE_HUB_TOKEN`, the file `HF_TOKEN_PATH`, the file `token` beside `hub`; none if `HF_HUB_DISABLE_IMPLICIT_TOKEN` is true |
    /// | offline | `HF_HUB_OFFLINE`, `TRANSFORMERS_OFFLINE`: true is `1`, `on`, `yes` or `true` |
    /// | endpoint | `HF_ENDPOINT` |
    ///
    /// A leading `~/` in a path is the home folder.
    ///
    /// # Errors
    /// If no variable says where the cache is, and there is no home folder.
    pub fn from_env() -> Result<HubConfig, HubError> {
        HubConfig::from_variables(|name| std::env::var_os(name), std::env::home_dir())
    }

    fn from_variables(
        variable: impl Fn(&str) -> Option<OsString>,
        home: Option<PathBuf>,
    ) -> Result<HubConfig, HubError> {
        let set = |name: &str| variable(name).filter(|value| !value.is_empty());
        let text = |name: &str| set(name).and_then(|value| value.into_string().ok());
        let path = |name: &str| set(name).map(|value| expanded(PathBuf::from(value), home.as_deref()));
        let is_true =
            |name: &str| text(name).is_some_and(|v| ["1", "on", "yes", "true"].contains(&v.to_lowercase().as_str()));

        // Where huggingface_hub keeps everything of its own.
        let place = path("HF_HOME")
            .or_else(|| path("XDG_CACHE_HOME").map(|cache| cache.join("huggingface")))
            .or_else(|| home.as_ref().map(|home| home.join(".cache/huggingface")));
        let cache = path("HF_HUB_CACHE")
            .or_else(|| path("HUGGINGFACE_HUB_CACHE"))
            .or_else(|| place.as_ref().map(|place| place.join("hub")))
            .ok_or(HubError::NoCache)?;
        let written = || {
            let file = path("HF_TOKEN_PATH").or_else(|| place.as_ref().map(|place| place.join("token")))?;
            Token::new(&std::fs::read_to_string(file).ok()?)
        };
        let token = || ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"].iter().find_map(|name| Token::new(&text(name)?));

        let mut config = HubConfig::at(cache);
        config.system_proxy = true;
        if !is_true("HF_HUB_DISABLE_IMPLICIT_TOKEN") {
            config.token = token().or_else(written);
        }
        config.offline = match set("HF_HUB_OFFLINE") {
            Some(_) => is_true("HF_HUB_OFFLINE"),
            None => is_true("TRANSFORMERS_OFFLINE"),
        };
        if let Some(endpoint) = text("HF_ENDPOINT") {
            config.endpoint = endpoint.trim_end_matches('/').into();
        }
        Ok(config)
    }
}

/// A path whose leading `~` is the home folder: a shell leaves it in `HF_HOME="~/models"`.
fn expanded(path: PathBuf, home: Option<&Path>) -> PathBuf {
    match (path.strip_prefix("~"), home) {
        (Ok(rest), Some(home)) => home.join(rest),
        _ => path,
    }
}

/// A secret that says who is asking. Printing it shows nothing.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// The token in a text, without the spaces and line ends around it. `None` if there is nothing else.
    pub fn new(text: &str) -> Option<Token> {
        let text = text.trim();
        (!text.is_empty()).then(|| Token(text.into()))
    }

    /// What a request says of it.
    #[cfg(feature = "download")]
    pub(crate) fn header(&self) -> Result<String, HubError> {
        match self.0.bytes().all(|b| b.is_ascii_graphic()) {
            true => Ok(format!("Bearer {}", self.0)),
            false => Err(HubError::BadToken),
        }
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(variables: &[(&str, &str)]) -> HubConfig {
        let variable = |name: &str| variables.iter().find(|v| v.0 == name).map(|v| v.1.into());
        HubConfig::from_variables(variable, Some("/home/me".into())).unwrap()
    }

    #[test]
    fn the_cache_is_where_python_has_it() {
        let mut variables = vec![];
        let mut cache = "/home/me/.cache/huggingface/hub";
        for (name, value, then) in [
            ("XDG_CACHE_HOME", "/xdg", "/xdg/huggingface/hub"),
            ("HF_HOME", "~/hf", "/home/me/hf/hub"),
            ("HUGGINGFACE_HUB_CACHE", "/older", "/older"),
            ("HF_HUB_CACHE", "/models", "/models"),
        ] {
            assert_eq!(config(&variables).cache, Path::new(cache));
            variables.push((name, value));
            cache = then;
        }
        assert_eq!(config(&variables).cache, Path::new(cache));
        assert_eq!(config(&[("HF_HOME", "")]).cache, Path::new("/home/me/.cache/huggingface/hub"));
    }

    #[test]
    fn without_a_home_a_variable_must_say_it() {
        let error = HubConfig::from_variables(|_| None, None).unwrap_err().to_string();
        assert!(error.contains("HF_HOME"), "{error}");
        let config = HubConfig::from_variables(|name| (name == "HF_HOME").then(|| "/hf".into()), None).unwrap();
        assert_eq!(config.cache, Path::new("/hf/hub"));
    }

    #[test]
    fn the_token_is_a_variable_s_or_a_file_s() {
        let folder = tempfile::tempdir().unwrap();
        let home = folder.path().to_str().unwrap();
        let other = folder.path().join("other");
        std::fs::write(folder.path().join("token"), "hf_home\n").unwrap();
        std::fs::write(&other, " hf_other ").unwrap();
        let token = |more: &[(&str, &str)]| config(&[&[("HF_HOME", home)], more].concat()).token;
        let other = ("HF_TOKEN_PATH", other.to_str().unwrap());
        assert_eq!(token(&[]), Token::new("hf_home"));
        assert_eq!(token(&[other]), Token::new("hf_other"));
        assert_eq!(token(&[other, ("HUGGING_FACE_HUB_TOKEN", "hf_old")]), Token::new("hf_old"));
        assert_eq!(token(&[other, ("HF_TOKEN", "hf_new\r\n")]), Token::new("hf_new"));
        assert_eq!(token(&[("HF_TOKEN", " ")]), Token::new("hf_home"));
        assert_eq!(token(&[("HF_TOKEN", "hf_new"), ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")]), None);
        assert_eq!(config(&[("HF_HOME", "/nowhere")]).token, None);
    }

    #[test]
    fn a_token_is_not_printed() {
        let mut config = HubConfig::at("/");
        config.token = Token::new("hf_secret");
        assert!(!format!("{config:?}").contains("secret"));
    }

    #[test]
    fn offline_and_endpoint_are_read_as_python_reads_them() {
        for (value, offline) in [("1", true), ("ON", true), ("True", true), ("0", false), ("off", false)] {
            assert_eq!(config(&[("HF_HUB_OFFLINE", value)]).offline, offline, "{value}");
        }
        assert!(config(&[("TRANSFORMERS_OFFLINE", "yes")]).offline);
        assert!(!config(&[("TRANSFORMERS_OFFLINE", "yes"), ("HF_HUB_OFFLINE", "0")]).offline);
        assert_eq!(config(&[("HF_ENDPOINT", "https://mirror/hf/")]).endpoint, "https://mirror/hf");
        assert_eq!(config(&[]).endpoint, "https://huggingface.co");
    }
}

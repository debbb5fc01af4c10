//! Addresses: where a request goes, and who answers there.

use ureq::http::Uri;

/// Who answers at an address: scheme, host and port. A token is for one of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    scheme: String,
    host: String,
    port: u16,
}

impl Origin {
    /// `None` if it is no address of HTTP or HTTPS.
    pub fn of(url: &str) -> Option<Origin> {
        let uri: Uri = url.parse().ok()?;
        let scheme = uri.scheme_str()?.to_lowercase();
        let usual = match scheme.as_str() {
            "http" => 80,
            "https" => 443,
            _ => return None,
        };
        let host = uri.host().filter(|host| !host.is_empty())?.to_lowercase();
        Some(Origin { scheme, host, port: uri.port_u16().unwrap_or(usual) })
    }

    /// Whether what is said there can be read on the way.
    pub fn is_open(&self) -> bool {
        self.scheme == "http"
    }
}

/// The address that a redirection at `url` leads to.
pub fn redirected(url: &str, location: &str) -> String {
    if location.split_once("://").is_some_and(|(scheme, _)| scheme.bytes().all(|b| b.is_ascii_alphanumeric())) {
        return location.into();
    }
    let (scheme, rest) = url.split_once("://").unwrap_or(("https", url));
    if location.starts_with("//") {
        return format!("{scheme}:{location}");
    }
    let path = &rest[..rest.find(['?', '#']).unwrap_or(rest.len())];
    let host = &path[..path.find('/').unwrap_or(path.len())];
    match location.starts_with('/') {
        true => format!("{scheme}://{host}{location}"),
        false => {
            let folder = path.rfind('/').map_or(path, |slash| &path[..slash]);
            format!("{scheme}://{folder}/{location}")
        }
    }
}

/// A text as one part of a path: all but letters, digits and `-._~` as `%XX`.
pub fn escaped(part: &str) -> String {
    let mut escaped = String::with_capacity(part.len());
    for byte in part.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => escaped.push(byte.into()),
            _ => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_answers_is_scheme_host_and_port() {
        let same = |a, b| Origin::of(a).unwrap() == Origin::of(b).unwrap();
        assert!(same("https://huggingface.co/a", "HTTPS://HuggingFace.co:443/b?c"));
        for other in [
            "http://huggingface.co/",
            "https://huggingface.co:444/",
            "https://cdn.huggingface.co/",
            "https://huggingface.co.evil.org/",
            "https://huggingface.co@evil.org/",
        ] {
            assert!(!same("https://huggingface.co", other), "{other}");
        }
        for none in ["huggingface.co", "ftp://huggingface.co", "https://", "", "file:///etc/passwd"] {
            assert_eq!(Origin::of(none), None, "{none}");
        }
    }

    #[test]
    fn redirections_are_whole_or_relative() {
        for (location, leads_to) in [
            ("https://cdn.org/x?y=http://z", "https://cdn.org/x?y=http://z"),
            ("//cdn.org/x", "https://cdn.org/x"),
            ("/x?y=https://z", "https://hub.co:8/x?y=https://z"),
            ("d", "https://hub.co:8/a/b/d"),
        ] {
            assert_eq!(redirected("https://hub.co:8/a/b/c?d/e", location), leads_to);
        }
        assert_eq!(redirected("http://hub.co", "/a"), "http://hub.co/a");
        assert_eq!(redirected("http://hub.co", "a"), "http://hub.co/a");
    }

    #[test]
    fn parts_of_a_path_are_escaped() {
        assert_eq!(escaped("refs/pr/1"), "refs%2Fpr%2F1");
        assert_eq!(escaped("a b?#%é-._~"), "a%20b%3F%23%25%C3%A9-._~");
    }
}

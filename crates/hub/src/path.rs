//! Names that become paths, and must stay where they belong.

use crate::error::HubError;

/// Checks the name of a repository: `name` or `owner/name`, by the hub's rules.
pub(crate) fn check_repo(repo: &str) -> Result<(), HubError> {
    let bad = |why| Err(HubError::BadName { what: "repository", given: repo.into(), why });
    if repo.split('/').count() > 2 {
        return bad("it is `owner/name`, or `name` alone");
    }
    for part in repo.split('/') {
        if part.is_empty() || part.len() > 96 {
            return bad("the owner and the name have 1 to 96 characters each");
        }
        if !part.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)) {
            return bad("it has letters, digits, `-`, `_` and `.` only");
        }
        if part.starts_with(['-', '.']) || part.ends_with(['-', '.']) {
            return bad("its parts neither begin nor end with `-` or `.`");
        }
    }
    // `--` stands for the slash in the names of the cache's folders.
    if repo.contains("--") || repo.contains("..") {
        return bad("it has no `--` and no `..`");
    }
    Ok(())
}

/// Checks the name of a file or revision: a path with `/` that stays below the folder it is put in, on any system.
pub(crate) fn check_path(what: &'static str, path: &str) -> Result<(), HubError> {
    let bad = |why| Err(HubError::BadName { what, given: path.into(), why });
    if path.len() > 1024 {
        return bad("it is too long");
    }
    if path.contains(['\\', ':']) || path.chars().any(char::is_control) {
        return bad("it must not have `\\`, `:` or control characters");
    }
    if path.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return bad("it must be a path below the repository, without `.` and `..`");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repositories_have_an_owner_or_none() {
        for repo in ["gpt2", "EleutherAI/pythia-70m", "01-ai/Yi-6B", "a/b_c.d-e", "Qwen/Qwen-1_8B"] {
            check_repo(repo).unwrap();
        }
        for repo in ["", "/", "a/", "/a", "a/b/c", "../a", "a/..", "a b", "a--b/c", "-a", "a.", "é", "a\\b", "a:b"] {
            assert!(check_repo(repo).is_err(), "{repo}");
        }
        assert!(check_repo(&"a".repeat(97)).is_err());
    }

    #[test]
    fn files_and_revisions_stay_below_their_folder() {
        for path in ["config.json", "a/b/c.pth", ".gitattributes", "refs/pr/1", "..a", "step3000", "ünï code.txt"] {
            check_path("file", path).unwrap();
        }
        for path in
            ["", "/etc/passwd", "../a", "a/../../b", "a/./b", "a//b", "a/", "..\\a", "C:/a", "a:b", "a\0", "a\n"]
        {
            assert!(check_path("file", path).is_err(), "{path:?}");
        }
        assert!(check_path("file", &"a".repeat(1025)).is_err());
    }
}

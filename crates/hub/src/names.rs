//! The names that TransformerLens gives to pretrained models.

mod table;

use table::TABLE;

/// A model that TransformerLens 2.18.0 loads by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Name {
    /// The official name, which is the repository's: `gpt2`, `EleutherAI/pythia-70m`. (Those of the first
    /// Llama, `llama-7b-hf` and so on, are in no public repository: TransformerLens wants its weights from the caller.)
    pub official: &'static str,
    /// Other names for it: `gpt2-small`. Some differ from each other by capitals only.
    pub aliases: &'static [&'static str],
}

impl Name {
    fn all(self) -> impl Iterator<Item = &'static str> {
        std::iter::once(self.official).chain(self.aliases.iter().copied())
    }
}

/// All 237 models, in TransformerLens's order.
pub fn names() -> impl ExactSizeIterator<Item = Name> {
    TABLE.iter().map(|&(official, aliases)| Name { official, aliases })
}

/// The model of an official name or an alias, whatever its capitals.
///
/// ```
/// assert_eq!(ironlens_hub::lookup("GPT2-small").unwrap().official, "gpt2");
/// assert!(ironlens_hub::lookup("gpt5").is_none());
/// ```
pub fn lookup(name: &str) -> Option<Name> {
    names().find(|row| row.all().any(|n| n.eq_ignore_ascii_case(name)))
}

/// The names most like one that is unknown, best first: at most three, of different models, and none that differs
/// in more than a third of the characters that were given.
///
/// ```
/// assert_eq!(ironlens_hub::nearest("gpt2-smal")[0], "gpt2-small");
/// assert!(ironlens_hub::nearest("something else").is_empty());
/// ```
pub fn nearest(name: &str) -> Vec<&'static str> {
    let name: Vec<char> = name.to_lowercase().chars().collect();
    let mut near: Vec<(usize, &str)> = names()
        .filter_map(|row| row.all().map(|n| (edits(&name, n), n)).min_by_key(|&(edits, _)| edits))
        // Two letters that changed places are two edits, also in a short name.
        .filter(|&(edits, _)| edits <= (name.len() / 3).max(2).min(name.len() / 2))
        .collect();
    near.sort_by_key(|&(edits, _)| edits); // stable: TransformerLens's order decides between equals
    near.into_iter().take(3).map(|(_, n)| n).collect()
}

/// Levenshtein's distance: how many characters to put in, leave out or change.
fn edits(from: &[char], to: &str) -> usize {
    // row[i] is the distance from from[..i] to what was read of `to`.
    let mut row: Vec<usize> = (0..=from.len()).collect();
    for (read, wanted) in to.chars().flat_map(char::to_lowercase).enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], read + 1);
        for (i, &given) in from.iter().enumerate() {
            let changed = diagonal + usize::from(given != wanted);
            diagonal = row[i + 1];
            row[i + 1] = changed.min(row[i] + 1).min(diagonal + 1);
        }
    }
    row[from.len()]
}

/// The models that the hub moved from a bare name to an owner. Both names work, and each is a folder of its own in
/// the cache.
const MOVED: [(&str, &str); 5] = [
    ("gpt2", "openai-community/gpt2"),
    ("gpt2-medium", "openai-community/gpt2-medium"),
    ("gpt2-large", "openai-community/gpt2-large"),
    ("gpt2-xl", "openai-community/gpt2-xl"),
    ("distilgpt2", "distilbert/distilgpt2"),
];

/// The other name under which the hub, and so perhaps the cache, has a repository.
pub(crate) fn other_name(repo: &str) -> Option<&'static str> {
    MOVED.iter().find_map(|&(old, new)| match repo {
        r if r == old => Some(new),
        r if r == new => Some(old),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use super::*;

    #[test]
    fn there_are_237_models_and_every_row_once() {
        assert_eq!(names().len(), 237);
        assert_eq!(names().map(|n| n.official).collect::<HashSet<_>>().len(), 237);
        let (first, last) = (names().next().unwrap(), names().last().unwrap());
        assert_eq!((first.official, last.official), ("gpt2", "ai-forever/mGPT"));
    }

    #[test]
    fn an_alias_is_written_once_and_means_one_model_whatever_its_capitals() {
        let aliases: Vec<&str> = names().flat_map(|n| n.aliases).copied().collect();
        assert_eq!(aliases.iter().collect::<HashSet<_>>().len(), aliases.len());
        let mut means: HashMap<String, &str> = HashMap::new();
        for row in names() {
            for name in row.all() {
                let other = means.insert(name.to_lowercase(), row.official);
                assert!(other.is_none_or(|o| o == row.official), "{name}: {other:?} and {}", row.official);
                assert_eq!(lookup(name), Some(row));
            }
        }
    }

    #[test]
    fn names_are_found_whatever_their_capitals() {
        for (given, official) in [
            ("gpt2-small", "gpt2"),
            ("GPT2", "gpt2"),
            ("pythia", "EleutherAI/pythia-70m"),
            ("eleutherai/PYTHIA-19m", "EleutherAI/pythia-70m"),
            ("yi-6b-CHAT", "01-ai/Yi-6B-Chat"),
            ("meta-llama/llama-3.2-1b", "meta-llama/Llama-3.2-1B"),
        ] {
            assert_eq!(lookup(given).map(|n| n.official), Some(official), "{given}");
        }
        for given in ["", "gpt", "E/pythia-14m", " gpt2"] {
            assert_eq!(lookup(given), None, "{given}");
        }
    }

    #[test]
    fn distances_are_levenshtein_s() {
        for (from, to, distance) in
            [("", "", 0), ("", "abc", 3), ("abc", "", 3), ("kitten", "sitting", 3), ("ab", "ba", 2), ("phi", "PHI", 0)]
        {
            assert_eq!(edits(&from.chars().collect::<Vec<_>>(), to), distance, "{from} {to}");
        }
    }

    #[test]
    fn unknown_names_have_at_most_three_near_ones_of_different_models() {
        assert_eq!(nearest("pythia-70")[0], "pythia-70m");
        assert_eq!(nearest("GPT-J6b")[0], "gpt-j-6B");
        let near = nearest("gemma-2-2c");
        assert_eq!((near.len(), near[0]), (3, "gemma-2-2b"));
        let models: HashSet<_> = near.iter().map(|n| lookup(n).unwrap().official).collect();
        assert_eq!(models.len(), 3);
        assert!(nearest("").is_empty());
        assert!(nearest("bert-for-everything-and-more").is_empty());
    }

    #[test]
    fn moved_repositories_are_known_by_both_names() {
        assert_eq!(other_name("gpt2"), Some("openai-community/gpt2"));
        assert_eq!(other_name("distilbert/distilgpt2"), Some("distilgpt2"));
        assert_eq!(other_name("EleutherAI/gpt-j-6B"), None);
    }
}

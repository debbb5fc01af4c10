//! Models that were kept at many points of their training.

use std::ops::RangeInclusive;

/// What the labels of checkpoints count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Steps of training.
    Step,
    /// Tokens seen.
    Token,
}

impl Unit {
    /// TransformerLens's `checkpoint_label_type`: `step` or `token`.
    pub fn name(self) -> &'static str {
        match self {
            Unit::Step => "step",
            Unit::Token => "token",
        }
    }
}

/// The checkpoints of a model, oldest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoints {
    /// After how many steps or tokens each was kept.
    pub labels: Vec<u64>,
    /// Which of the two that is.
    pub unit: Unit,
}

/// The checkpoints that an official name has as revisions of its repository: those of stanford-crfm's GPT-2s and
/// EleutherAI's Pythias. `None` for others; those of NeelNanda's models are files, see [`checkpoints_among`].
///
/// ```
/// let checkpoints = ironlens_hub::checkpoint_labels("EleutherAI/pythia-70m").unwrap();
/// assert_eq!(checkpoints.labels[..5], [0, 1, 2, 4, 8]);
/// assert_eq!(checkpoints.labels.last(), Some(&143_000));
/// ```
pub fn checkpoint_labels(official: &str) -> Option<Checkpoints> {
    let every = |step, range: RangeInclusive<u64>| range.step_by(step);
    let labels = match Kept::of(official)? {
        Kept::Stanford => every(10, 0..=90)
            .chain(every(50, 100..=1950))
            .chain(every(100, 2000..=19_900))
            .chain(every(1000, 20_000..=400_000))
            .collect(),
        Kept::PythiaV0 => every(1000, 1000..=143_000).collect(),
        Kept::Pythia => {
            let early = std::iter::once(0).chain((0..10).map(|power| 1 << power));
            early.chain(every(1000, 1000..=143_000)).collect()
        }
    };
    Some(Checkpoints { labels, unit: Unit::Step })
}

/// The revision of the repository that holds a model's checkpoint: `step3000`, `checkpoint-3000`. `None` where
/// [`checkpoint_labels`] has no such label.
pub fn checkpoint_revision(official: &str, label: u64) -> Option<String> {
    checkpoint_labels(official)?.labels.binary_search(&label).ok()?;
    Some(match Kept::of(official)? {
        Kept::Stanford => format!("checkpoint-{label}"),
        Kept::Pythia | Kept::PythiaV0 => format!("step{label}"),
    })
}

/// Whose checkpoints are revisions.
enum Kept {
    Stanford,
    Pythia,
    PythiaV0,
}

impl Kept {
    fn of(official: &str) -> Option<Kept> {
        match official {
            o if o.starts_with("stanford-crfm/") => Some(Kept::Stanford),
            o if !o.starts_with("EleutherAI/pythia-") => None,
            o if o.ends_with("-v0") => Some(Kept::PythiaV0),
            _ => Some(Kept::Pythia),
        }
    }
}

/// The checkpoints among the files of a repository, as NeelNanda's models keep them: `checkpoints/*_{label}.pth`.
/// Labels count tokens where the largest is above 10⁹, as TransformerLens has it. `None` if there are none.
pub fn checkpoints_among(files: &[String]) -> Option<Checkpoints> {
    let mut labels: Vec<u64> = files.iter().filter_map(|name| label_of(name)).collect();
    labels.sort_unstable();
    labels.dedup();
    let unit = if *labels.last()? > 1_000_000_000 { Unit::Token } else { Unit::Step };
    Some(Checkpoints { labels, unit })
}

/// The label in the name of a checkpoint's file.
pub(crate) fn label_of(file: &str) -> Option<u64> {
    file.strip_prefix("checkpoints/")?.strip_suffix(".pth")?.rsplit_once('_')?.1.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names;

    #[test]
    fn stanford_s_are_ever_further_apart() {
        let Checkpoints { labels, unit } = checkpoint_labels("stanford-crfm/alias-gpt2-small-x21").unwrap();
        assert_eq!((labels.len(), unit.name()), (10 + 38 + 180 + 381, "step"));
        assert_eq!(labels[8..12], [80, 90, 100, 150]);
        assert_eq!(labels.last(), Some(&400_000));
        assert!(labels.is_sorted_by(|a, b| a < b));
    }

    #[test]
    fn pythia_s_first_versions_have_no_early_ones() {
        let labels = |name| checkpoint_labels(name).unwrap().labels;
        let pythia = labels("EleutherAI/pythia-160m-seed1");
        assert_eq!(pythia[..13], [0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1000, 2000]);
        assert_eq!(pythia.len(), 154);
        assert_eq!(labels("EleutherAI/pythia-70m-deduped-v0"), pythia[11..]);
    }

    #[test]
    fn revisions_are_those_of_labels_that_exist() {
        let revision = checkpoint_revision;
        assert_eq!(revision("EleutherAI/pythia-70m", 3000).as_deref(), Some("step3000"));
        assert_eq!(revision("EleutherAI/pythia-70m", 3001), None);
        assert_eq!(revision("EleutherAI/pythia-70m-v0", 512), None);
        assert_eq!(revision("stanford-crfm/eowyn-gpt2-medium-x777", 50), Some("checkpoint-50".into()));
        assert_eq!(revision("gpt2", 0), None);
    }

    #[test]
    fn all_pythias_and_stanford_s_ten_have_them() {
        let have = names().filter(|n| checkpoint_labels(n.official).is_some()).count();
        let pythia = names().filter(|n| n.official.contains("pythia")).count();
        assert_eq!(have, pythia + 10);
    }

    #[test]
    fn files_are_read_and_counted_in_tokens_where_they_are_many() {
        let files = |names: &[&str]| checkpoints_among(&names.iter().map(|n| n.to_string()).collect::<Vec<_>>());
        let few =
            files(&["config.json", "checkpoints/SoLU_1L_v9_20.pth", "checkpoints/SoLU_1L_v9_3.pth", "x_final.pth"]);
        assert_eq!(few, Some(Checkpoints { labels: vec![3, 20], unit: Unit::Step }));
        let many = files(&["checkpoints/tokens_22000000000.pth", "checkpoints/tokens_5.pth"]);
        assert_eq!(many.unwrap().unit.name(), "token");
        assert_eq!(files(&["a_1.pth", "checkpoints/a_.pth", "checkpoints/a_99999999999999999999.pth"]), None);
    }
}

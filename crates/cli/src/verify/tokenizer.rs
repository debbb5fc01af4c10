//! Cases of tokenizers: a folder with a tokenizer's files, and in `expected.json` what TransformerLens makes of
//! texts with it.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;
use ironlens::tokenizer::check_case;

use super::GroupResult;

/// Whether a folder is such a case.
pub fn is_case(dir: &Path) -> bool {
    dir.join("expected.json").is_file()
}

/// Compares one case, exactly; gives its groups.
pub fn compare(name: &str, dir: &Path) -> Result<Vec<GroupResult>> {
    let mut groups: BTreeMap<String, GroupResult> = BTreeMap::new();
    for (what, outcome) in check_case(dir)? {
        // `texts[3].with_bos` is of the group `texts`.
        let group = what.split(['[', '.', ' ', '/']).next().unwrap_or(&what).to_string();
        let result = groups.entry(group.clone()).or_insert_with(|| GroupResult {
            case: name.into(),
            group,
            tensors: 0,
            error: 0.0,
            tolerance: 0.0,
            place: what.clone(),
            problem: None,
        });
        result.tensors += 1;
        if let Err(problem) = outcome
            && result.problem.is_none()
        {
            (result.error, result.place) = (f64::INFINITY, what);
            result.problem = Some(problem);
        }
    }
    Ok(groups.into_values().collect())
}

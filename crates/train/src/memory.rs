//! Whether a batch can fit into memory, before it is tried.

use ironlens_transformer::config::machine_memory;

use crate::error::TrainError;

/// Refuses a setting that asks for more bytes than this machine has; the largest number stands for what
/// cannot be counted.
pub(crate) fn check(name: &'static str, given: usize, bytes: u64) -> Result<(), TrainError> {
    let there_is = machine_memory();
    if bytes <= there_is {
        return Ok(());
    }
    let asked = match bytes {
        u64::MAX => "more bytes than can be counted".into(),
        bytes => format!("at least {}", gib(bytes)),
    };
    Err(TrainError::Setting {
        name,
        given: given.to_string(),
        expected: format!("a batch that fits into memory: this one takes {asked}, the machine has {}", gib(there_is)),
    })
}

fn gib(bytes: u64) -> String {
    format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_of_the_memory_may_be_asked_for_and_no_more() {
        assert!(check("batch_size", 1, machine_memory()).is_ok());
        let refused = check("batch_size", 7, machine_memory() + 1).unwrap_err().to_string();
        assert!(refused.starts_with("batch_size = 7 cannot be") && refused.contains("at least"), "{refused}");
        assert!(check("batch_size", 7, u64::MAX).unwrap_err().to_string().contains("more bytes than can be counted"));
        assert_eq!(gib(3 << 29), "1.5 GiB");
    }
}

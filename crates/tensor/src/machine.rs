//! How much memory this machine has.

use std::sync::LazyLock;

/// Bytes of this machine's memory, or of what a container may take of it, where the system tells.
pub(crate) fn memory() -> Option<u64> {
    static KNOWN: LazyLock<Option<u64>> =
        LazyLock::new(|| if cfg!(target_os = "macos") { of_mac() } else { of_linux() });
    *KNOWN
}

fn of_mac() -> Option<u64> {
    let told = std::process::Command::new("/usr/sbin/sysctl").args(["-n", "hw.memsize"]).output().ok()?;
    String::from_utf8(told.stdout).ok()?.trim().parse().ok()
}

fn of_linux() -> Option<u64> {
    let installed = mem_total(&std::fs::read_to_string("/proc/meminfo").ok()?)?;
    // "max", or a number beyond all memory, where there is no limit.
    let limits = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];
    let limit = limits.iter().filter_map(|file| std::fs::read_to_string(file).ok()?.trim().parse().ok()).min();
    Some(limit.map_or(installed, |limit: u64| limit.min(installed)))
}

/// The line `MemTotal:  65742468 kB`, in bytes.
fn mem_total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|l| l.strip_prefix("MemTotal:"))?;
    let kilobytes: u64 = line.split_whitespace().next()?.parse().ok()?;
    kilobytes.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_s_memory_is_read_where_the_system_tells() {
        assert_eq!(mem_total("MemFree: 1 kB\nMemTotal:       65742468 kB\n"), Some(65_742_468 * 1024));
        assert_eq!(mem_total("MemTotal: much"), None);
        if cfg!(target_os = "linux") {
            assert!(of_linux().unwrap() > 1 << 26);
        }
    }
}

//! `ironlens devices`: what could compute here, and what `auto` takes.

use anyhow::Result;
use ironlens::tensor::Device;

/// Lists the devices.
///
/// # Errors
/// Never; a machine without a GPU is told so.
pub fn run() -> Result<()> {
    // Before rayon's threads are there: what looks for GPUs is quieter in a process of one thread.
    let (best, refused) = Device::best_with_reason();
    println!("cpu   {} threads, {}", rayon::current_num_threads(), ironlens::tensor::products());
    #[cfg(feature = "gpu")]
    gpus();
    match refused {
        None => println!("\n--device gpu takes {best}; it passed its self-check"),
        Some(reason) => println!("\n--device gpu fails: {reason}"),
    }
    #[cfg(feature = "gpu")]
    if let Device::Gpu(gpu) = &best {
        println!("      matrix instructions: {}", gpu.uses_matrices());
    }
    println!("\n--device auto takes {best}: {}", why(&best));
    Ok(())
}

#[cfg(feature = "gpu")]
fn gpus() {
    use ironlens::tensor::gpu::{ADAPTER_VARIABLE, CHECKS_VARIABLE, MATRICES_VARIABLE, TUNE_VARIABLE, list};
    let all = list();
    if all.is_empty() {
        println!("gpu   no adapter was found (on Linux, Vulkan drivers are needed)");
    }
    for a in &all {
        println!(
            "gpu   {} ({}, {}{})",
            a.name,
            a.kind,
            a.api,
            if a.driver.is_empty() { String::new() } else { format!(", {}", a.driver) }
        );
        let (bytes, threads) = a.workgroup;
        println!(
            "      largest tensor {} MiB; workgroups of up to {threads} threads and {} KiB",
            a.max_tensor_bytes >> 20,
            bytes >> 10
        );
        println!("      has {}", a.features.join(", "));
        match (&a.unusable, a.software) {
            (Some(why), _) => println!("      cannot be used: {why}"),
            (None, true) => println!("      computes on the processor: taken only when {ADAPTER_VARIABLE} names it"),
            (None, false) => {}
        }
    }
    println!(
        "\n{ADAPTER_VARIABLE}=PART takes the adapter with PART in its name; {CHECKS_VARIABLE}=1 checks bounds in shaders; \
         {TUNE_VARIABLE}=1 measures once which tiles suit products; {MATRICES_VARIABLE}=0 does without matrix \
         instructions"
    );
}

/// Why [`Device::best`] is what it is.
fn why(best: &Device) -> &'static str {
    match best {
        Device::Cpu => "no GPU can be used",
        #[cfg(feature = "gpu")]
        _ if std::env::var_os(ironlens::tensor::gpu::ADAPTER_VARIABLE).is_some() => "the adapter that was asked for",
        _ => "a discrete GPU before an integrated one, and any before the processor",
    }
}

//! `ironlens devices`: what could compute here, and what `auto` takes.

use anyhow::Result;
use ironlens_tensor::Device;

/// Lists the devices.
///
/// # Errors
/// Never; a machine without a GPU is told so.
pub fn run() -> Result<()> {
    println!("cpu   {} threads", rayon::current_num_threads());
    #[cfg(feature = "gpu")]
    gpus();
    #[cfg(not(feature = "gpu"))]
    println!("this build is without the feature `gpu`");
    println!("\nauto  takes {}", Device::best());
    Ok(())
}

#[cfg(feature = "gpu")]
fn gpus() {
    use ironlens_tensor::gpu::{ADAPTER_VARIABLE, CHECKS_VARIABLE, TUNE_VARIABLE, list};
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
        println!("      largest tensor {} MiB", a.max_tensor_bytes >> 20);
        match (&a.unusable, a.software) {
            (Some(why), _) => println!("      cannot be used: {why}"),
            (None, true) => println!("      computes on the processor: taken only when {ADAPTER_VARIABLE} names it"),
            (None, false) => {}
        }
    }
    println!(
        "\n{ADAPTER_VARIABLE}=PART takes the adapter with PART in its name; {CHECKS_VARIABLE}=1 checks bounds in shaders; \
         {TUNE_VARIABLE}=1 measures once which tiles suit products"
    );
    match Device::gpu() {
        Ok(gpu) => println!("--device gpu  takes {gpu}"),
        Err(e) => println!("--device gpu  fails: {e}"),
    }
}

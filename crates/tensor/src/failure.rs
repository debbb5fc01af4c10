//! How work on a GPU ends that cannot go on.

use std::cell::Cell;

/// Why a GPU cannot go on: the payload of a panic, since ops on tensors return no errors.
///
/// ```
/// use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
/// use ironlens_tensor::{DType, Device, GpuFailure, Tensor};
///
/// fn total(device: &Device) -> f64 {
///     Tensor::full(&[1 << 10, 1 << 10], 1.0, DType::F32, device).sum_all().item()
/// }
/// let device = Device::best();
/// let sum = match catch_unwind(AssertUnwindSafe(|| total(&device))) {
///     Ok(sum) => sum,
///     Err(payload) if payload.is::<GpuFailure>() => total(&Device::Cpu),
///     Err(payload) => resume_unwind(payload),
/// };
/// assert_eq!(sum, 1048576.0);
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GpuFailure {
    /// The device or its driver failed. It computes nothing any more.
    #[error("the GPU {adapter} failed: {what}; nothing that it has not handed over yet can be trusted")]
    Failed {
        /// The device's name.
        adapter: String,
        /// What happened.
        what: String,
    },
    /// The device has no memory left. It computes nothing any more.
    #[error(
        "the GPU {adapter} is out of memory: its tensors hold {} MiB, and there is no more; make the batch or the model \
         smaller, or use the CPU",
        live_bytes >> 20
    )]
    OutOfMemory {
        /// The device's name.
        adapter: String,
        /// Bytes of its tensors.
        live_bytes: u64,
    },
    /// A tensor is larger than the device takes in one piece. The device goes on.
    #[error(
        "a tensor of shape {shape:?} takes {} MiB in one piece, the GPU {adapter} at most {} MiB{}; make the batch or \
         the model smaller, or use the CPU",
        bytes.div_ceil(1 << 20),
        limit >> 20,
        first_axis(shape, *bytes, *limit)
    )]
    TooLarge {
        /// The device's name.
        adapter: String,
        /// The tensor's shape.
        shape: Vec<usize>,
        /// Its bytes.
        bytes: u64,
        /// The most there may be.
        limit: u64,
    },
}

/// What of the first axis, which is a batch's as a rule, would fit.
fn first_axis(shape: &[usize], bytes: u64, limit: u64) -> String {
    match shape.first().map(|n| limit / (bytes / (*n as u64).max(1)).max(1)) {
        Some(fits) if fits > 0 => format!(", which is {fits} along the first axis"),
        _ => String::new(),
    }
}

thread_local! {
    static RAISED: Cell<bool> = const { Cell::new(false) };
}

impl GpuFailure {
    /// Whether this thread is panicking of a GPU's failure: for panic hooks, which get its text.
    pub fn is_raised() -> bool {
        RAISED.get()
    }

    /// Panics. Panic hooks see the text, which is all that the standard one can show; whoever catches
    /// the panic gets the failure itself.
    #[cfg(feature = "gpu")]
    #[track_caller]
    pub(crate) fn raise(self) -> ! {
        let text = self.to_string();
        RAISED.set(true);
        let _ = std::panic::catch_unwind(|| panic!("{text}"));
        RAISED.set(false);
        std::panic::resume_unwind(Box::new(self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tensor_that_is_too_large_says_what_fits() {
        let too_large = |shape: &[usize], limit| {
            let bytes = 4 * shape.iter().product::<usize>() as u64;
            GpuFailure::TooLarge { adapter: "Card".into(), shape: shape.into(), bytes, limit }.to_string()
        };
        let text = too_large(&[64, 1024, 1024], 10 << 20);
        assert!(text.contains("[64, 1024, 1024] takes 256 MiB") && text.contains("Card at most 10 MiB"), "{text}");
        assert!(text.contains("which is 2 along the first axis"), "{text}");
        let text = too_large(&[2, 1024, 1024], 1 << 20);
        assert!(!text.contains("along"), "{text}");
    }

    #[cfg(feature = "gpu")]
    #[test]
    fn hooks_get_the_text_and_who_catches_it_the_failure() {
        use std::sync::{Arc, Mutex};
        let failure = GpuFailure::OutOfMemory { adapter: "Card".into(), live_bytes: 5 << 20 };
        let told = Arc::new(Mutex::new(Vec::new()));
        let (tell, me) = (told.clone(), std::thread::current().id());
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            // Other tests panic, too.
            if std::thread::current().id() == me {
                let text = info.payload().downcast_ref::<String>().cloned();
                tell.lock().unwrap().push((text, GpuFailure::is_raised()));
            }
        }));
        let caught = std::panic::catch_unwind(|| failure.clone().raise()).unwrap_err();
        let other = std::panic::catch_unwind(|| panic!("{failure}")).unwrap_err();
        std::panic::set_hook(usual);
        assert_eq!(caught.downcast_ref(), Some(&failure));
        assert!(!other.is::<GpuFailure>(), "a text like a failure's is none");
        let text = Some(failure.to_string());
        assert_eq!(*told.lock().unwrap(), [(text.clone(), true), (text, false)]);
        assert!(failure.to_string().contains("Card is out of memory: its tensors hold 5 MiB"), "{failure}");
    }
}

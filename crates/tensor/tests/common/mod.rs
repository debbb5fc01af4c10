//! Helpers of the tests of views and sizes.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// What a closure panics with.
pub fn panic_of<T>(f: impl FnOnce() -> T) -> String {
    let panic = catch_unwind(AssertUnwindSafe(|| drop(f()))).expect_err("it should panic");
    *panic.downcast::<String>().expect("the message is a formatted one")
}

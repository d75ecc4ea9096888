//! [`catch_quietly`]: catches the panics that some damaged files cause in redb, without printing their messages.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Once;
use std::thread;

thread_local!(static IS_QUIET: Cell<bool> = const { Cell::new(false) });

/// Keeps panics of this thread quiet until it is dropped.
struct Quiet {
    before: bool,
}

impl Drop for Quiet {
    fn drop(&mut self) {
        IS_QUIET.set(self.before);
    }
}

/// Returns whether this thread runs something whose panics are caught and explained.
pub(crate) fn is_quiet() -> bool {
    IS_QUIET.get()
}

/// Runs something that can panic because a file is damaged. Its caller explains what is wrong with the file. Panics elsewhere
/// are printed as before.
///
/// # Errors
/// It panicked.
pub(crate) fn catch_quietly<T>(work: impl FnOnce() -> T) -> thread::Result<T> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let print = take_hook();
        set_hook(Box::new(move |panic| {
            if !IS_QUIET.get() {
                print(panic);
            }
        }));
    });
    let _quiet = Quiet { before: IS_QUIET.replace(true) };
    catch_unwind(AssertUnwindSafe(work))
}

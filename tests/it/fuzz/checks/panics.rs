//! Panics that a runtime or a server catches, and that a check must hear of all the same.

use std::collections::HashSet;
use std::sync::{Mutex, Once, PoisonError};
use std::thread::ThreadId;

static HOOK: Once = Once::new();
static PANICKED: Mutex<Option<HashSet<ThreadId>>> = Mutex::new(None);

/// From now on panics are remembered by their threads; who else listens to them still does.
pub fn are_watched() {
    HOOK.call_once(|| {
        let others = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let mut panicked = PANICKED.lock().unwrap_or_else(PoisonError::into_inner);
            panicked.get_or_insert_default().insert(std::thread::current().id());
            drop(panicked);
            others(panic);
        }));
    });
}

/// Whether there was one on this thread since.
pub fn happened_on(thread: ThreadId) -> bool {
    let panicked = PANICKED.lock().unwrap_or_else(PoisonError::into_inner);
    panicked.as_ref().is_some_and(|panicked| panicked.contains(&thread))
}

//! Where memory comes from.
//!
//! A server allocates on one thread and frees on another all day long, which the system's allocator takes ill. And
//! it gives up as much as it takes, all day long, so memory that is handed back to the system comes back a moment
//! later, and each time the system fills it with zeroes first: a sixth of all that a put cost, before this module.

use libmimalloc_sys::{mi_option_set, mi_option_t};

// Built without transparent huge pages: of those, two megabytes are zeroed where a few pages are needed.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Number of the option `purge_delay` in mimalloc 2 and 3, which its bindings do not name.
const PURGE_DELAY: mi_option_t = 15;

/// How long free memory is kept before the system has it back, in milliseconds.
const KEPT: std::ffi::c_long = 5_000;

/// To be called once, and first of all: options may not be set while another thread runs.
pub(crate) fn tune() {
    // SAFETY: `main` has started no thread yet, which is all that this function asks for.
    #[allow(unsafe_code)]
    unsafe {
        mi_option_set(PURGE_DELAY, KEPT);
    }
}

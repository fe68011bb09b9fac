//! Where memory comes from.
//!
//! A server allocates on one thread and frees on another all day long, which the system's allocator takes ill. And
//! it gives up as much as it takes, all day long, so memory that is handed back to the system comes back a moment
//! later, and each time the system fills it with zeroes first: a sixth of all that a put cost, before this module.
//!
//! A small process has small pages, because of huge ones two megabytes are zeroed and kept where a few pages are
//! needed: a quarter more memory for a store of a hundred thousand keys. A large one has huge pages for what it takes
//! from then on. It looks for keys all over its memory, and with small pages each look would also have to find out
//! where the page is: another wait, and on a virtual machine a longer one than for the memory itself.

use std::ffi::c_long;
use std::io;
use std::thread;
use std::time::Duration;

use libmimalloc_sys::{mi_option_set, mi_option_t};

use crate::process;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Number of the option `purge_delay` in mimalloc 2 and 3, which its bindings do not name.
const PURGE_DELAY: mi_option_t = 15;

/// How long free memory is kept before the system has it back, in milliseconds.
const KEPT: c_long = 5_000;

/// A process that holds as much memory is large, in bytes.
const LARGE: u64 = 256 << 20;

/// How often a process looks whether it has become large.
const LOOK: Duration = Duration::from_millis(500);

/// To be called once, and first of all: options may not be set while another thread runs.
pub(crate) fn tune() {
    // SAFETY: `main` has started no thread yet, which is all that this function asks for.
    #[allow(unsafe_code)]
    unsafe {
        mi_option_set(PURGE_DELAY, KEPT);
    }
}

/// Keeps huge pages from this process until it is large, which is watched in the background. For servers only: the
/// programs that a process starts inherit it, and a benchmark starts other servers than these.
pub(crate) fn watch() {
    if huge_pages(false).is_err() {
        return; // a system that knows none
    }
    let grow = || {
        while let Ok(bytes) = process::own_resident() {
            if bytes >= LARGE {
                let _ = huge_pages(true); // small ones will do
                return;
            }
            thread::sleep(LOOK);
        }
    };
    // Without the thread they will do, too.
    let _ = thread::Builder::new().name("memory".into()).spawn(grow);
}

/// May this process have huge pages? The allocator asks for them, but where they are forbidden, that is in vain.
#[cfg(target_os = "linux")]
fn huge_pages(allowed: bool) -> io::Result<()> {
    Ok(rustix::thread::disable_transparent_huge_pages(!allowed)?)
}

#[cfg(not(target_os = "linux"))]
fn huge_pages(_: bool) -> io::Result<()> {
    Ok(())
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    /// What the kernel thinks of it; none if it is older than this line in `/proc` (Linux 5.0).
    fn allowed() -> Option<bool> {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("THP_enabled:"))?;
        Some(line.trim() == "1")
    }

    #[test]
    fn huge_pages_are_for_large_processes() {
        let Some(_) = allowed() else { return };
        huge_pages(false).unwrap();
        assert_eq!(allowed(), Some(false));
        huge_pages(true).unwrap();
        assert_eq!(allowed(), Some(true));
    }
}

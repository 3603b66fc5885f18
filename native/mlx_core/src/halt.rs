//! The end of the process: workers stop before MLX's own destructors run.

use std::time::{Duration, Instant};

use once_cell::sync::OnceCell;

use crate::kernels;
use crate::pointer;
use crate::worker;

/// Work in flight may take this long to end before the process ends without it.
const PATIENCE: Duration = Duration::from_millis(500);

/// Ends every worker after the job it is at; false if one is still busy half a second
/// after this was first called. Nothing runs after this. Called at exit by itself; a host that
/// learns earlier that the process ends calls [`halt`] then.
fn stop_workers() -> bool {
    static DEADLINE: OnceCell<Instant> = OnceCell::new();
    let deadline = *DEADLINE.get_or_init(|| Instant::now() + PATIENCE);
    let stopped = worker::stop_all(deadline);
    pointer::unlink_segments();
    kernels::remove();
    stopped
}

/// Ends every worker because the host is about to end the process. Libraries have registered
/// handlers of their own since the last evaluation began, and must not go before the process.
pub fn halt() {
    install();
    stop_workers();
}

/// Registers the handler. Handlers run last in, first out, so every worker does
/// this again once MLX has made its statics and registered their destructors.
pub(crate) fn install() {
    #[cfg(target_os = "linux")]
    // Safety: the handler is a plain function of the right type.
    unsafe {
        sys::on_exit(sys::at_exit, std::ptr::null_mut());
    }
    #[cfg(not(target_os = "linux"))]
    // Safety: the handler is a plain function of the right type.
    unsafe {
        sys::atexit(sys::at_exit);
    }
}

mod sys {
    use std::ffi::c_int;

    use crate::cuda;

    extern "C" {
        fn _exit(status: c_int) -> !;
        fn fflush(file: *mut std::ffi::c_void) -> c_int;
        #[cfg(target_os = "linux")]
        pub fn on_exit(
            handler: extern "C" fn(c_int, *mut std::ffi::c_void),
            argument: *mut std::ffi::c_void,
        ) -> c_int;
        #[cfg(not(target_os = "linux"))]
        pub fn atexit(handler: extern "C" fn()) -> c_int;
    }

    #[cfg(target_os = "linux")]
    pub extern "C" fn at_exit(status: c_int, _argument: *mut std::ffi::c_void) {
        stop(status);
    }

    #[cfg(not(target_os = "linux"))]
    pub extern "C" fn at_exit() {
        stop(1);
    }

    /// A worker that is still busy must not meet half-destroyed libraries, and MLX's own
    /// destructors not a CUDA driver that has shut down: they end the process with an abort.
    fn stop(status: c_int) {
        if !super::stop_workers() || cuda::is_loaded() {
            // Safety: writes what is buffered, and ends the process at once.
            unsafe {
                fflush(std::ptr::null_mut());
                _exit(status)
            }
        }
    }
}

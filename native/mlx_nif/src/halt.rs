//! The VM tells when it halts, before any library is torn down.

use std::ffi::{c_char, c_int, c_void};

use rustler::Env;

const ON_HALT: c_int = 2;

type SetOption = unsafe extern "C" fn(*mut c_void, c_int, ...) -> c_int;

extern "C" {
    fn dlsym(handle: *mut c_void, name: *const c_char) -> *mut c_void;
}

extern "C" fn on_halt(_private: *mut c_void) {
    mlx_core::halt();
}

/// Asks the VM to call `on_halt`; a VM older than OTP 26 can't.
pub fn install(env: Env) {
    // Safety: null searches the running program; the name ends with NUL.
    let function = unsafe { dlsym(std::ptr::null_mut(), c"enif_set_option".as_ptr()) };
    if function.is_null() {
        return;
    }
    // Safety: this is the function's type in erl_nif.h, and with this option it takes
    // a callback.
    unsafe {
        let set_option: SetOption = std::mem::transmute(function);
        set_option(
            env.as_c_arg().cast(),
            ON_HALT,
            on_halt as extern "C" fn(*mut c_void),
        );
    }
}

//! What OpenBLAS says of itself, where it is the BLAS that MLX was given.

use std::ffi::{c_char, c_int, c_void, CStr, CString};

use once_cell::sync::Lazy;

/// A BLAS that this process has loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenBlas {
    /// Its version, and what it was built for and runs on.
    pub config: String,
    pub threads: usize,
}

/// A library that was loaded before, for as long as it is looked at.
struct Library(*mut c_void);

impl Library {
    fn loaded(path: &str) -> Option<Library> {
        let path = CString::new(path).ok()?;
        // Safety: the name ends with NUL, and nothing is loaded that is not there.
        let handle = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_LAZY | libc::RTLD_NOLOAD) };
        (!handle.is_null()).then(|| Library(handle))
    }

    fn symbol(&self, name: &CStr) -> Option<*mut c_void> {
        // Safety: the handle is open, and the name ends with NUL.
        let symbol = unsafe { libc::dlsym(self.0, name.as_ptr()) };
        (!symbol.is_null()).then_some(symbol)
    }
}

impl Drop for Library {
    fn drop(&mut self) {
        // Safety: the handle is closed once; MLX holds one of its own.
        unsafe { libc::dlclose(self.0) };
    }
}

/// What the library in that file says, if it is OpenBLAS and loaded.
pub fn openblas(path: &str) -> Option<OpenBlas> {
    let library = Library::loaded(path)?;
    let config = library.symbol(c"openblas_get_config")?;
    let threads = library.symbol(c"openblas_get_num_threads")?;
    // Safety: these are the functions' types in OpenBLAS's cblas.h; the text is static.
    let (config, threads) = unsafe {
        let config: extern "C" fn() -> *const c_char = std::mem::transmute(config);
        let threads: extern "C" fn() -> c_int = std::mem::transmute(threads);
        (CStr::from_ptr(config()), threads())
    };
    Some(OpenBlas {
        config: config.to_string_lossy().trim().to_owned(),
        threads: usize::try_from(threads).unwrap_or(0),
    })
}

/// How many threads it uses now, if MLX's BLAS is OpenBLAS.
pub(crate) fn threads() -> Option<usize> {
    static COUNT: Lazy<Option<extern "C" fn() -> c_int>> = Lazy::new(|| {
        // Safety: the name ends with NUL; what this library needs is looked at, too.
        let symbol =
            unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"openblas_get_num_threads".as_ptr()) };
        // Safety: this is the function's type in OpenBLAS's cblas.h; MLX keeps it loaded.
        (!symbol.is_null()).then(|| unsafe { std::mem::transmute(symbol) })
    });
    COUNT.and_then(|count| usize::try_from(count()).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_loaded_has_a_thread_at_least() {
        crate::init();
        // There is no OpenBLAS where MLX has another BLAS.
        assert_ne!(threads(), Some(0));
    }

    #[test]
    fn libraries_that_are_something_else_say_nothing() {
        assert_eq!(openblas("/nowhere/libblas.so"), None);
        assert_eq!(openblas("libc.so.6"), None);
        assert_eq!(openblas("with\0nul"), None);
    }
}

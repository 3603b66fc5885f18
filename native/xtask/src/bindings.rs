//! Rust declarations of mlx-c, as mlx-sys would generate them, whole on every platform.

use std::fs;
use std::path::{Path, PathBuf};

use bindgen::{Builder, Formatter};

use crate::error::{Error, Result};

/// mlx-c declares its half types only where C has them, and libclang knows them in some versions
/// only; mlx-rs needs them everywhere. Their payload is 16 bits, so the `uint16` functions stand in.
const HALF_TYPES: &str = "
#[repr(transparent)]
#[derive(Debug, Default, Copy, Clone, PartialEq, Eq)]
pub struct float16_t(pub u16);
pub type bfloat16_t = u16;
pub unsafe fn mlx_array_data_float16(arr: mlx_array) -> *const float16_t {
    unsafe { mlx_array_data_uint16(arr) }.cast()
}
pub unsafe fn mlx_array_item_float16(res: *mut float16_t, arr: mlx_array) -> ::std::os::raw::c_int {
    unsafe { mlx_array_item_uint16(res.cast(), arr) }
}
pub unsafe fn mlx_array_data_bfloat16(arr: mlx_array) -> *const bfloat16_t {
    unsafe { mlx_array_data_uint16(arr) }
}
pub unsafe fn mlx_array_item_bfloat16(res: *mut bfloat16_t, arr: mlx_array) -> ::std::os::raw::c_int {
    unsafe { mlx_array_item_uint16(res, arr) }
}
";

/// The include guard of the header with the half types: defined, it keeps them out.
const SKIP_HALF_HEADER: &str = "-DMLX_HALF_H";

/// Writes the bindings to mlx-c at `mlx_c`.
pub fn generate(mlx_c: &Path, target: &Path) -> Result<()> {
    clang_sys::load().map_err(|detail| Error::ToolMissing {
        tool: "libclang".to_owned(),
        purpose: "generate the bindings to mlx-c",
        remedy: format!(
            "Install it (Debian: libclang-dev; macOS: xcode-select --install), or name its folder in LIBCLANG_PATH.\n{detail}"
        ),
    })?;
    let bindings = builder(mlx_c)?
        .generate()
        .map_err(|error| Error::Bindings {
            detail: error.to_string(),
        })?;
    let text = format!("{bindings}{HALF_TYPES}");
    fs::write(target, text).map_err(Error::io("write", target))
}

/// The options of mlx-sys's own build script.
fn builder(mlx_c: &Path) -> Result<Builder> {
    let builder = Builder::default()
        .formatter(Formatter::None)
        .clang_arg(format!("-I{}", mlx_c.display()))
        .clang_arg(SKIP_HALF_HEADER)
        .blocklist_function("malloc")
        .blocklist_function("realloc");
    let headers = headers(mlx_c)?;
    Ok(headers.iter().fold(builder, |builder, header| {
        builder.header(header.to_string_lossy())
    }))
}

fn headers(mlx_c: &Path) -> Result<Vec<PathBuf>> {
    let dir = mlx_c.join("mlx/c");
    let entries = fs::read_dir(&dir).map_err(Error::io("read", &dir))?;
    let mut headers: Vec<PathBuf> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "h"))
        .collect();
    headers.sort();
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::tests::TempDir;

    #[test]
    fn the_half_types_are_there_once_whatever_the_platform() {
        let dir = TempDir::new();
        let headers = dir.0.join("mlx/c");
        fs::create_dir_all(&headers).expect("a folder");
        let half = "#ifndef MLX_HALF_H\n#define MLX_HALF_H\n#define HAS_FLOAT16\n\
            typedef struct { short bits; } float16_t;\n#endif\n";
        fs::write(headers.join("half.h"), half).expect("a header");
        let array = "#include \"mlx/c/half.h\"\ntypedef struct mlx_array_ { void* ctx; } mlx_array;\n\
            int mlx_array_item_uint16(unsigned short* res, const mlx_array arr);\n\
            #ifdef HAS_FLOAT16\nint mlx_array_item_float16(float16_t* res, const mlx_array arr);\n#endif\n";
        fs::write(headers.join("array.h"), array).expect("a header");
        let target = dir.0.join("bindings.rs");
        generate(&dir.0, &target).expect("bindings");
        let text = fs::read_to_string(&target).expect("text");
        assert!(text.contains("fn mlx_array_item_uint16"));
        assert_eq!(text.matches("fn mlx_array_item_float16").count(), 1);
        assert_eq!(text.matches("struct float16_t").count(), 1);
    }
}

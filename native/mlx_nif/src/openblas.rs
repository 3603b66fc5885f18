use rustler::NifTuple;

/// What it says of itself, and how many threads it has.
#[derive(NifTuple)]
struct OpenBlasTuple {
    config: String,
    threads: usize,
}

/// What the OpenBLAS in a file says, or `nil` if it isn't one or isn't loaded.
#[rustler::nif]
fn openblas(path: String) -> Option<OpenBlasTuple> {
    mlx_core::openblas(&path).map(|blas| OpenBlasTuple {
        config: blas.config,
        threads: blas.threads,
    })
}

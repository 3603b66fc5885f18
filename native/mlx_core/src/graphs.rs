//! How many of the graphs that it launches on NVIDIA GPUs MLX keeps.

const VARIABLE: &str = "MLX_CUDA_GRAPH_CACHE_SIZE";

/// Enough for any program: MLX fails for good once it has met twice as many different
/// graphs as it keeps, and by itself it keeps 400.
const KEPT: &str = "65536";

/// Before MLX makes its first stream, unless the user has chosen.
pub(crate) fn keep_many() {
    if std::env::var_os(VARIABLE).is_none() {
        std::env::set_var(VARIABLE, KEPT);
    }
}

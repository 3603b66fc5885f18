// What MLX's C interface has no function for: letting go of a thread's streams.

#include "mlx/stream.h"

extern "C" bool mlx_core_clear_streams() noexcept {
  try {
    mlx::core::clear_streams();
    return true;
  } catch (...) {
    return false;
  }
}

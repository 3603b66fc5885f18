// What MLX's C interface has no function for: letting go of a thread's streams.

#include "mlx/stream.h"

// A device that has failed ends the process here, whatever is caught.
extern "C" void mlx_core_clear_streams() noexcept {
  mlx::core::clear_streams();
}

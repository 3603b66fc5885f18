// Where MLX keeps an array's values, without asking for them, which may move them.

#include "mlx/array.h"

extern "C" const void* mlx_core_buffer(void* array, size_t* offset) noexcept {
  const auto& it = *static_cast<const mlx::core::array*>(array);
  *offset = static_cast<size_t>(it.offset());
  return it.buffer().ptr();
}

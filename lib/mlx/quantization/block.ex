defmodule Mlx.Quantization.Block do
  @moduledoc false

  # The blocks of `Nx.block/4` of this family. Backends other than Mlx's run them as
  # `Mlx.Quantization.Composition` does.

  defmodule Quantize do
    @moduledoc false
    @enforce_keys [:mode, :bits, :group_size]
    defstruct [:mode, :bits, :group_size]
  end

  defmodule Dequantize do
    @moduledoc false
    # What tells quantized tensors of equal parts apart, so it is in keys of caches.
    @enforce_keys [:mode, :bits, :group_size, :type, :transposed]
    defstruct [:mode, :bits, :group_size, :type, :transposed]
  end

  defmodule GatherMM do
    @moduledoc false
    defstruct []
  end
end

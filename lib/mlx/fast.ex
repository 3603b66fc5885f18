defmodule Mlx.Fast do
  @moduledoc """
  Functions that transformers are made of.

  Each is one operation of MLX's where it has one, and else, as with other backends and compilers, the
  operations of Nx that it is composed of. All may be called inside `defn`, and all have gradients.
  """

  import Nx.Defn

  alias __MODULE__.RMSNorm

  @doc """
  Divides by the root of the mean of the squares along the last axis, and multiplies by a weight.

  `weight` is a tensor of the size of that axis, or `nil` for none. Halves are normalized in `f32`. The
  result has the shape of the tensor, and the type that holds the numbers of both.

  ## Options

    * `:eps` - what is added to the mean, `1.0e-5` by default

  ## Examples

      iex> Mlx.Fast.rms_norm(Nx.tensor([[1.0, 7.0], [-3.0, 4.0]]), Nx.tensor([1.0, 2.0]), eps: 0)
      #Nx.Tensor<
        f32[2][2]
        [
          [0.2, 2.8],
          [-0.84852815, 2.2627418]
        ]
      >

  """
  @spec rms_norm(Nx.Tensor.t(), Nx.Tensor.t() | nil, keyword) :: Nx.Tensor.t()
  deftransform(rms_norm(x, weight, opts \\ []), do: RMSNorm.run(x, weight, opts))
end

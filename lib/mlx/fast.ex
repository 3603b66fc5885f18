defmodule Mlx.Fast do
  @moduledoc """
  Functions that transformers are made of.

  They may be called with tensors and inside `defn`, with any backend and any compiler, and all
  have gradients. With `Mlx.Backend` and `Mlx.Compiler`, in `f32`, `f16` and `bf16`, a function is
  one operation of MLX's, which is one kernel where the device has it:

  | function | Apple GPU | NVIDIA GPU | CPU |
  |---|---|---|---|
  | `rms_norm/3`, `layer_norm/4` | one kernel | one kernel | one kernel |
  | `rope/3` | one kernel | one kernel | composed |
  | `scaled_dot_product_attention/4` | one kernel | one kernel, but see there | composed, of halves in `f32` |
  | `softmax/2` along the last axis | one kernel | one kernel | one kernel |
  | `swiglu/2`, `gelu/2` | one kernel | one kernel | one kernel |
  | `update_cache/4` | writes what is new | writes what is new | writes what is new |
  | `einsum/2` | a product for each two | a product for each two | a product for each two |

  In `f64`, and with other backends and compilers, a function is the operations of Nx that it is
  composed of, but for `swiglu/2`. So is its gradient everywhere. Sums of halves are made in `f32`;
  kernels may round halves where the composition goes on in `f32`.

  Integers are converted to floats, and tensors of different types to the type that holds both, as
  Nx does. Complex numbers, shapes that do not fit, and options that are not what they have to be raise
  `ArgumentError` at the call, or when a function that contains it is compiled. Names and vectorized
  axes of the first tensor are kept.
  """

  import Nx.Defn

  alias __MODULE__.{Attention, Cache, Einsum, GELU, LayerNorm, RMSNorm, RoPE, Softmax, SwiGLU}

  @type tensor :: Nx.Tensor.t()

  @doc """
  Divides by the root of the mean of the squares along the last axis, and multiplies by a weight.

  `x / sqrt(mean(x ** 2) + eps) * weight`, as in [Zhang and Sennrich,
  2019](https://arxiv.org/abs/1910.07467). `x` is `{..., size}`, `weight` is `{size}`, or `nil` for
  none. Halves are normalized in `f32`. The result has the shape of `x`.

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
  @spec rms_norm(tensor, tensor | nil, keyword) :: tensor
  deftransform(rms_norm(x, weight, opts \\ []), do: RMSNorm.run(x, weight, opts))

  @doc """
  Subtracts the mean along the last axis, divides by the standard deviation, multiplies by a
  weight and adds a bias.

  `(x - mean(x)) / sqrt(variance(x) + eps) * weight + bias`, as in [Ba, Kiros and Hinton,
  2016](https://arxiv.org/abs/1607.06450). `x` is `{..., size}`, `weight` and `bias` are `{size}`, or
  `nil` for none. Halves are normalized in `f32`. The result has the shape of `x`.

  ## Options

    * `:eps` - what is added to the variance, `1.0e-5` by default

  ## Examples

      iex> Mlx.Fast.layer_norm(Nx.tensor([1.0, 3.0]), Nx.tensor([2.0, 3.0]), nil, eps: 0)
      #Nx.Tensor<
        f32[2]
        [-2.0, 3.0]
      >

  """
  @spec layer_norm(tensor, tensor | nil, tensor | nil, keyword) :: tensor
  deftransform(layer_norm(x, weight, bias, opts \\ []), do: LayerNorm.run(x, weight, bias, opts))

  @doc """
  Exponentials along an axis, divided by their sum.

  The largest element is subtracted first, so no exponential is infinite. The result has the shape
  of `x`.

  ## Options

    * `:axis` - a number or a name, `-1` by default
    * `:precise` - whether halves are added in `f32`, `true` by default

  ## Examples

      iex> Mlx.Fast.softmax(Nx.tensor([1000.0, 1000.0]))
      #Nx.Tensor<
        f32[2]
        [0.5, 0.5]
      >

  """
  @spec softmax(tensor, keyword) :: tensor
  deftransform(softmax(x, opts \\ []), do: Softmax.run(x, opts))

  @doc """
  `gate * sigmoid(gate) * up`, of two tensors of the same shape, which is that of the result.

  It is what lies between the products of a feed-forward layer in [Shazeer,
  2020](https://arxiv.org/abs/2002.05202).

  ## Examples

      iex> Mlx.Fast.swiglu(Nx.tensor([0.0, 1.0]), Nx.tensor([5.0, 2.0]))
      #Nx.Tensor<
        f32[2]
        [0.0, 1.4621172]
      >

  """
  @spec swiglu(tensor, tensor) :: tensor
  deftransform(swiglu(gate, up), do: SwiGLU.run(gate, up))

  @doc """
  The Gaussian error linear unit: each number times the share of a standard normal distribution
  that is below it.

  `x * (1 + erf(x / sqrt(2))) / 2`, as in [Hendrycks and Gimpel,
  2016](https://arxiv.org/abs/1606.08415). The result has the shape of `x`.

  ## Options

    * `:approximate` - by which function the share is approximated:
        * `:none` - by none, the default
        * `:tanh` - `x * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x ** 3))) / 2`
        * `:sigmoid` - `x * sigmoid(1.702 * x)`

  ## Precision

  On a CPU the result is within 0.51 units in the last place of what these formulas mean, in each type
  but `f64`, also of negative numbers of which `1 + erf` is a difference that leaves few digits. On
  GPUs these lose them: there the error is about `2.0e-7` of `x`.

  ## Examples

      iex> Mlx.Fast.gelu(Nx.tensor([-1.0, 0.0, 2.0]))
      #Nx.Tensor<
        f32[3]
        [-0.15865526, 0.0, 1.9544997]
      >

      iex> Mlx.Fast.gelu(Nx.tensor([-1.0, 0.0, 2.0]), approximate: :tanh)
      #Nx.Tensor<
        f32[3]
        [-0.158808, 0.0, 1.9545977]
      >

  """
  @spec gelu(tensor, keyword) :: tensor
  deftransform(gelu(x, opts \\ []), do: GELU.run(x, opts))

  @doc """
  Rotary positional encoding: turns pairs of elements along the last axis by angles that grow with
  the position along the axis before it, as in [Su et al., 2021](https://arxiv.org/abs/2104.09864).

  `x` is `{..., length, size}`, and with a position for each of a batch `{batch, ..., length, size}`,
  such as `{batch, heads, length, size}`. The angle of pair `i` at a position is
  `position * scale * base ** (-2 * i / dims)`. The result has the shape and the type of `x`.

  `position` is that of the first element along the axis, integers in each case:

    * a number or a tensor `{}`, for all
    * a tensor `{batch}`, one for each of the batch
    * a tensor `{batch, length}` or `{1, length}`, that of every element. This one is composed of
      Nx's operations on every device.

  ## Options

    * `:dims` - how many elements along the last axis turn, an even number. The others stay. All
      by default.
    * `:traditional` - whether the pairs are neighbours, elements `2 * i` and `2 * i + 1`. By default
      they are `i` and `i + dims / 2`, as models of Hugging Face have them.
    * `:base` - `10_000` by default
    * `:scale` - what positions are multiplied by, `1.0` by default
    * `:frequencies` - a tensor `{dims / 2}` of the angles from one position to the next, instead of
      those that follow from `:base`

  ## Examples

      iex> x = Nx.tensor([[[1.0, 0.0], [1.0, 0.0]]])
      iex> Mlx.Fast.rope(x, 0, scale: 3.141592653589793) |> Nx.round()
      #Nx.Tensor<
        f32[1][2][2]
        [
          [
            [1.0, 0.0],
            [-1.0, 0.0]
          ]
        ]
      >

  """
  @spec rope(tensor, integer | tensor, keyword) :: tensor
  deftransform(rope(x, position, opts \\ []), do: RoPE.run(x, position, opts))

  @doc """
  Attention: for each query the sum of the values, weighted by the softmax of the products of the
  query and the keys.

  `softmax(q * transpose(k) * scale + mask) * v`, as in [Vaswani et al.,
  2017](https://arxiv.org/abs/1706.03762), with [groups](https://arxiv.org/abs/2305.13245) and
  [sinks](https://arxiv.org/abs/2309.17453).

    * `q` - `{batch, heads, queries, size}`
    * `k` - `{batch, groups, keys, size}`
    * `v` - `{batch, groups, keys, value_size}`

  `heads` is a multiple of `groups`; as many heads as there are to a group, one after the other, use
  the same keys and values. The result is `{batch, heads, queries, value_size}`.

  ## Options

    * `:scale` - what products are multiplied by, `1 / sqrt(size)` by default
    * `:mask` - a tensor that broadcasts to `{batch, heads, queries, keys}`: of type `u8` for which
      keys a query sees, or of floats that are added to the scaled products
    * `:causal` - whether a query sees no keys after its own position. `false` by default.
    * `:position` - with `causal: true`, at which key the first query is, so that query `i` sees the
      keys up to `position + i`: a number, or integers `{}` or `{batch}`. `keys - queries` by default.
    * `:lengths` - how many of the keys there are: a number, or integers `{}` or `{batch}`. A query
      sees none after these. All keys by default.
    * `:sinks` - a tensor `{heads}` of products with a key of which the value is zero

  A key is seen if none of these hides it. Whatever positions and lengths there are in a tensor, the
  first key is seen unless the mask hides it. A query for which a mask hides all keys gets
  some mean of the values, which differs between devices, or NaN if numbers that are added are all
  minus infinity.

  For a cache of keys and values of which a part is filled, `causal: true` and `:position` are enough.
  If the position is a number, keys after the last query are not even read. Neither are they if it is a
  tensor `{}` of `s32` or `s64` that a compiled function is given by the host, such as one of
  `Nx.BinaryBackend`, and there is no mask and no `:lengths`: then one program does for all positions.

  ## Kernels

  On NVIDIA GPUs there is one kernel for single queries without a mask, and for several queries of
  halves whose sizes are multiples of 8 up to 128. Lengths in a tensor, and positions that are not known
  as above, are masks, too.
  Everything else is composed by MLX, and then, as on the CPU, needs memory for the products of all
  queries and keys.

  ## Examples

      iex> q = Nx.broadcast(0.0, {1, 1, 2, 4})
      iex> v = Nx.tensor([[[[1.0], [3.0]]]])
      iex> Mlx.Fast.scaled_dot_product_attention(q, q, v, causal: true)
      #Nx.Tensor<
        f32[1][1][2][1]
        [
          [
            [
              [1.0],
              [2.0]
            ]
          ]
        ]
      >

  """
  @spec scaled_dot_product_attention(tensor, tensor, tensor, keyword) :: tensor
  deftransform scaled_dot_product_attention(q, k, v, opts \\ []) do
    Attention.run(q, k, v, opts)
  end

  @doc """
  Writes new keys or values into a cache.

  `cache` is such as `{batch, heads, length, size}`, and `update` has the same shape but for the axis
  of the length, along which it may be shorter. It is converted to the type of the cache, which is
  that of the result.

  `position` is where the update starts along that axis: a number or integers `{}`, or `{batch}` with
  one for each element along the first axis. A position where the update does not fit is moved so
  that it does, as `Nx.put_slice/3` does.

  Inside a function compiled with `Mlx.Compiler`, only the new part is written if nothing else
  uses the cache: in loops, and where it is an argument that `Nx.donatable/1` marks. Else the cache is
  copied first.

  ## Options

    * `:axis` - that of the length, a number or a name, `-2` by default

  ## Examples

      iex> cache = Nx.broadcast(0, {2, 3, 1})
      iex> update = Nx.tensor([[[1]], [[2]]])
      iex> Mlx.Fast.update_cache(cache, update, Nx.tensor([0, 2])) |> Nx.squeeze()
      #Nx.Tensor<
        s32[2][3]
        [
          [1, 0, 0],
          [0, 0, 2]
        ]
      >

  """
  @spec update_cache(tensor, tensor, integer | tensor, keyword) :: tensor
  deftransform update_cache(cache, update, position, opts \\ []) do
    Cache.run(cache, update, position, opts)
  end

  @doc """
  The sum of products that Einstein's notation names.

  Each tensor has a term, in which a letter names each axis. Axes with the same letter have the same
  size. Axes that are not in the output are added up; a letter that a term has twice is its
  diagonal. `...` stands for any number of axes, which broadcast, counted from the last. Without `->`
  the output is what `...` stands for, and the letters that occur once, in alphabetical order.

  Products are made of two tensors at a time, the cheapest ones first. The result has the type that
  holds those of all tensors. Raises `ArgumentError` if the subscripts are malformed, or don't fit the
  tensors.

  ## Examples

      iex> a = Nx.iota({2, 3})
      iex> Mlx.Fast.einsum("ij,kj->ik", [a, a])
      #Nx.Tensor<
        s32[2][2]
        [
          [5, 14],
          [14, 50]
        ]
      >

      iex> Mlx.Fast.einsum("ii", [Nx.iota({3, 3})])
      #Nx.Tensor<
        s32
        12
      >

  """
  @spec einsum(String.t(), [tensor]) :: tensor
  deftransform(einsum(subscripts, tensors), do: Einsum.run(subscripts, tensors))
end

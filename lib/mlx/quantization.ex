defmodule Mlx.Quantization do
  @moduledoc """
  Weights in few bits.

      weight = Mlx.Quantization.quantize(kernel, bits: 4, axis: 0)
      Nx.dot(x, weight)

  A `Mlx.Quantization.Tensor` stands where a weight stands: in the parameters of an Axon
  model, as an argument of a compiled function, or of `Nx`'s functions. Only the packed form
  is held.

    * `Nx.dot/2` and `Nx.dot/6` of it and a tensor multiply with the packed form if they contract
      one of its last two axes, and the axes before these, if there are any, are batch axes.
      So does `gather_mm/3`.
    * `Nx.take/3` along any axis but the last unpacks what it takes, for a tensor whose groups
      lie along the last axis.
    * `Nx.transpose/2`, and `Nx.as_type/2` to a type of floats, keep it packed.
    * All other functions unpack it first, each call anew.

  In compiled functions the same holds, and a `while` unpacks a quantized tensor that is in its
  state. What such a function returns is unpacked. Gradients with respect to the other operand
  are products with the packed form, too.

  `Nx.stack/2` and `Nx.concatenate/2` take a quantized tensor for a collection of its parts, as they
  take any container: give them what `dequantize/1` returns. `Nx.shape/1` and the like take tensors
  only: see `Mlx.Quantization.Tensor.shape/1`.

  On other backends, or with other compilers, all of it is composed of operations of Nx's.

  ## Modes

  | `:mode` | `:bits` | `:group_size` | a number is |
  |---|---|---|---|
  | `:affine` | 2, 3, **4**, 5, 6, 8 | 32, **64**, 128 | an integer times the scale of the group plus its bias, both of the tensor's type |
  | `:mxfp4` | 4 | 32 | a float of 4 bits (E2M1) times a power of two |
  | `:mxfp8` | 8 | 32 | a float of 8 bits (E4M3) times a power of two |
  | `:nvfp4` | 4 | 16 | a float of 4 bits (E2M1) times a float of 8 bits (E4M3) |

  Bold are the defaults. Each mode is there on each device, for tensors of `f32`, `f16` and `bf16`. NVIDIA
  GPUs have kernels for products that contract the axis along which the groups lie; for others the matrix
  is unpacked for the duration of the product. The README says on which devices tests have run.

  The floats of 4 and 8 bits, and the powers of two, are those of the [specification of microscaling
  formats](https://www.opencompute.org/documents/ocp-microscaling-formats-mx-v1-0-spec-final-pdf).

  ## Precision and speed

  Products of halves are added up in `f32`. On CPUs, products of few rows unpack as they go, and
  those of more rows unpack the matrix once, for the duration of the product.

  A number halfway between two codes may become either: NVIDIA GPUs choose another than CPUs, which is
  as near. They also round an unpacked number of `:affine` once, where CPUs round its product with the
  scale, and then the sum with the bias.
  """

  import Nx.Defn, only: [deftransform: 2]

  alias Mlx.Quantization.{Block, Composition, Tensor}
  alias Nx.Tensor, as: T

  @modes [:affine, :mxfp4, :mxfp8, :nvfp4]

  @type mode :: :affine | :mxfp4 | :mxfp8 | :nvfp4

  @doc """
  Packs a matrix, or a batch of them.

  `tensor` is of `f32`, `f16` or `bf16`, and has the shape `{..., rows, columns}`. The axis along
  which the groups lie must be a multiple of their size.

  ## Options

    * `:mode` - one of [these](#module-modes), `:affine` by default
    * `:bits` - how many bits a number has
    * `:group_size` - how many numbers share a scale
    * `:axis` - along which the groups lie, the last one by default, or the one before it. For
      products this should be the axis that is contracted: `0` for a kernel `{inputs, outputs}` as
      Axon has them, the last one for a kernel `{outputs, inputs}` and for embeddings.

  Raises `ArgumentError` for another type, for shapes that don't fit and for modes that there are not.

  ## Examples

      iex> kernel = Nx.broadcast(2.0, {64, 3})
      iex> weight = Mlx.Quantization.quantize(kernel, axis: 0, bits: 8)
      iex> {Nx.shape(weight.packed), Nx.shape(weight.scales)}
      {{3, 16}, {3, 1}}
      iex> Nx.dot(Nx.broadcast(1.0, {1, 64}), weight)
      #Nx.Tensor<
        f32[1][3]
        [
          [128.0, 128.0, 128.0]
        ]
      >

  """
  @spec quantize(T.t(), keyword) :: Tensor.t()
  deftransform quantize(tensor, opts \\ []) do
    opts = Keyword.validate!(opts, [:mode, :bits, :group_size, axis: -1])
    format = format!(opts)
    tensor = Nx.to_tensor(tensor)
    transposed = transposed!(tensor, opts[:axis])
    rows = if transposed, do: Composition.swap(tensor), else: tensor
    check_columns!(rows, format)
    block = struct!(Block.Quantize, format)
    parts = Nx.block(block, [plain(rows)], templates(rows, format), &Composition.quantize/2)

    Tensor
    |> struct(Map.merge(format, %{type: tensor.type, transposed: transposed}))
    |> Tensor.put_parts(Tuple.to_list(parts))
  end

  defp plain(%T{names: names} = tensor), do: %{tensor | names: Enum.map(names, fn _ -> nil end)}

  defp templates(%T{shape: shape, type: type}, %{mode: mode, bits: bits, group_size: size}) do
    last = tuple_size(shape) - 1
    columns = elem(shape, last)
    packed = Nx.template(put_elem(shape, last, div(columns * bits, 32)), :u32)
    scales = put_elem(shape, last, div(columns, size))

    if mode == :affine,
      do: {packed, Nx.template(scales, type), Nx.template(scales, type)},
      else: {packed, Nx.template(scales, :u8)}
  end

  @doc """
  The numbers of a quantized tensor, as a tensor of its type and shape.

  A tensor is returned as it is, which in compiled functions is what a quantized argument is.

  ## Examples

      iex> weight = Mlx.Quantization.quantize(Nx.iota({2, 32}, type: :f32), bits: 8, group_size: 32)
      iex> Mlx.Quantization.dequantize(weight)[[1, 3]]
      #Nx.Tensor<
        f32
        35.027027
      >

  """
  @spec dequantize(Tensor.t() | T.t()) :: T.t()
  deftransform dequantize(tensor) do
    case Nx.to_tensor(tensor) do
      %T{data: %Mlx.Backend{}} = tensor -> Mlx.Dispatch.dense(tensor)
      tensor -> tensor
    end
  end

  @doc """
  The product of a tensor and a quantized one.

  Contracts the last axis of `x` with the second to last axis of `weight`. The axes of `weight`
  before these two are batch axes, which `x` has in front, too; without any this is `Nx.dot/2`.

  `weight` may be a tensor as well. With `x` of shape `{..., rows, inputs}` and `weight` of
  `{..., inputs, outputs}` the result is `{..., rows, outputs}`, of the type that holds both. Raises
  `ArgumentError` if the shapes don't fit.

  ## Examples

      iex> weight = Mlx.Quantization.quantize(Nx.broadcast(2.0, {2, 32, 3}), axis: 1, group_size: 32)
      iex> Mlx.Quantization.quantized_matmul(Nx.broadcast(1.0, {2, 1, 32}), weight)
      #Nx.Tensor<
        f32[2][1][3]
        [
          [
            [64.0, 64.0, 64.0]
          ],
          [
            [64.0, 64.0, 64.0]
          ]
        ]
      >

  """
  @spec quantized_matmul(T.t(), Tensor.t() | T.t()) :: T.t()
  deftransform quantized_matmul(x, weight) do
    [x, weight] = for tensor <- [x, weight], do: Nx.to_tensor(tensor)
    check_rank!(weight, "the weight")
    batch = Enum.to_list(0..(Nx.rank(weight) - 3)//1)
    Nx.dot(x, [-1], batch, weight, [-2], batch)
  end

  @doc """
  Products with the matrices that indices name, as mixtures of experts have them.

  `x` is `{..., rows, inputs}`, `weights` a tensor or a quantized one of shape
  `{experts, inputs, outputs}`, and `indices` a tensor of integers. The axes of `x` before the
  last two and those of `indices` are broadcast, and the result is `{..., rows, outputs}`: each of the
  matrices of `x` times that of `weights` which its index names. Indices that name none are moved to
  the nearest. The result has the type that holds those of `x` and `weights`. Raises `ArgumentError` for
  other shapes, and for indices that are not integers.

  ## Examples

      iex> experts = Nx.tensor([[[1.0], [1.0]], [[1.0], [-1.0]]])
      iex> x = Nx.tensor([[[3.0, 2.0]], [[5.0, 1.0]]])
      iex> Mlx.Quantization.gather_mm(x, experts, Nx.tensor([1, 0]))
      #Nx.Tensor<
        f32[2][1][1]
        [
          [
            [1.0]
          ],
          [
            [6.0]
          ]
        ]
      >

  """
  @spec gather_mm(T.t(), Tensor.t() | T.t(), T.t()) :: T.t()
  deftransform gather_mm(x, weights, indices) do
    [x, weights, indices] =
      for tensor <- [x, weights, indices], do: tensor |> Nx.to_tensor() |> plain()

    check_rank!(x, "the first operand")
    check_gather!(x, weights, indices)
    {leading, [rows, _]} = x.shape |> Tuple.to_list() |> Enum.split(-2)
    batch = Composition.broadcast(List.to_tuple(leading), indices.shape)
    shape = List.to_tuple(Tuple.to_list(batch) ++ [rows, elem(weights.shape, 2)])
    type = x.type |> Nx.Type.merge(weights.type) |> Nx.Type.to_floating()
    [x, weights] = for tensor <- [x, weights], do: floating(tensor, type)
    out = Nx.template(shape, type)
    Nx.block(%Block.GatherMM{}, [x, weights, indices], out, &Composition.gather_mm/4)
  end

  defp floating(tensor, type),
    do: if(Nx.Type.float?(tensor.type), do: tensor, else: Nx.as_type(tensor, type))

  @doc """
  Swaps the last two axes of a quantized tensor, which stays as it is.

  ## Examples

      iex> weight = Mlx.Quantization.quantize(Nx.iota({8, 64}, type: :f32))
      iex> Mlx.Quantization.Tensor.shape(Mlx.Quantization.transpose(weight))
      {64, 8}

  """
  @spec transpose(Tensor.t()) :: Tensor.t()
  def transpose(%Tensor{transposed: transposed} = tensor),
    do: %{tensor | transposed: not transposed}

  @doc """
  A quantized tensor of its parts, as MLX and files for it have them.

  `parts` are `{packed, scales, biases}` for the mode `:affine` and `{packed, scales}` for the others, with
  groups along the last axis, see `Mlx.Quantization.Tensor`.

  ## Options

    * `:mode` - `:affine` by default
    * `:bits`, `:group_size` - as for `quantize/2`; for `:affine` one of the two may be left out, since
      it follows from the other and the shapes, and both if they are the defaults
    * `:type` - of the tensor that it stands for, for modes other than `:affine`, where it is that of the
      scales; `:bf16` by default
    * `:transposed` - whether it stands for the matrix with its last two axes swapped, `false` by
      default

  Raises `ArgumentError` if the parts don't fit together.

  ## Examples

      iex> packed = Nx.tensor([[0x76543210, 0xFEDCBA98, 0, 0]], type: :u32)
      iex> scales = Nx.tensor([[0.5]])
      iex> weight = Mlx.Quantization.from_parts({packed, scales, Nx.tensor([[-1.0]])}, group_size: 32)
      iex> Mlx.Quantization.dequantize(weight)[[0, 0..3]]
      #Nx.Tensor<
        f32[4]
        [-1.0, -0.5, 0.0, 0.5]
      >

  """
  @spec from_parts({T.t(), T.t()} | {T.t(), T.t(), T.t()}, keyword) :: Tensor.t()
  def from_parts(parts, opts \\ []) when is_tuple(parts) do
    opts = Keyword.validate!(opts, [:mode, :bits, :group_size, type: :bf16, transposed: false])
    [packed, scales | biases] = parts = Tuple.to_list(parts)
    format = opts |> derived(packed, scales) |> format!()
    type = if format.mode == :affine, do: scales.type, else: Nx.Type.normalize!(opts[:type])
    check_parts!(packed, scales, biases, format)
    check_type!(type)

    Tensor
    |> struct(Map.merge(format, %{type: type, transposed: opts[:transposed]}))
    |> Tensor.put_parts(parts)
  end

  @doc """
  The parts of a quantized tensor, as `from_parts/2` takes them.

  ## Examples

      iex> weight = Mlx.Quantization.quantize(Nx.iota({8, 64}, type: :f32), mode: :mxfp8)
      iex> {packed, scales} = Mlx.Quantization.to_parts(weight)
      iex> {Nx.type(packed), Nx.type(scales)}
      {{:u, 32}, {:u, 8}}

  """
  @spec to_parts(Tensor.t()) :: {T.t(), T.t()} | {T.t(), T.t(), T.t()}
  def to_parts(%Tensor{} = tensor), do: tensor |> Tensor.parts() |> List.to_tuple()

  @doc """
  The formats that there are: a list of modes, numbers of bits and sizes of groups.

  ## Examples

      iex> {:affine, 3, 128} in Mlx.Quantization.formats()
      true

  """
  @spec formats() :: [{mode, pos_integer, pos_integer}]
  def formats, do: Tensor.formats()

  ## Checks

  defp format!(opts) do
    mode = opts[:mode] || :affine

    if mode not in @modes do
      raise ArgumentError, ":mode is one of #{inspect(@modes)}, got: #{inspect(mode)}"
    end

    {bits, size} = default(mode)
    format = {mode, opts[:bits] || bits, opts[:group_size] || size}

    if format not in formats() do
      raise ArgumentError,
            "there is no #{mode} quantization of #{inspect(elem(format, 1))} bits in groups of " <>
              "#{inspect(elem(format, 2))}, but " <>
              Enum.map_join(of_mode(mode), ", ", &"#{elem(&1, 1)} in #{elem(&1, 2)}")
    end

    %{mode: mode, bits: elem(format, 1), group_size: elem(format, 2)}
  end

  defp of_mode(mode), do: Enum.filter(formats(), &(elem(&1, 0) == mode))

  defp default(:affine), do: {4, 64}
  defp default(mode), do: mode |> of_mode() |> hd() |> Tuple.delete_at(0)

  # The words and the scales of a row give the bits of a group.
  defp derived(opts, packed, scales) do
    [words, groups] = for part <- [packed, scales], do: last(part)

    with true <- opts[:mode] in [nil, :affine] and groups > 0 and rem(words * 32, groups) == 0,
         bits = div(words * 32, groups),
         known when known != nil <- opts[:bits] || opts[:group_size],
         0 <- rem(bits, known) do
      key = if opts[:bits], do: :group_size, else: :bits
      Keyword.put_new(opts, key, div(bits, known))
    else
      _ -> opts
    end
  end

  defp last(%T{shape: {}}), do: 0
  defp last(%T{shape: shape}), do: elem(shape, tuple_size(shape) - 1)

  defp transposed!(%T{vectorized_axes: [_ | _]}, _axis) do
    raise ArgumentError, "vectorized tensors can't be quantized: use Nx.devectorize/1"
  end

  defp transposed!(tensor, axis) do
    check_type!(tensor.type)
    check_rank!(tensor, "a tensor to be quantized")
    rank = Nx.rank(tensor)

    case Nx.axis_index(tensor, axis) do
      axis when axis == rank - 1 ->
        false

      axis when axis == rank - 2 ->
        true

      _ ->
        raise ArgumentError, ":axis is one of the last two, got: #{inspect(axis)} of #{rank} axes"
    end
  end

  defp check_type!(type) do
    if type not in Tensor.types() do
      raise ArgumentError,
            "quantized are tensors of f32, f16 and bf16, got: #{Nx.Type.to_string(type)}"
    end
  end

  defp check_rank!(tensor, what) do
    if Nx.rank(tensor) < 2 do
      raise ArgumentError, "#{what} has at least two axes, got the shape #{inspect(tensor.shape)}"
    end
  end

  defp check_columns!(tensor, format) do
    if rem(last(tensor), step(format)) != 0 do
      raise ArgumentError,
            "the axis along which groups of #{format.group_size} lie has a multiple of " <>
              "#{step(format)} numbers, got: #{last(tensor)}"
    end
  end

  # MLX packs and unpacks no fewer.
  defp step(%{group_size: size}), do: max(size, 32)

  defp check_gather!(x, weights, indices) do
    with {_experts, inputs, _outputs} <- weights.shape,
         true <- inputs == last(x) and elem(weights.shape, 0) > 0 do
      if not Nx.Type.integer?(indices.type) do
        raise ArgumentError, "indices are integers, got: #{Nx.Type.to_string(indices.type)}"
      end
    else
      _ ->
        raise ArgumentError,
              "the weights are {experts, inputs, outputs} and the first operand {..., rows, inputs}, got: " <>
                "#{inspect(weights.shape)} and #{inspect(x.shape)}"
    end
  end

  defp check_parts!(packed, scales, biases, %{mode: mode} = format) do
    {expected, type} = if mode == :affine, do: {[scales], scales.type}, else: {[], {:u, 8}}

    [leading, leading_scales] =
      for part <- [packed, scales], do: part.shape |> Tuple.to_list() |> Enum.drop(-1)

    fit =
      packed.type == {:u, 32} and scales.type == type and leading != [] and
        leading == leading_scales and
        Enum.map(biases, &{&1.type, &1.shape}) == Enum.map(expected, &{&1.type, &1.shape}) and
        last(packed) * 32 == last(scales) * format.group_size * format.bits and
        rem(last(scales) * format.group_size, step(format)) == 0

    if not fit do
      parts =
        Enum.map_join(
          [packed, scales | biases],
          ", ",
          &"#{Nx.Type.to_string(&1.type)}#{inspect(&1.shape)}"
        )

      raise ArgumentError,
            "these are no parts of #{mode} quantization of #{format.bits} bits in groups of #{format.group_size}: #{parts}"
    end
  end
end

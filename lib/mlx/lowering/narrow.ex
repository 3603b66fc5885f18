defmodule Mlx.Lowering.Narrow do
  @moduledoc false

  # Types that MLX lacks. Their values live in arrays of a wider type, which holds each
  # of them exactly, and the operations see only that type. What comes out of an
  # operation is narrowed to the values of its type.

  use Mlx.Graph
  import Mlx.Lowering.Shape, only: [cast: 2, reshape: 2]

  def ops, do: []

  @doc """
  Whether MLX lacks the type and another one stands in for it.
  """
  def narrow?(type), do: wide(type) != type

  @doc """
  The type of the array behind a tensor of `type`.
  """
  def wide({_, size} = type) when size > 8, do: type
  def wide({kind, size}) when kind in [:u, :s] and size <= 8, do: {kind, 8}
  def wide({:f, 8}), do: {:f, 16}
  def wide({:f8_e4m3fn, 8}), do: {:f, 32}

  @doc """
  The values of an operation's result in the values of `type`.
  """
  def narrow(x, {kind, bits}) when kind in [:u, :s] and bits < 8 do
    op(:wrap_bits, [cast(x, wide({kind, bits}))], [bits], wide({kind, bits}), x.shape)
  end

  def narrow(x, {:f, 8}), do: op(:round_f8, [cast(x, {:f, 16})], {:f, 16}, x.shape)

  def narrow(x, {:f8_e4m3fn, 8}) do
    op(:round_f8_e4m3fn, [cast(x, {:f, 32})], {:f, 32}, x.shape)
  end

  def narrow(x, _type), do: x

  @doc """
  The bits of a tensor of one type as those of another type of the same width, in an
  array of type `wide`.
  """
  def bitcast(x, from, to), do: bitcast(x, from, to, wide(to))

  def bitcast(x, from, to, wide) do
    x = if recoded?(from, x.type), do: encode(x, from), else: x

    if recoded?(to, wide) do
      {_shape, bits} = encoding(to, x.shape)
      x |> same_bits(bits) |> decode(to, x.shape)
    else
      x |> same_bits(wide) |> narrow(to)
    end
  end

  # Whether the bits of an array are other ones than those of its tensor.
  defp recoded?(type, _array) when type in [{:f, 8}, {:f8_e4m3fn, 8}], do: true
  defp recoded?(type, array), do: type == {:f, 64} and array != type

  defp same_bits(%{type: type} = x, type), do: x
  defp same_bits(x, type), do: op(:bitcast, [x], [type], type, x.shape)

  @doc """
  Shape and type of the array that has the bytes of a tensor as Nx has them.
  """
  def encoding({:f, 64}, shape), do: {shape, {:u, 64}}
  def encoding({_, 8}, shape), do: {shape, {:u, 8}}
  def encoding({_, bits}, shape), do: {{div(Tuple.product(shape) * bits + 7, 8)}, {:u, 8}}

  @doc """
  The values of the bytes of a tensor of `type`.
  """
  def decode(bytes, {kind, bits} = type, shape) when bits < 8 do
    count = Tuple.product(shape)
    attributes = [bits, count, kind == :s]
    op(:unpack_bits, [bytes], attributes, wide(type), {count}) |> reshape(shape)
  end

  def decode(bytes, {:f, 8}, shape) do
    op(:f8_values, [bytes], {:f, 16}, bytes.shape) |> reshape(shape)
  end

  def decode(bytes, {:f8_e4m3fn, 8}, shape) do
    op(:f8_e4m3fn_values, [bytes], {:f, 32}, bytes.shape) |> reshape(shape)
  end

  def decode(words, {:f, 64}, shape) do
    op(:f64_values, [words], {:f, 32}, words.shape) |> reshape(shape)
  end

  @doc """
  The bytes of a tensor of `type`, the last one filled with zeros.
  """
  def encode(x, {_, bits} = type) when bits < 8 do
    {shape, bytes} = encoding(type, x.shape)
    op(:pack_bits, [cast(x, wide(type))], [bits], bytes, shape)
  end

  def encode(x, {:f, 8}), do: op(:f8_bits, [x], {:u, 8}, x.shape)
  def encode(x, {:f8_e4m3fn, 8}), do: op(:f8_e4m3fn_bits, [x], {:u, 8}, x.shape)
  def encode(x, {:f, 64}), do: op(:f64_bits, [x], {:u, 64}, x.shape)
end

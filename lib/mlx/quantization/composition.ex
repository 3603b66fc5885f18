defmodule Mlx.Quantization.Composition do
  @moduledoc false

  # The blocks as operations of Nx's, for other backends and for gradients.

  import Bitwise, only: [<<<: 2]

  @fp4 [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0]
  # Above those a number is nearer to the next one.
  @fp4_steps [0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0]

  @fp8 for code <- 0..127,
           do:
             if(code < 8,
               do: code * 2.0 ** -9,
               else: (8 + rem(code, 8)) * 2.0 ** (div(code, 8) - 10)
             )

  ## Dequantizing

  def dequantize(block, packed, scales, biases) do
    packed
    |> codes(block)
    |> Nx.as_type(block.type)
    |> Nx.multiply(Nx.new_axis(scales, -1))
    |> Nx.add(Nx.new_axis(biases, -1))
    |> rows(block)
  end

  def dequantize(block, packed, scales) do
    packed
    |> codes(block)
    |> values(block)
    |> Nx.multiply(Nx.new_axis(scale_values(scales, block), -1))
    |> rows(block)
  end

  # Integers in groups, from an array of words of 32 bits.
  defp codes(packed, %{bits: bits, group_size: size}) do
    shape = groups(packed, div(Nx.axis_size(packed, -1) * 32, bits), size)
    packed |> split(bits) |> Nx.bitwise_and((1 <<< bits) - 1) |> Nx.reshape(shape)
  end

  defp split(packed, bits) when rem(32, bits) == 0 do
    shifts = for place <- 0..(div(32, bits) - 1), do: place * bits
    packed |> Nx.new_axis(-1) |> Nx.right_shift(constant(shifts, :u32))
  end

  # So many words have 32 integers, of which some are in two words.
  defp split(packed, bits) do
    places = for place <- 0..31, do: place * bits
    [first, second] = for next <- 0..1, do: Enum.map(places, &min(div(&1, 32) + next, bits - 1))
    shape = groups(packed, Nx.axis_size(packed, -1), bits)
    words = packed |> Nx.as_type(:u64) |> Nx.reshape(shape)
    [low, high] = for at <- [first, second], do: Nx.take(words, constant(at, :s64), axis: -1)

    high
    |> Nx.left_shift(32)
    |> Nx.bitwise_or(low)
    |> Nx.right_shift(constant(Enum.map(places, &rem(&1, 32)), :u64))
  end

  defp groups(tensor, columns, size) do
    leading = tensor |> Nx.shape() |> Tuple.to_list() |> Enum.drop(-1)
    List.to_tuple(leading ++ [div(columns, size), size])
  end

  defp rows(groups, block) do
    {leading, [count, size]} = groups |> Nx.shape() |> Tuple.to_list() |> Enum.split(-2)
    rows = Nx.reshape(groups, List.to_tuple(leading ++ [count * size]))
    if block.transposed, do: swap(rows), else: rows
  end

  @doc """
  The tensor with its last two axes swapped.
  """
  def swap(tensor) do
    {leading, [rows, columns]} = tensor |> Nx.axes() |> Enum.split(-2)
    Nx.transpose(tensor, axes: leading ++ [columns, rows])
  end

  defp values(codes, %{bits: 4, type: type}), do: look_up(codes, signed(@fp4), type)
  defp values(codes, %{bits: 8, type: type}), do: look_up(codes, signed(@fp8), type)

  defp signed(values), do: values ++ Enum.map(values, &(-&1))

  defp scale_values(scales, %{mode: :nvfp4, type: type}), do: look_up(scales, signed(@fp8), type)

  defp scale_values(scales, %{type: type}) do
    powers = for exponent <- -127..127, do: 2.0 ** exponent
    look_up(scales, powers ++ [:infinity], type)
  end

  defp look_up(codes, values, type),
    do: values |> constant(:f32) |> Nx.as_type(type) |> Nx.take(codes)

  defp constant(values, type), do: Nx.tensor(values, type: type, backend: Nx.BinaryBackend)

  ## Quantizing

  @doc """
  Packed integers, scales and, with the mode `:affine`, biases.
  """
  def quantize(%{mode: :affine} = block, tensor) do
    groups = in_groups(tensor, block)
    [low, high] = for fun <- [&Nx.reduce_min/2, &Nx.reduce_max/2], do: fun.(groups, axes: [-1])
    negative = Nx.greater(Nx.abs(low), Nx.abs(high))
    top = (1 <<< block.bits) - 1
    scale = high |> Nx.subtract(low) |> Nx.divide(top) |> Nx.max(Nx.tensor(1.0e-7, type: :f32))
    scale = Nx.select(negative, scale, Nx.negate(scale))
    edge = Nx.select(negative, low, high)
    # Zero is to be one of the values.
    zero = edge |> Nx.divide(scale) |> round_to_even()
    some = Nx.not_equal(zero, 0)
    scale = Nx.select(some, Nx.divide(edge, Nx.select(some, zero, 1.0)), scale)
    bias = Nx.select(some, edge, 0.0)

    codes =
      groups
      |> Nx.subtract(Nx.new_axis(bias, -1))
      |> Nx.divide(Nx.new_axis(scale, -1))
      |> round_to_even()
      |> Nx.clip(0, top)

    {pack(codes, block), Nx.as_type(scale, tensor.type), Nx.as_type(bias, tensor.type)}
  end

  def quantize(block, tensor) do
    groups = in_groups(tensor, block)
    largest = if block.bits == 4, do: 6.0, else: 448.0
    scale = groups |> Nx.abs() |> Nx.reduce_max(axes: [-1]) |> Nx.divide(largest)
    scales = encode_scale(scale, block)
    decoded = scales |> scale_values(%{mode: block.mode, type: {:f, 32}}) |> Nx.new_axis(-1)
    # A scale too small for its type is zero, and so is what it scales.
    some = Nx.not_equal(decoded, 0)
    scaled = groups |> Nx.divide(Nx.select(some, decoded, 1.0)) |> Nx.multiply(some)
    {scaled |> encode(block) |> pack(block), scales}
  end

  defp in_groups(tensor, %{group_size: size}) do
    shape = groups(tensor, Nx.axis_size(tensor, -1), size)
    tensor |> Nx.as_type(:f32) |> Nx.reshape(shape)
  end

  defp round_to_even(x) do
    halfway = x |> Nx.subtract(Nx.floor(x)) |> Nx.equal(0.5)
    Nx.select(halfway, x |> Nx.divide(2) |> Nx.round() |> Nx.multiply(2), Nx.round(x))
  end

  # Each bit of the integers in its place in the words.
  defp pack(codes, %{bits: bits}) do
    {leading, [count, size]} = codes |> Nx.shape() |> Tuple.to_list() |> Enum.split(-2)
    words = List.to_tuple(leading ++ [div(count * size * bits, 32), 32])

    codes
    |> Nx.as_type(:u32)
    |> Nx.new_axis(-1)
    |> Nx.right_shift(constant(Enum.to_list(0..(bits - 1)), :u32))
    |> Nx.bitwise_and(1)
    |> Nx.reshape(words)
    |> Nx.left_shift(constant(Enum.to_list(0..31), :u32))
    |> Nx.sum(axes: [-1])
    |> Nx.as_type(:u32)
  end

  defp encode_scale(scale, %{mode: :nvfp4}), do: encode_fp8(scale)

  # The next power of two: an f32 that is more than its own has a fraction.
  defp encode_scale(scale, _block) do
    bits = Nx.bitcast(scale, :u32)
    fraction = bits |> Nx.bitwise_and(0x7FFFFF) |> Nx.not_equal(0)
    bits |> Nx.right_shift(23) |> Nx.add(fraction) |> Nx.min(255) |> Nx.as_type(:u8)
  end

  defp encode(x, %{bits: 8}), do: encode_fp8(x)

  defp encode(x, _block) do
    magnitude = Nx.abs(x)
    codes = @fp4_steps |> Enum.map(&Nx.greater(magnitude, &1)) |> Enum.reduce(&Nx.add/2)
    with_sign(codes, Nx.logical_and(Nx.less(x, 0), codes), 8)
  end

  defp encode_fp8(x) do
    magnitude = x |> Nx.abs() |> Nx.min(448.0)
    exponent = exponent(magnitude)
    digits = magnitude |> Nx.divide(Nx.pow(2.0, Nx.subtract(exponent, 3))) |> round_to_even()
    # Eight digits more are the next exponent, and fewer than eight have none.
    exponent
    |> Nx.add(6)
    |> Nx.multiply(8)
    |> Nx.add(digits)
    |> Nx.as_type(:u8)
    |> with_sign(x |> Nx.bitcast(:u32) |> Nx.right_shift(31), 128)
  end

  # Of the highest bit, as far as it is one of a normal number.
  defp exponent(magnitude) do
    -5..8
    |> Enum.map(&Nx.greater_equal(magnitude, 2.0 ** &1))
    |> Enum.reduce(&Nx.add/2)
    |> Nx.as_type(:f32)
    |> Nx.subtract(6)
  end

  defp with_sign(codes, negative, bit),
    do: negative |> Nx.multiply(bit) |> Nx.add(codes) |> Nx.as_type(:u8)

  ## Products with chosen matrices

  def gather_mm(_block, x, w, indices) do
    count = Nx.axis_size(w, 0)
    {leading, [_, _]} = x |> Nx.shape() |> Tuple.to_list() |> Enum.split(-2)
    batch = broadcast(List.to_tuple(leading), Nx.shape(indices))
    matrices = Nx.take(w, indices |> Nx.clip(0, count - 1) |> Nx.broadcast(batch))
    x = Nx.broadcast(x, List.to_tuple(Tuple.to_list(batch) ++ matrix(x)))
    axes = Enum.to_list(0..(tuple_size(batch) - 1)//1)
    rank = tuple_size(batch)
    Nx.dot(x, [rank + 1], axes, matrices, [rank], axes)
  end

  defp matrix(x), do: x |> Nx.shape() |> Tuple.to_list() |> Enum.take(-2)

  @doc """
  The shape that two shapes are broadcast to.
  """
  def broadcast(a, b) do
    [a_names, b_names] = for shape <- [a, b], do: List.duplicate(nil, tuple_size(shape))
    a |> Nx.Shape.binary_broadcast(a_names, b, b_names) |> elem(0)
  end
end

defmodule Mlx.Weights.Blocks do
  @moduledoc false

  # Weights that are quantized in blocks of 32, as GGUF has them, as MLX has them: integers
  # in words apart from the scales. No value changes.

  alias Mlx.Weights.Quantized

  # A block is a scale, for q4_1 a least value, and the integers; as words of 16 bits.
  @kinds %{
    q4_0: %{bits: 4, words: 9, numbers: 1},
    q4_1: %{bits: 4, words: 10, numbers: 2},
    q8_0: %{bits: 8, words: 17, numbers: 1}
  }

  def kind?(kind), do: is_map_key(@kinds, kind)

  @doc """
  Words of 16 bits in a block.
  """
  def words(kind), do: @kinds[kind].words

  def quantization(kind), do: %{bits: @kinds[kind].bits, group_size: 32, mode: :affine}

  @doc """
  The parts of a weight of a shape, of blocks as rows of 16-bit words.
  """
  def unpack(kind, blocks, shape, type) do
    %{bits: bits, numbers: numbers} = @kinds[kind]
    words = Nx.slice_along_axis(blocks, numbers, Nx.axis_size(blocks, 1) - numbers, axis: 1)
    {scales, biases} = scales(kind, blocks)
    {leading, [last]} = Enum.split(shape, -1)
    groups = List.to_tuple(leading ++ [div(last, 32)])

    %Quantized{
      weight:
        bits
        |> integers(Nx.as_type(words, :u32))
        |> Nx.reshape(List.to_tuple(leading ++ [div(last * bits, 32)])),
      scales: scales |> Nx.as_type(type) |> Nx.reshape(groups),
      biases: biases |> Nx.as_type(type) |> Nx.reshape(groups),
      bits: bits,
      group_size: 32,
      mode: :affine
    }
  end

  defp with_biases(scales, least), do: {scales, Nx.multiply(Nx.as_type(scales, :f32), least)}

  # The integers of q4_0 mean what is 8 less, those of q8_0 are signed.
  defp scales(:q4_1, blocks), do: {float(blocks, 0), float(blocks, 1)}
  defp scales(:q4_0, blocks), do: with_biases(float(blocks, 0), -8)
  defp scales(:q8_0, blocks), do: with_biases(float(blocks, 0), -128)

  defp float(blocks, at) do
    blocks |> Nx.slice_along_axis(at, 1, axis: 1) |> Nx.bitcast(:f16)
  end

  # The first integer is in the lowest bits. A signed byte plus 128 has its highest bit
  # turned.
  defp integers(8, words) do
    words |> Nx.reshape({:auto, 8, 2}) |> join(16) |> Nx.bitwise_xor(0x80808080)
  end

  # The low halves of the 16 bytes are the first 16 integers, the high ones the others.
  defp integers(4, words) do
    halves = Nx.stack([words, Nx.right_shift(words, 4)], axis: 1)
    pairs = Nx.bitwise_and(halves, 0x0F0F)
    bytes = Nx.bitwise_or(pairs, Nx.right_shift(pairs, 4))
    bytes |> Nx.bitwise_and(0xFF) |> Nx.reshape({:auto, 4, 4}) |> join(8)
  end

  # Words of so many bits along the last axis as one.
  defp join(words, bits) do
    count = Nx.axis_size(words, -1)
    places = Nx.tensor(for(at <- 0..(count - 1), do: at * bits), type: :u32)
    words |> Nx.left_shift(places) |> Nx.sum(axes: [-1])
  end
end

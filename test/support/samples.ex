defmodule Mlx.Samples do
  @moduledoc """
  Tensors of `Nx.BinaryBackend` of every type, the same in each run.

  Their floats are such that every float type holds them exactly.
  """

  @unsigned [:u8, :u16, :u32, :u64]
  @signed [:s8, :s16, :s32, :s64]
  @integers @unsigned ++ @signed
  @floats [:f16, :bf16, :f32, :f64]
  @narrow_floats [:f8, :f8_e4m3fn]

  def integers, do: @integers
  def floats, do: @floats
  def narrow_floats, do: @narrow_floats
  def reals, do: @integers ++ @floats
  def types, do: reals() ++ [:c64]

  @doc """
  Pairs of types: each with itself, and some that differ.
  """
  def pairs, do: real_pairs() ++ [{:c64, :c64}, {:s32, :c64}, {:c64, :f32}]

  def real_pairs do
    for(type <- reals(), do: {type, type}) ++
      [{:u8, :s8}, {:u8, :u64}, {:s8, :u16}, {:s64, :u32}, {:s32, :f32}, {:u8, :f16}] ++
      [{:f16, :bf16}, {:f32, :f64}, {:bf16, :f32}, {:f64, :s8}]
  end

  def integer_pairs,
    do: Enum.filter(real_pairs(), fn {a, b} -> a in @integers and b in @integers end)

  @doc """
  A tensor of the given numbers.
  """
  def tensor(numbers, type, opts \\ []) do
    Nx.tensor(numbers, [type: type, backend: Nx.BinaryBackend] ++ opts)
  end

  @doc """
  Goes round and round numbers that are typical of a type, its bounds among them.
  """
  def sample(type, shape \\ {3, 5}, opts \\ []) do
    {from, opts} = Keyword.pop(opts, :from, 0)
    numbers = type |> numbers() |> Stream.cycle() |> Stream.drop(from)
    numbers |> Enum.take(Tuple.product(shape)) |> tensor(type) |> Nx.reshape(shape, opts)
  end

  @doc """
  Numbers near zero.
  """
  def small(type, shape \\ {3, 2}) do
    cond do
      type in @unsigned -> [0, 1, 2, 3, 4, 5]
      type in @signed -> [0, 1, -1, 2, -2, 3]
      type in @floats -> [0.5, -1.0, 2.0, 0.25, -2.5, 0.125]
      type == :c64 -> first_quadrant()
    end
    |> tensor(type)
    |> Nx.reshape(shape)
  end

  @doc """
  Numbers greater than zero, or than one.
  """
  def positive(type, above \\ 0) do
    cond do
      type in @integers -> [1, 2, 3, 10, 50, 100]
      type in @floats -> [1.0, 1.5, 2.5, 6.0, 40.0, above + 0.25]
      type == :c64 -> first_quadrant()
    end
    |> tensor(type)
    |> Nx.reshape({2, 3})
  end

  @doc """
  Numbers from -1 to 1, both excluded.
  """
  def inside_one(type) do
    cond do
      type in @integers -> [0, 0, 0]
      type in @floats -> [0.5, -0.25, 0.75, -0.875, 0.125, -0.5]
      type == :c64 -> complexes([{0.5, 0.25}, {0.25, 0.5}, {0.125, 0.75}])
    end
    |> tensor(type)
  end

  @doc """
  Typical numbers without zero.
  """
  def nonzero(type) do
    x = sample(type, {3, 5}, from: 4)
    Nx.select(Nx.equal(x, 0), tensor(3, type), x)
  end

  @doc """
  101 numbers from one to the other.
  """
  def spread(from, to), do: tensor(for(i <- 0..100, do: from + i * (to - from) / 100), :f32)

  @doc """
  Floats that are not finite, and some that are.
  """
  def specials(type), do: tensor([:nan, :infinity, :neg_infinity, 1.5, -1.5, 0.0], type)

  @doc """
  Two tensors that broadcast to all pairs of elements.
  """
  def crossed(x, y), do: [Nx.reshape(x, {:auto, 1}), Nx.reshape(y, {1, :auto})]
  def crossed(x), do: crossed(x, x)

  @doc """
  The smallest and the largest number of an integer type.
  """
  def bounds(type) do
    case Nx.Type.normalize!(type) do
      {:u, bits} -> {0, 2 ** bits - 1}
      {:s, bits} -> {-(2 ** (bits - 1)), 2 ** (bits - 1) - 1}
    end
  end

  defp numbers(type) when type in @unsigned do
    {_, high} = bounds(type)
    [3, 0, 1, 7, high, 2, 100, 5, high - 2, 64, 1]
  end

  defp numbers(type) when type in @signed do
    {low, high} = bounds(type)
    [3, -1, 0, 7, low, 2, -100, 5, high, -64, 1, -7, 4]
  end

  defp numbers(type) when type in @floats do
    [0.5, -1.0, 2.0, 0.0, 3.25, -0.125, -2.5, 1.0, 0.75, -3.0, 1.5, -0.0, 6.0]
  end

  defp numbers(:c64) do
    complexes([{0.5, -1.0}, {2.0, 0.25}, {-1.5, 3.0}, {0.0, -2.0}, {1.0, 0.0}, {-0.5, 0.75}])
  end

  # Away from the branch cuts, about which Nx says nothing.
  defp first_quadrant do
    complexes([{0.5, 1.0}, {2.0, 0.25}, {1.5, 0.5}, {1.0, 2.0}, {0.25, 0.75}, {3.0, 1.0}])
  end

  defp complexes(parts), do: for({re, im} <- parts, do: Complex.new(re, im))
end

defmodule Mlx.Properties do
  @moduledoc """
  Generators of calls, at least one for each operation and each block.

  A row is a name and a generator of `{fun, args, options}` for `Mlx.Oracle.assert_same/3`.
  The name is that of the operation, or the module of the block, that the function runs;
  names of other properties are strings.
  """

  alias __MODULE__.{Convolution, Creation, Elementwise, Fast, FFT, Indexing, Linalg}
  alias __MODULE__.{Narrow, Random, Reduction, Shape, Sort, Vectorized, Window}

  @families [Convolution, Creation, Elementwise, Fast, FFT, Indexing, Linalg] ++
              [Narrow, Random, Reduction, Shape, Sort, Vectorized, Window]

  def families, do: @families

  @doc """
  What a family's operations and blocks are called.
  """
  def names(family), do: Enum.map(family.all(), &elem(&1, 0))

  @doc "The generator of that name."
  def generator(family, name), do: family.all() |> List.keyfind!(name, 0) |> elem(1)

  @doc """
  The same examples at every run, unless another seed is given.
  """
  def seed, do: environment("PROPERTY_SEED", "0")

  @doc """
  How many examples of each.
  """
  def runs, do: environment("PROPERTY_RUNS", "25")

  defp environment(name, default), do: name |> System.get_env(default) |> String.to_integer()
end

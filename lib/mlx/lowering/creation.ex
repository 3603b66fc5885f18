defmodule Mlx.Lowering.Creation do
  @moduledoc false

  use Mlx.Graph
  import Nx.Shared, only: [match_types: 2]
  import Mlx.Lowering.Shape, only: [broadcast_to: 2, cast: 2, reshape: 2]

  def ops, do: [:constant, :iota, :eye]

  def lower(:constant, out, [number]), do: full(number, out.type, out.shape)

  def lower(:iota, out, [nil]) do
    out.shape |> Tuple.product() |> arange() |> cast(out.type) |> reshape(out.shape)
  end

  def lower(:iota, out, [axis]) do
    size = elem(out.shape, axis)
    ones = Tuple.duplicate(1, tuple_size(out.shape))

    arange(size)
    |> cast(out.type)
    |> reshape(put_elem(ones, axis, size))
    |> broadcast_to(out.shape)
  end

  def lower(:eye, out, []) do
    rank = tuple_size(out.shape)
    {rows, columns} = {elem(out.shape, rank - 2), elem(out.shape, rank - 1)}

    # On GPUs MLX scatters the ones, which it can't do in every type.
    op(:eye, [], [rows, columns, {:u, 8}], {:u, 8}, {rows, columns})
    |> cast(out.type)
    |> broadcast_to(out.shape)
  end

  @doc """
  An array of one number.
  """
  def full(number, type, shape \\ {}) do
    op(:full, [], [number_to_binary(number, type), Tuple.to_list(shape), type], type, shape)
  end

  # Counting in integers and casting rounds each number once.
  defp arange(size), do: op(:arange, [], [size, {:s, 32}], {:s, 32}, {size})

  defp number_to_binary(number, type) do
    match_types([type], do: <<write!(number, 0)>>)
  end
end

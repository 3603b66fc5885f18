defmodule Mlx.Lowering.Indexing do
  @moduledoc false

  use Mlx.Graph
  import Mlx.Lowering.Creation, only: [full: 2]
  import Mlx.Lowering.Shape, only: [broadcast_to: 2, cast: 2, reshape: 2]

  def ops, do: [:slice, :put_slice, :gather, :indexed_add]

  def lower(:slice, out, [x, starts, lengths, strides]) do
    if Enum.all?(starts, &is_integer/1) do
      starts = clamp(starts, x.shape, lengths)
      slice(x, starts, lengths, strides, out.shape)
    else
      span = List.to_tuple(lengths)
      x = op(:slice_dynamic, [x, positions(starts)], [lengths], x.type, span)
      slice(x, Enum.map(starts, fn _ -> 0 end), lengths, strides, out.shape)
    end
  end

  def lower(:put_slice, out, [x, starts, part]) do
    operands = [cast(x, out.type), cast(part, out.type), positions(starts)]
    op(:put_slice, operands, out.type, out.shape)
  end

  def lower(:gather, out, [x, indices, opts]) do
    {batch, sizes} = layout(x, indices, opts[:axes])
    shape = List.to_tuple(batch ++ sizes)

    op(:gather, [x, indices], [opts[:axes], sizes], out.type, shape)
    |> reshape(out.shape)
  end

  def lower(:indexed_add, out, [x, indices, updates, opts]) do
    {batch, sizes} = layout(x, indices, opts[:axes])
    updates = updates |> cast(out.type) |> reshape(List.to_tuple(batch ++ sizes))
    operands = [cast(x, out.type), indices, updates]
    op(:indexed_add, operands, [opts[:axes]], out.type, out.shape)
  end

  defp slice(%{shape: shape} = x, _starts, _lengths, _strides, shape), do: x

  defp slice(x, starts, lengths, strides, shape) do
    stops = Enum.zip_with(starts, lengths, &+/2)
    op(:slice, [x], [starts, stops, strides], x.type, shape)
  end

  defp clamp(starts, shape, lengths) do
    Enum.zip_with([starts, Tuple.to_list(shape), lengths], fn [start, size, length] ->
      start |> max(0) |> min(size - length)
    end)
  end

  # One vector of 64-bit starts; the engine moves them inside.
  defp positions([]), do: full(0, {:s, 64}) |> broadcast_to({0})

  defp positions(starts) do
    starts = Enum.map(starts, &position/1)
    op(:stack, starts, [0], {:s, 64}, {length(starts)})
  end

  defp position(start) when is_integer(start) do
    full(start |> max(0) |> min(0x7FFFFFFF), {:s, 64})
  end

  defp position(%{type: {:u, 64}} = start) do
    top = full(0x7FFFFFFF, {:u, 64})
    op(:min, [reshape(start, {}), top], {:u, 64}, {}) |> cast({:s, 64})
  end

  defp position(start), do: start |> reshape({}) |> cast({:s, 64})

  # The dimensions of the indices before the last, and of the slice at each index.
  defp layout(x, indices, axes) do
    batch = indices.shape |> Tuple.to_list() |> Enum.drop(-1)
    sizes = Enum.reduce(axes, x.shape, &put_elem(&2, &1, 1))
    {batch, Tuple.to_list(sizes)}
  end
end

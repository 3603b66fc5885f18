defmodule Mlx.Lowering.Indexing do
  @moduledoc false

  use Mlx.Graph
  import Mlx.Lowering.Creation, only: [full: 2]
  import Mlx.Lowering.Shape, only: [cast: 2, reshape: 2]

  alias Mlx.Lowering.Quantization

  def ops, do: [:slice, :put_slice, :gather, :indexed_add, :indexed_put]

  def lower(:slice, out, [x, starts, lengths, strides]) do
    case bounds(starts, lengths, Tuple.to_list(x.shape)) do
      {starts, stops} ->
        slice(x, starts, stops, strides, out.shape)

      :computed ->
        {axes, starts} = computed(starts)
        part = op(:slice_dynamic, [x, starts], [axes, lengths], x.type, List.to_tuple(lengths))
        slice(part, Enum.map(lengths, fn _ -> 0 end), lengths, strides, out.shape)
    end
  end

  def lower(:put_slice, out, [x, starts, part]) do
    operands = [cast(x, out.type), cast(part, out.type)]

    case bounds(starts, Tuple.to_list(part.shape), Tuple.to_list(x.shape)) do
      {starts, stops} ->
        op(:put_slice, operands, [starts, stops], out.type, out.shape)

      :computed ->
        {axes, starts} = computed(starts)
        op(:put_slice_dynamic, operands ++ [starts], [axes], out.type, out.shape)
    end
  end

  def lower(:gather, out, [x, indices, opts]) do
    sizes = sizes(x, opts[:axes])
    shape = List.to_tuple(batch(indices) ++ sizes)

    op(:gather, [x, indices], [opts[:axes], sizes], out.type, shape)
    |> reshape(out.shape)
  end

  for name <- [:indexed_add, :indexed_put] do
    def lower(unquote(name), out, [x, indices, updates, opts]) do
      updates =
        updates |> cast(out.type) |> reshape(update_shape(x, indices, updates, opts[:axes]))

      operands = [cast(x, out.type), indices, updates]
      op(unquote(name), operands, [opts[:axes]], out.type, out.shape)
    end
  end

  def blocks, do: [Nx.Block.Take, Nx.Block.TakeAlongAxis]

  def lower_block(%Nx.Block.Take{axis: axis}, out, [x, indices]) do
    Quantization.take(x, indices, axis, out) ||
      op(:take, [x, indices], [axis], out.type, out.shape)
  end

  def lower_block(%Nx.Block.TakeAlongAxis{axis: axis}, out, [x, indices]) do
    op(:take_along_axis, [x, indices], [axis], out.type, out.shape)
  end

  defp slice(%{shape: shape} = x, _starts, _stops, _strides, shape), do: x

  defp slice(x, starts, stops, strides, shape) do
    op(:slice, [x], [starts, stops, strides], x.type, shape)
  end

  # Where a slice that is moved inside starts and stops, if its starts are numbers.
  defp bounds([start | starts], [length | lengths], [size | sizes]) when is_integer(start) do
    case bounds(starts, lengths, sizes) do
      {starts, stops} ->
        start = start |> max(0) |> min(size - length)
        {[start | starts], [start + length | stops]}

      :computed ->
        :computed
    end
  end

  defp bounds([], [], []), do: {[], []}
  defp bounds(_starts, _lengths, _sizes), do: :computed

  # The axes whose starts are computed, and a vector of these; the engine moves them
  # inside. Along the other axes it starts at 0, so another number counts as computed.
  defp computed(starts) do
    {starts, axes} =
      starts |> Enum.with_index() |> Enum.reject(&match?({0, _}, &1)) |> Enum.unzip()

    {axes, positions(starts)}
  end

  defp positions([start]), do: reshape(start, {1})

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

  # The dimensions of the indices before the last.
  defp batch(indices), do: indices.shape |> Tuple.to_list() |> Enum.drop(-1)

  # The sizes of the slice at each index.
  defp sizes(x, axes), do: axes |> Enum.reduce(x.shape, &put_elem(&2, &1, 1)) |> Tuple.to_list()

  # An update may be smaller than the slice that it goes to. Nx flattens the updates of
  # vectorized tensors.
  defp update_shape(x, indices, updates, axes) do
    rank = tuple_size(x.shape)

    case Tuple.to_list(updates.shape) do
      [_count | window] when length(window) == rank - length(axes) ->
        {window, []} =
          Enum.map_reduce(0..(rank - 1)//1, window, fn axis, window ->
            if axis in axes, do: {1, window}, else: {hd(window), tl(window)}
          end)

        List.to_tuple(batch(indices) ++ window)

      _flat ->
        List.to_tuple(batch(indices) ++ sizes(x, axes))
    end
  end
end

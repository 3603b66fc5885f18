defmodule Mlx.Fast.Cache do
  @moduledoc false

  import Mlx.Fast.Operand

  defstruct [:axis]

  @name :update_cache

  def run(cache, update, position, opts) do
    opts = Keyword.validate!(opts, axis: -2)
    cache = ranked!(@name, "a cache", cache, 2)
    update = Nx.to_tensor(update)
    axis = Nx.axis_index(cache, opts[:axis])
    check!(cache, update, axis)
    position = integers!(@name, "the position", position)
    put(cache, Nx.as_type(update, cache.type), position, axis)
  end

  defp check!(cache, update, axis) do
    wanted = put_elem(cache.shape, axis, 1)

    unless tuple_size(update.shape) == tuple_size(cache.shape) and
             put_elem(update.shape, axis, 1) == wanted and
             elem(update.shape, axis) <= elem(cache.shape, axis) do
      refuse(@name, "an update that fits into #{inspect(cache.shape)} along axis #{axis}", update)
    end
  end

  defp put(cache, update, position, axis) when is_integer(position),
    do: put_at_once(cache, update, position, axis)

  defp put(cache, update, position, axis) do
    # Without an axis before it, that of the batch is the vectorized ones'.
    rank = tuple_size(cache.shape)
    {[cache, update, position], restore} = batched([cache, update, position], axis > 0)
    axis = axis + tuple_size(cache.shape) - rank

    case {position.shape, cache.shape} do
      {{}, _} ->
        put_at_once(cache, update, position, axis)

      {{batch}, shape} when elem(shape, 0) == batch and axis > 0 ->
        put_each(cache, update, position, axis)

      {_, shape} ->
        refuse(@name, "a position, or one for each of a batch, for #{inspect(shape)}", position)
    end
    |> restore.()
  end

  defp put_at_once(cache, update, position, axis) when is_integer(position),
    do: put_slice(cache, update, position, axis)

  defp put_at_once(%{names: names} = cache, update, position, axis) do
    args = [nameless(cache), nameless(update), position]

    %__MODULE__{axis: axis}
    |> Nx.block(args, Nx.to_template(hd(args)), &compose/4)
    |> Nx.rename(names)
  end

  def compose(%__MODULE__{axis: axis}, cache, update, position),
    do: put_slice(cache, update, position, axis)

  defp put_slice(cache, update, position, axis) do
    starts = 0 |> List.duplicate(tuple_size(cache.shape)) |> List.replace_at(axis, position)
    Nx.put_slice(cache, starts, nameless(update))
  end

  # Along the axis each row of the batch has its own place.
  defp put_each(cache, update, position, axis) do
    {batch, length} = {elem(update.shape, 0), elem(update.shape, axis)}
    latest = elem(cache.shape, axis) - length
    starts = position |> Nx.min(latest) |> Nx.max(0) |> Nx.as_type(:s32) |> Nx.reshape({batch, 1})
    places = Nx.add(starts, Nx.iota({1, length}, type: :s32))
    rows = Nx.iota({batch, length}, axis: 0, type: :s32)
    indices = Nx.stack([rows, places], axis: -1) |> Nx.reshape({batch * length, 2})
    others = Nx.axes(update) -- [0, axis]
    ordered = Nx.transpose(update, axes: [0, axis | others])
    sizes = ordered.shape |> Tuple.to_list() |> Enum.drop(2)
    updates = Nx.reshape(ordered, List.to_tuple([batch * length | sizes]))
    Nx.indexed_put(cache, indices, updates, axes: [0, axis])
  end
end

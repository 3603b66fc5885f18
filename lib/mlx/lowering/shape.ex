defmodule Mlx.Lowering.Shape do
  @moduledoc false

  use Mlx.Graph

  def ops do
    [:reshape, :squeeze, :broadcast, :transpose, :reverse, :as_type, :bitcast] ++
      [:concatenate, :stack, :pad]
  end

  def lower(:reshape, out, [x]), do: reshape(x, out.shape)
  def lower(:squeeze, out, [x, _axes]), do: reshape(x, out.shape)
  def lower(:transpose, _out, [x, axes]), do: transpose(x, axes)
  def lower(:as_type, out, [x]), do: cast(x, out.type)

  def lower(:reverse, out, [x, axes]) do
    op(:reverse, [x], [axes], out.type, out.shape)
  end

  def lower(:bitcast, out, [x]) do
    op(:bitcast, [x], [out.type], out.type, out.shape)
  end

  # The axes are in order.
  def lower(:broadcast, out, [x, shape, axes]) do
    rank = tuple_size(shape)

    if axes == Enum.to_list((rank - length(axes))..(rank - 1)//1) do
      broadcast_to(x, out.shape)
    else
      ones = Tuple.duplicate(1, rank)
      sizes = Enum.zip(axes, Tuple.to_list(x.shape))
      aligned = Enum.reduce(sizes, ones, fn {axis, size}, dims -> put_elem(dims, axis, size) end)
      x |> reshape(aligned) |> broadcast_to(out.shape)
    end
  end

  def lower(:concatenate, out, [tensors, axis]) do
    op(:concatenate, Enum.map(tensors, &cast(&1, out.type)), [axis], out.type, out.shape)
  end

  def lower(:stack, out, [tensors, axis]) do
    op(:stack, Enum.map(tensors, &cast(&1, out.type)), [axis], out.type, out.shape)
  end

  def lower(:pad, out, [x, value, config]), do: pad(cast(x, out.type), value, config, out.shape)

  def cast(%{type: type} = x, type), do: x
  def cast(x, type), do: op(:cast, [x], [type], type, x.shape)

  def reshape(%{shape: shape} = x, shape), do: x
  def reshape(x, shape), do: op(:reshape, [x], [Tuple.to_list(shape)], x.type, shape)

  def broadcast_to(%{shape: shape} = x, shape), do: x
  def broadcast_to(x, shape), do: op(:broadcast_to, [x], [Tuple.to_list(shape)], x.type, shape)

  # Back to where it came from.
  def transpose(%{row: :transpose, attributes: [[1, 0]], operands: [x]}, [1, 0]), do: x

  def transpose(x, axes) do
    if in_order?(axes, 0) do
      x
    else
      shape = axes |> Enum.map(&elem(x.shape, &1)) |> List.to_tuple()
      op(:transpose, [x], [axes], x.type, shape)
    end
  end

  defp in_order?([axis | axes], axis), do: in_order?(axes, axis + 1)
  defp in_order?(axes, _next), do: axes == []

  @doc """
  Pads with a value, as `Nx.pad/3` does.
  """
  def pad(x, value, config, shape) do
    if Enum.all?(config, &(&1 == {0, 0, 0})) do
      x
    else
      [low, high, interior] = for i <- 0..2, do: Enum.map(config, &elem(&1, i))
      operands = [x, value |> cast(x.type) |> reshape({})]
      op(:pad, operands, [low, high, interior], x.type, shape)
    end
  end
end

defmodule Mlx.Lowering.Reduction do
  @moduledoc false

  use Mlx.Graph
  import Mlx.Lowering.Creation, only: [full: 3]
  import Mlx.Lowering.Shape, only: [cast: 2, reshape: 2]
  import Mlx.Lowering.Window, only: [fold: 6]

  # Accumulated in the type of the result, so that narrow integers don't wrap inside.
  @folds [:sum, :product, :reduce_max, :reduce_min]
  @tests [:all, :any]
  @positions [:argmax, :argmin]

  @cumulative %{
    Nx.Block.CumulativeSum => :cumulative_sum,
    Nx.Block.CumulativeProduct => :cumulative_product,
    Nx.Block.CumulativeMax => :cumulative_max,
    Nx.Block.CumulativeMin => :cumulative_min
  }

  def ops, do: @folds ++ @tests ++ @positions ++ [:reduce]
  def blocks, do: Map.keys(@cumulative)

  for name <- @folds do
    def lower(unquote(name), out, [x, opts]) do
      op(unquote(name), [cast(x, out.type)], axes_and_keep(x, opts), out.type, out.shape)
    end
  end

  for name <- @tests do
    def lower(unquote(name), out, [x, opts]) do
      op(unquote(name), [x], axes_and_keep(x, opts), :bool, out.shape) |> cast(out.type)
    end
  end

  for name <- @positions do
    def lower(unquote(name), out, [x, opts]) do
      {x, axis} = along_one_axis(x, opts[:axis])
      attributes = [axis, opts[:tie_break] == :high]

      unless_empty(out, fn ->
        op(unquote(name), [x], attributes, {:u, 32}, kept(x.shape, [axis]))
        |> reshape(out.shape)
        |> cast(out.type)
      end)
    end
  end

  # The function and what it captures stand in the place of the callback's function.
  def lower(:reduce, out, [x, initial, captured, function, opts]) do
    axes = axes(x, opts)
    ones = List.duplicate(1, tuple_size(x.shape))
    # One window that reaches along all of the axes.
    sizes = Enum.reduce(axes, ones, &List.replace_at(&2, &1, elem(x.shape, &1)))

    unless_empty(out, fn ->
      fold(x, initial, captured, function, [sizes, ones, ones], kept(x.shape, axes))
      |> reshape(out.shape)
      |> cast(out.type)
    end)
  end

  # Nx's own definition says that complex numbers have no order.
  def lower_block(%block{}, _out, [%{type: {:c, _}}])
      when block in [Nx.Block.CumulativeMax, Nx.Block.CumulativeMin],
      do: nil

  for {block, name} <- @cumulative do
    def lower_block(%unquote(block){axis: axis, reverse: reverse}, out, [x]) do
      op(unquote(name), [cast(x, out.type)], [axis, reverse], out.type, out.shape)
    end
  end

  # MLX looks for nothing in an array without elements.
  defp unless_empty(%{type: type, shape: shape}, reduce) do
    if Tuple.product(shape) == 0, do: full(0, type, shape), else: reduce.()
  end

  defp along_one_axis(x, nil), do: {reshape(x, {Tuple.product(x.shape)}), 0}
  defp along_one_axis(x, axis), do: {x, axis}

  defp axes_and_keep(x, opts), do: [axes(x, opts), opts[:keep_axes] || false]

  defp axes(x, opts), do: opts[:axes] || Enum.to_list(0..(tuple_size(x.shape) - 1)//1)

  defp kept(shape, []), do: shape
  defp kept(shape, [axis | axes]), do: shape |> put_elem(axis, 1) |> kept(axes)
end

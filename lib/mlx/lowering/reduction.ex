defmodule Mlx.Lowering.Reduction do
  @moduledoc false

  use Mlx.Graph
  import Mlx.Lowering.Creation, only: [full: 2]
  import Mlx.Lowering.Shape, only: [cast: 2, reshape: 2]

  # Accumulated in the type of the result, so that narrow integers don't wrap inside.
  @folds [:sum, :product, :reduce_max, :reduce_min]
  @tests [:all, :any]
  @positions [:argmax, :argmin]

  def ops, do: @folds ++ @tests ++ @positions

  for name <- @folds do
    def lower(unquote(name), out, [x, opts]) do
      axes = axes(x, opts)

      op(unquote(name), [cast(x, out.type)], [axes], out.type, kept(x.shape, axes))
      |> reshape(out.shape)
    end
  end

  for name <- @tests do
    def lower(unquote(name), out, [x, opts]) do
      axes = axes(x, opts)

      op(unquote(name), [x], [axes], :bool, kept(x.shape, axes))
      |> reshape(out.shape)
      |> cast(out.type)
    end
  end

  for name <- @positions do
    def lower(unquote(name), out, [x, opts]) do
      {x, axis} = along_one_axis(x, opts[:axis])
      kept = kept(x.shape, [axis])

      case opts[:tie_break] do
        :high ->
          # The first extreme of the reversed axis is the last one of the axis.
          reversed = op(:reverse, [x], [[axis]], x.type, x.shape)
          first = op(unquote(name), [reversed], [axis], {:u, 32}, kept) |> cast(out.type)
          last = full(elem(x.shape, axis) - 1, out.type)
          op(:subtract, [last, first], out.type, kept)

        :low ->
          op(unquote(name), [x], [axis], {:u, 32}, kept) |> cast(out.type)
      end
      |> reshape(out.shape)
    end
  end

  defp along_one_axis(x, nil), do: {reshape(x, {Tuple.product(x.shape)}), 0}
  defp along_one_axis(x, axis), do: {x, axis}

  defp axes(x, opts), do: opts[:axes] || Enum.to_list(0..(tuple_size(x.shape) - 1)//1)

  defp kept(shape, axes), do: Enum.reduce(axes, shape, &put_elem(&2, &1, 1))
end

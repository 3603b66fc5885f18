defmodule Mlx.Properties.Sort do
  @moduledoc false

  use ExUnitProperties
  import StreamData
  import Mlx.Generators
  import Mlx.Samples, only: [narrow_floats: 0, reals: 0]

  def all do
    for(op <- [:sort, :argsort], do: {op, sort(op)}) ++ [{Nx.Block.TopK, top_k()}]
  end

  defp sort(op) do
    gen all {x, axis} <- sortable(),
            direction <- member_of([:asc, :desc]),
            stable <- boolean() do
      {&apply(Nx, op, [&1, [axis: axis, direction: direction, stable: stable]]), [x], []}
    end
  end

  defp top_k do
    gen all {x, _axis} <- sortable(), k <- integer(1..Nx.axis_size(x, -1)) do
      {&Nx.top_k(&1, k: k), [x], []}
    end
  end

  defp sortable do
    gen all type <- member_of(reals() ++ narrow_floats()),
            rank <- integer(1..3),
            shape <- shape(rank, 1..30),
            x <- tensor(type, shape, specials: true, small: true),
            axis <- integer(-rank..(rank - 1)) do
      {x, axis}
    end
  end
end

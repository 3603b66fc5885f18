defmodule Mlx.Lowering.Sort do
  @moduledoc false

  use Mlx.Graph
  import Mlx.Lowering.Shape, only: [cast: 2]

  def ops, do: [:sort, :argsort]

  # Both are stable, whether that is asked for or not, as with Nx.BinaryBackend.
  def lower(:sort, out, [x, opts]) do
    op(:sort, [x], [opts[:axis], opts[:direction] == :desc], out.type, out.shape)
  end

  def lower(:argsort, out, [x, opts]) do
    op(:argsort, [x], [opts[:axis], opts[:direction] == :desc], {:u, 32}, out.shape)
    |> cast(out.type)
  end

  def blocks, do: [Nx.Block.TopK]

  def lower_block(%Nx.Block.TopK{k: k}, {values, indices}, [x]) do
    [top, order] =
      ops(:top_k, [x], [k], [{values.type, values.shape}, {{:u, 32}, indices.shape}])

    {top, cast(order, indices.type)}
  end
end

defmodule Mlx.Properties.Creation do
  @moduledoc false

  use ExUnitProperties
  import StreamData
  import Mlx.Generators

  @all_types Mlx.Samples.types() ++ Mlx.Samples.narrow_floats()

  def all, do: [constant: full(), iota: iota(), eye: eye()]

  defp full do
    gen all type <- member_of(@all_types -- [:c64]),
            number <- tensor(type, {}),
            shape <- ranked() do
      number = Nx.to_number(number)
      {fn -> Nx.broadcast(Nx.tensor(number, type: type), shape) end, [], []}
    end
  end

  defp iota do
    gen all type <- member_of(@all_types), shape <- ranked(), axis <- axis(shape) do
      {fn -> Nx.iota(shape, type: type, axis: axis) end, [], []}
    end
  end

  defp axis(shape) do
    rank = tuple_size(shape)
    if rank == 0, do: constant(nil), else: one_of([constant(nil), integer(-rank..(rank - 1))])
  end

  defp eye do
    gen all type <- member_of(@all_types),
            rank <- integer(2..4),
            shape <- shape(rank, 1..5) do
      {fn -> Nx.eye(shape, type: type) end, [], []}
    end
  end

  defp ranked, do: bind(integer(0..4), &shape(&1, 1..5))
end

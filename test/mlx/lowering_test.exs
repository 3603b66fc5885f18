defmodule Mlx.LoweringTest do
  use ExUnit.Case, async: true
  alias Mlx.{Graph, Lowering}

  @families [
    Lowering.Control,
    Lowering.Convolution,
    Lowering.Creation,
    Lowering.Elementwise,
    Lowering.Fast,
    Lowering.FFT,
    Lowering.Indexing,
    Lowering.Linalg,
    Lowering.Narrow,
    Lowering.Quantization,
    Lowering.Reduction,
    Lowering.Shape,
    Lowering.Sort,
    Lowering.Window
  ]

  test "the families have the operations, each once" do
    ops = Enum.flat_map(@families, & &1.ops())
    assert Enum.sort(ops) == Enum.sort(Lowering.ops())
    assert Enum.uniq(ops) == ops
  end

  # The cases of each family cover its operations, see `Mlx.LoweringCase`.
  test "every family has its cases" do
    for family <- @families do
      name = family |> Module.split() |> List.last() |> Macro.underscore()
      assert File.exists?(Path.join(__DIR__, "lowering/#{name}_test.exs"))
    end
  end

  test "every operation is a callback of Nx's" do
    callbacks = Keyword.keys(Nx.Backend.behaviour_info(:callbacks))
    assert Lowering.ops() -- callbacks == []
  end

  test "every row of the op table is used" do
    used = Enum.flat_map(@families, & &1.rows())
    assert Enum.sort(Enum.uniq(used)) == Enum.sort(Graph.table())
  end

  test "nothing is lowered that does nothing" do
    x = Graph.input(0, {:f, 32}, {2, 3})
    assert Lowering.lower(:as_type, x, [x]) == x
    assert Lowering.lower(:reshape, x, [x]) == x
    assert Lowering.lower(:transpose, x, [x, [0, 1]]) == x
    assert Lowering.lower(:broadcast, x, [x, {2, 3}, [0, 1]]) == x
    assert Lowering.lower(:slice, x, [x, [0, 0], [2, 3], [1, 1]]) == x
  end
end

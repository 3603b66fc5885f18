defmodule Mlx.Lowering.FastTest do
  use Mlx.LoweringCase, family: Mlx.Lowering.Fast, async: true
  import Mlx.Programs, only: [rows: 2]

  for type <- [:f32, :f16, :bf16] do
    test "each block is a row for #{type}" do
      for {block, row, fun, shapes} <- calls() do
        args = for shape <- shapes, do: sample(unquote(type), shape)
        assert block in operations(fun, args)
        assert row in rows(fun, args)
      end
    end
  end

  test "f64 is composed" do
    for {_block, row, fun, shapes} <- calls() do
      refute row in rows(fun, for(shape <- shapes, do: sample(:f64, shape)))
    end
  end

  test "every block has a row" do
    blocks = for {block, _row, _fun, _shapes} <- calls(), do: block
    assert Mlx.Lowering.Fast.blocks() -- blocks == []
  end

  # A block, its row, a function that runs it, and the shapes of its arguments.
  defp calls do
    [
      {Mlx.Fast.RMSNorm, :rms_norm, &Mlx.Fast.rms_norm(&1, &2), [{3, 4}, {4}]},
      {Mlx.Fast.RMSNorm, :rms_norm, &Mlx.Fast.rms_norm(&1, nil), [{3, 4}]}
    ]
  end
end

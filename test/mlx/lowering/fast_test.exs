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

  test "swiglu is a row for every float" do
    for type <- Mlx.TestDevice.types(floats()) do
      args = [sample(type, {3, 4}), sample(type, {3, 4})]
      assert :swiglu in rows(&Mlx.Fast.swiglu/2, args)
    end
  end

  @tag :f64
  test "f64 is composed" do
    for {_block, row, fun, shapes} <- calls(), row != :update_cache do
      refute row in rows(fun, for(shape <- shapes, do: sample(:f64, shape)))
    end
  end

  test "every block has a row" do
    blocks = for {block, _row, _fun, _shapes} <- calls(), do: block
    assert Mlx.Lowering.Fast.blocks() -- blocks == [Mlx.Fast.SwiGLU]
  end

  test "a position for each element is composed" do
    fun = &Mlx.Fast.rope(&1, Nx.iota({2, 3}))
    assert :cos in rows(fun, [sample(:f32, {2, 3, 4})])
  end

  test "arrays have four axes before they turn" do
    for shape <- [{3, 4}, {2, 3, 4}, {2, 5, 3, 4}, {2, 5, 6, 3, 4}] do
      program = inspect(Mlx.Compiler.program(&Mlx.Fast.rope(&1, 1), [Nx.template(shape, :f32)]))
      assert program =~ "reshape" == (tuple_size(shape) != 4)
    end
  end

  test "masks that several layers share are made once" do
    fun = fn q, lengths ->
      see = &Mlx.Fast.scaled_dot_product_attention(&1, q, q, lengths: lengths)
      q |> see.() |> see.()
    end

    rows = rows(fun, [sample(:f32, {1, 2, 3, 4}), tensor([1], :s32)])
    assert Enum.count(rows, &(&1 == :attention)) == 2
    assert Enum.count(rows, &(&1 == :less)) == 1
    assert Enum.count(rows, &(&1 == :not_equal)) == 1
  end

  test "a position that is no number is left to the engine" do
    fun = fn q, position ->
      k = Mlx.Fast.update_cache(q, q, position)
      Mlx.Fast.scaled_dot_product_attention(q, k, k, causal: true, position: position)
    end

    rows = rows(fun, [sample(:f32, {1, 2, 3, 4}), tensor(1, :s32)])
    assert Enum.sort(rows) == [:attention_from, :update_cache]
  end

  test "keys after the last query are not read" do
    fun = &Mlx.Fast.scaled_dot_product_attention(&1, &2, &2, causal: true, position: 3)
    rows = rows(fun, [sample(:f32, {1, 2, 1, 4}), sample(:f32, {1, 2, 9, 4})])
    assert Enum.sort(rows) == [:attention, :slice]
  end

  # A block, its row, a function that runs it, and the shapes of its arguments.
  defp calls do
    four = {1, 2, 3, 4}

    [
      {Mlx.Fast.RMSNorm, :rms_norm, &Mlx.Fast.rms_norm(&1, &2), [{3, 4}, {4}]},
      {Mlx.Fast.RMSNorm, :rms_norm, &Mlx.Fast.rms_norm(&1, nil), [{3, 4}]},
      {Mlx.Fast.LayerNorm, :layer_norm, &Mlx.Fast.layer_norm/3, [{3, 4}, {4}, {4}]},
      {Mlx.Fast.RoPE, :rope, &Mlx.Fast.rope(&1, 1), [four]},
      {Mlx.Fast.RoPE, :rope, &Mlx.Fast.rope(&1, 1, frequencies: &2), [four, {2}]},
      {Mlx.Fast.Attention, :attention, &Mlx.Fast.scaled_dot_product_attention/3,
       [four, four, four]},
      {Mlx.Fast.Cache, :update_cache, &Mlx.Fast.update_cache(&1, &2, tensor(1, :s32)),
       [four, four]},
      {Mlx.Fast.Softmax, :softmax, &Mlx.Fast.softmax/1, [{3, 4}]},
      {Mlx.Fast.GELU, :gelu, &Mlx.Fast.gelu/1, [{3, 4}]},
      {Mlx.Fast.GELU, :gelu_tanh, &Mlx.Fast.gelu(&1, approximate: :tanh), [{3, 4}]},
      {Mlx.Fast.GELU, :gelu_sigmoid, &Mlx.Fast.gelu(&1, approximate: :sigmoid), [{3, 4}]}
    ]
  end
end
